"""image_folder: what is found, how it is divided and decoded, and what is refused."""

import io
import os
import shutil
import unicodedata
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_transfer.data.read_folder import image_folder
from keras_transfer.data.shuffling import begin_again
from keras_transfer.features.pipelines import inspect
from keras_transfer.images import decoding

SIZE = (8, 12)  # height, width


def picture(number=0, size=(24, 16), mode="RGB"):
    """Smooth colours that differ with the number, so that JPEG keeps them."""
    noise = np.random.default_rng(number).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").resize(size, Image.Resampling.BILINEAR).convert(mode)


def save(path, number=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path, **options)
    return path


def make_classes(root, counts, suffix=".png", first=0):
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            save(root / name / f"{number:03}{suffix}", number=first + 1000 * label + number)
    return root


def load(directory, **options):
    return image_folder(
        directory, **({"image_size": SIZE, "batch_size": 4, "verbose": 0} | options)
    )


def load_all(directory, **options):
    """All images in train, so that a test finds the one that it made."""
    return load(directory, **({"validation_split": 0, "test_split": 0} | options))


def reference(path, size=SIZE):
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            white.paste(image, mask=image)
            image = white
        image = image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def pixels_of(data, name, split="train"):
    """The pixels that the dataset yields for the file of this name."""
    row = [path.name for path in data.paths[split]].index(name)
    ordered = getattr(data, split).ordered
    return np.concatenate([images for images, _ in ordered.as_numpy_iterator()])[row]


def of_ours(caught):
    """Warnings without the one that TensorFlow gives of pipelines in tests, which run eagerly."""
    return [one for one in caught if "run_functions_eagerly" not in str(one.message)]


def names_of(data, split):
    return {"/".join(path.parts[-2:]) for path in data.paths[split]}


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


# ---- folders


def test_paths_counts_and_labels_agree(photos):
    data = load(photos)
    assert data.counts == {
        "train": {"cats": 6, "dogs": 14},
        "valid": {"cats": 2, "dogs": 3},
        "test": {"cats": 2, "dogs": 3},
    }
    for split, counts in data.counts.items():
        classes = [path.parent.name for path in data.paths[split]]
        assert {name: classes.count(name) for name in data.class_names} == counts
        assert data.labels[split].dtype == np.int32
    assert data.skipped == ()
    assert data.ignored == {}


@pytest.mark.parametrize("valid", ["valid", "val", "validation", "Val"])
def test_folders_of_splits_are_taken_as_they_are(tmp_path, valid):
    for folder, count in (("train", 3), (valid, 2), ("test", 1)):
        make_classes(tmp_path / folder, {"cats": count, "dogs": count}, first=10 * count)
    data = load(tmp_path, validation_split=0.5, test_split=0)
    assert data.class_names == ("cats", "dogs")
    assert {split: sum(counts.values()) for split, counts in data.counts.items()} == {
        "train": 6,
        "valid": 4,
        "test": 2,
    }
    assert {path.parts[-3] for path in data.paths["valid"]} == {valid}


@pytest.mark.parametrize("given", ["valid", "test", None])
def test_missing_splits_are_taken_from_train(tmp_path, given):
    make_classes(tmp_path / "train", {"cats": 10, "dogs": 20})
    if given:
        make_classes(tmp_path / given, {"cats": 1, "dogs": 1}, first=100)
    data = load(tmp_path, validation_split=0.2, test_split=0.2)
    taken = {"cats": 2, "dogs": 4}
    for split in ("valid", "test"):
        assert data.counts[split] == ({"cats": 1, "dogs": 1} if split == given else taken)
    rest = 30 - 6 * (1 if given else 2)
    assert sum(data.counts["train"].values()) == rest
    assert not set(data.paths["train"]) & {*data.paths["valid"], *data.paths["test"]}


def test_a_class_may_be_called_train(tmp_path):
    data = load(make_classes(tmp_path, {"bus": 3, "car": 3, "train": 3}))
    assert data.class_names == ("bus", "car", "train")


def test_images_in_folders_of_a_class_folder_belong_to_the_class(few):
    save(few / "a" / "2024" / "march" / "deep.JPG")
    data = load_all(few)
    assert data.counts["train"] == {"a": 2, "b": 1}


