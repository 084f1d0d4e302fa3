"""What a search can aim at: loss, accuracy, AUC or macro F1, exact over a whole split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

_SHOWN = 2048  # rows that the AUC of a progress bar is of, so that a batch costs the same in any


@dataclass(frozen=True)
class Objective:
    """What makes one trial better than another.

    Attributes:
        name: The log that is compared, such as `"val_loss"`.
        mode: Whether less of it is better (`"min"`) or more (`"max"`).
    """

    name: str
    mode: Literal["min", "max"]

    def better(self, value: float, *, than: float) -> bool:
        """Whether one value is better than another."""
        return value < than if self.mode == "min" else value > than


OBJECTIVES = {
    "loss": Objective("val_loss", "min"),
    "accuracy": Objective("val_accuracy", "max"),
    "auc": Objective("val_auc", "max"),
    "f1": Objective("val_f1", "max"),
}


def objective(metric: str) -> Objective:
    """Returns the objective of a metric.

    Args:
        metric: `"loss"`, `"accuracy"`, `"auc"` or `"f1"`.

    Raises:
        ValueError: If it is another.

    Example:
        >>> objective("auc")
        Objective(name='val_auc', mode='max')
    """
    if metric not in OBJECTIVES:
        raise ValueError(
            f"Unknown metric {metric!r}. Expected one of {', '.join(map(repr, OBJECTIVES))}."
        )
    return OBJECTIVES[metric]


def chance(metric: str, labels: Sequence[int] | np.ndarray) -> float:
    """Returns the score of a model that knows how frequent the classes are, and nothing more.

    Args:
        metric: As for `objective`.
        labels: `(n,)`, whole numbers from 0 on, one at least.

    Example:
        >>> chance("accuracy", [0, 0, 0, 1])
        0.75
    """
    shares = np.unique(np.asarray(labels), return_counts=True)[1] / len(labels)
    most = float(shares.max())
    return {
        "loss": float(-np.sum(shares * np.log(shares))),
        "accuracy": most,
        "auc": 0.5,
        "f1": 2 * most / (1 + most) / len(shares),
    }[metric]


def compile_metrics(metric: str, classes: int) -> list[Any]:
    """Returns what to compile a model with so that the objective of a metric is in its logs.

    Args:
        metric: As for `objective`.
        classes: How many classes there are, 2 or more.

    Returns:
        Accuracy, and after it new metrics named `"auc"` or `"f1"` where the objective needs one.

    Raises:
        ValueError: If the metric is unknown or there are fewer than two classes.

    Example:
        >>> model.compile(metrics=compile_metrics("f1", len(data.class_names)))
    """
    objective(metric)
    if metric == "auc":
        return ["accuracy", AUC(classes)]
    return ["accuracy", F1(classes)] if metric == "f1" else ["accuracy"]


def balanced_class_weight(labels: Sequence[int] | np.ndarray) -> dict[int, float]:
    """Returns weights under which all classes that occur count the same in the loss.

    They are `n / (classes * n of the class)`, as scikit-learn's `"balanced"`, and 1 on average.

    Args:
        labels: `(n,)`, whole numbers from 0 on, one at least.

    Raises:
        ValueError: If there are no labels.

    Example:
        >>> balanced_class_weight([0, 0, 0, 1])
        {0: 0.666..., 1: 2.0}
    """
    present, counts = np.unique(np.asarray(labels), return_counts=True)
    if not counts.size:
        raise ValueError("There are no labels to balance. Give those of the training images.")
    weights = counts.sum() / (len(counts) * counts)
    return {int(label): float(weight) for label, weight in zip(present, weights, strict=True)}


class _OfClasses(keras.metrics.Metric):
    """A metric of classes: labels are positions or one-hot, scores one unit or one a class."""

    def __init__(self, classes: int, *, name: str, dtype: Any = None) -> None:
        super().__init__(dtype=dtype, name=name)
        if classes < 2:
            raise ValueError(f"classes={classes}. Expected 2 or more.")
        self.classes = classes

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same metric."""
        return {**super().get_config(), "classes": self.classes}

    def _columns(self, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Labels `(n,)` int32, scores `(n, units)` and weights `(n,)`."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        units = 1 if len(y_pred.shape) == 1 else y_pred.shape[-1]
        if units != self.classes and (units, self.classes) != (1, 2):
            raise ValueError(
                f"The metric {self.name!r} is of {self.classes} classes. Received: scores of "
                f"shape {tuple(y_pred.shape)}."
            )
        scores = ops.reshape(ops.cast(y_pred, "float32"), (-1, units))
        if len(y_true.shape) == 2 and y_true.shape[-1] == self.classes:
            labels = ops.argmax(y_true, axis=-1)
        else:
            labels = ops.reshape(y_true, (-1,))
            labels = labels > 0.5 if labels.dtype.is_floating and self.classes == 2 else labels
        rows = ops.shape(scores)[0]
        weights = ops.ones((rows,)) if sample_weight is None else sample_weight
        weights = ops.broadcast_to(ops.reshape(ops.cast(weights, "float32"), (-1,)), (rows,))
        return ops.cast(labels, "int32"), scores, weights


@keras.saving.register_keras_serializable(package="keras_transfer_tuning")
class F1(_OfClasses):
    """Macro F1: the mean F1 of the classes that occur, as in the report of a model.

    With one unit for two classes, what is above 0.5 is taken for the second; else the class with
    the highest score. It is computed from counts over all rows, not as a mean over batches.

    Args:
        classes: How many there are, 2 or more.
        name: In the logs. Defaults to `"f1"`.
        dtype: As for any Keras metric.
    """

    def __init__(self, classes: int, *, name: str = "f1", dtype: Any = None) -> None:
        super().__init__(classes, name=name, dtype=dtype)
        self.hits, self.images, self.predicted = (
            self.add_variable((classes,), "zeros", name=what)
            for what in ("hits", "images", "predicted")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts some rows."""
        labels, scores, weights = self._columns(y_true, y_pred, sample_weight)
        if scores.shape[-1] == 1:
            taken_for = ops.cast(scores[:, 0] > 0.5, "int32")
        else:
            taken_for = ops.argmax(scores, axis=-1)
        true = ops.one_hot(labels, self.classes) * weights[:, None]
        predicted = ops.one_hot(taken_for, self.classes)
        self.hits.assign_add(ops.sum(true * predicted, axis=0))
        self.images.assign_add(ops.sum(true, axis=0))
        self.predicted.assign_add(ops.sum(predicted * weights[:, None], axis=0))

    def result(self) -> Any:
        """Returns macro F1 of all rows, 0..1."""
        occurs = ops.cast(self.images > 0, "float32")
        of_each = ops.divide_no_nan(2 * self.hits, self.images + self.predicted)
        return ops.divide_no_nan(ops.sum(of_each * occurs), ops.sum(occurs))


@keras.saving.register_keras_serializable(package="keras_transfer_tuning")
class AUC(_OfClasses):
    """Area under the ROC curve, exact; for more than two classes the mean of each against the rest.

    `keras.metrics.AUC` counts at 200 thresholds; scores that lie between two of them, as those of
    an overconfident model do, make it wrong. This one keeps the scores of all rows. Classes that
    do not occur, or that all rows are of, have no area and are left out of the mean; where that
    leaves none, and where a score is NaN, it is NaN.

    While an epoch runs, the progress bar shows the area of the latest 2,048 rows; what the logs of
    the epoch hold is that of all. The scores lie in a variable that grows, which XLA does not
    allow: compile with `jit_compile=False` where Keras would choose it (on a GPU).

    Args:
        classes: How many there are, 2 or more.
        name: In the logs. Defaults to `"auc"`.
        dtype: As for any Keras metric.
    """

    def __init__(self, classes: int, *, name: str = "auc", dtype: Any = None) -> None:
        super().__init__(classes, name=name, dtype=dtype)
        # Not `add_variable`: a Keras variable has one shape for good. On the CPU, for the shape.
        self._width = 2 + (1 if classes == 2 else classes)
        with tf.init_scope(), tf.device("CPU"):
            empty = tf.zeros((0, self._width))
            self._rows = tf.Variable(empty, shape=(None, self._width), trainable=False)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Keeps the scores of some rows."""
        labels, scores, weights = self._columns(y_true, y_pred, sample_weight)
        if self.classes == 2:  # of two units, the second says it all
            scores = scores[:, -1:]
        labels = ops.cast(labels, "float32")
        rows = ops.concatenate([labels[:, None], weights[:, None], scores], axis=1)
        self._rows.assign(tf.concat([self._rows, rows], axis=0))

    def result(self) -> Any:
        """Returns the area for all rows, 0..1; in a graph that of the latest."""
        rows = self._rows if tf.executing_eagerly() else self._rows[-_SHOWN:]
        labels, weights, scores = tf.cast(rows[:, 0], "int32"), rows[:, 1], rows[:, 2:]
        classes = tf.constant([1]) if self.classes == 2 else tf.range(self.classes)
        areas = tf.map_fn(
            lambda pair: _area(labels == pair[0], pair[1], weights),
            (classes, tf.transpose(scores)),
            fn_output_signature=tf.float64,
        )
        area = tf.reduce_mean(tf.boolean_mask(areas, ~tf.math.is_nan(areas)))  # NaN of none
        diverged = tf.reduce_any(tf.math.is_nan(scores))
        return tf.cast(tf.where(diverged, tf.constant(np.nan, tf.float64), area), "float32")

    def reset_state(self) -> None:
        """Forgets all rows."""
        self._rows.assign(tf.zeros((0, self._width)))


def _area(positive: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The share of pairs of a positive and another row that are in order; ties count half."""
    weights = tf.cast(weights, tf.float64)
    values, place = tf.unique(tf.sort(scores))
    place = tf.searchsorted(values, scores)
    of_one, of_rest = (
        tf.math.unsorted_segment_sum(tf.where(which, weights, 0), place, tf.size(values))
        for which in (positive, ~positive)
    )
    below = tf.cumsum(of_rest, exclusive=True) + of_rest / 2
    return tf.reduce_sum(of_one * below) / (tf.reduce_sum(of_one) * tf.reduce_sum(of_rest))
