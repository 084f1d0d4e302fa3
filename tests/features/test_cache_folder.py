import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import images, labels, tiny_backbone, tiny_network
from filelock import FileLock

from keras_transfer import (
    BlockUnfreezer,
    FeatureCache,
    Flips,
    FrozenBackbone,
    TransferModel,
    image_folder,
)
from keras_transfer.data.cacheable import NotKeepable
from keras_transfer.features import npy_store, runners
from keras_transfer.features.npy_store import EntryWriter
from keras_transfer.features.pipelines import inspect

NPY = "activations.npy"


@pytest.fixture
def photos(tmp_path):
    for name, first in (("a", 0), ("b", 100)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            picture = images(1, seed=first + i)[0]
            keras.utils.save_img(tmp_path / "photos" / name / f"{i:02}.png", picture)
    return tmp_path / "photos"


def read(photos: Path, **kwargs):
    return image_folder(photos, image_size=24, batch_size=4, verbose=0, **kwargs)


def rows(cache: FeatureCache, data, backbone=None, after="pooling") -> np.ndarray:
    kept = cache.rows(backbone or tiny_backbone(), inspect(data), after)
    return kept.read(0, len(kept))


def entries(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


# ---- kept between runs


def test_a_second_run_computes_nothing_and_says_so(photos, tmp_path, computed, capsys):
    first = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert sum(computed) == 16
    assert "16 images, " in capsys.readouterr().out
    second = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert sum(computed) == 16
    assert f"16 images from {tmp_path / 'cache'}, " in capsys.readouterr().out
    np.testing.assert_array_equal(first, second)


def test_a_fit_in_a_second_run_is_the_same_and_computes_nothing(photos, tmp_path, computed):
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        data = read(photos)
        cache = FeatureCache(tmp_path / "cache", verbose=False)
        model = TransferModel(tiny_backbone(), 2, augmentation=Flips(), feature_cache=cache)
        model.compile()
        history = model.fit(data.train, validation_data=data.valid, epochs=3, verbose=0)
        losses.append(history.history)
    assert losses[0] == losses[1]
    assert sum(computed) == 2 * 16 + 4


def test_arrays_are_known_again_by_their_content(tmp_path, computed):
    for _ in range(2):
        model = TransferModel(tiny_backbone(), 2, feature_cache=FeatureCache(tmp_path / "cache"))
        model.compile()
        model.fit(images(20), labels(20), verbose=0)
    assert sum(computed) == 20
    FeatureCache(tmp_path / "cache").array(tiny_backbone(), images(20, seed=1))
    assert sum(computed) == 40


def test_data_that_nobody_can_know_again_stays_out_of_the_folder(tmp_path):
    from conftest import dataset

    cache = FeatureCache(tmp_path / "cache", verbose=False)
    cache.dataset(tiny_backbone(), dataset(8))
    cache.memory_limit = 0
    cache.dataset(tiny_backbone(), dataset(8))
    assert entries(tmp_path / "cache") == []
    assert list((tmp_path / "cache").glob("keras_transfer_*")) == [
        tmp_path / "cache" / "keras_transfer_cache.json"
    ]


def test_what_is_kept_is_a_plain_npy_file_and_a_manifest_that_people_can_read(photos, tmp_path):
    expected = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    (folder,) = entries(tmp_path / "cache")
    np.testing.assert_array_equal(np.load(folder / NPY), expected)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["rows"], manifest["row_shape"]) == (16, [10])
    assert (manifest["format"], manifest["dtype"]) == (1, "float32")
    assert manifest["origin"]["after"] == "pooling"


def other_weights():
    backbone = tiny_backbone()
    backbone.block_weights("block1")[0].assign_add(backbone.block_weights("block1")[0] * 0.1)
    return backbone


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"backbone": other_weights}, "weights"),
        ({"backbone": lambda: FrozenBackbone(tiny_network(), preprocessing="unit")}, "preproc"),
        ({"backbone": lambda: tiny_backbone(pooling="max")}, "architecture"),
        ({"data": {"seed": 1}}, "data (files, image size, seed or split)"),
        ({"cache": {"dtype": "float16"}}, "type"),
    ],
)
def test_any_difference_is_a_miss_and_one_line_says_which(
    photos, tmp_path, computed, capsys, change, told
):
    folder = tmp_path / "cache"
    rows(FeatureCache(folder), read(photos).train, tiny_backbone())
    capsys.readouterr()
    cache = FeatureCache(folder, **change.get("cache", {}))
    data = read(photos, **change.get("data", {})).train
    rows(cache, data, change.get("backbone", tiny_backbone)())
    out = capsys.readouterr().out
    assert sum(computed) == 32
    assert f"computed anew: what {folder} keeps is of other {told}" in out
    assert len(out.splitlines()) == 2


