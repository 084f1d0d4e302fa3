"""Training on many kept samples against few: resident memory, and samples a second.

    python tests/benchmarks/scale.py

Synthetic activations of 1,280 float16 values, random labels. A million samples lie in a file, ten
thousand in RAM, as FeatureCache decides by itself; both train the same head. The ratio is the
median over pairs of epochs of as many steps, one after the other, in one process.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import tensorflow as tf

from keras_transfer.data.shuffling import RowOrder
from keras_transfer.features.npy_store import ArrayWriter, FileArray
from keras_transfer.features.rows import ArrayInMemory, CachedRows, batches

WIDTH = 1280
FIRST = 200


class Clock(keras.callbacks.Callback):
    """Seconds of an epoch from a step on at which all buffers are full.

    Filling that of the shuffle, a second for a million rows, comes once in 31,250 steps.
    """

    seconds = 0.0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Starts the clock."""
        if batch == FIRST:
            self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stops it."""
        self.seconds = time.perf_counter() - self.began


class PeakMemory(threading.Thread):
    """The most resident memory that was seen, sampled ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self) -> None:
        """Samples for ever."""
        while True:
            self.bytes = max(self.bytes, psutil.Process().memory_info().rss)
            time.sleep(0.1)


def activations(path: Path, count: int) -> FileArray:
    """Writes random rows to a file, as FeatureCache would."""
    writer = ArrayWriter(path, (WIDTH,), "float16")
    generator = np.random.default_rng(0)
    for _ in range(0, count, 1000):
        writer.append(generator.normal(size=(1000, WIDTH)).astype("float16"))
    writer.finish()
    return FileArray(path)


def data(array: ArrayInMemory | FileArray, steps: int) -> tf.data.Dataset:
    """Batches of 32 in random order over all rows, as many as steps."""
    count = len(array)
    rows = CachedRows(array, "float32", (np.arange(count, dtype="int32") % 2,))
    order = RowOrder(count, seed=0).batches(32)
    kept = batches([rows], "pooling", order).map(lambda x, y: (x["after:pooling"], y))
    return kept.repeat().take(steps)


def main() -> None:
    """Prints the ratio of the rates and the peak of resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    peak = PeakMemory()
    peak.start()
    model = keras.Sequential(
        [keras.layers.Dense(128, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.compile("adam", "binary_crossentropy")
    with tempfile.TemporaryDirectory() as folder:
        many = activations(Path(folder) / "many.npy", args.samples)
        few = ArrayInMemory(activations(Path(folder) / "few.npy", 10_000).take(slice(None)))
        sets = {len(array): data(array, args.steps) for array in (many, few)}
        seconds: dict[int, list[float]] = {count: [] for count in sets}
        for _ in range(args.pairs + 1):
            for count, dataset in sets.items():
                clock = Clock()
                model.fit(dataset, verbose=0, shuffle=False, callbacks=[clock])
                seconds[count].append(clock.seconds / (args.steps - FIRST))
        ratios = [b / a for a, b in zip(*(s[1:] for s in seconds.values()), strict=True)]
    rate = 32 / statistics.median(seconds[args.samples][1:])
    print(
        f"{args.samples:,} samples: {rate:,.0f} a second; rate against that of 10,000 in RAM: "
        f"{statistics.median(ratios):.2f}; peak of resident memory {peak.bytes / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
