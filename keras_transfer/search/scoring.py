"""Scores of a model on labelled images, each with a 95 % interval, and comparisons of models."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from scipy.stats import binomtest, rankdata, sem, t

from keras_transfer.evaluation.metrics import report_numbers
from keras_transfer.search.metrics import Objective
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.confidence_intervals import UNKNOWN, Estimate, difference, wilson


@dataclass(frozen=True)
class Measures:
    """The scores that a search can aim at, on some images, each with its 95 % interval.

    Attributes:
        images: Number of images.
        loss: Log loss, as Keras computes it.
        accuracy: Share of images classified rightly.
        auc: Area under the ROC curve; for more than two classes the mean of each against the rest.
            `UNKNOWN` where only one class occurs.
        f1: Mean F1 of the classes that occur.
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
        parts = [f"{name} {_with_interval(estimate)}" for name, estimate in named.items()]
        return f"{', '.join(parts)} on {self.images} images (95 % intervals)"


def _with_interval(estimate: Estimate) -> str:
    if not estimate.known:
        return "unknown"
    value, low, high = (100 * end for end in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def measures(labels: np.ndarray, probabilities: np.ndarray) -> Measures:
    """Scores the predictions for labelled images.

    Args:
        labels: Positions of the true classes, `(n,)`, one or more.
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


def macro_area(labels: np.ndarray, scores: np.ndarray) -> Estimate:
    """Returns the area under the ROC curve, or its mean of each class against the rest.

    Its variance is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988); the interval is
    Wilson's for a share of as many images as have that variance, so it is not empty at 1. Classes
    that do not occur are left out.

    Args:
        labels: Positions of the true classes, `(n,)`, one or more.
        scores: A column for each class, `(n, classes)`.
    """
    classes = range(1, 2) if scores.shape[1] == 2 else range(scores.shape[1])
    areas, influence, fewest = [], np.zeros(len(labels)), len(labels)
    for positive, score in ((labels == c, scores[:, c]) for c in classes):
        kinds = (positive, ~positive)
        if not all(kind.any() for kind in kinds):
            continue
        ranks = rankdata(score)
        for own, other in (kinds, kinds[::-1]):
            # The share of images of the other kind with a lower score; a tie counts half.
            above = (ranks[own] - rankdata(score[own])) / other.sum()
            influence[own] += (above - above.mean()) / own.sum() * (1 if own is positive else -1)
            if own is positive:
                areas.append(float(above.mean()))
        fewest = min(fewest, *(int(kind.sum()) for kind in kinds))
    if not areas:
        return UNKNOWN
    area = statistics.fmean(areas)
    variance = float(np.sum((influence / len(areas)) ** 2))
    count = area * (1 - area) / variance if variance else fewest
    return wilson(area * count, count)


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
        first: Probabilities of the first classifier, `(n, 1)` for two classes, else
            `(n, classes)`.
        second: Those of the second.
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
        low: Lower end of its 95 % interval; None where it is not known.
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
        images: Number of images of a validation without folds; None if that is not known.

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


def alike(
    best: Outcome, others: Sequence[Outcome], objective: Objective, images: int | None = None
) -> str:
    """Returns a sentence on how many trials may be as good as the best, empty if nobody knows.

    Those are the ones whose accuracy in validation differs from that of the best by no more than
    its 95 % interval.

    Args:
        best: The best trial.
        others: The others that have a score.
        objective: What the search aims at.
        images: As for `gains`.
    """
    found = [gains(best, other, objective, images)[-1:] for other in others]
    known = [gain[0] for gain in found if gain and gain[0].low is not None]
    count = sum(gain.low is not None and gain.low <= 0 for gain in known)
    if not known:
        return ""
    return (
        f"{count} of {len(known)} others cannot be told from the best by their accuracy on these "
        "validation images."
    )


def _gain(metric: str, sign: int, winner: Outcome, probe: Outcome, images: int | None) -> Gain:
    ours, theirs = winner.metrics[metric], probe.metrics[metric]
    low = high = None
    how = "no interval: one validation split tells nothing of its own spread"
    if len(winner.folds) == (count := len(probe.folds)) > 1:
        pairs = zip(winner.folds, probe.folds, strict=True)
        steps = [sign * (one[metric] - other[metric]) for one, other in pairs]
        mean, spread = statistics.fmean(steps), float(t.ppf(0.975, count - 1) * sem(steps))
        low, high = mean - spread, mean + spread
        how = f"t interval of the differences in {count} folds, whose training images overlap"
    elif metric == "val_accuracy" and images:
        both = difference(wilson(ours * images, images), wilson(theirs * images, images))
        low, high = both.low, both.high
        how = (
            f"Newcombe's interval for shares of {images:,} images each; on the same images, as "
            "here, the true one is narrower"
        )
    return Gain(metric, theirs, ours, sign * (ours - theirs), low, high, how)