def test_a_split_that_is_read_for_the_first_time_is_no_other_data(photos, tmp_path, capsys):
    folder, data = tmp_path / "cache", read(photos)
    rows(FeatureCache(folder), data.train)
    rows(FeatureCache(folder), data.valid)
    cache = FeatureCache(folder)
    rows(cache, data.train)
    capsys.readouterr()
    rows(cache, data.test)
    assert "computed anew" not in capsys.readouterr().out


def test_a_file_that_was_written_to_is_other_data(photos, tmp_path, computed):
    rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    os.utime(photos / "a" / "00.png", ns=(1, 1))
    os.utime(photos / "a" / "01.png", ns=(1, 1))
    for name in ("00", "01", "02", "03", "04", "05"):
        os.utime(photos / "b" / f"{name}.png", ns=(1, 1))
    rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert sum(computed) == 32


def test_strict_looks_into_the_files(photos, tmp_path, computed):
    paths = list(read(photos).paths["train"])
    before = paths[0].stat()
    for strict in (False, True):
        rows(FeatureCache(tmp_path / "cache", strict=strict), read(photos).train)
    assert sum(computed) == 32
    content = bytearray(paths[0].read_bytes())
    content[-5] ^= 1  # in the end mark of the PNG, which no pixel depends on
    paths[0].write_bytes(content)
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert sum(computed) == 32
    rows(FeatureCache(tmp_path / "cache", strict=True), read(photos).train)
    assert sum(computed) == 48


def test_weights_that_are_assigned_behind_its_back_are_noticed_at_the_next_fit(photos, tmp_path):
    backbone, cache = tiny_backbone(), FeatureCache(tmp_path / "cache")
    model = TransferModel(backbone, 2, feature_cache=cache)
    model.compile()
    data = read(photos)
    model.fit(data.train, verbose=0)
    weight = next(w for w in backbone.weights if w.name == "kernel")
    weight.assign(weight * 2)
    model.fit(data.train, verbose=0)
    kept = cache.dataset(backbone, data.valid)
    expected = backbone(np.concatenate([x for x, _ in data.valid]))
    actual = np.concatenate([x["after:pooling"] for x, _ in kept])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert len(entries(tmp_path / "cache")) == 3


def two_phases(backbone, folder, data, **kwargs) -> TransferModel:
    cache = FeatureCache(folder, verbose=False, **kwargs)
    model = TransferModel(backbone, 2, hidden=4, augmentation=Flips(), feature_cache=cache)
    model.compile()
    unfreezer = BlockUnfreezer({1: "block4"})
    model.fit(data.train, validation_data=data.valid, epochs=2, verbose=0, callbacks=[unfreezer])
    return model


def test_strict_reads_each_file_once_in_a_fit(photos, tmp_path, monkeypatch):
    data, read_bytes, seen = read(photos), Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: (seen.append(path), read_bytes(path))[1])
    two_phases(tiny_backbone(), tmp_path / "cache", data, strict=True)
    assert sorted(seen) == sorted([*data.train.paths, *data.valid.paths])


