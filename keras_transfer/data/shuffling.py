"""In what order a dataset gives its rows, and how activations are given in the same order."""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import tensorflow as tf


def prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes the next two batches while the model is busy.

    Without tf.data's autotuning, which has nothing to tune here: under it, on two cores, two epochs
    in five took twice as long, with both cores idle half of the time (TensorFlow 2.21). And without
    its rewriting of graphs, for which it copies each tensor that a function holds: all activations
    that are kept in RAM.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.prefetch(2).with_options(options)


class RowOrder:
    """The order of the rows in each epoch: a permutation that depends on seed and epoch alone.

    A dataset of images and a dataset of their activations share it: whichever of the two is read
    next has the order of the next epoch.

    Args:
        rows: Number of rows.
        seed: 0 or larger; `None` for rising row numbers in all epochs.

    Attributes:
        epoch: The epoch whose order comes next, from 0.
    """

    def __init__(self, rows: int, seed: int | None) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0
        self._lock = threading.Lock()  # tf.data calls `_next` from threads of its own
        self._in_order = False

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Returns the row numbers, int64, in the order of an epoch."""
        if self.seed is None:
            return np.arange(self.rows)
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns batches of row numbers; each pass through them takes the order that comes next.

        The last batch may be smaller.
        """

        def epoch(_: tf.Tensor) -> tf.data.Dataset:
            rows = tf.numpy_function(self._next, [], tf.int64)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(rows, (self.rows,)))

        rows = tf.data.Dataset.range(1).flat_map(epoch)
        return rows.apply(tf.data.experimental.assert_cardinality(self.rows)).batch(batch_size)

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Makes passes within a block read rows in rising order, without using up an epoch."""
        self._in_order = True
        try:
            yield
        finally:
            self._in_order = False

    def _next(self) -> np.ndarray:
        with self._lock:
            if self._in_order:
                return np.arange(self.rows)
            self.epoch += 1
            return self.of_epoch(self.epoch - 1)


def shuffled_rows(
    rows: int, *, buffer_size: int, seeds: tuple[int, int], reshuffle: bool
) -> tf.data.Dataset:
    """Returns row numbers in the order in which a `Dataset.shuffle` would give the rows.

    Args:
        rows: Number of rows.
        buffer_size: As for `Dataset.shuffle`.
        seeds: TensorFlow's two seeds of the shuffle; two zeros for another order each time.
        reshuffle: Whether each pass has another order.
    """
    indices = tf.data.Dataset.range(rows)
    # `Dataset.shuffle` would mix in the global seed of now; that of then is in `seeds`.
    variant = tf.raw_ops.ShuffleDatasetV3(
        input_dataset=tf.data.experimental.to_variant(indices),
        buffer_size=buffer_size,
        seed=seeds[0],
        seed2=seeds[1],
        seed_generator=tf.raw_ops.DummySeedGenerator(),
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
        reshuffle_each_iteration=reshuffle,
    )
    shuffled = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.int64))
    return shuffled.apply(tf.data.experimental.assert_cardinality(rows))


# Row numbers of users' datasets, whose order continues from fit to fit: by dataset and use.
_ORDERS: weakref.WeakKeyDictionary[Any, dict[str, tf.data.Dataset]] = weakref.WeakKeyDictionary()


def lasting_order(
    dataset: Any, use: Literal["read", "train"], make: Callable[[], tf.data.Dataset]
) -> tf.data.Dataset:
    """Returns the row numbers that belong to a dataset, made once.

    Args:
        dataset: The dataset.
        use: Whether they tell in which order the dataset itself is read, or its activations.
        make: Makes the row numbers.
    """
    orders = _ORDERS.setdefault(dataset, {})
    if use not in orders:
        orders[use] = make()
    return orders[use]


def begin_again(dataset: Any) -> None:
    """Makes the next fit on activations of a dataset see the order of the first one.

    Otherwise it continues where the last one ended, as fits on the dataset itself do.
    """
    if hasattr(dataset, "row_order"):  # from `image_folder`
        dataset.row_order.epoch = 0
    _ORDERS.get(dataset, {}).pop("train", None)
