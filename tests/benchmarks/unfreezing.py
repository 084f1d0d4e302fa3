"""The same fine-tuning three ways, on the demo data, over five seeds.

    python tests/benchmarks/unfreezing.py

1. Two fits, as Keras' guide to transfer learning writes them: a new optimizer for the second.
2. One fit: flags and a new trace at the transition, over one Adam built on all weights.
3. One fit with a BlockUnfreezer.

All train a head on EfficientNet-Lite0, then its top block too, at the same rates on the same
batches. Told are the accuracy on the test cells, the training loss over the last 20 steps before
the transition and the 20 after it, the largest change of a weight of the top block in one of its
first 20 steps in learning rates, and whether statistics of BatchNormalization moved.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import BlockUnfreezer, FrozenBackbone, image_folder
from keras_transfer.search.demo_data import elpv_folder

RATE, FINE_RATE = 1e-3, 1e-4
AROUND = 20


@dataclass(frozen=True)
class Run:
    """What one training gave."""

    accuracy: float
    before: float
    after: float
    farthest_step: float
    moved: bool


class Steps(keras.callbacks.Callback):
    """Loss of each step, and how far the first steps of a block go."""

    def __init__(self, block: keras.Model) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.block = block
        self.seen = 0  # steps in which the block trained
        self.farthest = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Takes the mean of each epoch apart again from here."""
        self.total = 0.0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Notes where the block is."""
        self.weights = [w.numpy() for w in self.block.trainable_weights]

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the loss of the step, and how far the block went."""
        total = logs["loss"] * (batch + 1)  # Keras logs the mean of the epoch so far
        self.losses.append(total - self.total)
        self.total = total
        now = [w.numpy() for w in self.block.trainable_weights]
        if self.weights and self.seen < AROUND:
            self.seen += 1
            moves = [np.abs(a - b).max() for a, b in zip(self.weights, now, strict=True)]
            self.farthest = max(self.farthest, float(max(moves)))


def backbone() -> FrozenBackbone:
    """The embedded backbone."""
    return FrozenBackbone("efficientnet_lite0")


def head(features: keras.KerasTensor) -> keras.KerasTensor:
    """The head of all three ways."""
    x = keras.layers.Dense(128, activation="relu")(features)
    return keras.layers.Dense(1, activation="sigmoid")(x)


def by_guide(size: int) -> tuple[keras.Model, keras.Model, keras.Model]:
    """A model as Keras' guide builds it, its base, and the top block in it."""
    ours = backbone()
    inputs = keras.Input((size, size, 3))
    images = keras.Input((size, size, 3))
    x = ours.preprocessing(images)
    for block in ours.blocks:
        x = ours.block(block.name)(x)
    base = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, head(base(inputs, training=False)))
    return model, base, ours.block("top")


def only(base: keras.Model, top: keras.Model) -> None:
    """Makes the top block trainable, and nothing else of its base."""
    base.trainable = True
    for layer in base._flatten_layers(include_self=False):
        layer.trainable = layer in list(top._flatten_layers())


def compiled(model: keras.Model, rate: float) -> None:
    """Compiles as all three ways do."""
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])


def two_fits(data, size: int, epochs: tuple[int, int]) -> tuple[keras.Model, Steps, keras.Model]:
    """Way 1."""
    model, base, top = by_guide(size)
    base.trainable = False
    compiled(model, RATE)
    steps = Steps(top)
    model.fit(data.train, epochs=epochs[0], verbose=0, callbacks=[steps])
    only(base, top)
    compiled(model, FINE_RATE)
    model.fit(data.train, epochs=epochs[1], verbose=0, callbacks=[steps])
    return model, steps, base


