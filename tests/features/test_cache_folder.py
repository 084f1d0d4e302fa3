"""Activations in a folder: recognized by what they were made of, and safe against faults."""

import errno
import json
import os
import resource
import shutil
import signal
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import dataset, images, labels, tiny_backbone, tiny_network
from filelock import FileLock

from keras_transfer import (
    BlockUnfreezer,
    FeatureCache,
    Flips,
    FrozenBackbone,
    TransferModel,
    image_folder,
)
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features import entry
from keras_transfer.features.pipelines import inspect
from keras_transfer.images import decoding

NPY = "activations.npy"


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for name, first in (("a", 0), ("b", 100)):
        (root / name).mkdir()
        for i in range(12):
            picture = images(1, seed=first + i)[0]
            keras.utils.save_img(root / name / f"{i:02}.png", picture)
    return root


@pytest.fixture
def photos(one_folder, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(one_folder, tmp_path / "photos")


def read(photos: Path, **kwargs):
    return image_folder(photos, image_size=24, batch_size=4, verbose=0, **kwargs)


def rows(cache: FeatureCache, data, backbone, after="pooling") -> np.ndarray:
    cached = cache.rows(backbone, inspect(data), after)
    return cached.read(0, len(cached))


def array(folder, backbone, count=16, **kwargs) -> np.ndarray:
    return FeatureCache(folder, **kwargs).array(backbone, images(count))


def entries(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


# ---- kept between runs


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_says_so(
    one_folder, tmp_path, computed, capsys, backbone
):
    first = rows(FeatureCache(tmp_path), read(one_folder).train, backbone)
    assert sum(computed) == 16
    assert "16 images, " in capsys.readouterr().out
    second = rows(FeatureCache(tmp_path), read(one_folder).train, backbone)
    assert sum(computed) == 16
    assert f"16 images from {tmp_path}, " in capsys.readouterr().out
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_a_fit_in_a_second_run_is_the_same_and_computes_nothing(one_folder, tmp_path, computed):
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        data, cache = read(one_folder), FeatureCache(tmp_path, verbose=False)
        model = TransferModel(tiny_backbone(), 2, augmentation=Flips(), feature_cache=cache)
        model.compile()
        history = model.fit(data.train, validation_data=data.valid, epochs=2, verbose=0)
        losses.append(history.history)
    assert losses[0] == losses[1]
    assert sum(computed) == 2 * 16 + 4


@pytest.mark.slow
def test_arrays_are_recognized_by_their_content(tmp_path, computed, backbone):
    for _ in range(2):
        model = TransferModel(backbone, 2, feature_cache=FeatureCache(tmp_path))
        model.compile()
        model.fit(images(20), labels(20), verbose=0)
    assert sum(computed) == 20
    FeatureCache(tmp_path).array(backbone, images(20, seed=1))
    assert sum(computed) == 40


def test_data_that_nobody_can_recognize_stays_out_of_the_folder(tmp_path, backbone):
    cache = FeatureCache(tmp_path / "cache", verbose=False)
    cache.dataset(backbone, dataset(8))
    cache.memory_limit = 0
    cache.dataset(backbone, dataset(8))
    assert entries(tmp_path / "cache") == []
    assert list((tmp_path / "cache").glob("keras_transfer_*")) == [
        tmp_path / "cache" / "keras_transfer_cache.json"
    ]


def test_an_entry_is_a_plain_npy_file_and_a_manifest_that_people_can_read(tmp_path, backbone):
    expected = array(tmp_path, backbone)
    (folder,) = entries(tmp_path)
    np.testing.assert_array_equal(np.load(folder / NPY), expected)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["rows"], manifest["row_shape"]) == (16, [10])
    assert (manifest["format"], manifest["dtype"]) == (1, "float32")
    assert manifest["origin"]["after"] == "pooling"


def test_an_entry_of_an_earlier_version_is_read(tmp_path, backbone, computed):
    """It has checksums of stretches in place of one of the whole."""
    expected = array(tmp_path, backbone)
    (folder,) = entries(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["checksum"]
    manifest["stretches"] = [[16, "0" * 32]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.testing.assert_array_equal(array(tmp_path, backbone), expected)
    assert sum(computed) == 16


def other_weights():
    backbone = tiny_backbone()
    backbone.block_weights("block1")[0].assign_add(backbone.block_weights("block1")[0] * 0.1)
    return backbone


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"backbone": other_weights}, "weights"),
        ({"backbone": lambda: FrozenBackbone(tiny_network(), preprocessing="unit")}, "preproc"),
        ({"backbone": lambda: tiny_backbone(pooling="max")}, "architecture"),
        ({"data": {"seed": 1}}, "data (files, image size, seed or split)"),
        ({"cache": {"dtype": "float16"}}, "type"),
    ],
)
@pytest.mark.slow
def test_any_difference_is_a_miss_and_one_line_says_which(
    one_folder, tmp_path, computed, capsys, backbone, change, difference
):
    rows(FeatureCache(tmp_path), read(one_folder).train, backbone)
    capsys.readouterr()
    cache = FeatureCache(tmp_path, **change.get("cache", {}))
    data = read(one_folder, **change.get("data", {})).train
    rows(cache, data, change.get("backbone", lambda: backbone)())
    out = capsys.readouterr().out
    assert sum(computed) == 32
    assert f"computed anew: what {tmp_path} keeps is of other {difference}" in out
    assert len(out.splitlines()) == 2


