"""How well a split is classified, with the intervals that its number of images allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from roc_area import macro_area
from scipy.stats import binomtest

from keras_transfer.intervals import Estimate
from keras_transfer.report_numbers import report_numbers


@dataclass(frozen=True)
class Score:
    """How a model did on the images of a split.

    Attributes:
        correct: Images classified rightly.
        images: All images.
        low: Lower end of the 95 % interval (Wilson) of the accuracy, 0..1.
        high: Upper end of it.
    """

    correct: int
    images: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly, 0..1."""
        return self.correct / self.images

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:.2%} to {self.high:.2%}"
        return f"{self.accuracy:.2%} of {self.images} images ({interval})"


def score_of(model: keras.Model, data: Any, labels: np.ndarray) -> Score:
    """Returns the score of a model on batches of images or of kept activations, in their order."""
    probabilities = model.predict(data, verbose=0)
    if probabilities.shape[1] == 1:
        predicted = (probabilities[:, 0] > 0.5).astype(int)
    else:
        predicted = probabilities.argmax(axis=1)
    return score(int(np.sum(predicted == labels)), len(predicted))


def score(correct: int, images: int) -> Score:
    """Returns a score from two counts."""
    interval = binomtest(correct, images).proportion_ci(method="wilson")
    return Score(correct, images, interval.low, interval.high)


@dataclass(frozen=True)
class Measures:
    """What a search can aim at, on some images, each with its 95 % interval.

    Attributes:
        images: How many there are.
        loss: Log loss, as Keras computes it.
        accuracy: Share classified rightly, with Wilson's interval.
        auc: Area under the ROC curve; for more than two classes the mean of each against the rest.
            Newcombe's interval for two classes, a bootstrap's for more. `UNKNOWN` for one class.
        f1: Mean F1 of the classes that occur, with a bootstrap's interval.
    """

    images: int
    loss: float
    accuracy: Estimate
    auc: Estimate
    f1: Estimate

    @property
    def logs(self) -> dict[str, float]:
        """The numbers under the names that they have in the logs of a validation split."""
        numbers = {name: getattr(self, name).value for name in ("accuracy", "auc", "f1")}
        return {"val_loss": self.loss, **{f"val_{name}": n for name, n in numbers.items()}}

    def __str__(self) -> str:
        named = {"accuracy": self.accuracy, "AUC": self.auc, "macro F1": self.f1}
        parts = [f"{name} {_with_interval(one)}" for name, one in named.items()]
        return f"{', '.join(parts)} on {self.images} images (95 % intervals)"


def measures(labels: np.ndarray, probabilities: np.ndarray) -> Measures:
    """Returns how well images are classified.

    Args:
        labels: Positions of the true classes, `(n,)`, one at least.
        probabilities: As a model gives them, `(n, 1)` for two classes, else `(n, classes)`.

    Raises:
        ValueError: If a probability is NaN, or there are not as many rows as labels.

    Example:
        >>> print(measures(data.valid.labels, model.predict(data.valid)))
        accuracy 88.3 % (85.6 to 90.5), AUC 94.1 % (92.0 to 95.7), macro F1 87.1 % ...
    """
    labels, by_class = np.asarray(labels), columns(probabilities)
    if len(labels) != len(by_class) or not len(labels):
        raise ValueError(f"{len(labels)} labels for {len(by_class)} rows of probabilities.")
    if np.isnan(by_class).any():
        raise ValueError("A probability is NaN: the model has diverged. Train at a lower rate.")
    numbers = report_numbers(labels, by_class, [str(i) for i in range(by_class.shape[1])])
    epsilon = keras.config.epsilon()
    of_true = np.clip(by_class[np.arange(len(labels)), labels], epsilon, 1 - epsilon)
    return Measures(
        len(labels),
        float(-np.log(of_true).mean()),
        numbers.accuracy,
        macro_area(labels, by_class),
        numbers.f1,
    )


def columns(probabilities: np.ndarray) -> np.ndarray:
    """Returns a column for each class, `(n, classes)`, where a model gives one for two classes."""
    by_class = np.asarray(probabilities, "float64")
    return np.hstack([1 - by_class, by_class]) if by_class.shape[1] == 1 else by_class


def _with_interval(one: Estimate) -> str:
    if not one.known:
        return "unknown"
    return f"{one.value:.1%} ({100 * one.low:.1f} to {100 * one.high:.1f})".replace("%", " %")


def paired(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    names: Sequence[str] = ("the winner", "the probe"),
) -> str:
    """Compares two classifiers on the same images, by those that only one of them gets right.

    That is McNemar's test, exact: were both as good, these would fall to either as a coin does.

    Args:
        labels: Positions of the true classes, `(n,)`.
        first: Probabilities that the first gives, `(n, 1)` for two classes, else `(n, classes)`.
        second: Those of the other.
        names: What to call them.

    Example:
        >>> paired(data.test.labels, of_winner, of_probe)
        'Only the winner is right on 31 of 656 images, only the probe on 19: p = 0.12 ...'
    """
    right = [columns(one).argmax(axis=1) == labels for one in (first, second)]
    alone = [int(np.sum(one & ~other)) for one, other in (right, right[::-1])]
    if not sum(alone):
        same = f"the same {int(right[0].sum())} of {len(labels)} images"
        return f"Both, {names[0]} and {names[1]}, are right on {same}."
    p = binomtest(alone[0], sum(alone)).pvalue
    verdict = "more than chance would give" if p < 0.05 else "no more than chance may give"
    return (
        f"Only {names[0]} is right on {alone[0]} of {len(labels)} images, only {names[1]} on "
        f"{alone[1]}: p = {max(p, 0.0001):.2g} (exact McNemar test), {verdict}."
    )
