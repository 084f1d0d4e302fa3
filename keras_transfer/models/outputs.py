"""Outputs of a classifier as probabilities of its classes, and labels as their positions."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_transfer.models.losses import setting
from keras_transfer.utils.name_lists import some

FromLogits = bool | Literal["auto"]

# Their results lie in 0..1.
_PROBABILITIES = ("sigmoid", "softmax", "hard_sigmoid", "sparse_sigmoid", "sparsemax")

# Layers whose output is of the same kind as their input when a model predicts: they change nothing,
# or the shape, or average, as in an ensemble or over the places of an image.
_SKIPPED = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Average,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Identity,
    keras.layers.Reshape,
)


def takes_logits(model: keras.Model, from_logits: FromLogits) -> tuple[bool, str]:
    """Returns whether a model gives logits, and how that is known.

    Args:
        model: The model.
        from_logits: The answer, or `"auto"` to find it.

    Returns:
        Whether it does, and a sentence that says how that is known.

    Raises:
        ValueError: If `from_logits` is something else.
    """
    if from_logits not in (True, False, "auto"):
        raise ValueError(
            f'from_logits={from_logits!r} is unknown. Pass True, False or "auto", which goes by '
            "the loss and the last layer."
        )
    if from_logits != "auto":
        kind = "logits" if from_logits else "probabilities"
        return bool(from_logits), f"The outputs are {kind}, as from_logits={from_logits} says."
    if (kind_and_reason := kind_of_outputs(model)) is not None:
        return kind_and_reason
    return False, (
        "The outputs are taken for probabilities, since they lie in 0..1 and have the sum 1; "
        "neither the model's loss nor its last layer tells."
    )


def kind_of_outputs(model: keras.Model) -> tuple[bool, str] | None:
    """Tells from the last layers and the loss whether a classifier gives logits.

    A sigmoid or softmax at the end decides, then what the loss takes, then a last layer without
    activation. Layers that change nothing when the model predicts, such as Dropout, are skipped.
    Of a subclassed model the loss decides first, since the order of its layers is not known.

    Returns:
        As `takes_logits`; `None` if neither layers nor loss tell.
    """
    end = getattr(model, "head", model)  # the head of a TransferModel
    activation = last_activation(end)
    from_logits = setting(getattr(model, "loss", None), "from_logits")
    in_order = isinstance(end, keras.Sequential) or hasattr(end, "operations")
    if activation in _PROBABILITIES and (in_order or from_logits is None):
        return False, f"The outputs are probabilities, since the model ends in {activation}."
    if from_logits is not None:
        kind = "logits" if from_logits else "probabilities"
        return from_logits, f"The outputs are {kind}, as the model's loss says."
    if activation == "linear":
        return True, "The outputs are logits, since the last layer has no activation."
    return None


def last_activation(layer: Any) -> str | None:
    """Returns the name of the activation that a layer or model ends in.

    Returns:
        Such as `"linear"` or `"sigmoid"`; `None` if the last layer that changes anything is of
        another kind.
    """
    # The layers of a functional model lack operations such as keras.ops.sigmoid.
    steps = getattr(layer, "operations", None) or getattr(layer, "layers", None)
    if steps:
        changing = [step for step in steps if not _changes_nothing(step)]
        return last_activation(changing[-1]) if changing else None
    if (activation := getattr(layer, "activation", None)) is not None:
        return getattr(activation, "__name__", None)
    name = type(layer).__name__.lower()
    return name if name in _PROBABILITIES else None


def _changes_nothing(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Rescaling):
        return (layer.scale, layer.offset) == (1, 0)
    if isinstance(layer, keras.layers.Activation):
        return layer.activation is keras.activations.linear
    if isinstance(layer, keras.Sequential):
        return all(_changes_nothing(step) for step in layer.layers)
    return isinstance(layer, (*_SKIPPED, keras.layers.InputLayer))


def as_probabilities(outputs: Any, logits: bool) -> np.ndarray:
    """Turns a batch of outputs into probabilities.

    Args:
        outputs: `(n, 1)` or `(n,)`: of the second of two classes; or `(n, classes)`.
        logits: Whether they are logits.

    Returns:
        `(n, classes)`, float64, each row with the sum 1; NaN where the output was not finite.

    Raises:
        ValueError: If the outputs are of another shape, or are no probabilities.
    """
    from scipy.special import softmax

    if isinstance(outputs, dict | list | tuple):
        raise ValueError(
            f"The model gives {len(outputs)} outputs. A report is of one classifier: pass "
            "keras.Model(model.input, model.outputs[0])."
        )
    values = np.array(outputs, np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise ValueError(
            f"The model's outputs are of shape {values.shape}. Expected one number for each image "
            "and class, (images, classes), or (images, 1) for two classes."
        )
    values[~np.isfinite(values).all(1)] = np.nan
    two = values.shape[1] == 1
    if logits:
        return softmax(np.concatenate([np.zeros_like(values), values], 1) if two else values, 1)
    _check_probabilities(values)
    if two:
        return np.concatenate([1 - values, values], 1)
    return values / values.sum(1, keepdims=True)


def _check_probabilities(values: np.ndarray) -> None:
    rows = values[~np.isnan(values).any(1)]
    sums = rows.sum(1)
    inside = ((rows >= 0) & (rows <= 1 + 1e-6)).all()
    if inside and (rows.shape[1] == 1 or np.allclose(sums, 1, atol=0.01)):
        return
    received = f"from {rows.min():.3g} to {rows.max():.3g}"
    if inside:
        received = f"with sums from {sums.min():.3g} to {sums.max():.3g} over the classes"
    raise ValueError(
        f"The model's outputs are values {received}. Expected the probability of the second of two "
        "classes, or for each class one, with the sum 1. If they are logits, pass "
        "from_logits=True; where an image may be of several classes, report on each alone."
    )


def as_positions(labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Turns a batch of labels into positions in the class names.

    Args:
        labels: Whole numbers `(n,)` or `(n, 1)`, or one-hot `(n, classes)`.
        class_names: The classes.

    Returns:
        int64 `(n,)`.

    Raises:
        ValueError: If they are something else.
    """
    values, size = np.asarray(labels), len(class_names)
    if values.dtype.kind not in "biuf":
        raise _error(class_names, f"labels of type {values.dtype}", "Give whole numbers.")
    if values.ndim == 2 and values.shape[1] == size:
        if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise _error(
                class_names,
                "rows that are not one 1 among zeros",
                "A report needs one true class for each image.",
            )
        return values.argmax(1)
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise _error(class_names, f"labels of shape {values.shape}", "Give one for each image.")
    values = values.reshape(-1).astype(np.float64)
    within = (values >= 0) & (values <= size - 1) & (values == np.round(values))
    if not within.all():  # also so for NaN
        raise _error(class_names, f"the label {values[~within][0]:g}", "Number them from 0.")
    return values.astype(np.int64)


def _error(class_names: Sequence[str], received: str, next_step: str) -> ValueError:
    names = some([*map(repr, class_names)], 3)
    return ValueError(
        f"Labels must be positions in the {len(class_names)} classes {names}, 0 to "
        f"{len(class_names) - 1}, or one-hot rows of them. Received: {received}. {next_step}"
    )
