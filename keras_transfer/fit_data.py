"""The data of a fit, in whichever form Keras takes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.row_order import fresh_copy

SOME = 32  # images that are looked at


@dataclass(frozen=True)
class Part:
    """Training or validation data, in one of the forms that Keras takes.

    Attributes:
        x: A dataset of batches, a `keras.utils.PyDataset`, or an array of images.
        y: Labels of an array, `(n,)` or `(n, 1)` or one-hot.
        sample_weight: Weights of an array, `(n,)`.
        augmentation: What happens to the images before the backbone, if anything.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    augmentation: keras.Layer | None = None

    @property
    def is_array(self) -> bool:
        """Whether rows can be told by their place."""
        return isinstance(self.x, np.ndarray | tf.Tensor)

    @property
    def is_dataset(self) -> bool:
        """Whether batches come from a tf.data pipeline."""
        return isinstance(self.x, tf.data.Dataset)

    @property
    def is_py_dataset(self) -> bool:
        """Whether batches come from a `keras.utils.PyDataset`."""
        return isinstance(self.x, keras.utils.PyDataset)

    @property
    def is_kept(self) -> bool:
        """Whether there are activations in the place of images already."""
        return isinstance(first_of(getattr(self.x, "element_spec", self.x)), Mapping)

    def batches(self, batch_size: int) -> int | None:
        """Returns the number of batches, `None` if it is not known."""
        if self.is_array:
            return math.ceil(len(self.x) / batch_size)
        try:
            return len(self.x)
        except TypeError:  # an infinite or unknown number, or data without a length
            return None

    def batch_shape(self) -> Any:
        """Returns the shape of a batch of inputs, `None` if only reading it would tell."""
        spec = getattr(self.x, "element_spec", None)
        if spec is not None:
            if any(one.shape.rank is None for one in tf.nest.flatten(first_of(spec))):
                return None
            return tf.nest.map_structure(lambda s: tuple(s.shape), first_of(spec))
        if not hasattr(self.x, "__getitem__"):
            return None
        batch = self.x if self.is_array or self.is_kept else first_of(self.x[0])
        return tf.nest.map_structure(lambda a: (None, *np.shape(a)[1:]), batch)

    def label_shape(self) -> tuple[int | None, ...] | None:
        """Returns the shape of a batch of labels, `None` if it is not known or not one tensor's."""
        labels = self.y
        if self.is_dataset:
            spec = self.x.element_spec
            labels = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
        shape = getattr(labels, "shape", None)
        if shape is None or tf.TensorShape(shape).rank in (None, 0):
            return None
        return (None, *tf.TensorShape(shape)[1:])

    def some_images(self) -> Any:
        """Returns a few images to look at, `None` where that is not possible or not needed.

        A dataset is copied for that, since to begin it would take one iteration of its shuffle.
        """
        if self.is_array:
            return self.x[:: max(1, len(self.x) // SOME)][:SOME]
        if self.is_kept:
            return None
        if self.is_py_dataset:
            images = first_of(self.x[0])
            return images if hasattr(images, "shape") else None
        if not self.is_dataset or not isinstance(
            spec := first_of(self.x.element_spec), tf.TensorSpec
        ):
            return None
        if hasattr(self.x, "identity"):  # from `image_folder`: raw, without a look
            return np.full([1, *(side or 1 for side in spec.shape[1:])], 255, "uint8")
        return next((first_of(batch) for batch in fresh_copy(self.x).take(1)), None)

    def as_tuple(self) -> Any:
        """Returns what `validation_data` takes."""
        if self.y is None:
            return self.x
        return tuple(part for part in (self.x, self.y, self.sample_weight) if part is not None)


def split(
    x: Any, y: Any, sample_weight: Any, validation_split: float, validation_data: Any
) -> tuple[Part, Part]:
    """Returns training and validation data, as `keras.Model.fit` splits them.

    Raises:
        ValueError: If a split is asked of data that is no array.
    """
    train = Part(x, y, sample_weight)
    if validation_data is not None:
        return train, Part(*keras.utils.unpack_x_y_sample_weight(validation_data))
    if not validation_split:
        return train, Part(None)
    if not train.is_array:
        raise ValueError(
            f"`validation_split` needs arrays. Received: data of type {type(x).__name__}. Give "
            "`validation_data` instead."
        )
    at = math.floor(len(x) * (1 - validation_split))
    columns = (x, y, sample_weight)
    train = Part(*(None if column is None else column[:at] for column in columns))
    return train, Part(*(None if column is None else column[at:] for column in columns))


def first_of(batch: Any) -> Any:
    """Returns the inputs of a batch."""
    return batch[0] if isinstance(batch, tuple | list) else batch
