"""What a search is asked for is checked before anything is done."""

from pathlib import Path

import pytest

from keras_transfer.search.settings import Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "--trials 0. Expected a whole number from 1 on"),
        ({"average": 0}, "--average 0"),
        ({"workers": 0}, "--workers 0"),
        ({"image_size": 0.5}, "--image-size 0.5"),
        ({"folds": 1}, "--folds 1. Expected a whole number from 2 on"),
        ({"seed": -1}, "--seed -1"),
        ({"tuner": "anneal"}, "--tuner 'anneal'. Expected one of bayesian, hyperband"),
        ({"metric": "mse"}, "--metric 'mse'"),
        ({"flips": "up"}, "--flips 'up'"),
        ({"gpus_per_trial": 1}, "--gpus-per-trial needs --workers or --cluster"),
        ({"backbones": ("vgg16", "vgg16")}, "Expected names, each once"),
        ({"tuner": "hyperband"}, "hyperband at 30 epochs needs 52 trials"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        Settings(Path("run"), **changes)


def test_paths_are_absolute_for_processes_that_run_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module").mkdir()
    settings = Settings(Path("run"), cache=Path("kept"), backbones=("vgg16", "module"))
    absolute = settings.with_absolute_paths()
    assert absolute.output == tmp_path / "run"
    assert absolute.cache == tmp_path / "kept"
    assert absolute.backbones == ("vgg16", str(tmp_path / "module"))
    assert (absolute.weights, absolute.seed) == ("imagenet", 0)