class Flags(keras.callbacks.Callback):
    """Way 2's transition."""

    def __init__(self, top: keras.Model, epoch: int) -> None:
        super().__init__()
        self.top, self.epoch = top, epoch

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Sets the flags, and has the step traced again."""
        if epoch == self.epoch:
            self.top.trainable = True
            self.model.optimizer.learning_rate = FINE_RATE
            self.model.make_train_function(force=True)
            self.model._compiled_trainable_state = {
                layer: layer.trainable for layer in self.model._flatten_layers()
            }


class OnAll(keras.optimizers.Adam):
    """An Adam built on all weights, that steps those which are trainable now."""

    def apply(self, grads, trainable_variables=None):
        given = {id(v): g for g, v in zip(grads, trainable_variables, strict=True)}
        super().apply([given.get(id(v)) for v in self._trainable_variables])


def one_optimizer(
    data, size: int, epochs: tuple[int, int]
) -> tuple[keras.Model, Steps, keras.Model]:
    """Way 2."""
    model, base, top = by_guide(size)
    only(base, top)
    optimizer = OnAll(RATE)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    top.trainable = False
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    steps = Steps(top)
    callbacks = [Flags(top, epochs[0]), steps]
    model.fit(data.train, epochs=sum(epochs), verbose=0, callbacks=callbacks)
    return model, steps, base


def ours(data, size: int, epochs: tuple[int, int]) -> tuple[keras.Model, Steps, keras.Model]:
    """Way 3."""
    base = backbone()
    inputs = keras.Input((size, size, 3))
    model = keras.Model(inputs, head(base(inputs)))
    compiled(model, RATE)
    steps = Steps(base.block("top"))
    unfreezer = BlockUnfreezer({epochs[0]: "top"}, learning_rate=FINE_RATE)
    model.fit(data.train, epochs=sum(epochs), verbose=0, callbacks=[unfreezer, steps])
    return model, steps, base


WAYS: dict[str, Callable] = {
    "two fits (Keras' guide)": two_fits,
    "one fit, one optimizer on all": one_optimizer,
    "BlockUnfreezer": ours,
}


def run(way: Callable, folder: Path, size: int, epochs: tuple[int, int], seed: int) -> Run:
    """Trains one way."""
    keras.utils.set_random_seed(seed)
    data = image_folder(folder, image_size=size, batch_size=16, seed=seed, verbose=0)
    before = {w.path: w.numpy() for w in backbone().weights if "moving" in w.path}
    keras.utils.set_random_seed(seed)
    model, steps, base = way(data, size, epochs)
    after = [w.numpy() for w in base.weights if "moving" in w.path]
    moved = not all(any(np.array_equal(a, b) for b in before.values()) for a in after)
    at = epochs[0] * len(data.train)
    accuracy = model.evaluate(data.test, verbose=0, return_dict=True)["accuracy"]
    return Run(
        accuracy,
        statistics.mean(steps.losses[at - AROUND : at]),
        statistics.mean(steps.losses[at : at + AROUND]),
        steps.farthest / FINE_RATE,
        moved,
    )


def main() -> None:
    """Prints a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, nargs=2, default=(5, 2), metavar=("HEAD", "FINE"))
    args = parser.parse_args()
    tf.get_logger().setLevel("ERROR")
    warnings.simplefilter("ignore")  # of the gradients that way 2 leaves out
    folder = elpv_folder()
    print(
        "| way | test accuracy | loss in 20 steps before, after | farthest of first 20 steps, in "
        "learning rates | statistics moved |\n|---|---|---|---|---|"
    )
    for name, way in WAYS.items():
        runs = [run(way, folder, args.image_size, args.epochs, seed) for seed in range(args.seeds)]
        accuracy = [r.accuracy for r in runs]
        spread = statistics.stdev(accuracy) if len(runs) > 1 else 0
        print(
            f"| {name} | {statistics.mean(accuracy):.1%} ± {spread:.1%} | "
            f"{statistics.mean(r.before for r in runs):.3f}, "
            f"{statistics.mean(r.after for r in runs):.3f} | "
            f"{statistics.mean(r.farthest_step for r in runs):.1f} | "
            f"{sum(r.moved for r in runs)} of {len(runs)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
