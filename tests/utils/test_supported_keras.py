"""Another backend, another image layout and objects of Keras 2 are refused where they come in."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras
from conftest import dataset, images, labels, tiny_backbone, tiny_network

from keras_transfer import (
    BlockUnfreezer,
    FrozenBackbone,
    HistoryPlotter,
    Phase,
    TransferModel,
    find_learning_rate,
    report,
)


@pytest.mark.slow
def test_another_backend_is_refused_at_import():
    backend = "numpy"
    done = subprocess.run(
        [sys.executable, "-c", "import keras_transfer"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert f"works with the TensorFlow backend of Keras. Received: '{backend}'" in done.stderr
    assert "Set KERAS_BACKEND=tensorflow" in done.stderr


def test_channels_first_is_refused():
    network = tiny_network()
    image = keras.Input((3, 16, 16))
    other = keras.Model(image, keras.layers.Permute((2, 3, 1))(image))
    with pytest.raises(ValueError, match=r"\(None, 3, 16, 16\), with channels first"):
        FrozenBackbone(other, preprocessing=None)
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match=r"Call keras.config.set_image_data_format\('channels"):
            FrozenBackbone(network, preprocessing="tf")
    finally:
        keras.config.set_image_data_format("channels_last")


def compiled(**arguments) -> TransferModel:
    model = TransferModel(tiny_backbone(), 2)
    model.compile(**arguments)
    return model


def plain() -> keras.Model:
    layers = [keras.Input((24, 24, 3)), tiny_backbone(), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    model.compile("sgd", "binary_crossentropy")
    return model


OLD = tf_keras.Sequential([tf_keras.layers.Input((24, 24, 3)), tf_keras.layers.Flatten()])
OLD.compile("sgd", "mse")
COMES_IN = {
    "source": lambda: FrozenBackbone(OLD),
    "preprocessing": lambda: FrozenBackbone(
        tiny_network(), preprocessing=tf_keras.layers.Rescaling(2.0)
    ),
    "backbone": lambda: TransferModel(OLD),
    "head": lambda: TransferModel(tiny_backbone(), head=tf_keras.layers.Dense(1)),
    "augmentation": lambda: TransferModel(
        tiny_backbone(), augmentation=[tf_keras.layers.RandomFlip()]
    ),
    "optimizer": lambda: compiled(optimizer=tf_keras.optimizers.Adam()),
    "loss": lambda: compiled(loss=tf_keras.losses.binary_crossentropy),
    "metrics": lambda: compiled(metrics=["accuracy", tf_keras.metrics.AUC()]),
    "callbacks": lambda: compiled().fit(
        images(4), labels(4), callbacks=[tf_keras.callbacks.EarlyStopping()]
    ),
    "callbacks of a plain model": lambda: plain().fit(
        dataset(4), callbacks=[BlockUnfreezer({0: 1}), tf_keras.callbacks.EarlyStopping()]
    ),
    "optimizer of a phase": lambda: Phase("top", at_epoch=1, optimizer=tf_keras.optimizers.SGD()),
    "model of an unfreezer": lambda: OLD.fit(
        images(4), np.zeros((4, 1728)), callbacks=[BlockUnfreezer({0: 1})]
    ),
    "model of a plotter": lambda: OLD.fit(
        images(4), np.zeros((4, 1728)), callbacks=[HistoryPlotter(live=False)]
    ),
    "model of a sweep": lambda: find_learning_rate(OLD, images(4), labels(4)),
    "model of a report": lambda: report(OLD, dataset(4), "report"),
}


@pytest.mark.parametrize("place", COMES_IN)
def test_an_object_of_keras_2_is_refused_by_name(place):
    name = place.split()[0]
    with pytest.raises(
        TypeError, match=rf"`{name}` is of Keras 2. Received: tf_keras\.[\s\S]* 3: "
    ):
        COMES_IN[place]()


def test_what_a_user_made_from_a_class_of_keras_2_is_of_keras_2():
    class Mine(tf_keras.callbacks.Callback):
        pass

    with pytest.raises(TypeError, match=r"Received: tf_keras\.src\.callbacks\.Callback"):
        compiled().fit(images(4), labels(4), callbacks=[Mine()])
