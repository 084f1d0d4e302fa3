"""Data to train on in the place of images: batches of kept rows, each from one of its views."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

from keras_transfer.kept_rows import Rows, gather_apart
from keras_transfer.row_order import prefetched


def batches(views: Sequence[Rows], after: str, indices: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches of kept rows, each row from one of its views.

    Args:
        views: The rows of each view; more than one are drawn among, anew in each epoch.
        after: The block that the activations come from.
        indices: Batches of row numbers; or tuples that begin with them, whose rest takes the place
            of the labels that are kept.
    """

    def batch(given: Any, seed: tf.Tensor | None = None) -> tuple[Any, ...]:
        index, *rest = given if isinstance(given, tuple) else (given,)
        activations = views[0].gather(index) if seed is None else _drawn(views, index, seed)
        return {f"after:{after}": activations}, *(rest or views[0].gather_rest(index))

    if len(views) > 1:
        seed = random.randrange(2**31)  # Keras' set_random_seed reaches this generator too
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        return prefetched(tf.data.Dataset.zip(indices, seeds).map(batch))
    return prefetched(indices.map(lambda *given: batch(given)))


def _drawn(views: Sequence[Rows], index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Each row from the view that is drawn for it; only that is read."""
    drawn = tf.random.stateless_uniform(
        tf.shape(index), [seed, 0], maxval=len(views), dtype=tf.int32
    )
    return gather_apart(index, drawn, [rows.gather for rows in views])


def array_indices(
    rows: int,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    class_weight: Mapping[int, float] | None = None,
) -> tf.data.Dataset:
    """Returns row numbers and labels in the batches and the order that Keras makes of arrays.

    There is no public way to ask for that order. `ArrayDataAdapter` is where `fit` has it from, and
    a test compares the two.

    Args:
        rows: How many rows there are.
        y: Labels, an array.
        sample_weight: Weights, an array, or `None`.
        batch_size: As for `fit`.
        steps: Batches in an epoch, as for `fit`.
        shuffle: As for `fit`.
        class_weight: As for `fit`; becomes sample weights, as `fit` does with arrays.
    """
    adapter = ArrayDataAdapter(
        np.arange(rows),
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=shuffle,
        class_weight=class_weight,
    )
    return adapter.get_tf_dataset().apply(
        tf.data.experimental.assert_cardinality(adapter.num_batches)
    )


class KeptBatches(keras.utils.PyDataset):
    """The batches of a `PyDataset` with activations in place of images.

    Args:
        views: The rows of each view; more than one are drawn among, anew each time.
        after: The block that the activations come from.
    """

    def __init__(self, views: Sequence[Rows], after: str) -> None:
        super().__init__()
        self._views, self._key = views, f"after:{after}"
        self._ends = np.cumsum(views[0].sizes).tolist()
        # Keras draws the order of batches from the generator that this seed would be drawn from.
        seed = random.randrange(2**31) if len(views) > 1 else 0
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        stop = self._ends[index]
        start = stop - self._views[0].sizes[index]
        drawn = self._random.integers(0, len(self._views), stop - start)
        activations = self._views[0].read(start, stop)
        for view in set(drawn.tolist()) - {0}:
            of_view = drawn == view
            activations[of_view] = self._views[view].read(start, stop)[of_view]
        return {self._key: activations}, *(column[start:stop] for column in self._views[0].rest)
