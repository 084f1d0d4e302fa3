"""The command that classifies images by an export alone."""

import csv
import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from PIL import Image

from keras_transfer import TransferModel, image_folder
from keras_transfer.cli import predict as command
from keras_transfer.images.decoding import decode_image
from keras_transfer.serving.metadata import ExportFacts, digest_of, facts_path
from keras_transfer.serving.runtime import Served, open_export

SIDE = 16


@pytest.fixture
def photos(tmp_path):
    """A folder of images at some depth, one of them broken."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.jpg", "deep/c.png", "deep/er/d.webp")):
        Image.new("RGB", (20 + i, 30), (60 * i, 9, 9)).save(folder / name)
    (folder / "deep" / "broken [red].jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image, and does not look like one")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


@pytest.fixture
def batches(monkeypatch):
    """In the place of an export: the share of red, and the number of images in each batch."""
    facts = ExportFacts("onnx", ("dark", "red"), (SIDE, SIDE), True, 3, probabilities=True)
    seen = []

    def run(images):
        assert images.shape[1:] == (SIDE, SIDE, 3)
        seen.append(len(images))
        return images[..., 0].mean((1, 2))[:, None] / 255

    monkeypatch.setattr(command, "open_export", lambda path: Served(facts, run))
    return seen


def rows(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("batches")
def test_a_folder_is_searched_and_a_broken_image_is_a_row(photos, tmp_path, capsys):
    table = tmp_path / "new" / "predictions.csv"
    assert command.main(["export", str(photos), "--csv", str(table)]) == 1
    found = {row["file"]: row for row in rows(table)}
    names = ("a.png", "b.jpg", "deep/broken [red].jpg", "deep/c.png", "deep/er/d.webp")
    assert list(found) == [str(photos / name) for name in names]
    assert found[str(photos / "a.png")]["label"] == "dark"
    assert float(found[str(photos / "deep/er/d.webp")]["score"]) == pytest.approx(
        180 / 255, abs=0.05
    )
    assert found[str(photos / "deep/er/d.webp")]["label"] == "red"
    broken = found[str(photos / "deep/broken [red].jpg")]
    assert (broken["label"], broken["score"]) == ("", "")
    assert broken["error"] == "not a JPEG, PNG, BMP, GIF or WebP image"
    out, err = capsys.readouterr()
    assert err == (
        "Loading export to classify 5 images.\n"
        "1 other files ignored (.txt 1), 1 hidden or system entries ignored (.hidden.jpg 1)\n"
        "1 of 5 images could not be read.\n"
    )
    assert len(out.splitlines()) == 6
    assert f"{photos / 'deep/broken [red].jpg'}  not a JPEG, PNG" in out


def test_globs_files_and_folders_stand_for_each_image_once(photos, batches, capsys):
    given = [str(photos / "**" / "*.png"), str(photos / "b.jpg"), str(photos / "deep" / "er")]
    assert command.main(["export", *given, str(photos / "a.png"), "--batch-size", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0].rpartition("/")[2] for line in lines] == [
        "a.png",
        "c.png",
        "b.jpg",
        "d.webp",
    ]
    assert batches == [3, 1]


@pytest.mark.usefixtures("batches")
def test_what_systems_leave_is_classified_only_where_it_is_asked_for(photos, capsys):
    thumbnail = photos / "@eaDir" / "a.png" / "SYNOPHOTO_THUMB_M.png"
    thumbnail.parent.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(thumbnail)
    for given in (photos, photos / "**" / "*.png", photos / "*", photos / "**"):
        command.main(["export", str(given)])
        out, err = capsys.readouterr()
        assert "c.png" in out
        assert "SYNOPHOTO" not in out
        assert "hidden or system entries ignored (" in err
        assert "@eaDir " in err
    for given in (thumbnail, thumbnail.parent / "*"):
        assert command.main(["export", str(given)]) == (given != thumbnail) * 2
        assert ("SYNOPHOTO" in capsys.readouterr().out) == (given == thumbnail)


@pytest.mark.usefixtures("batches")
def test_all_scores_are_there_when_asked_for(photos, tmp_path, capsys):
    table = tmp_path / "all.csv"
    assert command.main(["export", str(photos / "a.png"), "--all", "--csv", str(table)]) == 0
    (row,) = rows(table)
    assert float(row["score/dark"]) + float(row["score/red"]) == pytest.approx(1)
    assert capsys.readouterr().out.split()[:5] == ["file", "label", "score", "dark", "red"]


@pytest.mark.usefixtures("batches")
def test_what_is_no_file_is_a_row_and_names_need_not_be_text(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.jpg")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Image.new("RGB", (9, 9)).save(name)
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    table = tmp_path / "p.csv"
    given = [str(tmp_path / "pipe.jpg"), name, str(tmp_path / "gone.jpg")]
    assert command.main(["export", *given, "--csv", str(table)]) == 1
    errors = [row["error"] for row in rows(table)]
    assert errors == ["not a regular file", "", "No such file or directory"]
    assert rows(table)[1]["file"] == name
    assert "\ufffd.png" in capsys.readouterr().out


@pytest.mark.usefixtures("batches")
def test_a_line_break_in_a_name_splits_no_row(tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "two\nlines\r.png")
    assert command.main(["export", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert r"two\nlines\r.png" in lines[1]


@pytest.mark.usefixtures("batches")
def test_a_name_that_a_spreadsheet_would_compute_gets_an_apostrophe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("=1+1.png")
    assert command.main(["export", "=1+1.png", "--csv", "p.csv"]) == 0
    assert rows(tmp_path / "p.csv")[0]["file"] == "'=1+1.png"


@pytest.mark.usefixtures("batches")
def test_an_image_of_too_many_pixels_is_a_row_with_its_error(tmp_path):
    Image.new("1", (9460, 9459)).save(tmp_path / "bomb.png")
    table = tmp_path / "p.csv"
    assert command.main(["export", str(tmp_path / "bomb.png"), "--csv", str(table)]) == 1
    assert rows(table)[0]["error"].startswith("9459 x 9460 pixels, which may be a decompression")


@pytest.mark.parametrize(("channels", "status"), [(1, 0), (4, 2)])
def test_images_become_grey_where_the_model_takes_that(
    tmp_path, monkeypatch, capsys, channels, status
):
    facts = ExportFacts("onnx", ("dark", "light"), (SIDE, SIDE), True, channels, True)

    def run(images):
        assert images.shape[1:] == (SIDE, SIDE, 1)
        return images.mean((1, 2)) / 255

    monkeypatch.setattr(command, "open_export", lambda path: Served(facts, run))
    Image.new("RGB", (9, 9), (200, 200, 200)).save(tmp_path / "a.png")
    assert command.main(["export", str(tmp_path / "a.png")]) == status
    out, err = capsys.readouterr()
    if status:
        assert "error: The export takes images of 4 channels. Expected 3" in err
    else:
        assert out.splitlines()[1].split()[1:] == ["light", f"{200 / 255:.4f}"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nothing.jpg"], "'nothing.jpg' does not exist (looked for "),
        (["*.tiff"], "No file matches '*.tiff' (looked from "),
        (["empty"], "The folder 'empty' holds no images at any depth (1 other"),
        (["a.png", "--csv", "empty"], "--csv 'empty' is a folder. Expected the name of a file."),
        (
            ["a.png", "--csv", "a.png/b.csv"],
            "cannot be written: 'a.png' is, or lies under, a file. Ch",
        ),
    ],
)
@pytest.mark.usefixtures("batches")
def test_a_command_that_makes_no_sense_says_why(tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    Image.new("RGB", (9, 9)).save("a.png")
    assert command.main(["export", *given]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("keras-transfer predict: error: ")
    assert not out


def test_an_interrupted_run_writes_nothing(photos, tmp_path, monkeypatch, capsys):
    facts = ExportFacts("onnx", ("dark", "red"), (SIDE, SIDE), True, 3, probabilities=True)

    def interrupt(images):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "open_export", lambda path: Served(facts, interrupt))
    assert command.main(["export", str(photos), "--csv", str(tmp_path / "p.csv")]) == 130
    assert not (tmp_path / "p.csv").exists()
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "gone", r"gone' does not exist \(looked for"),
        (lambda path: path, r"is no export: it holds no saved_model.pb. There is one in '.*inner'"),
        (lambda path: path / "model.h5", "is no export. Expected the folder of a SavedModel, or"),
        (lambda path: path / "inner", "has no '.*metadata.json', the file of classes"),
        (lambda path: path / "old.onnx", "old.onnx.metadata.json' is not what .* writes"),
    ],
)
def test_what_is_no_export_says_so(tmp_path, make, message):
    (tmp_path / "inner").mkdir()
    for name in ("inner/saved_model.pb", "model.h5", "old.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "old.onnx.metadata.json").write_text('{"layout": 1}')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_export(make(tmp_path))


def write_onnx(model, content=b""):
    """A file that looks like an export."""
    model.write_bytes(content)
    facts = ExportFacts("onnx", ("a", "b"), (9, 9), True, 3, True, versions={"keras": "3.15.1"})
    facts = replace(facts, digests={model.name: digest_of(model)})
    facts.write(facts_path(model, "onnx"))


def test_a_missing_runtime_is_named_with_its_extra(tmp_path, monkeypatch):
    write_onnx(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"'onnxruntime'.*keras-transfer\[export\]"):
        open_export(tmp_path / "m.onnx")


def test_facts_of_another_export_are_refused(tmp_path):
    write_onnx(tmp_path / "m.onnx")
    for name, format in (("other.onnx", "onnx"), ("m.tflite", "litert")):
        (tmp_path / name).write_bytes(b"")
        facts = facts_path(tmp_path / "m.onnx", "onnx").read_bytes()
        facts_path(tmp_path / name, format).write_bytes(facts)
        with pytest.raises(ValueError, match=r"is of another export, 'onnx' in 'm.onnx'"):
            open_export(tmp_path / name)


def test_an_export_that_was_interrupted_is_completed_when_it_is_opened(tmp_path):
    write_onnx(tmp_path / "m.onnx", b"old")
    pending = tmp_path / ".m.onnx.pending"
    pending.mkdir()
    write_onnx(pending / "m.onnx", b"new")
    with pytest.raises(ValueError, match="cannot be loaded by this version of its runtime"):
        open_export(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"new"
    assert not pending.exists()


def test_an_export_that_its_runtime_cannot_load_says_so(tmp_path, capsys):
    write_onnx(tmp_path / "m.onnx", b"of another time")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert command.main([str(tmp_path / "m.onnx"), str(tmp_path / "a.png")]) == 2
    assert "cannot be loaded by this version of its runtime" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_predicts_as_the_model_does_and_needs_no_keras(photos, tmp_path):
    keras.utils.set_random_seed(0)
    (photos / "deep" / "broken [red].jpg").unlink()
    for name in ("dark", "red"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 9), "red").save(tmp_path / "classes" / name / f"{i}.png")
    data = image_folder(tmp_path / "classes", image_size=SIDE, test_split=0)
    model = TransferModel(tiny_backbone(), data.class_names)
    model.compile()
    model.fit(data.train, verbose=0)
    model.export(tmp_path / "served")
    model.export(tmp_path / "served.onnx", format="onnx")
    expected = model.predict(
        np.stack([decode_image(path, (SIDE, SIDE)) for path in command.find([str(photos)])[0]]),
        verbose=0,
    )[:, 0]
    # Where Keras is not installed, TensorFlow does without.
    (tmp_path / "keras.py").write_text("raise ImportError('There is no Keras here')")
    for export in ("served", "served.onnx"):
        arguments = [export, "photos", "--all", "--csv", f"{export}.csv"]
        subprocess.run(
            [sys.executable, "-m", "keras_transfer", "predict", *arguments],
            cwd=tmp_path,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        )
        scores = [float(row["score/red"]) for row in rows(tmp_path / f"{export}.csv")]
        np.testing.assert_allclose(scores, expected, atol=1e-5)
