import contextlib
import errno
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import images, tiny_backbone
from processes import start

from keras_transfer import FeatureCache, Flips, image_folder
from keras_transfer.data.augmentation import AllFlips
from keras_transfer.features import feature_cache, npy_store, runners, shares
from keras_transfer.features.cache_folder import CacheFolder
from keras_transfer.features.extraction import in_stretches
from keras_transfer.features.npy_store import EntryWriter, FileArray
from keras_transfer.features.pipelines import inspect
from keras_transfer.images.discovery import CheckedImages

ORIGIN = {"data": "some", "after": "pooling"}
ALL = [(0, 16), (16, 32), (32, 48), (48, 64), (64, 80), (80, 96), (96, 100)]


@pytest.fixture(autouse=True)
def _small_shares(monkeypatch):
    monkeypatch.setattr(shares, "_LEAST_ROWS", 1)
    monkeypatch.setattr(feature_cache, "_LOOK_AGAIN", 0.05)


def values(start: int, stop: int) -> np.ndarray:
    return np.arange(3 * start, 3 * stop, dtype="float32").reshape(-1, 3)


class Process:
    """What a process knows of an entry."""

    def __init__(self, folder: Path, unit: int = 16, origin: dict | None = None) -> None:
        self.cache = CacheFolder(folder)
        self.entry = self.cache.entry(origin or ORIGIN)
        self.shares = self.entry.shares(100, unit)
        self.made: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def owning(self):
        """Gives a generator that makes a share at a time, as the owner of the entry."""
        with self.entry.lock(), self.entry.writing() as writer:
            self.writer = writer
            with contextlib.closing(self.shares.own(writer)) as stretches:
                yield self._making(stretches, writer)

    def helping(self):
        return self._making(self.shares.help(), self.shares)

    def _making(self, stretches, target):
        for stretch in stretches:
            target.append(values(*stretch), "float32")
            self.made.append(stretch)
            yield stretch

    def own(self) -> list[tuple[int, int]]:
        with self.owning() as making:
            return list(making)

    def check(self) -> None:
        """The entry is complete, and nothing else is left."""
        assert not self.shares.folder.exists()
        array = self.entry.open()
        np.testing.assert_array_equal(array.take(slice(None)), values(0, 100))
        left = {path.name for path in self.cache.path.glob(f"**/{self.entry.folder.name}*")}
        assert left <= {self.entry.folder.name, f"{self.entry.folder.name}.lock"}


@pytest.fixture
def process(tmp_path):
    return lambda **kwargs: Process(tmp_path / "cache", **kwargs)


# ---- who makes what


def test_who_owns_the_entry_goes_forward_and_who_helps_backward_until_they_meet(process):
    owner, helper = process(), process()
    with owner.owning() as making:
        assert [next(making), next(making)] == ALL[:2]
        assert list(helper.helping()) == ALL[:1:-1]
        assert list(making) == []
    owner.check()
    assert owner.shares.from_others == 100 - 32


def test_no_two_make_the_same_share(process):
    owner, first, second = process(), process(), process()
    with owner.owning() as making:
        next(making)
        helping = [first.helping(), second.helping()]
        for turn in (0, 1, 1, 0):
            next(helping[turn])
        assert next(making) == ALL[1]
        assert [list(one) for one in helping] == [[ALL[2]], []]
        assert list(making) == []
    assert first.made == [ALL[6], ALL[3], ALL[2]]
    assert second.made == [ALL[5], ALL[4]]
    owner.check()


def test_locks_hold_between_threads(process):
    owner, helpers = process(), [process() for _ in range(4)]

    def slowly_all(making) -> None:
        for _ in making:
            time.sleep(0.005)

    with owner.owning() as making:
        next(making)
        threads = [
            threading.Thread(target=slowly_all, args=(helper.helping(),)) for helper in helpers
        ]
        for thread in threads:
            thread.start()
        slowly_all(making)
        for thread in threads:
            thread.join()
    assert sorted(one for each in (owner, *helpers) for one in each.made) == ALL
    owner.check()


def test_one_process_alone_makes_all_in_order_and_leaves_nothing_else(process):
    owner = process()
    assert owner.own() == ALL
    owner.check()


def test_few_rows_are_not_divided(process, monkeypatch):
    monkeypatch.setattr(shares, "_LEAST_ROWS", 100)
    owner, helper = process(), process()
    with owner.owning() as making:
        assert next(making) == (0, 100)
        assert not owner.shares.folder.exists()
        assert list(helper.helping()) == []
    owner.check()


def test_a_share_takes_whole_batches_and_there_are_not_too_many(tmp_path):
    entry = CacheFolder(tmp_path / "cache").entry(ORIGIN)
    for rows, unit in ((10_000, 96), (1_000_000, 64), (257, 1)):
        stretches = entry.shares(rows, unit)._stretches()
        assert len(stretches) <= 256
        assert all(start % unit == 0 for start, _ in stretches)
        assert stretches[-1][1] == rows


