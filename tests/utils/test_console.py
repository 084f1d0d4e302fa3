"""Names that standard output cannot say, or that are no text."""

import io
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from conftest import images

from keras_transfer import image_folder
from keras_transfer.utils import console

ROOT = Path(__file__).parents[2]


def photos(root: Path, *classes: str) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(4):
            keras.utils.save_img(root / name / f"{i}.png", images(1, 16, seed=9 * number + i)[0])
    return root


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"\u72ac caf\xe9 \udce9"),
        ("cp1252", r"\u72ac café \udce9"),
        ("utf-8", r"犬 café \udce9"),
    ],
)
def test_a_line_is_said_in_any_encoding(monkeypatch, encoding, expected):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", output)
        console.say("犬 café \udce9")
    assert output.buffer.getvalue().decode(encoding) == f"{expected}\n"


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "two\nlines"])
def test_class_names_that_no_export_could_hold_are_refused_when_images_are_read(tmp_path, name):
    root = photos(tmp_path, name, "dog")
    with pytest.raises(ValueError, match=r"The class name .* (is not UTF-8|a line break)"):
        image_folder(root, image_size=16, verbose=0)


def test_names_of_classes_and_folders_are_shown_as_they_are(tmp_path):
    root = photos(tmp_path / os.fsdecode(b"caf\xe9\n"), "[red]犬[bold]", ":cat:")
    shown = str(image_folder(root, image_size=16, verbose=0, test_split=0))
    assert r"caf\udce9\n: 8 images" in shown.splitlines()[0]
    assert "\n[red]犬[bold]" in shown
    assert "\n:cat:" in shown


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


@pytest.mark.slow
def test_curves_with_any_name_are_drawn_where_output_is_ascii(tmp_path):
    (tmp_path / "a.csv").write_text("epoch,loss\n0,0.9\n1,0.8\n")
    name, picture = os.fsdecode(b"caf\xe9\n$x$ ["), tmp_path / "犬.png"
    tables = (f"{name}={tmp_path / 'a.csv'}", f"b={tmp_path / 'a.csv'}")
    command = ("-m", "keras_transfer", "plot-history", *tables, "-o", picture)
    done = run(*command, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"\\u72ac.png\n")
    assert picture.stat().st_size


@pytest.mark.parametrize("command", ["search.py", "compare.py"])
def test_output_that_no_model_could_be_written_to_is_refused_at_once(tmp_path, command):
    output = tmp_path / os.fsdecode(b"caf\xe9")
    done = run(ROOT / "tuning" / command, "--output", output, PYTHONIOENCODING="cp1252")
    assert done.returncode == 2
    assert b"caf\\udce9' is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
