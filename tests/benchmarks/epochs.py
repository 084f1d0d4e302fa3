"""What an epoch costs on kept activations, against plain Keras and against the least possible.

    python tests/benchmarks/epochs.py

Plain Keras is the same network and head end to end, as a functional model on the same images. The
limit is the trainable part alone, in plain Keras, on arrays of activations in RAM; what plain Keras
takes against that is what the cut allows on this machine. All three train in turn in one run, and
each figure is the median of the ratios of such rounds. The last lines compare a whole job, the
computing of activations counted, and the computing itself with `model.predict` at its best batch
size. Weights are random: they make no difference to time.
"""

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import BlockUnfreezer, FeatureCache, FrozenBackbone, TransferModel
from keras_transfer.features import runners

CASES = (  # the last number: of the images, how many; VGG16 takes long
    ("efficientnet_lite0", 224, (), 1),
    ("efficientnet_lite0", 224, ("block7", "top"), 1),
    ("efficientnet_lite0", 224, ("block6", "block7", "top"), 1),
    ("vgg16", 150, (), 1 / 4),
    ("vgg16", 150, ("block5",), 1 / 4),
)
BATCH = 32
PREDICT = "model.predict"
GFLOP = 0.81  # of EfficientNet-Lite0 at 224, an image: twice its 0.407 G multiply-adds


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Starts the clock."""
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stops it."""
        self.seconds.append(time.perf_counter() - self.began)


class InferenceMode(keras.layers.Layer):
    """Runs a model with fixed statistics; a functional model would forget `training=False`."""

    def __init__(self, model: keras.Model, trainable: bool) -> None:
        super().__init__()
        model.trainable = trainable
        self.model = model

    def call(self, inputs: Any) -> Any:
        """Runs it."""
        return self.model(inputs, training=False)


def head() -> list[keras.Layer]:
    """The layers of TransferModel's head."""
    return [
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1, activation="sigmoid"),
    ]


def compiled(inputs: Any, features: Any) -> keras.Model:
    """A plain Keras model of features and a head."""
    for layer in head():
        features = layer(features)
    model = keras.Model(inputs, features)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def network(name: str) -> FrozenBackbone:
    """The backbone, with random weights."""
    return FrozenBackbone(name, weights=None)


def plain(name: str, size: int, trainable: tuple[str, ...]) -> keras.Model:
    """The whole in plain Keras: preprocessing, blocks in inference mode, pooling, head."""
    backbone = network(name)
    x = inputs = keras.Input((size, size, 3), dtype="uint8")
    x = backbone.preprocessing(x)
    for block in backbone.blocks:
        x = InferenceMode(backbone.block(block.name), block.name in trainable)(x)
    return compiled(inputs, keras.layers.GlobalAveragePooling2D()(x))


def limit(name: str, trainable: tuple[str, ...], shape: tuple[int, ...]) -> keras.Model:
    """The trainable part in plain Keras."""
    backbone = network(name)
    x = inputs = keras.Input(shape)
    for block in trainable:
        x = InferenceMode(backbone.block(block), True)(x)
    return compiled(inputs, keras.layers.GlobalAveragePooling2D()(x) if trainable else x)


def timed(fit: Callable[..., Any], epochs: int) -> float:
    """Returns the median seconds of an epoch but for the first, which traces and fills queues."""
    clock = Clock()
    fit(epochs=epochs + 1, verbose=0, callbacks=[clock])
    return statistics.median(clock.seconds[1:])


def of_case(
    name: str, size: int, trainable: tuple[str, ...], images: int, rounds: int
) -> tuple[float, ...]:
    """Returns the ratios plain to ours, plain to the limit, and ours to the limit."""
    pixels, labels = pictures(images, size)
    data = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(BATCH)
    backbone = network(name)
    if trainable:
        backbone.unfreeze(list(trainable))
    cache = FeatureCache(verbose=False)
    kept = TransferModel(backbone, 2, feature_cache=cache)
    kept.compile()
    activations = cache.array(backbone, pixels, after=backbone.cut_point)
    least = limit(name, trainable, activations.shape[1:])
    whole = plain(name, size, trainable)
    whole.fit(data.take(1), verbose=0, shuffle=False)
    kept.fit(data, verbose=0)
    ratios = []
    for _ in range(rounds):
        seconds = timed(functools.partial(whole.fit, data, shuffle=False), 1)
        ours = timed(functools.partial(kept.fit, data), 10)
        array = timed(functools.partial(least.fit, activations, labels, batch_size=BATCH), 10)
        ratios.append((seconds / ours, seconds / array, ours / array))
    return tuple(statistics.median(column) for column in zip(*ratios, strict=True))