@pytest.mark.slow
def test_a_split_that_is_read_for_the_first_time_is_no_other_data(
    one_folder, tmp_path, capsys, backbone
):
    data = read(one_folder)
    rows(FeatureCache(tmp_path), data.train, backbone)
    rows(FeatureCache(tmp_path), data.valid, backbone)
    cache = FeatureCache(tmp_path)
    rows(cache, data.train, backbone)
    capsys.readouterr()
    rows(cache, data.test, backbone)
    assert "computed anew" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_was_written_to_is_other_data(photos, tmp_path, computed, backbone):
    rows(FeatureCache(tmp_path / "cache"), read(photos).train, backbone)
    os.utime(read(photos).paths["train"][3], ns=(1, 1))
    rows(FeatureCache(tmp_path / "cache"), read(photos).train, backbone)
    assert sum(computed) == 32


@pytest.mark.slow
def test_strict_looks_into_the_files(photos, tmp_path, computed, backbone):
    paths = list(read(photos).paths["train"])
    before = paths[0].stat()
    for strict in (False, True):
        rows(FeatureCache(tmp_path / "c", strict=strict), read(photos).train, backbone)
    assert sum(computed) == 32
    content = bytearray(paths[0].read_bytes())
    content[-5] ^= 1  # in the end mark of the PNG, which no pixel depends on
    paths[0].write_bytes(content)
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    rows(FeatureCache(tmp_path / "c"), read(photos).train, backbone)
    assert sum(computed) == 32
    rows(FeatureCache(tmp_path / "c", strict=True), read(photos).train, backbone)
    assert sum(computed) == 48


@pytest.mark.slow
def test_weights_that_are_assigned_are_noticed_at_the_next_fit(one_folder, tmp_path):
    backbone, cache = tiny_backbone(), FeatureCache(tmp_path)
    model = TransferModel(backbone, 2, feature_cache=cache)
    model.compile()
    data = read(one_folder)
    model.fit(data.train, verbose=0)
    weight = next(w for w in backbone.weights if w.name == "kernel")
    weight.assign(weight * 2)
    model.fit(data.train, verbose=0)
    cached = cache.dataset(backbone, data.valid)
    expected = backbone(np.concatenate([x for x, _ in data.valid]))
    actual = np.concatenate([x["after:pooling"] for x, _ in cached])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert len(entries(tmp_path)) == 3


