"""Kept rows: activations in RAM or in a file, and the labels that belong to them."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.array_file import FileArray

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
