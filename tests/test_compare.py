import csv
from dataclasses import replace

import compare
import keras
import numpy as np
import pytest
from PIL import Image

QUICK = ("--epochs", "2", "--image-size", "32", "--seeds", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise of another colour for each of two classes."""
    folder, generator = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 100, (40, 40, 3))
            pixels[..., label] += 100
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Lets no name be looked up on a network."""

    def get_file(*args, **kwargs):
        raise ValueError("URL fetch failure on somewhere: no network")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    for module in ("vgg16", "resnet"):
        source = __import__(f"keras.src.applications.{module}", fromlist=["file_utils"])
        monkeypatch.setattr(source.file_utils, "get_file", get_file)


def table(output):
    with (output / "compare.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_feature_extraction_is_compared_with_fine_tuning(photos, tmp_path, capsys):
    output = tmp_path / "run"
    assert compare.main([str(photos), "--output", str(output), *QUICK]) == 0
    rows = table(output)
    recipes = [
        "a. head on features extracted once",
        "b. same head on the frozen backbone",
        "c. after b, block7 and top unfrozen",
    ]
    ran = sorted((row["recipe"], row["seed"]) for row in rows)
    assert ran == sorted((recipe, seed) for recipe in recipes for seed in "0")
    counts = {row["recipe"]: int(row["trainable"]) for row in rows}
    assert counts[recipes[0]] == counts[recipes[1]] < counts[recipes[2]]
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in rows)
    assert (output / "compare.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "In the place of vgg16, efficientnet_lite0: " in out
    assert "95 % interval" in out


def test_the_wrong_pixel_range_is_that_of_the_originals(monkeypatch):
    args = compare._parse(["--backbone", "mobilenet", "--weights", "none"])
    make, wrong = compare._backbones(args, compare.PRESETS["cats-dogs"])
    assert compare._range_of(make()) == (-1, 1)
    assert compare._range_of(wrong()) == (0, 1)

    from keras_transfer import FrozenBackbone

    def module(source, *, preprocessing="unit", **kwargs):  # as TF-Hub's
        return FrozenBackbone(source, preprocessing=preprocessing, **kwargs)

    monkeypatch.setattr("keras_transfer.FrozenBackbone", module)
    make, wrong = compare._backbones(args, compare.PRESETS["hub-resnet"])
    assert compare._range_of(make()) == (0, 1)
    assert compare._range_of(wrong()) == (0, 255)


@pytest.mark.slow
def test_overfitting_with_the_right_and_the_wrong_pixel_range(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        compare,
        "PRESETS",
        {"hub-resnet": replace(compare.PRESETS["hub-resnet"], recipes=("overfitting",))},
    )
    output = tmp_path / "run"
    arguments = ["--preset", "hub-resnet", "--backbone", "efficientnet_lite0", "--seeds", "1"]
    arguments += ["--show-pixel-range", "--epochs", "2", "--image-size", "32"]
    assert compare.main([str(photos), "--output", str(output), *arguments]) == 0
    right, wrong = table(output)
    assert right["recipe"] == "Dense(6) alone"
    assert wrong["recipe"] == "Dense(6) alone, wrong pixel range"
    assert float(right["valid_accuracy"]) <= 1


def test_a_backbone_that_was_asked_for_is_not_replaced(photos, tmp_path, offline, capsys):
    arguments = [str(photos), "--backbone", "vgg16", "--output", str(tmp_path / "run")]
    assert compare.main(arguments) == 2
    assert "could not be downloaded" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_more_blocks_than_there_are_are_refused(photos, tmp_path, capsys):
    arguments = ["--backbone", "efficientnet_lite0", "--unfreeze", "40", "--image-size", "32"]
    assert compare.main([str(photos), "--output", str(tmp_path / "run"), *arguments]) == 2
    assert "matches 40" in capsys.readouterr().err
