"""Which files and folders are taken for images, classes and splits."""

import io
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from photo_folders import load, load_all, make_classes, of_ours, pixels_of, reference, save


@pytest.fixture
def photos(tmp_path):
    return make_classes(tmp_path / "photos", {"cats": 10, "dogs": 20})


@pytest.fixture
def few(tmp_path):
    """Two classes of one image, to which a test adds the file that it is about."""
    return make_classes(tmp_path / "few", {"a": 1, "b": 1})


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
