"""image_folder: its datasets, how they are divided, and what is refused."""

import io
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import photo_folders
import pytest
import tensorflow as tf
from photo_folders import SIZE, load, load_all, make_classes, names_of, of_ours, reference, save

from keras_transfer.data.shuffling import begin_again
from keras_transfer.features.pipelines import inspect
from keras_transfer.images import decoding


@pytest.fixture
def photos(tmp_path):
    return make_classes(tmp_path / "photos", {"cats": 10, "dogs": 20})


@pytest.fixture
def few(tmp_path):
    """Two classes of one image, to which a test adds the file that it is about."""
    return make_classes(tmp_path / "few", {"a": 1, "b": 1})


@pytest.fixture(params=["in RAM", "decoded again"])
def storage(request, monkeypatch):
    if request.param == "decoded again":
        monkeypatch.setattr(decoding, "memory_budget", lambda: 0)


# ---- datasets


@pytest.mark.usefixtures("storage")
def test_datasets_yield_uint8_images_and_int32_labels_in_batches_of_known_number(photos):
    data = load(photos)
    assert data.class_names == ("cats", "dogs")
    for split in ("train", "valid", "test"):
        dataset = getattr(data, split)
        count = len(data.paths[split])
        batches = list(dataset.as_numpy_iterator())
        assert len(dataset) == len(batches) == len(dataset.ordered) == -(-count // 4)
        assert [len(labels) for _, labels in batches][:-1] == [4] * (len(batches) - 1)
        assert sum(len(images) for images, _ in batches) == count
        assert dataset.element_spec[0] == tf.TensorSpec((None, *SIZE, 3), tf.uint8)
        assert dataset.element_spec[1] == tf.TensorSpec((None,), tf.int32)


@pytest.mark.usefixtures("storage")
def test_rows_are_the_files_in_path_order_with_their_labels(photos):
    data = load(photos)
    for split in ("train", "valid", "test"):
        paths = data.paths[split]
        assert list(paths) == sorted(paths)
        expected = [data.class_names.index(path.parent.name) for path in paths]
        images, labels = map(np.concatenate, zip(*getattr(data, split).ordered, strict=True))
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(data.labels[split], expected)
        np.testing.assert_array_equal(images, [reference(path) for path in paths])


def test_images_in_ram_and_images_decoded_again_are_bit_identical(photos, monkeypatch):
    for number, suffix in enumerate((".jpg", ".gif", ".webp", ".bmp")):
        save(photos / "cats" / f"other{suffix}", number)
    monkeypatch.setattr(decoding, "memory_budget", lambda: 34 * 8 * 12 * 3)
    kept = load(photos)
    monkeypatch.setattr(decoding, "memory_budget", lambda: 34 * 8 * 12 * 3 - 1)
    calls = []
    decode = decoding.decode_image
    monkeypatch.setattr(decoding, "decode_image", lambda *a: calls.append(a) or decode(*a))
    again = load(photos)
    assert len(calls) == 34
    for split in ("train", "valid", "test"):
        assert getattr(kept, split).identity == getattr(again, split).identity
        for _ in range(2):
            pairs = zip(getattr(kept, split), getattr(again, split), strict=True)
            for (images, labels), (images_again, labels_again) in pairs:
                np.testing.assert_array_equal(images, images_again)
                np.testing.assert_array_equal(labels, labels_again)
    assert len(calls) == 34 * 3


def test_images_in_ram_are_decoded_once(photos, monkeypatch):
    calls = []
    decode = decoding.decode_image
    monkeypatch.setattr(decoding, "decode_image", lambda *a: calls.append(a) or decode(*a))
    data = load(photos)
    for _ in range(2):
        list(data.train)
    assert len(calls) == 30


def test_train_is_shuffled_anew_in_each_epoch_and_the_others_are_not(photos):
    data = load(photos)
    first, second = (
        [labels.tolist() for _, labels in data.train.as_numpy_iterator()] for _ in "ab"
    )
    assert first != second
    for labels in (first, second):
        assert sorted(np.concatenate(labels)) == data.labels["train"].tolist()
    for dataset in (data.train.ordered, data.valid, data.test):
        first, second = (np.concatenate([images for images, _ in dataset]) for _ in "ab")
        np.testing.assert_array_equal(first, second)
        assert dataset.ordered is dataset
        assert dataset.shuffle_seed is None


@pytest.mark.usefixtures("storage")
def test_the_order_of_each_epoch_depends_on_seed_and_epoch_alone(photos):
    data = load(photos, seed=7)
    images, labels = map(np.concatenate, zip(*data.train.ordered, strict=True))
    assert data.train.shuffle_seed == 7
    assert len(images) == len(data.train.row_order.of_epoch(0))
    for epoch in range(3):
        keras.utils.set_random_seed(epoch)
        rows = data.train.row_order.of_epoch(epoch)
        given = map(np.concatenate, zip(*data.train, strict=True))
        for found, expected in zip(given, (images, labels), strict=True):
            np.testing.assert_array_equal(found, expected[rows])
    again = load(photos, seed=7).train.row_order
    np.testing.assert_array_equal(again.of_epoch(2), rows)


def test_a_keras_model_trains_on_the_datasets(photos):
    data = load(photos)
    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    model.compile("sgd", "binary_crossentropy")
    history = model.fit(data.train, validation_data=data.valid, epochs=2, shuffle=False, verbose=0)
    assert len(history.history["val_loss"]) == 2


def test_a_file_that_breaks_after_the_check_is_named(photos, monkeypatch):
    monkeypatch.setattr(decoding, "memory_budget", lambda: 0)
    data = load(photos)
    data.paths["valid"][0].write_bytes(b"")
    with pytest.raises(tf.errors.UnknownError, match=f"{data.paths['valid'][0].name}.*Call image_"):
        list(data.valid)


# ---- identity


def test_identity_is_the_same_for_the_same_files_elsewhere(photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "elsewhere")  # keeps the times of change
    one, other = load(photos), load(copy, batch_size=3)
    assert one.train.identity == other.train.identity == one.train.ordered.identity
    assert len(one.train.identity) == 64
    assert int(one.train.identity, 16)


def test_the_stamps_tell_the_files_whatever_is_done_with_them(photos):
    stamps = load(photos).stamps
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert sorted(stamps) == names
    status = (photos / names[0]).stat()
    assert stamps[names[0]] == (status.st_size, status.st_mtime_ns)
    assert load(photos, seed=1, image_size=4, batch_size=2).stamps == stamps


def test_identity_differs_between_splits_seeds_and_sizes(photos):
    data = load(photos)
    found = {data.train.identity, data.valid.identity, data.test.identity}
    found |= {load(photos, seed=1).train.identity, load(photos, image_size=9).train.identity}
    # The same rows under another seed or another name of the split
    found |= {load_all(photos, seed=seed).train.identity for seed in (0, 1)}
    assert len(found) == 7


@pytest.mark.parametrize("change", ["content", "time", "name", "more", "class"])
def test_identity_changes_with_the_files(photos, change):
    path = photos / "cats" / "003.png"
    before = load_all(photos).train.identity
    status = path.stat()
    if change == "content":
        save(path, number=99)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size != status.st_size
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    elif change == "name":
        path.rename(path.with_name("0030.png"))
    elif change == "more":
        save(path.with_name("new.png"))
    elif change == "class":
        path.parent.rename(photos / "cat")
    assert load_all(photos).train.identity != before


# ---- splits


def test_splits_are_disjoint_and_complete(photos):
    data = load(photos)
    paths = [path for split in data.paths.values() for path in split]
    assert len(paths) == len(set(paths)) == 30


@pytest.mark.parametrize(("valid", "test"), [(0.15, 0.15), (0.3, 0.1), (0.5, 0), (0, 0.25)])
def test_each_class_is_divided_by_the_same_shares(tmp_path, valid, test):
    counts = {"a": 20, "b": 40, "c": 80}
    data = load(make_classes(tmp_path, counts), validation_split=valid, test_split=test)
    for name, count in counts.items():
        for split, share in (("valid", valid), ("test", test)):
            assert data.counts.get(split, {name: 0})[name] == round(count * share)


def test_a_share_of_zero_means_no_split(photos):
    data = load(photos, validation_split=0)
    assert data.valid is None
    assert data.test is not None
    assert set(data.counts) == set(data.paths) == set(data.labels) == {"train", "test"}
    data = load_all(photos)
    assert data.test is None
    assert len(data.paths["train"]) == 30


@pytest.mark.parametrize(("valid", "test"), [(0.15, 0.15), (0.01, 0.01), (0.9, 0.05), (0.05, 0.9)])
def test_every_class_is_in_every_split_if_it_has_three_images(tmp_path, valid, test):
    counts = {"a": 3, "b": 4, "c": 5}
    data = load(make_classes(tmp_path, counts), validation_split=valid, test_split=test)
    for split in ("train", "valid", "test"):
        assert all(data.counts[split].values())


def test_a_class_with_too_few_images_is_warned_about(tmp_path):
    make_classes(tmp_path, {"one": 1, "two": 2, "three": 3})
    with pytest.warns(UserWarning, match=r"'one' has 1, 'two' has 2\. Add images") as caught:
        data = load(tmp_path)
    assert [warning.filename for warning in of_ours(caught)] == [photo_folders.__file__]
    assert data.counts == {
        "train": {"one": 1, "three": 1, "two": 1},
        "valid": {"one": 0, "three": 1, "two": 1},
        "test": {"one": 0, "three": 1, "two": 0},
    }


def test_a_split_without_any_image_is_refused(tmp_path):
    make_classes(tmp_path, {"one": 1, "two": 2})
    with pytest.raises(ValueError, match=r"'one' has 1, 'two' has 2.* pass 0"):
        load(tmp_path)


def test_the_same_seed_gives_the_same_split_and_order(photos):
    one, other = load(photos, seed=3), load(photos, seed=3)
    assert one.paths == other.paths
    for (_, labels), (_, others) in zip(one.train, other.train, strict=True):
        np.testing.assert_array_equal(labels, others)


def test_seed_0_is_a_seed_of_its_own(photos):
    zero, one, default = load(photos, seed=0), load(photos, seed=1), load(photos)
    assert zero.train.shuffle_seed == 0
    assert zero.paths == default.paths
    for split in ("valid", "test"):
        assert names_of(zero, split) != names_of(one, split)


def test_the_split_is_the_same_on_every_machine(tmp_path):
    data = load(make_classes(tmp_path, {"cats": 10, "dogs": 10}))
    assert names_of(data, "valid") == {
        "cats/008.png",
        "cats/009.png",
        "dogs/007.png",
        "dogs/008.png",
    }
    assert names_of(data, "test") == {
        "cats/000.png",
        "cats/006.png",
        "dogs/000.png",
        "dogs/004.png",
    }


def test_the_split_does_not_depend_on_the_order_of_the_file_system(photos, monkeypatch):
    outside = make_classes(photos.parent / "outside", {"more": 2}) / "more"
    for name in ("link 1", "link 2"):  # a folder that is reached twice counts once
        (photos / "cats" / name).symlink_to(outside)
    expected = load(photos)
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(iterdir(self), reverse=True))
    data = load(photos)
    assert data.paths == expected.paths
    assert data.class_names == expected.class_names
    assert data.train.identity == expected.train.identity


