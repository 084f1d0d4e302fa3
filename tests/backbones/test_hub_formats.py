"""The whole way with networks of real size, served as TF-Hub serves them."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import images, labels
from hub_modules import archive, serving
from keras import layers
from keras.src.applications import resnet  # Keras' public names are those of 50 units and more

from keras_transfer import BlockUnfreezer, FrozenBackbone, TransferModel

SIZE = 128
# ResNet V1 50 and 152 have more units of the same kind, and take as many times as long.
SCOPE = "resnet_v1_14"


class Published(tf.__internal__.tracking.AutoTrackable):
    """A Keras network as TF-Hub's publishers export theirs.

    It takes 0..1, and has moving statistics, `training`, `batch_norm_momentum`, and a
    regularization loss for each kernel.
    """

    def __init__(self, network: keras.Model, scope_of, to_pixels=lambda images: images) -> None:
        # Not as attributes, or the module would hold a second copy of everything.
        self._features = lambda images, training: network(to_pixels(images), training=training)
        self.variables, self.trainable_variables, self.regularization_losses = [], [], []
        for layer in network.layers:
            for weight in layer.weights:
                name = f"{scope_of(layer.name)}/{weight.name}"
                variable = tf.Variable(weight.value, weight.trainable, name=name)
                weight._value = variable  # Keras' own names have no scopes
                self.variables.append(variable)
                if weight.trainable:
                    self.trainable_variables.append(variable)
                if "kernel" in weight.name:
                    self.regularization_losses.append(_decay(variable))
        spec = tf.TensorSpec((None, None, None, 3), tf.float32)
        for training in (True, False):
            self.__call__.get_concrete_function(
                spec, training=training, batch_norm_momentum=tf.TensorSpec((), tf.float32)
            )

    @tf.function
    def __call__(self, images, training=False, batch_norm_momentum=0.99):
        # The momentum plays no part in inference, which is all that is asked of it here.
        return self._features(images, training) + 0.0 * batch_norm_momentum


def _decay(kernel):
    return tf.function(lambda: 1e-5 * tf.reduce_sum(kernel**2), input_signature=[])


def one_unit_a_stage(x):
    for stage, filters in enumerate((64, 128, 256, 512), 2):
        stride = 1 if stage == 2 else 2
        x = resnet.stack_residual_blocks_v1(x, filters, 1, stride, name=f"conv{stage}")
    return x


def slim_scope(layer: str) -> str:
    """`conv4_block2_1_conv` of Keras is `block3/unit_2/bottleneck_v1/conv1` of slim."""
    stage, *rest = layer.split("_")
    if len(rest) < 2:
        return f"{SCOPE}/conv1/{'_'.join(rest)}"
    unit, number, kind = rest
    path = "shortcut" if number == "0" else f"conv{number}"
    block, unit = int(stage.removeprefix("conv")) - 1, unit.removeprefix("block")
    return f"{SCOPE}/block{block}/unit_{unit}/bottleneck_v1/{path}/{kind}"


@pytest.mark.slow
def test_resnet_v1_is_trained_unfrozen_saved_exported_and_answers_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    network = resnet.ResNet(
        one_unit_a_stage,
        preact=False,
        use_bias=True,
        include_top=False,
        weights=None,
        pooling="avg",
        input_shape=(None, None, 3),
    )
    tf.saved_model.save(Published(network, slim_scope), str(tmp_path / "module"))
    with serving() as server:
        path = f"/google/imagenet/{SCOPE}/feature_vector/5"
        server.modules[path] = archive(tmp_path / "module")
        backbone = FrozenBackbone(server.handle_for(path))
    assert [block.name for block in backbone.blocks] == [
        "conv1", "block1", "block2", "block3", "block4"
    ]  # fmt: skip
    assert backbone.count_params() == network.count_params()
    assert backbone.compute_output_shape((None, SIZE, SIZE, 3)) == (None, 2048)

    head = keras.Sequential(
        [layers.Dense(6, activation="relu"), layers.Dropout(0.3), layers.Dense(1, "sigmoid")]
    )
    model = TransferModel(backbone, ["cat", "dog"], head=head)
    model.compile(keras.optimizers.Adam(1e-3))
    pixels, answers = images(16, SIZE), labels(16)
    before = [weight.numpy() for weight in backbone.weights]
    history = model.fit(
        pixels,
        answers,
        batch_size=64,
        epochs=3,
        validation_data=(pixels[:8], answers[:8]),
        verbose=0,
        callbacks=[
            BlockUnfreezer({2: "block4"}, learning_rate=1e-4),
            keras.callbacks.EarlyStopping(patience=3),
        ],
    )
    assert history.history["phase"] == [0, 0, 1]
    assert history.history["loss"][-1] > history.history["loss"][0] + 0.01  # regularized
    changed = [
        weight
        for weight, old in zip(backbone.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), old)
    ]
    assert {weight.path.split("/")[1] for weight in changed} == {"block4"}
    assert not [weight for weight in changed if "moving_" in weight.path]

    expected = model.predict(pixels[:4], verbose=0)
    model.save(tmp_path / "model.keras")
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "module")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
    np.testing.assert_allclose(loaded.predict(pixels[:4], verbose=0), expected, atol=1e-5)
    loaded.export(tmp_path / "serving")
    served = tf.saved_model.load(tmp_path / "serving")
    np.testing.assert_allclose(served.serve(pixels[:4]), expected, atol=1e-5)
