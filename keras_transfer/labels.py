"""Labels: whether they are positions in a list of class names."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# The losses that take positions; under any other, labels are what that loss makes of them.
LOSSES = ("binary_crossentropy", "sparse_categorical_crossentropy")


def check_labels(labels: Any, class_names: Sequence[str]) -> None:
    """Checks that labels are positions in the class names, which Keras does not.

    Args:
        labels: `(n,)` or `(n, 1)`: whole numbers from 0 on; for two classes also what lies between
            0 and 1. A `tf.TensorSpec` is checked for its type and shape.
        class_names: The classes.

    Raises:
        ValueError: If they are something else; the message says what.
    """
    shape, dtype = labels.shape, tf.as_dtype(labels.dtype)
    if not (dtype.is_integer or dtype.is_floating or dtype.is_bool):
        raise _error(class_names, f"labels of type {dtype.name}", "Give numbers.")
    if shape.rank != 1 if isinstance(shape, tf.TensorShape) else len(shape) != 1:
        _check_columns(shape, class_names)
    if not isinstance(labels, tf.TensorSpec):
        _check_values(np.asarray(labels, "float64"), class_names)


def _check_columns(shape: Any, class_names: Sequence[str]) -> None:
    columns = shape[-1] if len(shape) else None
    if len(shape) == 2 and columns in (1, None):
        return
    next_step = "Give one number for each image."
    if len(shape) == 2 and columns == len(class_names):
        next_step = "One-hot labels become positions by `labels.argmax(axis=-1)`."
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
    names = ", ".join(map(repr, class_names[:3])) + (", ..." if len(class_names) > 3 else "")
    return ValueError(
        f"Labels must be positions in the classes {names}: 0 to {len(class_names) - 1}. Received: "
        f"{received}. {next_step}"
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
