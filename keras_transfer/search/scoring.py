"""The area under the ROC curve of a classifier, with a 95 % interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import keras
import numpy as np
from scipy.stats import binomtest, t

from keras_transfer.evaluation.metrics import report_numbers
from keras_transfer.search.metrics import Objective
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.confidence_intervals import (
    UNKNOWN,
    Estimate,
    auc_interval,
    bootstrap_rows,
    difference,
    wilson,
)


@dataclass(frozen=True)
class _Ranked:
    """Rows in the order of their score for a class.

    Attributes:
        order: The rows, rising.
        starts: Where in these each value of the score begins.
        positive: Whether each of these is of the class.
    """

    order: np.ndarray
    starts: np.ndarray
    positive: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, score: np.ndarray) -> Self:
        order = np.argsort(score)
        rising = score[order]
        starts = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
        return cls(order, starts, positive[order])

    def areas(self, times: np.ndarray) -> np.ndarray:
        """The areas where each row is there so many times, `(draws, n)`; NaN for one class."""
        times = times[:, self.order]
        of_class, of_rest = (
            np.add.reduceat(times * which, self.starts, axis=1)
            for which in (self.positive, ~self.positive)
        )
        below = np.cumsum(of_rest, axis=1) - of_rest / 2  # ties count half
        return _divided((of_class * below).sum(1), of_class.sum(1) * of_rest.sum(1))

    def estimate(self) -> Estimate:
        """The area with its interval."""
        positives, rows = int(self.positive.sum()), len(self.positive)
        area = float(self.areas(np.ones((1, rows)))[0])
        return auc_interval(area, positives, rows - positives)


def macro_area(labels: np.ndarray, scores: np.ndarray) -> Estimate:
    """Returns the area for two classes, or the mean of each class against the rest.

    For two classes the interval is Newcombe's, for more that of a bootstrap. Classes that do not
    occur are left out.

    Args:
        labels: Positions of the true classes, `(n,)`, one at least.
        scores: A column for each class, `(n, classes)`.
    """
    classes = range(1, 2) if scores.shape[1] == 2 else range(scores.shape[1])
    ranked = [_Ranked.of(labels == c, scores[:, c]) for c in classes]
    ranked = [one for one in ranked if 0 < one.positive.sum() < len(labels)]
    if not ranked:
        return UNKNOWN
    each = np.array([(e.value, e.low, e.high) for e in (one.estimate() for one in ranked)])
    area, low, high = each.mean(axis=0).tolist()
    if len(ranked) == 1 or area == 1:  # where a bootstrap would find nothing to be uncertain of
        return Estimate(area, low, high)

    def mean(times: np.ndarray) -> np.ndarray:
        areas = np.stack([one.areas(times) for one in ranked])
        return _divided(np.nansum(areas, axis=0), np.isfinite(areas).sum(axis=0))

    low, high = bootstrap_rows(len(labels), mean)
    return Estimate(area, min(area, low), max(area, high))


def _divided(what: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.divide(what, by, out=np.full(len(by), np.nan), where=by > 0)


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


@dataclass(frozen=True)
class Gain:
    """By how much the winner is better than the probe in one metric.

    Attributes:
        metric: Its name.
        probe: Its value for the probe.
        winner: Its value for the winner.
        value: The gain, above 0 where the winner is better.
        low: Lower end of its 95 % interval; None where nothing is known of it.
        high: Upper end of it.
        how: How the interval was computed, or why there is none.
    """

    metric: str
    probe: float
    winner: float
    value: float
    low: float | None
    high: float | None
    how: str


def gains(
    winner: Outcome, probe: Outcome, objective: Objective, images: int | None = None
) -> list[Gain]:
    """Returns the gain in the objective, and in accuracy.

    Args:
        winner: The best trial.
        probe: Trial 0.
        objective: What the search aims at.
        images: How many images a validation without folds is of; None if that is not known.

    Example:
        >>> for gain in gains(best, probe, Objective("val_accuracy", "max"), images=328):
        ...     print(f"{gain.metric} {gain.value:+.3f}")
        val_accuracy +0.021
    """
    modes = {objective.name: objective.mode, "val_accuracy": "max"}
    return [
        _gain(metric, 1 if mode == "max" else -1, winner, probe, images)
        for metric, mode in modes.items()
        if metric in winner.metrics and metric in probe.metrics
    ]


def _gain(metric: str, sign: int, winner: Outcome, probe: Outcome, images: int | None) -> Gain:
    ours, theirs = winner.metrics[metric], probe.metrics[metric]
    pairs = list(zip(winner.folds, probe.folds, strict=False))
    low = high = None
    how = "no interval: one validation split tells nothing of its own spread"
    if len(winner.folds) == len(probe.folds) > 1:
        steps = [sign * (one[metric] - other[metric]) for one, other in pairs]
        low, high = _of_folds(steps)
        how = f"t interval of the differences in {len(steps)} folds, whose training images overlap"
    elif metric == "val_accuracy" and images:
        both = difference(wilson(ours * images, images), wilson(theirs * images, images))
        low, high = both.low, both.high
        how = (
            f"Newcombe's interval for shares of {images:,} images each; on the same images, as "
            "here, the true one is narrower"
        )
    return Gain(metric, theirs, ours, sign * (ours - theirs), low, high, how)


def _of_folds(differences: Sequence[float]) -> tuple[float, float]:
    count, mean = len(differences), statistics.fmean(differences)
    spread = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return mean - spread, mean + spread