LEFT_BY_SYSTEMS = (
    *("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.jpg", "@Recycle/1.jpg", "#snapshot/1.jpg"),
    *(".@__thumb/1.jpg", "@__thumb/1.jpg", ".thumbnails/1.png", ".picasaoriginals/1.jpg"),
    *("$RECYCLE.BIN/S-1-5-21/1.jpg", "System Volume Information/1.png", "FOUND.000/1.jpg"),
    *("__MACOSX/1.png", "__MACOSX/cats/._1.png", ".Trashes/1.png", "lost+found/1.png"),
    *(".ipynb_checkpoints/1-checkpoint.jpg", "._1.jpg", "SYNOPHOTO_THUMB_XL.jpg", ".hidden.png"),
    *("Thumbs.db", "thumbs.db", "desktop.ini", ".DS_Store", "Picasa.ini", "Icon\r", "ehthumbs.db"),
)


@pytest.mark.parametrize("given_splits", [False, True])
def test_what_systems_leave_is_no_class_and_no_image(tmp_path, given_splits):
    folders = [tmp_path / split for split in ("train", "test")] if given_splits else [tmp_path]
    for seed, folder in enumerate(folders):
        for label, name in enumerate(("cats", "dogs")):
            save(folder / name / "deep" / "1.jpg", number=10 * seed + label)
    for folder in {tmp_path, *folders}:
        for place in (folder, folder / "cats", folder / "cats" / "deep"):
            for name in LEFT_BY_SYSTEMS:
                if Path(name).suffix in (".jpg", ".png"):
                    save(place / name)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    (place / name).write_bytes(b"x")
            for name in ("@EADIR", "Lost+Found", "@tmp"):  # empty, and in any case
                (place / name).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(tmp_path / "cats") if given_splits and folder is tmp_path else None
    data = load_all(tmp_path)
    assert data.class_names == ("cats", "dogs")
    assert sum(map(len, data.paths.values())) == 2 * len(folders)
    assert data.ignored == {}
    places = 3 * len(folders) + given_splits
    assert data.system_files["@eaDir"] == 2 * places  # the empty one, too
    assert data.system_files["._*"] == data.system_files["lost+found"] // 2 == places
    assert data.system_files["Thumbs.db"] == 2 * places


def test_what_looks_like_a_system_is_a_class_all_the_same(tmp_path):
    names = ("recycle", "trash", "thumbs", "Originals", "#1", "@home", "$100", "lost")
    data = load_all(make_classes(tmp_path, dict.fromkeys(names, 1)))
    assert set(data.class_names) == set(names)
    assert data.system_files == {}