def test_weights_are_digested_once_for_each_border_of_a_fit(photos, tmp_path, monkeypatch):
    fingerprints, borders = FrozenBackbone.fingerprints, []
    monkeypatch.setattr(
        FrozenBackbone,
        "fingerprints",
        lambda backbone: (borders.append(backbone.border), fingerprints(backbone))[1],
    )
    two_phases(tiny_backbone(), tmp_path / "cache", read(photos))
    assert borders == ["pooling", "block3"]


# ---- faults


@pytest.fixture
def _short_stretches(monkeypatch):
    monkeypatch.setattr(npy_store, "_STRETCH", 4 * 10 * 4)


@pytest.mark.usefixtures("_short_stretches")
@pytest.mark.parametrize("batch_size", [4, 6])
def test_an_interrupted_pass_goes_on_where_it_stopped(
    photos, tmp_path, monkeypatch, capsys, batch_size
):
    expected = rows(FeatureCache(), read(photos).train)
    by_keras, left = runners.by_keras, [2]

    def interrupted(backbone, after):
        run = by_keras(backbone, after)

        def runner(x):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return run(x)

        return runner

    with monkeypatch.context() as patch:
        patch.setattr(runners, "by_keras", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    capsys.readouterr()
    data = image_folder(photos, image_size=24, batch_size=batch_size, verbose=0)
    found = rows(FeatureCache(tmp_path / "cache"), data.train)
    assert "16 images, 8 of them from before" in capsys.readouterr().out
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(list((tmp_path / "cache").glob("*.part"))) == 0


@pytest.mark.usefixtures("_short_stretches")
@pytest.mark.parametrize("harm", ["flip", "cut", "manifest"])
def test_a_damaged_entry_is_found_and_what_is_broken_is_made_again(
    photos, tmp_path, computed, harm
):
    expected = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    (folder,) = entries(tmp_path / "cache")
    path = folder / ("manifest.json" if harm == "manifest" else NPY)
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-(6 * 40)] ^= 4  # of the last but one stretch of four rows
    else:
        content = content[:-50]
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="are damaged. What is broken is made again"):
        found = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert sum(computed) == 16 + {"flip": 8, "cut": 4, "manifest": 16}[harm]
    rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert sum(computed) == 16 + {"flip": 8, "cut": 4, "manifest": 16}[harm]


def test_the_list_of_checksums_does_not_grow_with_the_square_of_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(npy_store, "_STRETCH", 16)
    writer = npy_store.ArrayWriter(tmp_path / NPY, (4,), "float32")
    for row in range(8000):
        writer.append(np.full((1, 4), row, "float32"))
    assert len(writer.stretches) < 256 * 6
    writer.close()
    writer = npy_store.ArrayWriter(tmp_path / NPY, (4,), "float32", writer.stretches)
    assert 8000 - 8000 / 256 < writer.rows <= 8000
    np.testing.assert_array_equal(writer.take(np.array([0, 7000]))[:, 0], [0, 7000])
    writer.finish()
    assert npy_store.is_whole(tmp_path / NPY, writer.stretches)


