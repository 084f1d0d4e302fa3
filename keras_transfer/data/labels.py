"""Checks of labels, class weights and class names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

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
        f"{some([*map(repr, class_names)], 3)}: shape (images, {count}). Received: labels of "
        f"{received}. If each image is of one class, leave the loss out, and give positions in the "
        "classes."
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
        classes = range(len(class_names))
        fits = all(position in classes for position in class_weight)  # false for "0"
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
    elif not hasattr(labels, "shape"):
        received = f"a {type(labels).__name__}"
        next_step = "Give one array with a label for each image, as numpy.array(labels)."
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
        f"Labels must be positions in the classes {some([*map(repr, class_names)], 3)}: 0 to "
        f"{len(class_names) - 1}. Received: {received}. {next_step}"
    )


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
