"""What a report says in numbers: pure functions of true classes and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_transfer.utils.confidence_intervals import (
    Estimate,
    bootstrap,
    f1_interval,
    mean_of,
    wilson,
)

BINS = 15  # of confidence, as in Guo et al., 2017, https://arxiv.org/abs/1706.04599
MOST_DRAWN = 100  # classes that a figure shows
_GRID = np.linspace(0, 1, 201)  # where the curves of several classes are averaged


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve from (0, .) to (1, .) of one class against the rest, or the mean of several.

    Attributes:
        x: Rising values, 0..1.
        y: As many values, 0..1.
        area: The area under it: ROC-AUC, or average precision.
    """

    x: np.ndarray
    y: np.ndarray
    area: float


@dataclass(frozen=True, eq=False)
class ClassNumbers:
    """What there is to say about one class.

    Attributes:
        name: Its name.
        images: Images that are of it.
        predicted: Images that were taken for it.
        precision: Share of those taken for it that are of it; unknown if none was.
        recall: Share of its images that were taken for it; unknown if there is none.
        f1: Harmonic mean of both; unknown if it neither occurs nor was predicted.
        roc: Recall against the share of other images taken for it; None without both kinds.
        precision_recall: Precision against recall; None without both kinds.
    """

    name: str
    images: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    roc: Curve | None
    precision_recall: Curve | None


@dataclass(frozen=True)
class Confusion:
    """A mistake that recurs.

    Attributes:
        true: The name of the true class.
        predicted: The name of the class that its images are taken for.
        count: How often, 2 or more.
        share: Of the true class's images, 0..1.
        confidence: Mean probability of the wrong class on these images, 0..1.
    """

    true: str
    predicted: str
    count: int
    share: float
    confidence: float


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one stretch.

    Attributes:
        low: Where the stretch begins, 0..1.
        high: Where it ends, itself included.
        images: How many there are, one at least.
        confidence: Their mean confidence.
        right: The share that is right.
    """

    low: float
    high: float
    images: int
    confidence: float
    right: Estimate


@dataclass(frozen=True, eq=False)
class ReportNumbers:
    """All numbers of a report.

    Attributes:
        images: How many images.
        accuracy: The share that is right.
        most_common: The share of the most common class: what always naming it would get right.
        precision: Its mean over the classes that occur, 0 where a class was never predicted.
        recall: Its mean over the classes that occur.
        f1: Its mean over the classes that occur.
        classes: One for each class.
        confusion: Counts `(classes, classes)`, a row for each true class.
        confusions: What recurs, the most frequent first.
        roc: For two classes that of the second, for more the mean; None if only one class occurs.
        precision_recall: The same for precision against recall.
        bins: Stretches of confidence that hold images, rising.
        confidence: Mean confidence.
        calibration_error: Expected calibration error, 0..1.
        log_loss: Mean of -log of the true class's probability.
    """

    images: int
    accuracy: Estimate
    most_common: float
    precision: Estimate
    recall: Estimate
    f1: Estimate
    classes: tuple[ClassNumbers, ...]
    confusion: np.ndarray
    confusions: tuple[Confusion, ...]
    roc: Curve | None
    precision_recall: Curve | None
    bins: tuple[Bin, ...]
    confidence: float
    calibration_error: float
    log_loss: float

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the confusion matrix."""
        return tuple(one.name for one in self.classes)