def test_what_was_left_out_is_said_in_one_line_outside_a_terminal(few, capsys, monkeypatch):
    save(few / "a" / "@eaDir" / "1.jpg")
    for number in range(9):
        save(few / "a" / f"._{number}.jpg")
        (few / "a" / f"notes.{number}").write_bytes(b"")
    load_all(few, verbose="auto")
    (line,) = capsys.readouterr().out.splitlines()
    assert "2 images of 2 classes, 9 other files ignored (.0 1, .1 1, .2 1, " in line
    assert line.endswith("others 3), 10 hidden or system entries ignored (._* 9, @eaDir 1)")
    load_all(few, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_name_that_the_output_cannot_say_is_escaped(tmp_path, monkeypatch):
    folder = make_classes(tmp_path / "\u72ac", {"a": 1, "b": 1})
    (folder / "a" / ".\udcff\x1b").write_bytes(b"")
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", output)
    load_all(folder, verbose="auto")
    output.flush()
    said = output.buffer.getvalue().decode("cp1252")
    assert "\\u72ac: 2 images" in said
    assert r"ignored (.\udcff\x1b 1)" in said


@pytest.mark.filterwarnings("ignore:.*pictures that are left out")
def test_files_of_other_kinds_are_ignored_and_counted(few):
    (few / "a" / "notes.txt").write_text("not an image")
    (few / "a" / "README").write_text("nor this")
    save(few / "b" / "scan.tif")
    save(few / "stray.png")
    data = load_all(few)
    assert data.counts["train"] == {"a": 1, "b": 1}
    assert data.ignored == {"": 1, ".png": 1, ".tif": 1, ".txt": 1}
    assert "4 other files ignored (no suffix 1, .png 1, .tif 1, .txt 1)" in str(data)
    assert data.skipped == ()


@pytest.mark.parametrize("suffix", [".TIFF", ".heic"])
def test_pictures_of_a_format_that_is_not_read_are_warned_about(few, suffix):
    (few / "b" / f"scan{suffix}").write_bytes(b"x")
    with pytest.warns(
        UserWarning, match=rf"left out.*\{suffix.lower()} 1\. Expected JPEG.*Convert"
    ):
        load_all(few)


def test_the_same_file_in_two_given_splits_is_warned_about(tmp_path):
    make_classes(tmp_path / "train", {"cats": 3, "dogs": 3})
    for split in ("valid", "test"):  # as large as in train, and with other pixels
        for label, name in enumerate(("cats", "dogs")):
            save(tmp_path / split / name / "a.bmp", number=50 + label)
            save(tmp_path / "train" / name / f"{split}.bmp", number=60 + label)
            save(tmp_path / split / name / "b.bmp", number=70 + label + 2 * (split == "test"))
    shutil.copy(tmp_path / "train" / "cats" / "001.png", tmp_path / "test" / "cats" / "copy.png")
    with pytest.warns(UserWarning, match="3 images.*more than one split") as warned:
        load(tmp_path)
    (warning,) = of_ours(warned)
    assert "\n  test/cats/copy.png = train/cats/001.png\n" in str(warning.message)
    assert "\n  test/dogs/a.bmp = valid/dogs/a.bmp\n" in str(warning.message)


def test_symlinks_to_files_and_folders_are_followed(few, tmp_path):
    target = save(tmp_path / "target.png", number=5)
    (few / "a" / "link.png").symlink_to(target)
    make_classes(tmp_path / "outside", {"more": 2})
    (few / "b" / "linked").symlink_to(tmp_path / "outside" / "more")
    (few / "c").symlink_to(tmp_path / "outside" / "more")
    data = load_all(few)
    assert data.counts["train"] == {"a": 2, "b": 3, "c": 2}
    np.testing.assert_array_equal(pixels_of(data, "link.png"), reference(target))


def test_symlink_loops_end_and_bring_in_no_other_class(few):
    (few / "a" / "self").symlink_to(few / "a")
    (few / "a" / "up").symlink_to(few)
    (few / "a" / "further up").symlink_to(few.parent)
    save(few / "a" / "x" / "once.png")
    (few / "a" / "x" / "y").symlink_to(few / "a" / "z")
    (few / "a" / "z").symlink_to(few / "a" / "x")
    assert load_all(few).counts["train"] == {"a": 2, "b": 1}


def test_unicode_names_and_spaces_work(tmp_path):
    odd = os.fsdecode(b"not utf-8 \xff.png")
    names = ("über uns.png", "猫 1.png", "emoji 🐈.png", "new\nline.png", odd)
    for name in names:
        save(tmp_path / "grüne Äpfel" / name)
        save(tmp_path / "日本" / name)
    (tmp_path / "日本" / "leer ß.png").touch()
    with pytest.warns(UserWarning, match="leer ß.png: empty file"):
        data = load(tmp_path)
    assert data.class_names == ("grüne Äpfel", "日本")
    assert sum(map(len, data.paths.values())) == 10
    assert "grüne Äpfel" in str(data)


def test_decomposed_accents_give_the_same_names_order_and_split(tmp_path):
    for form in ("NFC", "NFD"):
        for name in ("é", "f"):
            for number in range(8):
                path = f"{form}/{name}/{name}{number}.png"
                save(tmp_path / unicodedata.normalize(form, path))
    one, other = load(tmp_path / "NFC"), load(tmp_path / "NFD")
    assert one.class_names == other.class_names
    for split in ("train", "valid", "test"):
        normal = [unicodedata.normalize("NFC", path.name) for path in other.paths[split]]
        assert [path.name for path in one.paths[split]] == normal


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
    assert [warning.filename for warning in of_ours(caught)] == [__file__]
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


# ---- decoding


@pytest.mark.parametrize(
    "suffix", [".jpg", ".jpeg", ".JPG", ".jfif", ".png", ".bmp", ".gif", ".webp"]
)
def test_every_format_gives_the_pixels_of_plain_pillow(few, suffix):
    path = save(
        few / "a" / f"it{suffix}", number=3, **({"format": "JPEG"} if "jf" in suffix else {})
    )
    np.testing.assert_array_equal(pixels_of(load_all(few), path.name), reference(path))


@pytest.mark.parametrize("size", [(5, 3), (12, 8), (100, 30), (30, 100)])
def test_images_of_any_shape_are_stretched_to_the_size(few, size):
    picture(4, size).save(few / "a" / "it.png")
    result = pixels_of(load_all(few), "it.png")
    assert result.shape == (*SIZE, 3)
    np.testing.assert_array_equal(result, reference(few / "a" / "it.png"))


def test_one_number_is_a_square(few):
    assert load_all(few, image_size=7).train.element_spec[0].shape == (None, 7, 7, 3)
    assert load_all(few, image_size=[7, 9]).train.element_spec[0].shape == (None, 7, 9, 3)


def test_shrinking_is_antialiased(few):
    stripes = np.zeros((80, 120), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(few / "a" / "it.png")
    result = pixels_of(load_all(few), "it.png").astype(int)
    assert np.abs(result - 127.5).max() < 16


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_decoded_at_reduced_size_looks_the_same(few, turn):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (75, 100, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x112] = turn
    large = noise.resize((800, 600), Image.Resampling.BICUBIC)
    large.save(few / "a" / "it.jpg", quality=95, exif=exif)
    result = pixels_of(load_all(few, image_size=(20, 30)), "it.jpg").astype(int)
    difference = np.abs(result - reference(few / "a" / "it.jpg", (20, 30)))
    assert difference.mean() < 1
    assert difference.max() < 8


def test_a_jpeg_of_less_than_six_times_the_size_is_decoded_in_full(few):
    picture(4, (70, 45)).save(few / "a" / "it.jpg")
    np.testing.assert_array_equal(
        pixels_of(load_all(few), "it.jpg"), reference(few / "a" / "it.jpg")
    )


@pytest.mark.parametrize(
    ("orientation", "suffix"), [*((n, ".jpg") for n in range(1, 9)), (6, ".png"), (5, ".webp")]
)
def test_exif_orientation_is_applied(few, orientation, suffix):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = few / "a" / f"it{suffix}"
    picture(8, (40, 20)).save(path, exif=exif)
    result = pixels_of(load_all(few), path.name)
    np.testing.assert_array_equal(result, reference(path))
    if orientation > 1:
        path.write_bytes(b"")
        picture(8, (40, 20)).save(path)
        assert np.any(result != reference(path))


@pytest.mark.parametrize(
    ("damaged", "suffix"),
    [
        (b"MM\x00*\x00\x00\x00\x08\xff\xff\x01", ".jpg"),
        (b"no TIFF at all", ".png"),
        (b"no TIFF at all", ".webp"),
    ],
)
def test_damaged_exif_data_does_not_cost_the_image(few, damaged, suffix):
    path = few / "a" / f"it{suffix}"
    picture(8).save(path, exif=b"Exif\x00\x00" + damaged)
    data = load_all(few)
    assert data.skipped == ()
    whole = path.with_stem("whole")
    picture(8).save(whole)
    np.testing.assert_array_equal(pixels_of(data, path.name), reference(whole))


@pytest.mark.parametrize("mode", ["L", "1"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif"])
def test_grey_becomes_rgb(few, mode, suffix):
    path = few / "a" / f"it{suffix}"
    picture(2, mode=mode).save(path)
    result = pixels_of(load_all(few), path.name)
    np.testing.assert_array_equal(result, reference(path))
    assert np.all(result == result[..., :1])


def test_16_bit_grey_is_scaled_not_clipped(few):
    values = np.linspace(0, 65535, 8 * 12).round().astype(np.uint16).reshape(SIZE)
    Image.fromarray(values).save(few / "a" / "it.png")
    with Image.open(few / "a" / "it.png") as image:
        assert image.mode == "I;16"
    expected = np.round(values / 257).astype(int)
    result = pixels_of(load_all(few), "it.png")
    np.testing.assert_array_equal(result, np.stack([expected] * 3, axis=-1))
    assert (result.min(), result.max()) == (0, 255)


def test_a_transparent_16_bit_grey_is_white(few):
    values = np.full(SIZE, 20000, np.uint16)
    values[:, :6] = 700
    Image.fromarray(values).save(few / "a" / "it.png", transparency=700)
    result = pixels_of(load_all(few), "it.png")
    assert np.all(result[:, :6] == 255)
    assert np.all(result[:, 6:] == round(20000 / 257))


def test_a_palette_with_transparency_is_put_on_white(few):
    image = Image.new("P", SIZE[::-1], 0)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.paste(1, (0, 0, 6, 8))
    image.paste(2, (0, 0, 6, 4))
    for name, transparency in (("whole.png", 1), ("partly.png", bytes([255, 0, 128]))):
        image.save(few / "a" / name, transparency=transparency)
        result = pixels_of(load_all(few), name)
        np.testing.assert_array_equal(result, reference(few / "a" / name))
        assert np.all(result[5:, :6] == 255)
        assert np.all(result[:, 7:] == [255, 0, 0])
    assert np.all(result[0, 0] == [127, 127, 255])


def test_a_palette_without_transparency_becomes_rgb(few):
    picture(2).convert("P", palette=Image.Palette.ADAPTIVE).save(few / "a" / "it.png")
    np.testing.assert_array_equal(
        pixels_of(load_all(few), "it.png"), reference(few / "a" / "it.png")
    )


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", ".png"), ("RGBA", ".webp"), ("LA", ".png")])
def test_alpha_is_put_on_white(few, mode, suffix):
    image = Image.new("RGBA", SIZE[::-1], (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (6, 0, 12, 8))
    image.paste((0, 0, 0, 51), (6, 0, 12, 4))
    path = few / "a" / f"it{suffix}"
    image.convert(mode).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    result = pixels_of(load_all(few), path.name)
    assert np.all(result[:, :6] == 255)
    assert np.all(result[4:, 6:] == 0)
    assert np.all(result[:4, 6:] == 204)


def test_a_cmyk_jpeg_becomes_rgb(few):
    Image.new("CMYK", (24, 16), (0, 255, 255, 0)).save(few / "a" / "it.jpg", quality=95)
    result = pixels_of(load_all(few), "it.jpg").astype(int)
    assert np.abs(result - [255, 0, 0]).max() < 8
    np.testing.assert_array_equal(result, reference(few / "a" / "it.jpg"))


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_gives_its_first_frame(few, suffix):
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = few / "a" / f"it{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.all(pixels_of(load_all(few), path.name) == [255, 0, 0])


def test_the_content_decides_about_the_format_not_the_suffix(few):
    picture(6).save(few / "a" / "it.jpg", format="PNG")
    np.testing.assert_array_equal(
        pixels_of(load_all(few), "it.jpg"), reference(few / "a" / "it.jpg")
    )


# ---- corrupt files


def corrupt(root):
    """Add one file of each kind to class a, and return path → part of the reason."""
    folder = root / "a"
    whole = io.BytesIO()
    picture(1, (200, 150)).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "zero.png").touch()
    (folder / "text.jpg").write_text("This is not an image.")
    save(folder / "scan.tif").rename(folder / "tiff.png")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    return {
        "circle.png": "symbolic links",
        "cut.jpg": "image file is truncated",
        "gone.png": "No such file",
        "text.jpg": "not a JPEG, PNG, BMP, GIF or WebP image",
        "tiff.png": "not a JPEG, PNG, BMP, GIF or WebP image",
        "zero.png": r"empty file \(0 bytes\)",
    }


@pytest.mark.usefixtures("storage")
def test_corrupt_files_are_skipped_with_one_warning_that_lists_them(photos, few):
    expected = corrupt(few)
    with pytest.warns(UserWarning, match="6 of 8 image files") as caught:
        data = load_all(few)
    caught = of_ours(caught)
    assert [warning.filename for warning in caught] == [__file__]
    for name, reason in expected.items():
        assert caught[0].message.args[0].count(f"{few / 'a' / name}: ") == 1
        with pytest.raises(AssertionError, match=f"(?s){name}: [^\\n]*{reason}"):
            raise AssertionError(caught[0].message.args[0])
    assert [path.name for path, _ in data.skipped] == list(expected)
    assert data.counts["train"] == {"a": 1, "b": 1}
    assert np.all(pixels_of(data, "000.png") == reference(few / "a" / "000.png"))
    assert "6 skipped as unreadable" in str(data)


def test_corrupt_files_are_refused_with_an_error_that_lists_them(few):
    expected = corrupt(few)
    pattern = "(?s)" + ".*".join(f"a/{name}: [^\n]*{why}" for name, why in expected.items())
    with pytest.raises(ValueError, match=pattern + '.*on_corrupt="skip"'):
        load_all(few, on_corrupt="error")


def test_good_files_are_not_complained_about(few):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load_all(few, on_corrupt="error").skipped == ()
    assert of_ours(caught) == []


def test_truncated_files_of_every_format_are_found(few):
    cut = []
    for suffix in (".jpg", ".png", ".bmp", ".gif", ".webp"):
        for part in (0.02, 0.3, 0.6, 0.95):
            path = few / "a" / f"{part}{suffix}"
            picture(1, (200, 150)).save(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(part * len(content))])
            cut.append(path)
    with pytest.warns(UserWarning, match="20 of 22 image files"):
        skipped = load_all(few).skipped
    assert sorted(path for path, _ in skipped) == sorted(cut)


def test_a_truncated_jpeg_is_found_when_it_is_decoded_at_reduced_size(few):
    path = few / "a" / "it.jpg"
    picture(1, (800, 600)).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="it.jpg: image file is truncated"):
        load_all(few, image_size=10)


def test_a_decompression_bomb_is_reported(few, monkeypatch):
    picture(1, (60, 60)).save(few / "a" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(UserWarning, match=r"bomb.png: .*decompression bomb"):
        data = load_all(few)
    assert data.counts["train"] == {"a": 1, "b": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(few):
    os.mkfifo(few / "a" / "pipe.png")
    with pytest.warns(UserWarning, match="pipe.png: not a regular file"):
        load_all(few)


def test_running_out_of_memory_is_no_corrupt_file(few, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(decoding, "decode_image", fail)
    with pytest.raises(MemoryError):
        load_all(few)


def test_a_class_emptied_by_skipping_is_refused(few):
    for path in (few / "b").iterdir():
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ValueError, match=r"(?s)'b' is empty.*000\.png: empty file.*Replace"),
    ):
        load_all(few)


# ---- refused folders


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist .*Pass the folder"):
        load(tmp_path / "nowhere")


def test_a_file_is_refused(few):
    with pytest.raises(NotADirectoryError, match=r"is a file. Pass the folder"):
        load(str(few / "a" / "000.png"))


@pytest.mark.parametrize("counts", [{}, {"only": 3}])
def test_fewer_than_two_classes_are_refused(tmp_path, counts):
    (make_classes(tmp_path, counts) / "notes.txt").touch()
    with pytest.raises(ValueError, match=f"{len(counts)} class folders .*Expected two or more"):
        load(tmp_path)


def test_an_empty_class_is_refused(few):
    (few / "empty").mkdir()
    with pytest.raises(ValueError, match=r"'empty' is empty: .*\(no files at all\).*Add"):
        load_all(few)
    save(few / "empty" / "scan.tif")
    save(few / "empty" / ".hidden.png")
    with pytest.raises(
        ValueError, match=r"'empty' is empty: .*1 other files ignored \(\.tif 1\).*convert"
    ):
        load_all(few)


def test_an_empty_class_of_a_split_is_refused(tmp_path):
    make_classes(tmp_path / "train", {"a": 1, "b": 1})
    make_classes(tmp_path / "valid", {"a": 1})
    (tmp_path / "valid" / "b").mkdir()
    with pytest.raises(ValueError, match=r"'b' is empty: .*valid/b"):
        load(tmp_path)


@pytest.mark.parametrize(("train", "valid"), [("abc", "ab"), ("ab", "abc")])
def test_splits_of_different_classes_are_refused(tmp_path, train, valid):
    make_classes(tmp_path / "train", dict.fromkeys(train, 1))
    make_classes(tmp_path / "val", dict.fromkeys(valid, 1))
    where, where_not = ("train", "val") if len(train) > len(valid) else ("val", "train")
    with pytest.raises(ValueError, match=f"'c' is in .*/{where}' but not in .*/{where_not}'"):
        load(tmp_path)


@pytest.mark.parametrize(
    "folders", [("train", "test", "unlabeled"), ("valid", "test"), ("train", "val", "valid")]
)
def test_folders_that_are_neither_classes_nor_splits_are_refused(tmp_path, folders):
    for folder in folders:
        make_classes(tmp_path / folder, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=f"{sorted(folders)[0]!r}.* Expected either class folders"):
        load(tmp_path)


def test_flat_train_and_test_folders_are_not_two_classes(tmp_path):
    make_classes(tmp_path, {"train": 3, "test": 3})
    with pytest.raises(ValueError, match=r"train' holds 0 class folders \(none\)"):
        load(tmp_path)


def test_misnamed_splits_are_not_taken_for_classes(tmp_path):
    for folder in ("training_set", "test_set"):
        make_classes(tmp_path / folder, {"a": 3, "b": 3})
    with pytest.raises(ValueError, match=r"'test_set', 'training_set' look like splits.*Rename"):
        load(tmp_path)


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
