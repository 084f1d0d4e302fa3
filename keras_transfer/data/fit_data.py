"""FitData: the training or validation data of a `fit`, in one of the forms that Keras takes."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.utils.keras_internals import dataset_stages

_SOME = 32  # images that are looked at


@dataclass(frozen=True)
class FitData:
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
        """Whether the images are an array."""
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
    def is_cached(self) -> bool:
        """Whether it holds activations in place of images."""
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
            if _is_of_unknown_rank(first_of(spec)):
                return None
            return tf.nest.map_structure(lambda s: tuple(s.shape), first_of(spec))
        if not hasattr(self.x, "__getitem__"):
            return None
        batch = self.x if self.is_array or self.is_cached else first_of(self.x[0])
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

        Of a dataset that is shuffled by tf.data that takes an iteration, and so an order.

        Raises:
            ValueError: If a dataset tells no shapes, without which Keras cannot train.
        """
        if self.is_array:
            return self.x[:: max(1, len(self.x) // _SOME)][:_SOME]
        if self.is_py_dataset and not self.is_cached:
            images = first_of(self.x[0])
            return images if hasattr(images, "shape") else None
        if not self.is_dataset or self.is_cached:
            return None
        if _is_of_unknown_rank(self.x.element_spec):
            raise ValueError(
                "Expected batches of images of shape (None, height, width, 3). Received: a dataset "
                "of tensors of unknown rank, as Python code gives them. Say their shapes: "
                "dataset.map(lambda image, label: (tf.ensure_shape(image, (None, height, width, "
                "3)), tf.ensure_shape(label, (None,))))."
            )
        spec = first_of(self.x.element_spec)
        if not isinstance(spec, tf.TensorSpec):
            return None
        if hasattr(self.x, "row_order"):  # from `image_folder`: raw, without a look
            return np.full([1, *(side or 1 for side in spec.shape[1:])], 255, "uint8")
        orders = [step.row_order for step in dataset_stages(self.x) if hasattr(step, "row_order")]
        with contextlib.ExitStack() as stack:
            for order in orders:
                stack.enter_context(order.in_order())
            return next((first_of(batch) for batch in self.x.take(1)), None)

    def as_tuple(self) -> Any:
        """Returns what `validation_data` takes."""
        if self.y is None:
            return self.x
        return tuple(part for part in (self.x, self.y, self.sample_weight) if part is not None)

    @classmethod
    def split(
        cls, x: Any, y: Any, sample_weight: Any, validation_split: float, validation_data: Any
    ) -> tuple["FitData", "FitData"]:
        """Returns training and validation data, as `keras.Model.fit` splits them.

        Raises:
            ValueError: If a split is asked of data that is no array.
        """
        x, y, sample_weight = map(single, (x, y, sample_weight))
        train = cls(x, y, sample_weight)
        if validation_data is not None:
            parts = keras.utils.unpack_x_y_sample_weight(validation_data)
            return train, cls(*map(single, parts))
        if not validation_split:
            return train, cls(None)
        if not train.is_array:
            raise ValueError(
                f"`validation_split` needs arrays. Received: data of type {type(x).__name__}. Give "
                "`validation_data` instead."
            )
        at = math.floor(len(x) * (1 - validation_split))
        columns = (x, y, sample_weight)
        train = cls(*(None if column is None else column[:at] for column in columns))
        return train, cls(*(None if column is None else column[at:] for column in columns))


def single(arrays: Any) -> Any:
    """Unwraps a list of one array, which Keras takes for the one input or output."""
    is_list = isinstance(arrays, list | tuple) and len(arrays) == 1
    return arrays[0] if is_list and hasattr(arrays[0], "shape") else arrays


def _is_of_unknown_rank(spec: Any) -> bool:
    tensors = (part for part in tf.nest.flatten(spec) if isinstance(part, tf.TensorSpec))
    return any(tensor.shape.rank is None for tensor in tensors)


def first_of(batch: Any) -> Any:
    """Returns the inputs of a batch."""
    return batch[0] if isinstance(batch, tuple | list) else batch