def whole_job(images: int) -> float:
    """Returns how many times longer 10 frozen and 10 fine-tuned epochs take in plain Keras."""
    name, size, top = "efficientnet_lite0", 224, ("block7", "top")
    data = tf.data.Dataset.from_tensor_slices(pictures(images, size)).batch(BATCH)
    began = time.perf_counter()
    model = plain(name, size, ())
    model.fit(data, epochs=10, verbose=0, shuffle=False)
    for layer in model.layers:
        if isinstance(layer, InferenceMode):
            layer.model.trainable = layer.model.name in top
    model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy", metrics=["accuracy"])
    model.fit(data, epochs=10, verbose=0, shuffle=False)
    seconds, began = time.perf_counter() - began, time.perf_counter()
    ours = TransferModel(network(name), 2)
    ours.compile()
    unfreeze = BlockUnfreezer({10: list(top)}, learning_rate=1e-4)
    ours.fit(data, epochs=20, verbose=0, callbacks=[unfreeze])
    return seconds / (time.perf_counter() - began)


def extractions(images: int, rounds: int) -> dict[str, list[float]]:
    """Returns images a second of the frozen part: `model.predict` at its best, and each way."""
    pixels, _ = pictures(images, 224)
    backbone = network("efficientnet_lite0")
    inputs = keras.Input((224, 224, 3), dtype="uint8")
    model = keras.Model(inputs, backbone(inputs))
    ways: dict[str, Any] = {"Keras": runners.by_keras(backbone, "pooling")}
    if importlib.util.find_spec("openvino"):
        ways["OpenVINO"] = runners.by_openvino(backbone, "pooling", pixels[:BATCH])
    sizes = (8, 16, 32)
    for size in sizes:
        model.predict(pixels[:64], batch_size=size, verbose=0)
    for run in ways.values():
        run(pixels[:BATCH])
    rates: dict[str, list[float]] = {way: [] for way in (PREDICT, *ways)}
    for _ in range(rounds):
        best = min(seconds(model.predict, pixels, batch_size=size, verbose=0) for size in sizes)
        rates[PREDICT].append(images / best)
        for way, run in ways.items():
            took = seconds(
                lambda run=run: [run(pixels[i : i + BATCH]) for i in range(0, images, BATCH)]
            )
            rates[way].append(images / took)
    return rates


def matrix_product() -> float:
    """Returns the GFLOPS of a large matrix product: what this machine can do at most."""
    size = 2048
    matrix = np.ones((size, size), "float32")
    best = min(seconds(np.matmul, matrix, matrix) for _ in range(10))
    return 2 * size**3 / best / 1e9


def seconds(function: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """Returns how long a call takes."""
    began = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - began


def pictures(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype="uint8")
    return pixels, np.arange(count) % 2


def main() -> None:
    """Prints a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--job-images", type=int, default=1024, help="of the whole job")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| case | plain Keras / kept | plain Keras / limit | kept / limit |")
    print("|---|---|---|---|")
    for name, size, trainable, share in CASES:
        images = int(args.images * share)
        faster, allowed, against = of_case(name, size, trainable, images, args.rounds)
        what = f"{', '.join(trainable)} trainable" if trainable else "all frozen"
        row = f"{name}, {size} px, {what} | {faster:.3g} | {allowed:.3g} | {against:.2f}"
        print(f"| {row} |", flush=True)
    faster = whole_job(args.job_images)
    print(f"| 10 frozen epochs and 10 with block7 and top | {faster:.1f} | | |", flush=True)
    rates = extractions(args.images, args.rounds)
    for way, rate in rates.items():
        faster = statistics.median(r / p for r, p in zip(rate, rates[PREDICT], strict=True))
        what = f"computing activations by {way}, {statistics.median(rate):.0f} images/s"
        print(f"| {what} | {faster:.2f} | | |", flush=True)
    product = matrix_product()
    print(f"A matrix product: {product:.0f} GFLOPS, or {product / GFLOP:.0f} images/s of Lite0.")


if __name__ == "__main__":
    main()