def report_numbers(
    true: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> ReportNumbers:
    """Computes all numbers of a report.

    Args:
        true: True classes `(n,)`, whole numbers, 0 to `len(class_names) - 1`; one at least.
        probabilities: `(n, classes)`, 0..1, each row with the sum 1.
        class_names: Two or more names.

    Example:
        >>> report_numbers(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), "ab").accuracy
        Estimate(value=0.5, low=0.0945..., high=0.9054...)
    """
    size = len(class_names)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    confusion = np.bincount(true * size + predicted, minlength=size * size).reshape(size, size)
    classes = tuple(
        _of_class(i, name, true, probabilities[:, i], confusion)
        for i, name in enumerate(class_names)
    )
    bins = _bins(confidence, predicted == true)
    curves = classes[1:] if size == 2 else classes
    precision, recall, f1 = _means(confusion, classes)
    gaps = [one.images * abs(one.right.value - one.confidence) for one in bins]
    of_true = np.clip(probabilities[np.arange(len(true)), true], 1e-15, 1)
    return ReportNumbers(
        images=len(true),
        accuracy=wilson(int(np.trace(confusion)), len(true)),
        most_common=float(confusion.sum(1).max() / len(true)),
        precision=precision,
        recall=recall,
        f1=f1,
        classes=classes,
        confusion=confusion,
        confusions=_confusions(true, predicted, confidence, confusion, class_names),
        roc=_mean_roc([one.roc for one in curves if one.roc]),
        precision_recall=_mean_precision(
            [one.precision_recall for one in curves if one.precision_recall]
        ),
        bins=bins,
        confidence=float(confidence.mean()),
        calibration_error=sum(gaps) / len(true),
        log_loss=float(-np.log(of_true).mean()),
    )


def _of_class(
    number: int, name: str, true: np.ndarray, score: np.ndarray, confusion: np.ndarray
) -> ClassNumbers:
    hits = int(confusion[number, number])
    images, predicted = int(confusion[number].sum()), int(confusion[:, number].sum())
    roc = precision_recall = None
    if 0 < images < len(true):
        roc, precision_recall = _curves(true == number, score)
    return ClassNumbers(
        name,
        images,
        predicted,
        wilson(hits, predicted),
        wilson(hits, images),
        f1_interval(hits, images + predicted - hits),
        roc,
        precision_recall,
    )


def _curves(positive: np.ndarray, score: np.ndarray) -> tuple[Curve, Curve]:
    from sklearn import config_context, metrics

    # Checks took longer than the curves, of which there may be thousands.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        false, found, _ = metrics.roc_curve(positive, score)
        precision, recall, _ = metrics.precision_recall_curve(
            positive, score, drop_intermediate=True
        )
        area = float(metrics.average_precision_score(positive, score))
        roc = Curve(false, found, float(metrics.auc(false, found)))
    return roc, Curve(recall[::-1], precision[::-1], area)


def _mean_roc(curves: Sequence[Curve]) -> Curve | None:
    if len(curves) < 2:
        return curves[0] if curves else None
    y = np.mean([np.interp(_GRID, curve.x, curve.y) for curve in curves], axis=0)
    y[0] = 0
    return Curve(_GRID, y, float(np.mean([curve.area for curve in curves])))


def _mean_precision(curves: Sequence[Curve]) -> Curve | None:
    """At each recall the precision where that recall is first reached: no line between points."""
    if len(curves) < 2:
        return curves[0] if curves else None
    y = np.mean([curve.y[np.searchsorted(curve.x, _GRID)] for curve in curves], axis=0)
    return Curve(_GRID, y, float(np.mean([curve.area for curve in curves])))


def _means(confusion: np.ndarray, classes: Sequence[ClassNumbers]) -> tuple[Estimate, ...]:
    """Precision, recall and F1, each the mean over the classes that occur."""
    counts = (np.diagonal(confusion), confusion.sum(1), confusion.sum(0))
    values = _macro(*(each[None] for each in counts))[0]
    low, high = bootstrap(confusion, _macro)
    found = {
        name: Estimate(float(v), float(min(a, v)), float(max(b, v)))
        for name, v, a, b in zip(("precision", "recall", "f1"), values, low, high, strict=True)
    }
    for name, one in found.items():
        # All draws are the same where each class is wholly right or wholly wrong, such as 20 of 20
        # images right. Nothing is certain by that: 3 of 3 would look the same. Wilson's intervals
        # of the classes know how many there are, so they are joined; a dash would hide it.
        if one.low == one.high:
            of_each = [_in_mean(getattr(c, name)) for c in classes if c.images]
            # A mistake takes from the F1 of two classes at once.
            found[name] = mean_of(of_each, shared=2 if name == "f1" else 1)
    return tuple(found.values())


def _in_mean(estimate: Estimate) -> Estimate:
    """A class's number as it goes into a mean: 0 where it is unknown, and might be anything."""
    return estimate if estimate.known else Estimate(0.0, 0.0, 1.0)


def _macro(hits: np.ndarray, images: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    occurs = images > 0
    of_each = (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(images, 1),
        2 * hits / np.maximum(images + predicted, 1),
    )
    return np.stack([(n * occurs).sum(1) / occurs.sum(1) for n in of_each], axis=1)


def _confusions(
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    confusion: np.ndarray,
    names: Sequence[str],
) -> tuple[Confusion, ...]:
    sums = np.zeros(confusion.shape)
    np.add.at(sums, (true, predicted), confidence)
    pairs = [(i, j) for i, j in np.argwhere(confusion >= 2) if i != j]
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    pairs.sort(key=lambda pair: (-confusion[pair], -shares[pair], pair))
    return tuple(
        Confusion(
            names[i],
            names[j],
            int(confusion[i, j]),
            float(shares[i, j]),
            float(sums[i, j] / confusion[i, j]),
        )
        for i, j in pairs
    )


def _bins(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)  # (low, high]
    found = []
    for number in np.unique(place):
        inside = place == number
        found.append(
            Bin(
                float(edges[number]),
                float(edges[number + 1]),
                int(inside.sum()),
                float(confidence[inside].mean()),
                wilson(int(right[inside].sum()), int(inside.sum())),
            )
        )
    return tuple(found)
