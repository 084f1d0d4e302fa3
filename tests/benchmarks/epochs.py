"""How much longer an epoch takes end to end than on kept activations.

    python tests/benchmarks/epochs.py

Both models see the same images in one run; the ratio is the median over pairs of epochs. The one
pass that computes the activations is not in the ratio but in the last column, in plain epochs.
"""

import argparse
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import FeatureCache, FrozenBackbone, TransferModel

CASES = (
    ("efficientnet_lite0", 224, 0),
    ("efficientnet_lite0", 224, 2),
    ("vgg16", 150, 0),
    ("vgg16", 150, 1),
)


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


def seconds(
    name: str, top: int, data: tf.data.Dataset, epochs: int, cache: FeatureCache | None
) -> tuple[list[float], float]:
    """Returns seconds of each epoch but the first, which traces, and of the whole fit."""
    backbone = FrozenBackbone(name, weights=None)
    if top:
        backbone.unfreeze(top)
    model = TransferModel(backbone, 2, feature_cache=cache)
    model.compile()
    clock, began = Clock(), time.perf_counter()
    model.fit(data, epochs=epochs + 1, verbose=0, callbacks=[clock])
    return clock.seconds[1:], time.perf_counter() - began


def main() -> None:
    """Prints a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    print("| backbone, pixels, trainable | plain epoch / kept epoch | one pass, in plain epochs |")
    print("|---|---|---|")
    for name, size, top in CASES:
        pixels = np.random.default_rng(0).integers(0, 256, (args.images, size, size, 3))
        rows = (pixels.astype("uint8"), np.arange(args.images) % 2)
        data = tf.data.Dataset.from_tensor_slices(rows).batch(32)
        plain, _ = seconds(name, top, data, args.epochs, None)
        kept, whole = seconds(name, top, data, 5 * args.epochs, FeatureCache(verbose=False))
        ratio = statistics.median(plain) / statistics.median(kept)
        once = (whole - sum(kept)) / statistics.median(plain)
        trainable = f"top {top} blocks" if top else "head"
        print(f"| {name}, {size}, {trainable} | {ratio:.0f} | {once:.1f} |", flush=True)


if __name__ == "__main__":
    main()
