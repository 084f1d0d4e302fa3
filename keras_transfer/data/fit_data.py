"""Labels: whether they fit a list of class names."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.shuffling import fresh_copy
from keras_transfer.utils.name_lists import some


def check_labels(labels: Any, class_names: Sequence[str]) -> None:
    """Checks that labels are positions in the class names, which Keras does not.

    Args:
        labels: `(n,)` or `(n, 1)`: whole numbers from 0 on; for two classes also what lies between
            0 and 1. A `tf.TensorSpec` is checked for its type and shape.
        class_names: The classes.

    Raises:
        ValueError: If they are something else; the message says what.
    """
    _check_one_array(labels, class_names)
    shape, dtype = tf.TensorShape(labels.shape), tf.as_dtype(labels.dtype)
    if not (dtype.is_integer or dtype.is_floating or dtype.is_bool):
        positions = {name: number for number, name in enumerate(class_names[:3])}
        raise _error(
            class_names,
            f"labels of type {dtype.name}",
            f"Names become positions by such a dict: {positions}.",
        )
    if shape.rank not in (1, None):  # unknown: the values will tell
        _check_columns(shape, class_names)
    if not isinstance(labels, tf.TensorSpec):
        _check_values(np.asarray(labels, "float64"), class_names)


def check_multi_hot(labels: Any, class_names: Sequence[str]) -> None:
    """Checks that labels say for each class whether an image is of it.

    Args:
        labels: `(n, classes)`: 0, 1 or what lies between. A `tf.TensorSpec` is checked for its
            shape.
        class_names: The classes.

    Raises:
        ValueError: If they are something else; the message says what.
    """
    if tf.TensorShape(labels.shape).rank is None:  # only reading them would tell
        return
    shape = tuple(labels.shape)
    received = f"shape {shape}"
    if len(shape) == 2 and shape[1] in (len(class_names), None):
        if isinstance(labels, tf.TensorSpec):
            return
        values = np.asarray(labels, "float64")
        if ((values >= 0) & (values <= 1)).all():  # false for NaN
            return
        received = f"values from {values.min():g} to {values.max():g}"
    count = len(class_names)
    raise ValueError(
        f"Under a binary cross-entropy labels must say 0 or 1 for each of the {count} classes "
        f"{_names(class_names)}: shape (images, {count}). Received: labels of {received}. If each "
        "image is of one class, leave the loss out, and give positions in the classes."
    )


def check_class_weight(class_weight: Any, class_names: Sequence[str]) -> Mapping[int, float] | None:
    """Returns a weight for each class, 1 for classes that `class_weight` leaves out.

    Args:
        class_weight: As for `fit`: positions in the class names to weights, or `None`.
        class_names: The classes.

    Raises:
        ValueError: If it is something else.
    """
    if class_weight is None:
        return None
    try:
        given = {int(position): float(weight) for position, weight in class_weight.items()}
        fits = all(int(position) == position for position in class_weight)  # false for "0"
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        positions = some([f"{i} for {name!r}" for i, name in enumerate(class_names)], 3)
        raise ValueError(
            "`class_weight` must be a dict from positions in the classes to weights, such as "
            f"{{0: 1.0, 1: 3.0}}. Received: {class_weight!r:.200}. The positions are {positions}."
        )
    return {**dict.fromkeys(range(len(class_names)), 1.0), **given}


def _check_one_array(labels: Any, class_names: Sequence[str]) -> None:
    if isinstance(labels, Mapping):
        received = f"a dict with the keys {', '.join(map(repr, labels))}"
        next_step = f"Give the array alone, as labels[{next(iter(labels), '...')!r}]."
    elif isinstance(labels, list | tuple):
        received = f"a {type(labels).__name__}"
        next_step = "Give one array, as numpy.array(labels)."
    elif not hasattr(labels, "shape"):
        received = f"{labels!r:.80} of type {type(labels).__name__}"
        next_step = "Give an array, one label for each image."
    else:
        return
    raise _error(class_names, received, next_step)


def _check_columns(shape: Any, class_names: Sequence[str]) -> None:
    columns = shape[-1] if len(shape) else None
    if len(shape) == 2 and columns in (1, None):
        return
    next_step = "Give one number for each image."
    if len(shape) == 2 and columns == len(class_names):
        next_step = "One-hot labels become positions by `labels.argmax(axis=-1)`."
        if columns > 2:
            next_step += (
                " Where an image may be of several classes: compile(loss='binary_crossentropy') "
                f"and head=keras.layers.Dense({columns}, activation='sigmoid')."
            )
    raise _error(class_names, f"labels of shape {tuple(shape)}", next_step)


def _check_values(values: np.ndarray, class_names: Sequence[str]) -> None:
    if not values.size:
        raise _error(class_names, "no labels", "Give at least one image.")
    low, high = float(values.min()), float(values.max())
    whole = len(class_names) == 2 or bool(np.all(values == np.round(values)))
    if not (low >= 0 and high <= len(class_names) - 1 and whole):  # also false for NaN
        raise _error(
            class_names,
            f"values from {low:g} to {high:g}{'' if whole else ', not all whole'}",
            "Number the classes from 0, as `image_folder` does.",
        )


def _error(class_names: Sequence[str], received: str, next_step: str) -> ValueError:
    return ValueError(
        f"Labels must be positions in the classes {_names(class_names)}: 0 to "
        f"{len(class_names) - 1}. Received: {received}. {next_step}"
    )


def _names(class_names: Sequence[str]) -> str:
    return some([*map(repr, class_names)], 3)


def check_class_names(names: Iterable[str]) -> None:
    """Checks that class names can be lines of a UTF-8 file.

    Raises:
        ValueError: If one is empty, has a line break, or is no text.
    """
    for name in names:
        if not name or name.splitlines() != [name]:
            raise ValueError(
                f"The class name {name!r} is empty or has a line break, which labels.txt cannot "
                "hold. Set `model.class_names` to other names, or rename the folder."
            )
        try:
            name.encode()
        except UnicodeEncodeError:  # of a folder whose name is bytes of another encoding
            raise ValueError(
                f"The class name {name!a} is not UTF-8, so no export could hold it. Rename the "
                "folder, or set `model.class_names` to other names."
            ) from None


_SOME = 32  # images that are looked at


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
            if _is_of_unknown_rank(first_of(spec)):
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

        Raises:
            ValueError: If a dataset tells no shapes, without which Keras cannot train.
        """
        if self.is_array:
            return self.x[:: max(1, len(self.x) // _SOME)][:_SOME]
        if self.is_kept:
            return None
        if self.is_py_dataset:
            images = first_of(self.x[0])
            return images if hasattr(images, "shape") else None
        if not self.is_dataset:
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
    x, y, sample_weight = map(single, (x, y, sample_weight))
    train = Part(x, y, sample_weight)
    if validation_data is not None:
        parts = keras.utils.unpack_x_y_sample_weight(validation_data)
        return train, Part(*map(single, parts))
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


def single(arrays: Any) -> Any:
    """Unwraps a list of one array, which Keras takes for the one input or output."""
    is_list = isinstance(arrays, list | tuple) and len(arrays) == 1
    return arrays[0] if is_list and hasattr(arrays[0], "shape") else arrays


def _is_of_unknown_rank(spec: Any) -> bool:
    tensors = (one for one in tf.nest.flatten(spec) if isinstance(one, tf.TensorSpec))
    return any(one.shape.rank is None for one in tensors)


def first_of(batch: Any) -> Any:
    """Returns the inputs of a batch."""
    return batch[0] if isinstance(batch, tuple | list) else batch