def test_nothing_is_made_before_there_is_an_owner_nor_when_all_is_done(process):
    helper = process()
    assert list(helper.helping()) == []
    owner = process()
    owner.own()
    assert list(helper.helping()) == []
    helper.check()


def test_who_has_another_batch_size_helps_with_the_shares_that_there_are(process):
    owner, helper = process(), process(unit=48)
    with owner.owning() as making:
        next(making)
        assert list(helper.helping()) == ALL[:0:-1]
        assert list(making) == []
    owner.check()


# ---- who dies


def test_a_share_whose_maker_has_ended_in_the_middle_is_made_by_the_owner(process):
    owner, helper = process(), process()
    with owner.owning() as making:
        next(making)
        stretches = helper.shares.help()
        assert next(stretches) == ALL[-1]
        helper.shares.append(values(96, 98), "float32")
        stretches.close()
        assert not list(helper.shares.folder.glob("*.part"))
        assert list(making) == ALL[1:]
    owner.check()


def test_what_a_killed_helper_has_left_is_in_nobodys_way(process):
    owner, helper = process(), process()
    with owner.owning() as making:
        next(making)
        (helper.shares.folder / "000000080.part").mkdir()
        (helper.shares.folder / "000000080.part" / "activations.npy").write_text("half")
        helping = helper.helping()
        assert [next(helping), next(helping)] == [ALL[6], ALL[5]]
        helping.close()
        assert list(making) == ALL[1:6]
    owner.check()


def test_of_an_owner_that_ends_in_the_middle_no_whole_share_is_lost(process):
    first, helper, second = process(), process(), process()
    with contextlib.suppress(KeyboardInterrupt), first.owning() as making:
        assert [next(making) for _ in range(3)] == ALL[:3]
        helping = helper.helping()
        assert [next(helping), next(helping)] == [ALL[6], ALL[5]]
        raise KeyboardInterrupt
    helping.close()  # in the middle of the share that it was given last
    assert second.own() == [ALL[2], ALL[3], ALL[4], ALL[5]]
    assert second.shares.from_others == 4
    second.check()


def test_who_helped_becomes_the_owner_and_others_help_it(process):
    first, second, third = process(), process(), process()
    with contextlib.suppress(KeyboardInterrupt), first.owning() as making:
        next(making)
        raise KeyboardInterrupt
    with second.owning() as making:
        next(making)
        assert list(third.helping()) == ALL[:0:-1]
        assert list(making) == []
    second.check()


@pytest.mark.parametrize("helped", [True, False])
def test_what_of_a_share_is_on_the_disk_is_not_made_again(process, monkeypatch, helped):
    monkeypatch.setattr(npy_store, "_STRETCH", 8 * 12)
    first, helper, second = process(), process(), process()
    with contextlib.suppress(KeyboardInterrupt), first.owning() as making:
        stretches = first.shares.own(first.writer)
        assert next(stretches) == ALL[0]
        first.writer.append(values(0, 8), "float32")
        stretches.close()
        making.close()
        raise KeyboardInterrupt
    if helped:
        list(helper.helping())
    assert second.own() == ([] if helped else [(8, 16), *ALL[1:]])
    assert second.shares.from_others == 92 * helped
    second.check()


def test_who_hangs_in_a_share_holds_nobody_up(process, monkeypatch):
    monkeypatch.setattr(shares, "_PATIENCE", 0.1)
    owner, helper = process(), process()
    with owner.owning() as making:
        next(making)
        helping = helper.helping()
        next(helping)
        assert list(making) == ALL[1:]
    assert list(helping) == []
    owner.check()


# ---- faults


@pytest.mark.parametrize("harm", ["flip", "cut", "manifest", "gone"])
def test_a_damaged_share_is_made_again(process, harm):
    owner, helper = process(), process()
    with owner.owning() as making:
        next(making)
        list(helper.helping())
        folder = helper.shares.folder / "000000032"
        path = folder / ("manifest.json" if harm == "manifest" else "activations.npy")
        content = bytearray(path.read_bytes())
        if harm == "flip":
            content[-5] ^= 1
        path.write_bytes(content[:-20] if harm in ("cut", "manifest") else content)
        if harm == "gone":
            path.unlink()
        with pytest.warns(UserWarning, match=r"A share of .* is damaged\. It is made again"):
            assert list(making) == [(32, 48)]
    owner.check()