def test_a_full_disk_means_a_warning_the_plain_path_and_no_debris(photos, tmp_path, capsys):
    data = read(photos)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = TransferModel(tiny_backbone(), 2, feature_cache=FeatureCache(tmp_path / "cache"))
    model.compile()
    model.build((None, 24, 24, 3))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (600, before[1])
    )  # a real one, for files of 600 bytes
    try:
        with pytest.warns(UserWarning, match="The disk is full: .* Free some of it, or give"):
            model.fit(data.train, epochs=2, verbose=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Training end to end, with nothing kept: the disk is full." in capsys.readouterr().out
    assert len(model.history.epoch) == 2
    left = [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]
    assert left == ["keras_transfer_cache.json"]


def hiccup(monkeypatch, *, times: int, after: int = 0):
    """Lets writing fail some times as a network folder may."""
    append, calls = EntryWriter.append, []

    def failing(self, rows, computed):
        calls.append(rows)
        if after < len(calls) <= after + times:
            raise OSError(errno.EIO, "Input/output error")
        append(self, rows, computed)

    monkeypatch.setattr(EntryWriter, "append", failing)


@pytest.mark.usefixtures("_short_stretches")
def test_what_was_there_before_a_hiccup_of_the_folder_is_gone_on_with(
    photos, tmp_path, monkeypatch, capsys, computed
):
    hiccup(monkeypatch, times=1, after=2)
    found = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert "16 images, 8 of them from before" in capsys.readouterr().out
    assert sum(computed) == 12 + 8
    np.testing.assert_allclose(found, rows(FeatureCache(), read(photos).train), rtol=1e-6)


@pytest.mark.usefixtures("_short_stretches")
def test_a_folder_that_fails_again_is_told_and_loses_nothing(photos, tmp_path, monkeypatch, capsys):
    expected = rows(FeatureCache(), read(photos).train)
    with monkeypatch.context() as patch:
        hiccup(patch, times=99, after=2)
        with pytest.warns(UserWarning, match=r"cannot be used \(\[Errno 5\] Input/output error"):
            found = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    capsys.readouterr()
    rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert "16 images, 8 of them from before" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["locks", "folder", "read-only"])
def test_a_fit_trains_on_when_the_folder_can_no_longer_be_written(
    photos, tmp_path, monkeypatch, computed, harm
):
    folder, data = tmp_path / "cache", read(photos)
    model = TransferModel(tiny_backbone(), 2, feature_cache=FeatureCache(folder))
    model.compile()
    if harm == "read-only":  # which root, who may run this, does not notice of a mode
        monkeypatch.setattr(FileLock, "_acquire", read_only)
    else:
        broken = folder / ".locks" if harm == "locks" else folder
        shutil.rmtree(broken)
        broken.write_text("what is this")
    with pytest.warns(UserWarning, match=r"the folder cannot be used \(.*kept for as long as"):
        model.fit(data.train, validation_data=data.valid, epochs=2, verbose=0)
    assert sum(computed) == 16 + 4


def read_only(lock):
    raise OSError(errno.EROFS, "Read-only file system", lock.lock_file)


def test_nothing_is_said_of_a_miss_where_nothing_was_missed(photos, tmp_path, capsys):
    model = TransferModel(tiny_backbone(), 2, feature_cache=FeatureCache(tmp_path / "cache"))
    model.compile()
    data = read(photos)
    model.fit(data.train, validation_data=data.valid, verbose=2)
    assert "differs in" not in capsys.readouterr().out


def test_too_little_space_is_noticed_before_anything_is_computed(
    photos, tmp_path, computed, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        pytest.warns(UserWarning, match="640 bytes of activations, 100 bytes free"),
        pytest.raises(NotKeepable, match="the disk is full"),
    ):
        rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert len(computed) == 1


def test_a_cache_folder_that_cannot_be_one_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="that is a file"):
        FeatureCache(tmp_path / "file")
    with pytest.raises(PermissionError, match="the folder cannot be written"):
        FeatureCache(tmp_path / "file" / "below")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "keras_transfer_cache.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match=r"has format 2\. This version of keras_transfer reads"):
        FeatureCache(tmp_path / "newer")
    (tmp_path / "newer" / "keras_transfer_cache.json").write_text("[")
    with pytest.raises(ValueError, match="is no such file as this version writes"):
        FeatureCache(tmp_path / "newer")

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(PermissionError, match=r"cannot be written \(Permission denied\)"):
        FeatureCache(tmp_path / "other")


@pytest.mark.parametrize(
    "arguments",
    [{"memory_limit": -1}, {"views": 1.5}, {"seed": True}, {"disk_limit": "1 GB"}],
)
def test_numbers_that_cannot_be_right_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected a whole number of 0 or more"):
        FeatureCache(**arguments)


def test_unknown_types_are_refused():
    with pytest.raises(ValueError, match="dtype='int8'"):
        FeatureCache(dtype="int8")