@pytest.mark.slow
def test_a_fit_of_two_phases_reads_each_file_and_digests_weights_once(
    one_folder, tmp_path, monkeypatch
):
    data, read_bytes, seen = read(one_folder), Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: (seen.append(path), read_bytes(path))[1])
    fingerprints, cuts = FrozenBackbone.fingerprints, []
    monkeypatch.setattr(
        FrozenBackbone,
        "fingerprints",
        lambda backbone: (cuts.append(backbone.cut_point), fingerprints(backbone))[1],
    )
    cache = FeatureCache(tmp_path, verbose=False, strict=True)
    model = TransferModel(tiny_backbone(), 2, augmentation=Flips(), feature_cache=cache)
    model.compile()
    unfreezer = BlockUnfreezer({1: "block4"})
    model.fit(data.train, validation_data=data.valid, epochs=2, verbose=0, callbacks=[unfreezer])
    assert sorted(seen) == sorted([*data.train.paths, *data.valid.paths])
    assert cuts == ["pooling", "block3"]


# ---- interrupted and damaged


@pytest.fixture
def _short_chunks(monkeypatch):
    monkeypatch.setattr(entry, "CHUNK", 4 * 10 * 4)


def interrupt_after(monkeypatch, batches: int) -> None:
    append, left = entry.EntryWriter.append, [batches]

    def interrupted(self, rows, computed):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, rows, computed)

    monkeypatch.setattr(entry.EntryWriter, "append", interrupted)


