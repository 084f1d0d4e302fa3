"""Processes that need the same activations: one computes them, the others wait for it."""

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import images, tiny_backbone
from processes import start

from keras_transfer import FeatureCache
from keras_transfer.features import entry, runners


@pytest.fixture(params=["done", "failed"])
def first_process(request):
    return request.param


def test_who_comes_second_waits_and_says_so(tmp_path, monkeypatch, computed, capsys, first_process):
    """Threads, between which the locks hold as well."""
    backbone, computing, go_on = tiny_backbone(), threading.Event(), threading.Event()
    append, found = entry.EntryWriter.append, {}

    def slow(self, rows, dtype):
        computing.set()
        go_on.wait(20)
        if threading.current_thread().name == "first" and first_process == "failed":
            raise KeyboardInterrupt
        append(self, rows, dtype)

    def compute():
        name = threading.current_thread().name
        with contextlib.suppress(KeyboardInterrupt):
            found[name] = FeatureCache(tmp_path).array(backbone, images(16))

    monkeypatch.setattr(entry.EntryWriter, "append", slow)
    first, second = (threading.Thread(target=compute, name=name) for name in ("first", "second"))
    first.start()
    computing.wait(20)
    second.start()
    until(lambda: "another process is computing them; waiting" in capsys.readouterr().out)
    go_on.set()
    first.join()
    second.join()
    np.testing.assert_allclose(found["second"], backbone(images(16)), rtol=1e-5, atol=1e-6)
    assert sum(computed) == (32 if first_process == "failed" else 16)


def until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing has come of it"
        time.sleep(0.01)


def compute_slowly(folder: Path, name: str) -> None:
    """What a process does that needs activations; it notes each row that it computes."""
    entry.CHUNK = 1
    by_keras = runners.by_keras

    def slow(backbone, after):
        run = by_keras(backbone, after)

        def runner(x):
            with (folder / f"{name}.txt").open("a") as file:
                file.write("".join(f"{row}\n" for row in np.asarray(x)[:, 0, 0, 0]))
            time.sleep(0.2)
            return run(x)

        return runner

    runners.by_keras = slow
    np.save(
        folder / f"{name}.npy", FeatureCache(folder / "cache").array(tiny_backbone(), numbered())
    )


def numbered() -> np.ndarray:
    pictures = images(160)
    pictures[:, 0, 0, 0] = np.arange(160)
    return pictures


def rows_of(folder: Path, *names: str) -> list[int]:
    paths = [folder / f"{name}.txt" for name in names]
    return sorted(int(row) for path in paths if path.exists() for row in path.read_text().split())


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_between_two_processes_each_row_is_computed_once_even_if_one_is_killed(tmp_path, killed):
    both = {name: start(compute_slowly, tmp_path, name) for name in "ab"}
    try:
        until(lambda: len(rows_of(tmp_path, *both)) >= 48)
        owner = next(name for name in both if rows_of(tmp_path, name))
        (other,) = set(both) - {owner}
        if killed:
            both[owner].kill()
        for process in both.values():
            process.join(60)
        assert both[other].exitcode == 0
    finally:
        for process in both.values():
            process.kill()
    expected = FeatureCache(verbose=False).array(tiny_backbone(), numbered())
    np.testing.assert_array_equal(np.load(tmp_path / f"{other}.npy"), expected)
    rows = rows_of(tmp_path, *both)
    assert set(rows) == set(range(160))
    assert len(rows) <= 160 + 16 * killed  # the batch in its hands
