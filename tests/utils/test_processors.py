import os

import pytest

from keras_transfer.utils import processors


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 64 processors, of which the process may use 8."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "_CGROUP_2", tmp_path / "cpu.max")
    monkeypatch.setattr(processors, "_CGROUP_1", (tmp_path / "quota", tmp_path / "period"))
    return tmp_path


def test_those_that_a_batch_system_gives_are_counted(machine):
    assert processors.processors() == 8


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("9000 100000", 1), ("?", 8)],
)
def test_a_container_has_a_limit(machine, limit, count):
    (machine / "cpu.max").write_text(f"{limit}\n")
    assert processors.processors() == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("300000", 3)])
def test_an_older_container_has_a_limit(machine, quota, count):
    (machine / "quota").write_text(f"{quota}\n")
    (machine / "period").write_text("100000\n")
    assert processors.processors() == count


def test_a_system_that_tells_no_affinity_has_all(machine, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors.processors() == 64
