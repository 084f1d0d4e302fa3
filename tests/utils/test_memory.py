import psutil
import pytest

from keras_transfer.utils import memory


@pytest.fixture
def cgroups(monkeypatch, tmp_path):
    """Both versions of control groups, with this process in a group of each."""
    machine = psutil.virtual_memory()._replace(available=8000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    second, first = (
        cgroup._replace(root=tmp_path / name)
        for cgroup, name in zip(memory._CGROUPS, ("v2", "v1"), strict=True)
    )
    monkeypatch.setattr(memory, "_CGROUPS", (second, first))
    (tmp_path / "own").write_text("4:memory:/job/step\n3:cpu:/\n0::/job/step\n")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    return second, first


def write(folder, cgroup, limit, used, stat=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / cgroup.limit).write_text(f"{limit}\n")
    (folder / cgroup.used).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize("version", [0, 1])
def test_the_budget_is_a_quarter_of_what_the_container_has_left(cgroups, version):
    cgroup = cgroups[version]
    assert memory.memory_budget() == 2000
    write(cgroup.root, cgroup, "max", 1000)
    assert memory.memory_budget() == 2000
    write(cgroup.root, cgroup, 3000, 1000)
    assert memory.memory_budget() == 500
    write(cgroup.root, cgroup, 3000, 3001)
    assert memory.memory_budget() == 0


@pytest.mark.parametrize("version", [0, 1])
def test_files_that_were_read_take_no_memory_from_anybody(cgroups, version):
    cgroup = cgroups[version]
    stat = f"anon 500\nfile 2500\n{cgroup.reclaimable} 2400\nactive_file 100\n"
    write(cgroup.root, cgroup, 3000, 3000, stat)
    assert memory.memory_budget() == 600


@pytest.mark.parametrize("version", [0, 1])
def test_the_limit_of_a_job_within_the_machine_counts(cgroups, version):
    cgroup = cgroups[version]
    write(cgroup.root / "job", cgroup, 4000, 0)
    assert memory.memory_budget() == 1000
    write(cgroup.root / "job" / "step", cgroup, 2000, 0)
    assert memory.memory_budget() == 500
    write(cgroup.root / "job", cgroup, 1000, 0)
    assert memory.memory_budget() == 250


def test_this_machine_has_a_budget():
    assert memory.memory_budget() > 2**20


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (2_600, "2.6 kB"), (26_300_000, "26 MB"), (1.5e9, "1.5 GB")],
)
def test_sizes_are_readable(size, text):
    assert memory.readable(size) == text