@pytest.mark.usefixtures("_short_stretches")
@pytest.mark.parametrize("harm", ["rename", "longer", "rows", "header"])
def test_an_entry_whose_rows_are_all_there_is_completed(photos, tmp_path, computed, harm):
    expected = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    (folder,) = entries(tmp_path / "cache")
    path = folder / NPY
    content = path.read_bytes()
    if harm == "rename":  # killed just before
        folder.rename(folder.with_name(folder.name + ".part"))
    else:
        path.write_bytes(
            {
                "longer": content + b"x",
                "rows": content.replace(b"(16,", b"(17,"),
                "header": content.replace(b"(16,", b"((((", 1),
            }[harm]
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert sum(computed) == (32 if harm == "header" else 16)
    rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    assert sum(computed) == (32 if harm == "header" else 16)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stretches": 5},
        {"stretches": [1, 2]},
        {"stretches": [["a", "b"]]},
        {"stretches": [[10**15, "b"]]},
        {"stretches": [[-1, "b"]]},
        {"computed": "floot"},
        {"computed": None},
        {"origin": [1]},
        {"row_shape": ["a"]},
        {"dtype": "object"},
    ],
    ids=str,
)
@pytest.mark.parametrize("part", [False, True])
def test_a_manifest_that_cannot_be_right_is_made_again(photos, tmp_path, wrong, part):
    expected = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    (folder,) = entries(tmp_path / "cache")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **wrong}))
    if part:
        folder.rename(folder.with_name(folder.name + ".part"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
        rows(FeatureCache(tmp_path / "cache"), read(photos, seed=1).train)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("what", [NPY, "manifest.json", "", ".part"])
def test_files_and_folders_that_took_each_others_place_are_cleared_away(photos, tmp_path, what):
    expected = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    (folder,) = entries(tmp_path / "cache")
    if what in ("", ".part"):
        shutil.rmtree(folder)
        folder.with_name(folder.name + what).write_text("what is this")
    else:
        (folder / what).unlink()
        (folder / what).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rows(FeatureCache(tmp_path / "cache"), read(photos).train)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_folder_that_cannot_be_written_any_more_is_refused_at_once(tmp_path, monkeypatch):
    FeatureCache(tmp_path / "cache")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"cannot be written \(Permission denied\)"):
        FeatureCache(tmp_path / "cache")


def test_nothing_of_others_is_ever_removed(photos, tmp_path):
    (tmp_path / "site" / "app").mkdir(parents=True)
    (tmp_path / "site" / "app" / "manifest.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"holds other things, such as 'app'\. Expected a folder of"
    ):
        FeatureCache(tmp_path / "site")
    FeatureCache(tmp_path / "cache")
    (tmp_path / "cache" / "app").mkdir()
    (tmp_path / "cache" / "app" / "manifest.json").write_text("x" * 5000)
    for seed in range(3):
        cache = FeatureCache(tmp_path / "cache", disk_limit=1500)
        rows(cache, read(photos, seed=seed).train)
    cache.clear()
    assert (tmp_path / "cache" / "app" / "manifest.json").exists()
    assert entries(tmp_path / "cache") == [tmp_path / "cache" / "app"]


def test_processes_may_make_the_folder_at_the_same_time(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".keras_transfer_cache.json.0123").write_text("{")  # before it gets its name
    FeatureCache(folder)


def test_names_that_layers_were_given_tell_nothing_about_what_they_do(tmp_path, computed):
    for activation in ("relu", "tanh"):
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                keras.Input((None, None, 3)),
                keras.layers.Conv2D(8, 3, name="block1_conv"),
                keras.layers.Activation(activation, name=activation),
                keras.layers.Conv2D(8, 3, name="block2_conv"),
            ]
        )
        backbone = FrozenBackbone(network, preprocessing="unit")
        kept = FeatureCache(tmp_path).array(backbone, images(8))
        np.testing.assert_allclose(kept, backbone(images(8)), rtol=1e-5, atol=1e-6)
    assert sum(computed) == 16


# ---- removal