def test_a_new_file_leaves_the_split_of_the_others_nearly_alone(photos):
    before = load(photos)
    save(photos / "dogs" / "new.png")
    after = load(photos)
    moved = sum(len(set(before.paths[split]) - set(after.paths[split])) for split in before.paths)
    assert moved <= 2


def test_the_test_split_does_not_depend_on_the_validation_split(photos):
    assert load(photos).paths["test"] == load(photos, validation_split=0.4).paths["test"]


# ---- refused arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": (8, 8, 3)}, ValueError, "has 3 numbers.*height, width"),
        ({"image_size": 0}, ValueError, "image_size holds 0.*1 or more"),
        ({"image_size": (8, 8.5)}, TypeError, "image_size holds 8.5"),
        ({"image_size": True}, TypeError, "image_size holds True"),
        ({"image_size": None}, TypeError, "image_size holds None"),
        ({"batch_size": 0}, ValueError, "batch_size holds 0"),
        ({"batch_size": None}, TypeError, "batch_size holds None"),
        ({"seed": None}, TypeError, "seed holds None"),
        ({"seed": -1}, ValueError, "seed holds -1"),
        ({"validation_split": 1}, ValueError, "validation_split=1 is no share"),
        ({"validation_split": None}, ValueError, "validation_split=None is no share"),
        ({"test_split": -0.1}, ValueError, "test_split=-0.1 is no share"),
        ({"validation_split": 0.5, "test_split": 0.5}, ValueError, "leave nothing to train"),
        ({"on_corrupt": "ignore"}, ValueError, "on_corrupt='ignore' is unknown"),
        ({"verbose": 2}, ValueError, "verbose=2 is unknown"),
    ],
)
def test_arguments_out_of_range_are_refused(few, options, error, message):
    with pytest.raises(error, match=message):
        load(few, **options)


