"""Losses: which labels they take, and how these are smoothed."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

_BINARY = (
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
)
_SPARSE = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.sparse_categorical_crossentropy,
)


def is_binary(loss: Any) -> bool:
    """Whether a loss is a cross-entropy of Keras that takes yes or no for each output."""
    return _kind(loss) in _BINARY


def is_sparse(loss: Any) -> bool:
    """Whether a loss is the cross-entropy of Keras that takes positions of classes as labels."""
    return _kind(loss) in _SPARSE and setting(loss, "ignore_class") is None


def of_shares(loss: Any) -> Any:
    """Returns a loss that takes one-hot labels, for smoothing, in place of one of positions.

    Args:
        loss: As for `keras.Model.compile`.

    Raises:
        ValueError: If the loss smooths labels itself.
    """
    if setting(loss, "label_smoothing"):
        raise ValueError(
            "The model has `label_smoothing`, and so has its loss, which would smooth the labels "
            f"again, in validation, too. Received: loss={loss!r}. Leave it out of the loss."
        )
    if not is_sparse(loss):
        return loss
    names = ("from_logits", "reduction", "name", "dtype")
    settings = {name: setting(loss, name) for name in names}
    return keras.losses.CategoricalCrossentropy(
        **{name: value for name, value in settings.items() if value is not None}
    )


def smoothed(labels: Any, outputs: Any, share: float, loss: Any) -> Any:
    """Returns smoothed labels, one number for each unit.

    Args:
        labels: As the loss takes them.
        outputs: Of the model, `(batch, units)`.
        share: The part of each label that is spread evenly: over yes and no under a binary loss or
            for one unit, else over the units.
        loss: As for `keras.Model.compile`.

    Raises:
        ValueError: If the labels are positions, and the loss is not known to take them.
    """
    units = outputs.shape[-1]
    if is_sparse(loss):
        labels = ops.one_hot(ops.cast(ops.reshape(labels, (-1,)), "int32"), units)
    elif units > 1 and tuple(labels.shape)[1:] != tuple(outputs.shape)[1:]:
        raise ValueError(
            f"`label_smoothing` with loss={loss!r} needs one-hot labels of shape (batch, "
            f"{units}). Received: {tuple(labels.shape)}. Give such labels, or leave the loss out."
        )
    even = 1 / (2 if units == 1 or is_binary(loss) else units)
    return (1 - share) * ops.cast(labels, "float32") + share * even


def setting(loss: Any, name: str) -> Any:
    """Returns an argument that a loss was made with, or has by default; `None` if it has none.

    Args:
        loss: As for `keras.Model.compile`.
        name: The argument's name.
    """
    loss = _single(loss)
    if isinstance(loss, functools.partial):
        return loss.keywords[name] if name in loss.keywords else setting(loss.func, name)
    if inspect.isfunction(loss):
        parameter = inspect.signature(loss).parameters.get(name)
        return None if parameter is None else parameter.default
    return getattr(loss, name, None)


def _single(loss: Any) -> Any:
    """Returns the loss of the one output, given by its name, or in a list or dict."""
    if isinstance(loss, Mapping):
        loss = list(loss.values())
    if isinstance(loss, list | tuple) and len(loss) == 1:
        loss = loss[0]
    return keras.losses.get(loss) if isinstance(loss, str) else loss


def _kind(loss: Any) -> Any:
    """Returns the class or function of a loss."""
    loss = _single(loss)
    if isinstance(loss, functools.partial):
        return loss.func
    return loss if inspect.isfunction(loss) else type(loss)
