"""Checks that need a process of their own: no seed is set, or there are two devices.

Run by test_own_process.py with a folder to write to; prints the name of each check that passed.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from conftest import SIZE, dataset, identical, images, labels, snapshot, tiny_backbone

from keras_transfer import (
    AveragedViews,
    BlockUnfreezer,
    Flips,
    FrozenBackbone,
    Phase,
    TransferModel,
    find_learning_rate,
    report,
)

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
folder = Path(sys.argv[1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2


def sweep(shuffle):
    convolution = keras.layers.Conv2D(4, 3, name="block1_conv")
    network = keras.Sequential([keras.Input((8, 8, 3)), convolution])
    model = TransferModel(
        FrozenBackbone(network, preprocessing="unit"), augmentation=keras.layers.RandomFlip()
    )
    model.compile()
    pixels = np.zeros((16, 8, 8, 3), "uint8")
    pixels[::2] = 255
    data = tf.data.Dataset.from_tensor_slices((pixels, np.arange(16) % 2))
    data = data.shuffle(16) if shuffle else data
    assert find_learning_rate(model, data.batch(4), lowest=1e-5, steps=20).suggestion > 0


def sequential(backbone):
    head = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone, head])
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])
    return model


def kept(backbone):
    model = TransferModel(backbone, 2, hidden=4, dropout=0)
    model.compile(keras.optimizers.Adam(1e-3))
    model.build((None, SIZE, SIZE, 3))
    return model


def trained(make, scope, data, unfreezer, epochs):
    keras.utils.set_random_seed(1)
    with scope:
        model = make(tiny_backbone())
    model.fit(data, epochs=epochs, verbose=0, callbacks=[unfreezer])
    return model


def unseeded_sweep():
    sweep(shuffle=True)


def two_replicas_train_as_one():
    phases = [
        Phase("block4", at_epoch=1, lr_decay=0.5, warmup=2),
        Phase("block3", at_epoch=2, optimizer="sgd"),
    ]
    two, one = (
        snapshot(trained(kept, scope, dataset(16, shuffle=False), BlockUnfreezer(phases), 3))
        for scope in (strategy.scope(), tf.distribute.get_strategy().scope())
    )
    for a, b in zip(two, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def takes_no_images() -> bool:
    """Whether plain Keras runs on none: TensorFlow 2.21 does not on CPUs without AVX-512."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    plain = tf.function(keras.Model(inputs, keras.layers.BatchNormalization()(x)))
    try:
        return plain(tf.zeros((0, 8, 8, 3))).shape[0] == 0
    except tf.errors.InvalidArgumentError:
        return False


def two_devices_do_what_one_does():
    # The last batch has fewer images than there are devices.
    data = dataset(9 if takes_no_images() else 10, shuffle=False)
    phases = [Phase("block4", at_epoch=1, restore_best=True)]
    for make in (sequential, kept):
        unfreezer = BlockUnfreezer(phases, monitor="loss", learning_rate=1e-5)
        model = trained(make, strategy.scope(), data, unfreezer, 2)
        model.save(folder / "model.keras")
        before = snapshot(model)
        assert identical(before, keras.saving.load_model(folder / "model.keras"))
        model.save_weights(folder / "model.weights.h5")
        model.load_weights(folder / "model.weights.h5")
        assert identical(before, model)
    averaged = AveragedViews.of(model, Flips("mirror"))
    for one in (model, averaged):
        count = 9 if takes_no_images() else 10
        expected = one(images(count)).numpy()
        np.testing.assert_allclose(one.predict(images(count), verbose=0), expected, atol=1e-6)
        accuracy = np.mean((expected[:, 0] > 0.5) == labels(count))
        np.testing.assert_allclose(one.evaluate(data, verbose=0)[1], accuracy, atol=1e-6)
    numbers = report(averaged, data, folder / "report", verbose=0).numbers
    np.testing.assert_allclose(numbers.accuracy.value, accuracy, atol=1e-6)


def sweep_under_op_determinism():
    tf.config.experimental.enable_op_determinism()
    sweep(shuffle=False)


CHECKS = (
    unseeded_sweep,
    two_replicas_train_as_one,
    two_devices_do_what_one_does,
    sweep_under_op_determinism,
)
if __name__ == "__main__":
    for check in CHECKS:
        check()
        print("passed:", check.__name__, flush=True)
