"""Kept rows: activations in RAM or in a file, and the labels that belong to them."""

import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

from keras_transfer.data.shuffling import prefetched
from keras_transfer.features.npy_store import FileArray

_ALIGNED = 64  # bytes; TensorFlow's kernels read so many at once


def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns an uninitialized array that TensorFlow can use without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


class ArrayInMemory:
    """Rows in RAM, where tf.data finds them without Python.

    Args:
        rows: The rows. Those of an array from `aligned` are not copied, and must not be changed.
    """

    def __init__(self, rows: np.ndarray) -> None:
        if not rows.size or rows.ctypes.data % _ALIGNED or not rows.flags.c_contiguous:
            given, rows = rows, aligned(rows.shape, rows.dtype)
            rows[...] = given
        # `tf.constant` would copy the rows twice, and they may take a quarter of the free memory.
        self.tensor = tf.experimental.dlpack.from_dlpack(rows.__dlpack__())
        self.shape, self.dtype, self.nbytes = rows.shape, rows.dtype, rows.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Any) -> np.ndarray:
        """Returns rows, by their numbers or as a slice."""
        return np.array(np.asarray(self.tensor)[rows])


def loaded(file: FileArray) -> ArrayInMemory:
    """Returns the rows of a file in RAM."""
    rows = aligned(file.shape, file.dtype)
    file.read_into(rows)
    return ArrayInMemory(rows)


class SelectedRows:
    """Rows of several arrays; nothing is copied.

    Args:
        arrays: The arrays, with rows of one shape and type.
        places: Where each row is in these, one behind the other.
    """

    def __init__(self, arrays: Sequence["Array"], places: np.ndarray) -> None:
        sizes = [len(array) for array in arrays]
        self.arrays, self.ends = tuple(arrays), np.cumsum(sizes)
        self.starts, self.places = self.ends - sizes, places
        self.shape: tuple[int, ...] = (len(places), *arrays[0].shape[1:])
        self.dtype: np.dtype = arrays[0].dtype
        self.nbytes = len(places) * int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Any) -> np.ndarray:
        """Returns rows, by their numbers or as a slice."""
        places = self.places[rows]
        taken = np.empty((len(places), *self.shape[1:]), self.dtype)
        which = np.searchsorted(self.ends, places, side="right")
        for number, array in enumerate(self.arrays):
            here = which == number
            taken[here] = array.take(places[here] - self.starts[number])
        return taken


Array = ArrayInMemory | FileArray | SelectedRows


@dataclass(frozen=True)
class Rows:
    """Activations of all images, and what comes with them.

    Attributes:
        activations: Where they are.
        dtype: What type they had when they were computed.
        rest: Labels, and weights if there are any, as the dataset has them.
        places: Where each row is in these; `None` for in order.
        sizes: Rows of each batch that they were computed from.
        first: The first images that they were computed from, where these cannot be read again.
    """

    activations: Array
    dtype: str
    rest: tuple[np.ndarray, ...] = ()
    places: np.ndarray | None = None
    sizes: tuple[int, ...] = ()
    first: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.activations)

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the activations of rows, in a tf.data function."""
        if self.places is not None:
            rows = tf.gather(self.places, rows)
        return tf.cast(_gather(self.activations, rows), self.dtype)

    def gather_rest(self, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns labels and so on of rows, in a tf.data function."""
        if self.places is not None:
            rows = tf.gather(self.places, rows)
        return tuple(tf.gather(column, rows) for column in self.rest)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the activations of some rows as they lie."""
        return self.activations.take(slice(start, stop)).astype(self.dtype, copy=False)

    def chunks(self, start: int, stop: int | None, size: int) -> Iterator[np.ndarray]:
        """Gives the activations from a row on to another, `None` for the last, as they lie."""
        last = len(self) if stop is None else min(stop, len(self))
        for row in range(start, last, size):
            yield self.read(row, min(row + size, last))


def selected(parts: Sequence[Rows], places: np.ndarray) -> Rows:
    """Returns rows of several others.

    Args:
        parts: The others, each in order.
        places: Where each row is in these, one behind the other.
    """
    array = SelectedRows([part.activations for part in parts], places)
    columns = zip(*(part.rest for part in parts), strict=True)
    return Rows(array, parts[0].dtype, tuple(np.concatenate(column)[places] for column in columns))


def gather_apart(
    rows: tf.Tensor, which: tf.Tensor, sources: Sequence[Callable[[tf.Tensor], tf.Tensor]]
) -> tf.Tensor:
    """Returns each row from one of several sources, in a tf.data function; only that is read.

    Args:
        rows: Row numbers `(n,)`.
        which: From which source each is, `(n,)` int32.
        sources: Each gives the rows of some numbers.
    """
    places = tf.dynamic_partition(tf.range(tf.size(rows)), which, len(sources))
    taken = [source(tf.gather(rows, place)) for source, place in zip(sources, places, strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(places, taken), (None, *taken[0].shape[1:]))


def _gather(array: Array, rows: tf.Tensor) -> tf.Tensor:
    if isinstance(array, ArrayInMemory):
        return tf.gather(array.tensor, rows)
    if isinstance(array, FileArray):
        taken = tf.numpy_function(array.take, [rows], array.dtype, stateful=False)
        return tf.ensure_shape(taken, (None, *array.shape[1:]))
    places = tf.gather(array.places, rows)
    which = tf.searchsorted(array.ends, places, side="right")
    sources = [functools.partial(_gather, part) for part in array.arrays]
    return gather_apart(places - tf.gather(array.starts, which), which, sources)


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
