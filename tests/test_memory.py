import psutil
import pytest

from keras_transfer import memory


def test_the_budget_is_a_quarter_of_what_the_container_has_left(monkeypatch, tmp_path):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    free = psutil.virtual_memory()._replace(available=4096)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(memory, "_LIMITS", ((limit, used), (tmp_path / "none", used)))
    limit.write_text("max\n")
    assert memory.memory_budget() == 1024
    limit.write_text("3000\n")
    used.write_text("1000\n")
    assert memory.memory_budget() == 500
    used.write_text("3001\n")
    assert memory.memory_budget() == 0


def test_this_machine_has_a_budget():
    assert memory.memory_budget() > 2**20


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (2_600, "2.6 kB"), (26_300_000, "26 MB"), (1.5e9, "1.5 GB")],
)
def test_sizes_are_readable(size, text):
    assert memory.readable(size) == text
