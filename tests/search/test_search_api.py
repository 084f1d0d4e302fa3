"""A search from Python, which the command goes on with, and the other way round."""

import numpy as np
import pytest
from small_lite import small_lite
from test_search import QUICK, photos

from keras_transfer import image_folder
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search as command
from keras_transfer.search import Search, Space

SPACE = {"pooling": "avg", "unfreeze": 0, "hidden": 8, "depth": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data") / "photos", classes=3)


@pytest.mark.slow
def test_the_command_goes_on_with_a_search_from_python_and_back(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)
    settings = {"epochs": 3, "image_size": 32, "batch_size": 8, "output": tmp_path / "run"}
    first = Search(folder, Space(**SPACE), trials=1, **settings).run()
    assert [one.trial for one in first.trials] == [1]
    assert first.best == first.trials[0]
    assert first.report.exists()
    assert 0 <= first.test["accuracy"] <= 1
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    assert first.model.predict(images, verbose=0).shape == (2, 3)

    (tmp_path / "space.yaml").write_text("\n".join(f"{k}: {v}" for k, v in SPACE.items()))
    options = ["--output", str(tmp_path / "run"), "--space", str(tmp_path / "space.yaml")]
    assert command.main([str(folder), *QUICK, *options]) == 0  # two trials

    data = image_folder(folder, image_size=32, batch_size=8, verbose=0)
    del settings["image_size"], settings["batch_size"]
    last = Search(data, Space(**SPACE), trials=3, **settings).run()
    assert sorted(one.trial for one in last.trials) == [1, 2, 3]
    assert first.best in last.trials


def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(folder, tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        Search(tmp_path / "nowhere", output=tmp_path / "run")
    with pytest.raises(ValueError, match="needs 52 trials"):
        Search(folder, tuner="hyperband", trials=8, output=tmp_path / "run")
    data = image_folder(folder, image_size=32, verbose=0)
    with pytest.raises(ValueError, match="image_size=64 differs from 32 of the ImageFolder"):
        Search(data, image_size=64, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