def test_the_least_recently_used_goes_when_the_folder_is_over_its_limit(photos, tmp_path, computed):
    def use(cache, size):
        rows(cache, read(photos, seed=size).train)

    use(FeatureCache(tmp_path / "cache"), 1)
    (first,) = entries(tmp_path / "cache")
    size = sum(file.stat().st_size for file in first.iterdir())
    limit = int(2.5 * size)
    for number in (2, 1, 3):
        for folder in entries(tmp_path / "cache"):  # time passes
            manifest = folder / "manifest.json"
            os.utime(manifest, (manifest.stat().st_atime, manifest.stat().st_mtime - 10))
        use(FeatureCache(tmp_path / "cache", disk_limit=limit), number)
    assert len(entries(tmp_path / "cache")) == 2
    done = len(computed)
    use(FeatureCache(tmp_path / "cache"), 1)
    use(FeatureCache(tmp_path / "cache"), 3)
    assert len(computed) == done
    use(FeatureCache(tmp_path / "cache"), 2)
    assert len(computed) > done


def test_a_limit_that_holds_not_all_of_one_run_is_told(photos, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    rows(cache, read(photos, seed=1).train)
    (first,) = entries(tmp_path / "cache")
    size = sum(file.stat().st_size for file in first.iterdir())
    cache = FeatureCache(tmp_path / "cache", disk_limit=int(1.5 * size))
    rows(cache, read(photos, seed=2).train)  # the one that goes is of another run
    with pytest.warns(UserWarning, match=r"holds not all activations of this run.*a higher limit"):
        rows(cache, read(photos, seed=3).train)


def test_what_is_larger_than_the_limit_is_not_kept(photos, tmp_path):
    with pytest.raises(NotKeepable, match="640 bytes, more than the disk_limit of 100 bytes"):
        rows(FeatureCache(tmp_path / "cache", disk_limit=100), read(photos).train)
    assert list((tmp_path / "cache").glob("*.part")) == []


def test_clear_removes_the_activations_and_nothing_else(photos, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    kept = cache.rows(tiny_backbone(), inspect(read(photos).train), "pooling")
    (tmp_path / "cache" / "mine").mkdir()
    (tmp_path / "cache" / "mine" / NPY).write_text("mine")
    cache.clear()
    assert entries(tmp_path / "cache") == []
    assert (tmp_path / "cache" / "mine" / NPY).exists()
    assert len(cache) == 0
    assert len(kept.read(0, 16)) == 16


# ---- other processes

SCRIPT = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, {tests!r})
from conftest import tiny_backbone
from keras_transfer import FeatureCache, image_folder
from keras_transfer.features import npy_store, runners
from keras_transfer.features.pipelines import inspect

npy_store._STRETCH = 160
by_keras = runners.by_keras
def slow(backbone, after):
    run = by_keras(backbone, after)
    def runner(x):
        print("batch", flush=True)
        time.sleep({seconds})
        return run(x)
    return runner
runners.by_keras = slow
data = image_folder({photos!r}, image_size=24, batch_size=4, verbose=0)
rows = FeatureCache({cache!r}).rows(tiny_backbone(), inspect(data.train), "pooling")
print("sum", float(rows.read(0, 99).sum()), flush=True)
"""


def start(photos, tmp_path, seconds):
    code = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parents[1]),
        photos=str(photos),
        cache=str(tmp_path / "cache"),
        seconds=seconds,
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_compute_once_between_them(photos, tmp_path):
    both = [start(photos, tmp_path, 1.0) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(output.count("batch") for output in outputs) == 4
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock_and_its_work(photos, tmp_path):
    process = start(photos, tmp_path, 0.5)
    batches = 0
    for line in process.stdout:
        batches += line.startswith("batch")
        if batches == 3:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    again = start(photos, tmp_path, 0)
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0
    assert time.monotonic() - began < 100
    assert "of them from before" in output
    assert output.count("batch") < 4
    expected = rows(FeatureCache(), read(photos).train).sum()
    assert float(output.splitlines()[-1].split()[1]) == pytest.approx(expected, rel=1e-5)
