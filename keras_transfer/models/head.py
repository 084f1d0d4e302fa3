"""The class names of a classifier, and the head that gives their probabilities."""

import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from reprlib import repr as short

import keras

from keras_transfer.models.outputs import last_activation

_MOST_HIDDEN = 100_000


def class_names_of(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of classes; for a number of them `"0"`, `"1"` and so on.

    Raises:
        ValueError: If there are fewer than two, or names occur twice.
    """
    if isinstance(classes, Integral):
        names = tuple(map(str, range(int(classes))))
    elif isinstance(classes, str) or not isinstance(classes, Iterable):
        raise ValueError(
            f"`classes` must be a number or a list of names. Received: {classes!r}. For "
            "example ['cat', 'dog'], or 2."
        )
    else:
        names = tuple(map(str, classes))
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            "`classes` must be two or more class names, each different, or their number. Received: "
            f"{short(classes)}."
        )
    return names


def default_head(units: int, hidden: int, dropout: float) -> keras.Sequential:
    """Returns a hidden layer, dropout and the layer of the classes.

    Raises:
        ValueError: If `hidden` or `dropout` is impossible.
    """
    numbers = isinstance(hidden, Integral) and isinstance(dropout, Real)
    if not (numbers and 0 <= hidden <= _MOST_HIDDEN and 0 <= dropout < 1):
        raise ValueError(
            f"`hidden` must be 0 to {_MOST_HIDDEN:,} units and `dropout` a rate from 0 up to, not "
            f"including, 1. Received: hidden={hidden!r}, dropout={dropout!r}."
        )
    activation = "sigmoid" if units == 1 else "softmax"
    layers = [
        keras.layers.Dense(hidden, activation="relu", name="hidden") if hidden else None,
        keras.layers.Dropout(dropout, name="dropout") if dropout else None,
        # Probabilities in float32 also under mixed precision, as Keras' guide asks.
        keras.layers.Dense(units, activation=activation, dtype="float32", name="classes"),
    ]
    return keras.Sequential([layer for layer in layers if layer is not None], name="head")


def check_probabilities(head: keras.Layer) -> None:
    """Checks that a head is known to give probabilities.

    Raises:
        ValueError: If it is not.
    """
    activation = last_activation(head)
    if activation == "linear" or activation is None:
        ends = "ends with no activation, so it gives no probabilities"
        if activation is None:
            ends = "ends in a layer that does not tell whether it gives probabilities"
        raise ValueError(
            f"The head '{head.name}' {ends}. Let it end in activation='sigmoid' (two classes) or "
            "'softmax', or compile with a loss, such as "
            "keras.losses.BinaryCrossentropy(from_logits=True)."
        )


def warn_of_softmax(head: keras.Layer, units: int) -> None:
    """Warns of a head that ends in softmax where each class is judged by itself."""
    if last_activation(head) == "softmax":
        warnings.warn(
            f"The head '{head.name}' ends in softmax, whose outputs have the sum 1, but a binary "
            "cross-entropy takes each class by itself. If an image may be of several classes, pass "
            f"head=keras.layers.Dense({units}, activation='sigmoid'); if not, leave the loss out.",
            stacklevel=3,
        )
