"""What a search costs on shared activations, against plain KerasTuner on the demo data.

    python tests/benchmarks/search.py

Plain KerasTuner builds a model with the frozen backbone for each trial, and runs it on all images
in each epoch. That takes hours, so a sample of it is timed: one trial of some epochs on some
images, the first of which pays for tracing. From that, the time of all trials is extrapolated.
Ours is the whole command, with everything that it does before and after the trials.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import keras_tuner
import tensorflow as tf

from keras_transfer import FrozenBackbone, image_folder

ROOT = Path(__file__).parents[2]


class Epochs(keras.callbacks.Callback):
    """Seconds of each epoch, those of validation left out and apart."""

    def __init__(self) -> None:
        super().__init__()
        self.train: list[float] = []
        self.valid: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Starts the clock."""
        self.began, self.tested = time.perf_counter(), 0.0

    def on_test_begin(self, logs: object = None) -> None:
        """Validation begins."""
        self.test_began = time.perf_counter()

    def on_test_end(self, logs: object = None) -> None:
        """Validation ends."""
        self.tested = time.perf_counter() - self.test_began

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stops the clock."""
        self.valid.append(self.tested)
        self.train.append(time.perf_counter() - self.began - self.tested)


def build(hp: keras_tuner.HyperParameters) -> keras.Model:
    """The model of a trial as people write it."""
    backbone = FrozenBackbone("efficientnet_lite0")
    inputs = keras.Input((224, 224, 3), dtype="uint8")
    x = backbone(inputs)
    x = keras.layers.Dense(hp.Int("hidden", 32, 512, step=2, sampling="log"), activation="relu")(x)
    x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.7, step=0.1))(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    model.compile(keras.optimizers.AdamW(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def plain(trials: int, epochs: int, batches: int) -> float:
    """Returns the seconds that plain KerasTuner takes, extrapolated from a sample."""
    from keras_transfer.search.demo_data import elpv_folder

    data = image_folder(elpv_folder(), verbose=0)
    counts = {split: sum(of_class.values()) for split, of_class in data.counts.items()}
    clock, size = Epochs(), 32 * batches
    began = time.perf_counter()
    hp = keras_tuner.HyperParameters()
    build(hp)
    model = build(hp)
    few: dict[str, tf.data.Dataset] = {
        split: getattr(data, split).take(batches).cache() for split in ("train", "valid")
    }
    model.fit(few["train"], validation_data=few["valid"], epochs=3, verbose=0, callbacks=[clock])
    first = time.perf_counter() - began - sum(clock.train[1:]) - sum(clock.valid[1:])
    an_epoch = (
        min(clock.train[1:]) * counts["train"] / size
        + min(clock.valid[1:]) * counts["valid"] / size
    )
    return trials * (first / 2 + epochs * an_epoch)


def ours(trials: int, epochs: int) -> float:
    """Returns the seconds that the whole command takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "tuning" / "search.py", "--output", f"{folder}/run"]
        command += ["--trials", str(trials), "--epochs", str(epochs), "--unfreeze", "0"]
        command += ["--no-early-stopping", "--flips", "none"]
        began = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> None:
    """Prints the two, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batches", type=int, default=8, help="of 32, in the sample")
    args = parser.parse_args()
    seconds = plain(args.trials, args.epochs, args.batches)
    kept = ours(args.trials, args.epochs)
    print(f"{args.trials} trials of {args.epochs} epochs, frozen backbone, demo data:")
    print(f"plain KerasTuner, extrapolated: {seconds:,.0f} s")
    print(f"python tuning/search.py, all of it: {kept:,.0f} s")
    print(f"ratio: {seconds / kept:.0f}")


if __name__ == "__main__":
    main()