def test_a_share_of_other_data_is_not_taken(process):
    owner, helper = process(), process()
    other_owner, other = (process(origin={**ORIGIN, "data": "other"}) for _ in range(2))
    with owner.owning() as making, other_owner.owning() as others_making:
        next(making), next(others_making)
        assert helper.shares.folder != other.shares.folder
        list(other.helping())
        (other.shares.folder / "000000048").rename(owner.shares.folder / "000000048")
        with pytest.warns(UserWarning, match="is damaged"):
            assert list(making) == ALL[1:]
        assert list(others_making) == [(48, 64)]
    owner.check()


def test_what_an_owner_has_left_that_was_killed_at_the_very_end_is_removed(process):
    owner = process()
    owner.own()
    owner.shares.folder.mkdir()
    (owner.shares.folder / "layout.json").write_text("{}")
    owner.cache.lock(f"{owner.entry.folder.name}-000000000", wait=False).acquire().lock.release()
    assert owner.entry.open() is not None
    owner.check()


def test_a_layout_that_cannot_be_read_is_made_anew(process):
    with contextlib.suppress(KeyboardInterrupt), process().owning() as making:
        next(making)
        raise KeyboardInterrupt
    owner = process()
    (owner.shares.folder / "layout.json").write_text("[")
    assert list(process().helping()) == []
    assert owner.own() == ALL  # the first share was not at its end
    owner.check()


def test_a_full_disk_is_told_to_who_helps_and_nothing_of_the_share_is_left(process, monkeypatch):
    owner, helper = process(), process()

    def full(self, rows, computed):
        raise OSError(errno.ENOSPC, "No space left on device")

    with owner.owning() as making:
        next(making)
        helping = helper.helping()
        with monkeypatch.context() as patch:
            patch.setattr(EntryWriter, "append", full)
            with pytest.raises(OSError, match="No space left"):
                next(helping)
        helping.close()
        assert [path.name for path in owner.shares.folder.iterdir()] == ["layout.json"]
        assert list(making) == ALL[1:]
    owner.check()


def test_what_was_made_for_an_owner_whose_disk_is_full_is_freed(process):
    owner, helper = process(), process()

    def fill() -> None:
        with owner.owning() as making:
            next(making)
            list(helper.helping())
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert list(owner.cache.entries()) == []
    assert not list((owner.cache.path / ".locks").glob("*-*.lock"))


def test_who_makes_a_share_that_is_cleared_meanwhile_comes_to_no_harm(process):
    owner, helper = process(), process()
    with contextlib.suppress(KeyboardInterrupt), owner.owning() as making:
        next(making)
        helping = helper.shares.help()
        next(helping)
        raise KeyboardInterrupt
    owner.cache.clear()
    helper.shares.append(values(96, 100), "float32")
    assert list(helping) == []
    assert list(owner.cache.entries()) == []
    assert process().own() == ALL
    owner.check()


def test_the_folder_knows_of_shares_and_of_nothing_else(process):
    owner, helper = process(), process()
    mine = owner.cache.path / "mine.shares"
    mine.mkdir()
    (mine / "000000032").write_text("mine")
    with owner.owning() as making:
        next(making)
        before = owner.cache.size()
        list(helper.helping())
        assert owner.cache.size() >= before + 84 * 12
        owner.cache.clear()  # the owner is alive
        assert list(making) == []
    owner.check()
    with contextlib.suppress(KeyboardInterrupt), process(origin={"data": "b"}).owning() as making:
        next(making)
        list(process(origin={"data": "b"}).helping())
        raise KeyboardInterrupt
    assert len(list(owner.cache.entries())) == 2
    limited = CacheFolder(owner.cache.path, limit=10)
    limited.make_room(owner.entry.folder)
    assert list(owner.cache.entries()) == [owner.entry.folder]
    assert (mine / "000000032").read_text() == "mine"
    assert not list((owner.cache.path / ".locks").glob("*-*.lock"))


