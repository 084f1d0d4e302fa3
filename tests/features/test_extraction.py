import gc
import subprocess
import sys
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, images, labels, relative_difference, snapshot, tiny_backbone

from keras_transfer import BlockUnfreezer, FeatureCache, FrozenBackbone, TransferModel
from keras_transfer.features import runners


def error(actual, expected) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("after", ["block2", "pooling"])
@pytest.mark.slow
def test_openvino_computes_what_keras_does(dtype, after):
    backbone, pixels = tiny_backbone(), images(20).astype(dtype)
    run = runners.by_openvino(backbone, after, pixels[:4])
    expected = backbone.activations(pixels, after=after)[f"after:{after}"]
    assert error(run(pixels), expected) <= 1e-5


@pytest.mark.slow
def test_openvino_goes_on_from_kept_activations():
    backbone = tiny_backbone()
    low = {key: np.asarray(x) for key, x in backbone.activations(images(9), after="block2").items()}
    run = runners.by_openvino(backbone, "pooling", low)
    assert error(run(low), backbone(images(9))) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_openvino_computes_real_architectures_as_keras_does(name):
    weights = "imagenet" if name == "efficientnet_lite0" else None
    backbone, pixels = FrozenBackbone(name, weights=weights), images(8, 96)
    run = runners.by_openvino(backbone, "pooling", pixels)
    assert error(run(pixels), runners.by_keras(backbone, "pooling")(pixels)) <= 1e-5


@pytest.mark.slow
def test_it_takes_over_where_keras_would_need_long_and_training_is_the_same(monkeypatch):
    made, weights = [], []
    by_openvino = runners.by_openvino
    monkeypatch.setattr(
        runners, "by_openvino", lambda *args: (made.append(args[1]), by_openvino(*args))[1]
    )
    for seconds in (0, 1e9):
        monkeypatch.setattr(runners, "WORTH_SECONDS", seconds)
        keras.utils.set_random_seed(1)
        model = TransferModel(tiny_backbone(), 2, hidden=8, dropout=0)
        model.compile(keras.optimizers.SGD(1e-2))
        model.fit(
            dataset(40),
            validation_data=dataset(32, shuffle=False),
            epochs=4,
            verbose=0,
            callbacks=[BlockUnfreezer({2: "block4"})],
        )
        weights.append(snapshot(model))
    assert made == ["block3", "pooling"]  # once for training and validation data together
    assert relative_difference(*weights) <= 1e-5


@pytest.mark.slow
def test_what_differs_from_keras_is_not_used(monkeypatch):
    monkeypatch.setattr(runners, "_TOLERANCE", -1.0)
    with pytest.warns(UserWarning, match="differ from Keras' by .* Keras computes them, slower"):
        assert runners.by_openvino(tiny_backbone(), "pooling", images(4)) is None


def test_what_openvino_cannot_convert_is_told_and_computed_by_keras(monkeypatch):
    def refused(*args):
        raise RuntimeError("no such operation\nand a long story")

    monkeypatch.setattr(runners, "WORTH_SECONDS", 0)
    monkeypatch.setattr(runners, "_compile", refused)
    cache, backbone = FeatureCache(), tiny_backbone()
    with pytest.warns(UserWarning, match=r"\(no such operation\)\. Keras runs it, slower"):
        kept = cache.array(backbone, images(64))
    np.testing.assert_allclose(kept, backbone(images(64)), rtol=1e-5, atol=1e-6)


def test_half_precision_and_a_missing_extra_are_left_to_keras(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras.config.set_dtype_policy("mixed_float16")
        backbone = tiny_backbone()
        keras.config.set_dtype_policy("float32")
        assert runners.by_openvino(backbone, "pooling", images(4)) is None
        monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: None)
        assert runners.by_openvino(tiny_backbone(), "pooling", images(4)) is None


@pytest.mark.slow
def test_openvino_reports_nothing_to_anyone():
    code = (
        "import sys; sys.path.insert(0, 'tests'); from conftest import *; "
        "from keras_transfer.features import runners; import socket; "
        "assert runners.by_openvino(tiny_backbone(), 'pooling', images(4)); "
        "assert 'openvino' in sys.modules; "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_changed_weights_are_computed_with_the_new_ones(monkeypatch):
    monkeypatch.setattr(runners, "WORTH_SECONDS", 0)
    cache, backbone = FeatureCache(), tiny_backbone()
    cache.array(backbone, images(64))
    weight = next(w for w in backbone.weights if w.name == "kernel")
    weight.assign(weight * 2)
    kept = cache.array(backbone, images(64))
    np.testing.assert_allclose(kept, backbone(images(64)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_frozen_part_is_traced_once_for_all_that_is_run_on_it(monkeypatch):
    run, traced = FrozenBackbone.activations, []
    monkeypatch.setattr(
        FrozenBackbone,
        "activations",
        # Not the first rows, which the layers themselves compute, too.
        lambda *args, **kw: (tf.executing_eagerly() or traced.append(1), run(*args, **kw))[1],
    )
    backbone = tiny_backbone()
    for _ in range(2):
        model = TransferModel(backbone, 2, hidden=4)
        model.compile()
        valid = tf.data.Dataset.from_tensor_slices((images(11), labels(11))).batch(8)  # 8 and 3
        model.fit(dataset(16), validation_data=valid, verbose=0)
    assert len(traced) == 1
    known = weakref.ref(backbone)
    del backbone, model
    gc.collect()
    assert known() is None


def test_a_backbone_that_was_changed_is_traced_anew():
    backbone = tiny_backbone()
    kept = FeatureCache().array(backbone, images(4))
    backbone.preprocessing = keras.layers.Rescaling(1 / 255)
    changed = FeatureCache().array(backbone, images(4))
    assert not np.allclose(kept, changed)
    np.testing.assert_allclose(changed, backbone(images(4)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_images_of_another_size_get_a_function_of_their_own(monkeypatch):
    monkeypatch.setattr(runners, "WORTH_SECONDS", 0)
    cache, backbone = FeatureCache(), tiny_backbone()
    for size in (SIZE, 2 * SIZE):
        kept = cache.array(backbone, images(64, size))
        np.testing.assert_allclose(kept, backbone(images(64, size)), rtol=1e-5, atol=1e-6)
