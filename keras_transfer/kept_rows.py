"""Kept rows: activations in RAM or in a file, and the labels that belong to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.array_file import FileArray


class ArrayInMemory:
    """Rows in RAM, where tf.data finds them without Python.

    Args:
        rows: The rows; copied.
    """

    def __init__(self, rows: np.ndarray) -> None:
        with tf.device("CPU"):
            self.tensor = tf.constant(rows)
        self.shape, self.dtype, self.nbytes = rows.shape, rows.dtype, rows.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Any) -> np.ndarray:
        """Returns rows, by their numbers or as a slice."""
        return np.array(np.asarray(self.tensor)[rows])


@dataclass(frozen=True)
class Rows:
    """Activations of all images, and what comes with them.

    Attributes:
        activations: Where they are.
        dtype: What type they had when they were computed.
        rest: Labels, and weights if there are any, as the dataset has them.
        places: Where each row is in these; `None` for in order.
        sizes: Rows of each batch that they were computed from.
    """

    activations: ArrayInMemory | FileArray
    dtype: str
    rest: tuple[np.ndarray, ...] = ()
    places: np.ndarray | None = None
    sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.activations)

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the activations of rows, in a tf.data function."""
        if self.places is not None:
            rows = tf.gather(self.places, rows)
        if isinstance(self.activations, ArrayInMemory):
            taken = tf.gather(self.activations.tensor, rows)
        else:
            taken = tf.numpy_function(
                self.activations.take, [rows], self.activations.dtype, stateful=False
            )
            taken = tf.ensure_shape(taken, (None, *self.activations.shape[1:]))
        return tf.cast(taken, self.dtype)

    def gather_rest(self, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns labels and so on of rows, in a tf.data function."""
        if self.places is not None:
            rows = tf.gather(self.places, rows)
        return tuple(tf.gather(column, rows) for column in self.rest)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the activations of some rows as they lie."""
        return self.activations.take(slice(start, stop)).astype(self.dtype, copy=False)

    def chunks(self, start: int, size: int) -> Iterator[np.ndarray]:
        """Gives all activations from a row on, as they lie."""
        for row in range(start, len(self), size):
            yield self.read(row, row + size)