def begun(folder, backbone, monkeypatch) -> Path:
    """Interrupts an extraction after 32 of 48 rows."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            array(folder, backbone, 48)
    (part,) = folder.glob("*.part")
    return part


@pytest.mark.usefixtures("_short_chunks")
def test_an_interrupted_extraction_is_resumed_and_gives_the_same_bit_for_bit(
    tmp_path, monkeypatch, capsys, backbone, computed
):
    expected = array(None, backbone, 48)
    begun(tmp_path, backbone, monkeypatch)
    computed.clear()
    found = array(tmp_path, backbone, 48)
    assert "48 images, 32 of them from before" in capsys.readouterr().out
    assert sum(computed) == 16
    np.testing.assert_array_equal(found, expected)
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.usefixtures("_short_chunks")
def test_a_killed_process_loses_what_it_wrote_since_the_last_chunk_only(
    tmp_path, monkeypatch, backbone, computed
):
    part = begun(tmp_path, backbone, monkeypatch)
    manifest = json.loads((part / "manifest.json").read_text())
    assert manifest["rows"] == 32
    with (part / NPY).open("ab") as file:  # half a chunk more
        file.write(b"x" * 50)
    expected = array(None, backbone, 48)
    computed.clear()
    np.testing.assert_array_equal(array(tmp_path, backbone, 48), expected)
    assert sum(computed) == 16


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.slow
def test_views_of_an_interrupted_extraction_are_rows_of_whole_batches(
    one_folder, tmp_path, monkeypatch, backbone
):
    data = image_folder(
        one_folder, image_size=24, batch_size=6, verbose=0, test_split=0, validation_split=0
    ).train
    expected = rows(FeatureCache(), data, backbone)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            rows(FeatureCache(tmp_path), data, backbone)
    np.testing.assert_array_equal(rows(FeatureCache(tmp_path), data, backbone), expected)


def damage(folder: Path, harm) -> None:
    path = folder / NPY
    if isinstance(harm, dict):  # of the manifest
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **harm}))
    elif harm == "torn manifest":
        (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:-50])
    elif harm.endswith("is a folder"):
        path = folder / harm.split()[0]
        path.unlink()
        path.mkdir()
    elif harm == "is a file":
        shutil.rmtree(folder)
        folder.write_text("what is this")
    else:
        content = path.read_bytes()
        changed = {
            "flipped bit": content[:-240] + bytes([content[-240] ^ 4]) + content[-239:],
            "cut": content[:-50],
            "rows": content.replace(b"(16,", b"(17,"),
            "header": content.replace(b"(16,", b"((((", 1),
        }
        path.write_bytes(changed[harm])


HARMS = [
    *("flipped bit", "cut", "rows", "header", "torn manifest", "is a file"),
    *(f"{NPY} is a folder", "manifest.json is a folder"),
    *({"rows": value} for value in (5, -1, "a", 10**15)),
    *({"computed": "floot"}, {"origin": [1]}, {"row_shape": ["a"]}),
    *({"dtype": "object"}, {"checksum": "0"}, {"checksum": None}),
]


@pytest.mark.slow
def test_a_damaged_entry_is_computed_anew(tmp_path, computed, backbone):
    expected = array(tmp_path / "whole", backbone)
    for number, harm in enumerate(HARMS):
        computed.clear()
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        damage(*entries(folder), harm)
        with pytest.warns(UserWarning, match="are damaged. They are computed again"):
            found = array(folder, backbone)
        np.testing.assert_array_equal(found, expected, err_msg=str(harm))
        np.testing.assert_array_equal(array(folder, backbone), expected)
        assert sum(computed) == 16, harm


@pytest.mark.slow
def test_a_damaged_beginning_is_computed_anew(tmp_path, computed, backbone):
    expected = array(tmp_path / "whole", backbone)
    for number, harm in enumerate(HARMS[::2]):
        computed.clear()
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        (complete,) = entries(folder)
        part = complete.rename(complete.with_name(f"{complete.name}.part"))
        damage(part, harm)
        np.testing.assert_array_equal(array(folder, backbone), expected, err_msg=str(harm))
        assert sum(computed) == (0 if harm == "rows" else 16), harm


def test_an_entry_whose_rows_are_all_there_is_completed(tmp_path, computed, backbone):
    expected = array(tmp_path, backbone)
    (folder,) = entries(tmp_path)
    folder.rename(folder.with_name(folder.name + ".part"))  # killed just before
    np.testing.assert_array_equal(array(tmp_path, backbone), expected)
    assert sum(computed) == 16
    assert entries(tmp_path) == [folder]


# ---- faults of the disk


@pytest.mark.slow
def test_a_full_disk_means_a_warning_the_plain_path_and_no_debris(one_folder, tmp_path, capsys):
    data = read(one_folder)
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


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("times", [1, 99])
@pytest.mark.slow
def test_an_extraction_is_resumed_after_a_hiccup_of_the_folder(
    tmp_path, monkeypatch, capsys, backbone, times
):
    expected = array(None, backbone, 48)
    append, calls = entry.EntryWriter.append, []

    def failing(self, rows, computed):
        calls.append(rows)
        if 2 < len(calls) <= 2 + times:
            raise OSError(errno.EIO, "Input/output error")
        append(self, rows, computed)

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(entry.EntryWriter, "append", failing)
        np.testing.assert_array_equal(array(tmp_path, backbone, 48), expected)
    warned = any("cannot be used ([Errno 5] Input/output" in str(one.message) for one in caught)
    assert warned == (times > 1)
    if times > 1:  # nothing is lost
        np.testing.assert_array_equal(array(tmp_path, backbone, 48), expected)
    assert "48 images, 32 of them from before" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["locks", "folder", "read-only"])
@pytest.mark.slow
def test_a_fit_trains_on_when_the_folder_can_no_longer_be_written(
    one_folder, tmp_path, monkeypatch, computed, backbone, harm
):
    folder, data = tmp_path / "cache", read(one_folder)
    model = TransferModel(backbone, 2, feature_cache=FeatureCache(folder))
    model.compile()
    if harm == "read-only":  # which root, who may run this, does not notice of a mode
        monkeypatch.setattr(FileLock, "_acquire", read_only)
    else:
        broken = folder / ".locks" if harm == "locks" else folder
        shutil.rmtree(broken)
        broken.write_text("what is this")
    with pytest.warns(UserWarning, match=r"the folder cannot be used \(.*kept for as long as"):
        model.fit(data.train, validation_data=data.valid, verbose=0)
    assert sum(computed) == 16 + 4


def read_only(lock):
    raise OSError(errno.EROFS, "Read-only file system", lock.lock_file)


@pytest.mark.parametrize("strict", [True, False])
def test_a_photo_that_has_vanished_is_named_and_not_blamed_on_the_folder(
    photos, tmp_path, monkeypatch, backbone, strict
):
    monkeypatch.setattr(decoding, "memory_budget", lambda: 0)
    data = read(photos)
    path = data.paths["train"][3]
    path.unlink()
    with pytest.raises(Exception, match=path.name) as caught:  # of tf.data, or of the system
        rows(FeatureCache(tmp_path / "cache", strict=strict), data.train, backbone)
    assert "cannot be used" not in str(caught.value)


def test_too_little_space_is_noticed_before_anything_is_written(
    tmp_path, computed, monkeypatch, backbone
):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        pytest.warns(UserWarning, match="1.3 kB of activations, 100 bytes free"),
        pytest.raises(NotCacheable, match="the disk is full"),
    ):
        array(tmp_path, backbone, 32)
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
    FeatureCache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(PermissionError, match=r"cannot be written \(Permission denied\)"):
            FeatureCache(tmp_path / "cache")


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


def test_nothing_of_others_is_ever_removed(tmp_path, backbone):
    (tmp_path / "site" / "app").mkdir(parents=True)
    (tmp_path / "site" / "app" / "manifest.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"holds other things, such as 'app'\. Expected a folder of"
    ):
        FeatureCache(tmp_path / "site")
    FeatureCache(tmp_path / "cache")
    (tmp_path / "cache" / "app").mkdir()
    (tmp_path / "cache" / "app" / "manifest.json").write_text("x" * 5000)
    for count in (16, 15, 14):
        cache = FeatureCache(tmp_path / "cache", disk_limit=1500)
        cache.array(backbone, images(count))
    cache.clear()
    assert (tmp_path / "cache" / "app" / "manifest.json").exists()
    assert entries(tmp_path / "cache") == [tmp_path / "cache" / "app"]


def test_processes_may_make_the_folder_at_the_same_time(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".keras_transfer_cache.json.0123").write_text("{")  # before it gets its name
    FeatureCache(folder)


def test_a_removed_folder_is_made_again(tmp_path, backbone):
    cache = FeatureCache(tmp_path / "cache", memory_limit=0, verbose=False)
    cache.array(backbone, images(8))
    shutil.rmtree(tmp_path / "cache")
    assert cache.array(backbone, images(9)).shape == (9, 10)


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
        cached = FeatureCache(tmp_path).array(backbone, images(8))
        np.testing.assert_allclose(cached, backbone(images(8)), rtol=1e-5, atol=1e-6)
    assert sum(computed) == 16


# ---- removal


def test_the_least_recently_used_entry_is_removed_when_the_folder_is_over_its_limit(
    tmp_path, computed, backbone
):
    array(tmp_path, backbone, 11)
    (first,) = entries(tmp_path)
    size = sum(file.stat().st_size for file in first.iterdir())
    for count in (12, 11, 13):
        for folder in entries(tmp_path):  # time passes
            manifest = folder / "manifest.json"
            os.utime(manifest, (manifest.stat().st_atime, manifest.stat().st_mtime - 10))
        array(tmp_path, backbone, count, disk_limit=int(2.5 * size))
    assert len(entries(tmp_path)) == 2
    done = len(computed)
    array(tmp_path, backbone, 11)
    array(tmp_path, backbone, 13)
    assert len(computed) == done
    array(tmp_path, backbone, 12)
    assert len(computed) > done


def test_a_limit_that_holds_not_all_of_one_run_is_warned_of(tmp_path, backbone):
    array(tmp_path, backbone, 11)
    (first,) = entries(tmp_path)
    size = sum(file.stat().st_size for file in first.iterdir())
    cache = FeatureCache(tmp_path, disk_limit=int(1.5 * size))
    cache.array(backbone, images(12))  # what is removed is of another run
    with pytest.warns(UserWarning, match=r"holds not all activations of this run.*a higher limit"):
        cache.array(backbone, images(13))


def test_activations_larger_than_the_limit_are_not_kept(tmp_path, backbone):
    with pytest.raises(NotCacheable, match="640 bytes, more than the disk_limit of 100 bytes"):
        array(tmp_path, backbone, disk_limit=100)
    assert list(tmp_path.glob("*.part")) == []


def test_clear_removes_the_activations_and_nothing_else(tmp_path, backbone):
    cache = FeatureCache(tmp_path)
    cached = cache.array(backbone, images(16))
    left = "0" * 32 + ".shares"  # of an earlier version
    (tmp_path / left).mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / NPY).write_text("mine")
    cache.clear()
    assert entries(tmp_path) == []
    assert not (tmp_path / left).exists()
    assert (tmp_path / "mine" / NPY).exists()
    assert len(cache) == 0
    assert len(cached) == 16
