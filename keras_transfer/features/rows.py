"""Cached rows: activations in RAM or in a file, and the labels that belong to them."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
        places: Position of each row in these, concatenated.
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
class CachedRows:
    """Activations of all images, and what comes with them.

    Attributes:
        activations: The activations, as they were computed in order.
        dtype: The type that they had when they were computed.
        rest: Labels, and weights if there are any, in the same order.
        places: Position of each row in these; `None` if they are in order.
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

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the activations of rows, in the type in which they are kept."""
        return self.activations.take(rows if self.places is None else self.places[rows])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the activations of rows, in a tf.data function."""
        if not isinstance(self.activations, ArrayInMemory):
            return in_graph(self, self.take, rows)
        if self.places is not None:
            rows = tf.gather(self.places, rows)
        return tf.cast(tf.gather(self.activations.tensor, rows), self.dtype)

    def gather_rest(self, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns labels and so on of rows, in a tf.data function."""
        if self.places is not None:
            rows = tf.gather(self.places, rows)
        return tuple(tf.gather(column, rows) for column in self.rest)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the activations of rows `start` to `stop` in storage order."""
        return self.activations.take(slice(start, stop)).astype(self.dtype, copy=False)

    def chunks(self, start: int, size: int) -> Iterator[np.ndarray]:
        """Yields the activations of all rows from `start` on in storage order."""
        for row in range(start, len(self), size):
            yield self.read(row, row + size)


def in_graph(rows: CachedRows, function: Any, *arguments: tf.Tensor) -> tf.Tensor:
    """Returns what a Python function gives of some rows, in a tf.data function."""
    array = rows.activations
    taken = tf.numpy_function(function, arguments, array.dtype, stateful=False)
    return tf.cast(tf.ensure_shape(taken, (None, *array.shape[1:])), rows.dtype)


def selected(parts: Sequence[CachedRows], places: np.ndarray) -> CachedRows:
    """Returns rows of several others.

    Args:
        parts: The others, each in order.
        places: Position of each row in these, concatenated.
    """
    array = SelectedRows([part.activations for part in parts], places)
    columns = zip(*(part.rest for part in parts), strict=True)
    rest = tuple(np.concatenate(column)[places] for column in columns)
    return CachedRows(array, parts[0].dtype, rest)


def batches(views: Sequence[CachedRows], after: str, indices: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches of cached rows, each row from one of its views.

    Args:
        views: The rows of each view; more than one are drawn among, anew in each epoch.
        after: The block that the activations come from.
        indices: Batches of row numbers; or tuples that begin with them, whose rest takes the place
            of the labels that are kept.
    """

    def drawn(rows: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return _drawn(views, rows, np.random.default_rng(int(seed)))

    def batch(given: Any, seed: tf.Tensor | None = None) -> tuple[Any, ...]:
        index, *rest = given if isinstance(given, tuple) else (given,)
        if seed is None:
            activations = views[0].gather(index)
        else:
            activations = in_graph(views[0], drawn, index, seed)
        return {f"after:{after}": activations}, *(rest or views[0].gather_rest(index))

    if len(views) > 1:
        seed = random.randrange(2**31)  # Keras' set_random_seed reaches this generator too
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        return prefetched(tf.data.Dataset.zip(indices, seeds).map(batch))
    return prefetched(indices.map(lambda *given: batch(given)))


def _drawn(
    views: Sequence[CachedRows], rows: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Returns each row from the view that is drawn for it; only that is read."""
    which = generator.integers(0, len(views), len(rows))
    taken = np.empty((len(rows), *views[0].activations.shape[1:]), views[0].activations.dtype)
    for number, view in enumerate(views):
        taken[which == number] = view.take(rows[which == number])
    return taken


class CachedBatches(keras.utils.PyDataset):
    """The batches of a `PyDataset` with activations in place of images.

    Args:
        views: The rows of each view; more than one are drawn among, anew each time.
        after: The block that the activations come from.
    """

    def __init__(self, views: Sequence[CachedRows], after: str) -> None:
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
        taken = _drawn(self._views, np.arange(start, stop), self._random)
        activations = taken.astype(self._views[0].dtype, copy=False)
        return {self._key: activations}, *(column[start:stop] for column in self._views[0].rest)
