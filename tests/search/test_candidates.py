"""`--backbone auto`: the backbones on this machine are compared, and one is worth its time."""

import keras
import numpy as np
import pytest
from conftest import tiny_backbone

from keras_transfer import image_folder
from keras_transfer.backbones import efficientnet_lite, registry
from keras_transfer.search.probing import candidates
from keras_transfer.search.probing.candidates import Candidate, choose
from keras_transfer.search.state.files import read_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, name in enumerate("ab"):
        (root / name).mkdir()
        for i in range(12):
            pixels = np.clip(generator.normal(100 + 40 * number, 40, (16, 16, 3)), 0, 255)
            keras.utils.save_img(root / name / f"{i:02}.png", pixels, scale=False)
    return image_folder(root, image_size=16, batch_size=8, verbose=0)


def as_if(monkeypatch, **losses: list[float]) -> None:
    """Makes each backbone return the given losses of six images; later names are slower."""

    def tried(name, images, labels, size, seed):
        milliseconds = float(list(losses).index(name) + 1)
        facts = (0.5, float(np.mean(losses[name])), milliseconds, 10)
        return Candidate(name, *facts), np.asarray(losses[name])

    monkeypatch.setattr(candidates, "_tried", tried)


def test_a_slower_one_is_taken_only_if_it_is_better_by_more_than_chance(
    data, tmp_path, monkeypatch, capsys
):
    fast = [0.5, 0.4, 0.6, 0.5, 0.4, 0.6]
    little = [0.1, 0.8, 0.6, 0.1, 0.7, 0.6]  # 0.017 less in the mean, up and down
    much = [0.3, 0.3, 0.4, 0.3, 0.2, 0.4]
    as_if(monkeypatch, fast=fast, little=little)
    assert choose(["little", "fast"], data.train, 16, tmp_path / "a", 0) == "fast"
    as_if(monkeypatch, fast=fast, much=much)
    assert choose(["fast", "much"], data.train, 16, tmp_path / "b", 0) == "much"
    printed = capsys.readouterr().out
    assert "much (chosen)" in printed
    assert "ms an image" in printed


def test_the_choice_is_remembered(data, tmp_path, monkeypatch):
    as_if(monkeypatch, one=[0.5] * 6, two=[0.4, 0.3] * 3)
    assert choose(["one", "two"], data.train, 16, tmp_path, 0) == "two"
    assert choose(["one"], data.train, 16, tmp_path, 0) == "two"
    content = read_json(tmp_path / candidates.FILE)
    assert [one["name"] for one in content["candidates"]] == ["one", "two"]
    assert choose(["one", "two"], data.train, 16, tmp_path / "x", 0, compare=False) == "one"
    assert choose(["one", "two"], data.train, 16, tmp_path / "x", 0) == "one"


@pytest.mark.slow
def test_a_backbone_is_tried_on_images_of_all_classes(data, monkeypatch):
    monkeypatch.setattr(
        candidates, "FrozenBackbone", lambda name, pooling: tiny_backbone(pooling=pooling)
    )
    monkeypatch.setattr(candidates, "_IMAGES", 8)
    images, labels = candidates._some(data.train)
    assert len(images) == len(labels) < len(data.train.labels)
    assert set(labels) == {0, 1}
    candidate, losses = candidates._tried("tiny", images, labels, 16, 0)
    assert losses.shape == (len(images),)
    assert 0.5 <= candidate.accuracy <= 1
    assert candidate.milliseconds > 0
    assert candidate.parameters == tiny_backbone().count_params()


def test_those_on_this_machine_need_no_download(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(efficientnet_lite, "is_installed", lambda number: number != "1")
    assert registry.on_this_machine() == ("efficientnet_lite0", "efficientnet_lite2")
    (tmp_path / "models").mkdir()
    for name in (
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "vgg19_weights_tf_dim_ordering_tf_kernels.h5",  # with a top
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "something_notop.h5",
    ):
        (tmp_path / "models" / name).touch()
    assert registry.on_this_machine()[2:] == (
        *("mobilenetv2", "mobilenetv3small", "resnet50v2", "vgg16"),
    )
    assert efficientnet_lite.is_installed("0")