def test_numpy_integers_are_accepted(few):
    load_all(few, image_size=np.int64(5), batch_size=np.int32(2), seed=np.int64(3))


# ---- progress and summary


def test_verbose_0_prints_nothing(photos, capfd):
    load(photos, verbose=0)
    assert capfd.readouterr().out == ""


def test_verbose_1_shows_progress_and_a_summary(photos, capsys):
    (photos / "cats" / "notes.txt").touch()
    load(photos, verbose=1)
    out = capsys.readouterr().out
    assert "Checking images" in out
    assert "100%" in out
    assert "30 images of 2 classes, 1 other files ignored (.txt 1)" in out


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(photos, monkeypatch, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr("sys.stdout", screen)
    load(photos, verbose="auto")
    assert ("100%" in screen.getvalue()) == terminal


def test_the_summary_is_a_table_of_classes_and_splits(photos):
    data = load(photos)
    assert str(data).splitlines() == [
        f"{photos}: 30 images of 2 classes",
        "class  train  valid  test  total",
        "cats       6      2     2     10",
        "dogs      14      3     3     20",
        "total     20      5     5     30",
    ]
    assert repr(data) == str(data)


def test_what_begins_again_has_the_order_of_the_first_fit_however_often(photos):
    train = load(photos).train

    def epochs():
        begin_again(train)
        batches = inspect(train).indices(len(train.labels))
        return [np.concatenate([batch.numpy() for batch in batches]).tolist() for _ in range(3)]

    first = epochs()
    assert first[0] != first[1]  # each epoch has another order
    assert epochs() == first
    assert epochs() == first