# ---- of a backbone


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for i, picture in enumerate(images(100)):
        keras.utils.save_img(tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.png", picture)
    return tmp_path / "photos"


@pytest.fixture
def slowly(monkeypatch):
    """Lets a chunk take a moment, and notes who has computed how many rows."""
    made: dict[str, int] = {}
    by_keras = runners.by_keras

    def slow(backbone, after):
        run = by_keras(backbone, after)

        def runner(x):
            out = run(x)
            name = threading.current_thread().name
            made[name] = made.get(name, 0) + len(out)
            time.sleep(0.03)
            return out

        return runner

    monkeypatch.setattr(runners, "by_keras", slow)
    return made


def rows(cache: FeatureCache, backbone, pipeline, after="pooling", **kwargs) -> np.ndarray:
    kept = cache.rows(backbone, pipeline, after, **kwargs)
    return kept.activations.take(slice(None))


@pytest.mark.parametrize("way", ["images", "float16", "flips", "below"])
def test_processes_that_need_the_same_compute_each_row_once_as_one_alone(
    photos, tmp_path, slowly, way
):
    data = image_folder(photos, image_size=24, batch_size=8, verbose=0)
    views = {"views": AllFlips(Flips("flips")), "view": 3} if way == "flips" else {}
    arguments = {"verbose": False, "dtype": "float16" if way == "float16" else None}
    backbone, found = tiny_backbone(), {}

    def compute(name: str, folder: str) -> None:
        cache = FeatureCache(tmp_path / folder, **arguments)
        found[name] = rows(cache, backbone, inspect(data.train), **views)

    for folder in ("alone", "shared") if way == "below" else ():
        cache = FeatureCache(tmp_path / folder, **arguments)
        rows(cache, backbone, inspect(data.train), "block2")
    slowly.clear()
    compute("alone", "alone")
    count = sum(slowly.values())
    assert count == len(data.train.labels) == 68
    slowly.clear()
    threads = [threading.Thread(target=compute, args=(name, "shared"), name=name) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slowly) > 1
    assert sum(slowly.values()) == count
    for name in "abc":
        assert found[name].dtype == ("float16" if way == "float16" else "float32")
        np.testing.assert_array_equal(found[name], found["alone"])
    assert not list((tmp_path / "shared").glob("*.shares"))


def test_a_share_is_read_without_the_images_before_and_behind_it(photos, monkeypatch):
    data = image_folder(photos, image_size=24, batch_size=8, verbose=0)
    expected = np.concatenate([x for x, _ in data.train.ordered])[24:40]
    read, decoded = CheckedImages.read, []
    monkeypatch.setattr(
        CheckedImages, "read", lambda self, rows: (decoded.extend(rows), read(self, rows))[1]
    )
    found = np.concatenate([x for x, _ in inspect(data.train).read(3, 5)])
    np.testing.assert_array_equal(found, expected)
    assert len(decoded) == 16


@pytest.mark.parametrize("ahead", [True, False])
def test_rows_are_read_as_they_are_asked_for_whatever_the_batches(ahead):
    def read(start: int, stop: int | None):
        for row in range(start, 40 if stop is None else stop + 3, 6):  # beyond the end
            yield np.arange(row, min(row + 6, 40))

    stretches = [(30, 40), (4, 9), (9, 20), (20, 26), (2, 4)]
    found = np.concatenate(list(in_stretches(read, stretches, ahead=ahead)))
    np.testing.assert_array_equal(found, np.concatenate([np.arange(*one) for one in stretches]))
    assert sum(map(len, in_stretches(read, [(0, None)], ahead=True))) == 40


def compute_slowly(folder: Path, name: str, seconds: float) -> None:
    """What a process does that needs activations; it notes each row that it computes."""
    shares._LEAST_ROWS = 1
    by_keras = runners.by_keras

    def slow(backbone, after):
        run = by_keras(backbone, after)

        def runner(x):
            with (folder / f"{name}.txt").open("a") as file:
                file.write("".join(f"{row}\n" for row in np.asarray(x)[:, 0, 0, 0]))
            time.sleep(seconds)
            return run(x)

        return runner

    runners.by_keras = slow
    pictures = numbered()
    found = FeatureCache(folder / "cache").array(tiny_backbone(), pictures)
    np.save(folder / f"{name}.npy", found)


def numbered() -> np.ndarray:
    pictures = images(160)
    pictures[:, 0, 0, 0] = np.arange(160)
    return pictures


def made_by(folder: Path, *names: str) -> list[int]:
    paths = [folder / f"{name}.txt" for name in names]
    return sorted(int(row) for path in paths if path.exists() for row in path.read_text().split())


def until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing has come of it"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["owner", "helper"])
def test_who_is_killed_loses_no_more_than_the_share_in_its_hands(tmp_path, killed):
    expected = FeatureCache(tmp_path / "alone", verbose=False).array(tiny_backbone(), numbered())
    both = {name: start(compute_slowly, tmp_path, name, 0.4) for name in "ab"}
    try:
        until(lambda: min(len(made_by(tmp_path, name)) for name in both) >= 32)
        owner = next(name for name in both if 0 in made_by(tmp_path, name))
        victim = next(name for name in both if (name == owner) == (killed == "owner"))
        both[victim].kill()
        both[victim].join()
        (other,) = set(both) - {victim}
        both[other].join(60)
        assert both[other].exitcode == 0
    finally:
        for process in both.values():
            process.kill()
    np.testing.assert_array_equal(np.load(tmp_path / f"{other}.npy"), expected)
    made = made_by(tmp_path, *both)
    assert set(made) == set(range(160))
    assert len(made) <= 160 + 16  # a share
    (folder,) = (
        path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.name != ".locks"
    )
    assert len(FileArray(folder / "activations.npy")) == 160
