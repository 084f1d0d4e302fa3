"""Modules that say nothing of what trains, and modules that have been trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images
from hub_modules import GROUPS, Reusable, save_frozen, shared

from keras_transfer import BlockUnfreezer, FrozenBackbone, TransferModel


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    return save_frozen(tmp_path_factory.mktemp("hub") / "frozen")


@pytest.fixture(scope="module")
def declares_nothing(tmp_path_factory):
    module = Reusable(groups=GROUPS[-2:])
    module.trainable_variables = []
    folder = tmp_path_factory.mktemp("hub") / "nothing"
    tf.saved_model.save(module, str(folder))
    return folder


def trained(backbone, *phases):
    model = TransferModel(backbone, ["cat", "dog"], hidden=4, dropout=0)
    model.compile()
    unfreezer = BlockUnfreezer(dict(enumerate(phases, 1)))
    model.fit(dataset(8), epochs=len(phases) + 1, verbose=0, callbacks=[unfreezer])
    return model


@pytest.mark.slow
def test_the_weights_of_a_network_that_was_frozen_when_it_was_exported_can_train(frozen):
    backbone = FrozenBackbone(frozen, preprocessing="unit")
    assert not backbone.trainable_weights
    before = {weight.path: weight.numpy() for weight in backbone.weights}
    trained(backbone, "all")
    moved = {
        weight.path for weight in backbone.weights if (weight.numpy() != before[weight.path]).any()
    }
    assert moved == {path for path in before if "moving" not in path}
    assert {block.name for block in backbone.blocks} == {"low", "norm", "high"}


@pytest.mark.slow
def test_a_module_that_declares_no_trainable_variables_is_not_unfrozen_in_silence(
    declares_nothing,
):
    backbone = FrozenBackbone(declares_nothing)
    backbone.freeze("all")
    with pytest.raises(
        ValueError, match=r"declares no trainable variables\. It can be used frozen"
    ):
        backbone.unfreeze("all")
    assert backbone.blocks[0].frozen
    for schedule in ({1: "all"}, "gradual"):
        model = TransferModel(backbone, ["cat", "dog"], hidden=4)
        model.compile()
        with pytest.raises(ValueError, match="the module declares no trainable variables"):
            model.fit(dataset(8), verbose=0, callbacks=[BlockUnfreezer(schedule)])


def test_a_block_that_holds_statistics_only_is_not_unfrozen_in_silence():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Normalization(mean=[0.0] * 3, variance=[1.0] * 3),
            keras.layers.BatchNormalization(center=False, scale=False, name="only"),
        ]
    )
    backbone = FrozenBackbone(model, preprocessing=None)
    with pytest.raises(ValueError, match="can train: they hold statistics or constants only"):
        backbone.unfreeze("all")


@pytest.mark.slow
def test_a_module_whose_blocks_have_trained_is_exported_for_openvino(tmp_path):
    openvino = pytest.importorskip("openvino")
    backbone, phases = FrozenBackbone(shared("small")), ("block4", "block3")
    model = trained(backbone, *phases)
    model.export(tmp_path / "model.xml", format="openvino", verbose=False)
    compiled = openvino.Core().compile_model(
        tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    pixels = images(2).astype("float32")
    np.testing.assert_allclose(compiled(pixels)[0], model(pixels), atol=1e-5)


def test_a_module_that_takes_channels_first_is_refused(tmp_path):
    module = tf.Module()
    module.run = tf.function(lambda images: {"features": tf.reduce_mean(images, [2, 3])})
    spec = tf.TensorSpec((None, 3, None, None), tf.float32)
    tf.saved_model.save(module, str(tmp_path / "m"), module.run.get_concrete_function(spec))
    with pytest.raises(ValueError, match=r"shape \(None, 3, None, None\)\. .*channels last"):
        FrozenBackbone(tmp_path / "m", preprocessing=None)
