"""The numbers of a report: pure functions of true classes and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_transfer.utils.confidence_intervals import Estimate, f1_interval, mean_of, wilson

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
    """The numbers of one class.

    Attributes:
        name: Its name.
        images: Number of images of it.
        predicted: Number of images that are predicted as it.
        precision: Share of images predicted as it that are of it; unknown if there are none.
        recall: Share of its images that are predicted as it; unknown if there are none.
        f1: Harmonic mean of both; unknown if it neither occurs nor is predicted.
        roc: Recall against the share of other images predicted as it; None without both kinds.
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
        predicted: The name of the predicted class.
        count: How often it occurs, 2 or more.
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
    """The images whose confidence lies in one bin.

    Attributes:
        low: Lower edge of the bin, 0..1.
        high: Upper edge, itself included.
        images: Number of images, one or more.
        confidence: Their mean confidence.
        right: Share of them that are classified rightly.
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
        images: Number of images.
        accuracy: Share of images that are classified rightly.
        most_common: Share of the most common class: the accuracy of always predicting it.
        precision: Mean over the classes that occur, 0 where a class is never predicted.
        recall: Mean over the classes that occur.
        f1: Mean over the classes that occur.
        classes: The numbers of each class.
        confusion: Counts `(classes, classes)`, a row for each true class.
        confusions: Mistakes that recur, the most frequent first.
        roc: For two classes that of the second, for more the mean; None if only one class occurs.
        precision_recall: Precision against recall, likewise.
        bins: Bins of confidence that hold images, rising.
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
        return tuple(each.name for each in self.classes)


def report_numbers(
    true: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> ReportNumbers:
    """Computes all numbers of a report.

    Args:
        true: True classes `(n,)`, whole numbers, 0 to `len(class_names) - 1`; one or more.
        probabilities: `(n, classes)`, 0..1, each row with the sum 1.
        class_names: Two or more names.

    Example:
        >>> report_numbers(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), "ab").accuracy
        Estimate(value=0.5, low=0.0945..., high=0.9054...)
    """
    from sklearn.metrics import confusion_matrix

    size = len(class_names)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    confusion = confusion_matrix(true, predicted, labels=range(size))
    classes = tuple(
        _class_numbers(i, name, true, probabilities[:, i], confusion)
        for i, name in enumerate(class_names)
    )
    occur = [each for each in classes if each.images]
    # A class that is never predicted counts with a precision of 0, which is a convention.
    precisions = [
        each.precision if each.precision.known else Estimate(0.0, 0.0, 1.0) for each in occur
    ]
    bins = _bins(confidence, predicted == true)
    gaps = [each.images * abs(each.right.value - each.confidence) for each in bins]
    curves = classes[1:] if size == 2 else classes
    of_true = probabilities[np.arange(len(true)), true]
    return ReportNumbers(
        images=len(true),
        accuracy=wilson(int(np.trace(confusion)), len(true)),
        most_common=float(confusion.sum(1).max() / len(true)),
        precision=mean_of(precisions),
        recall=mean_of([each.recall for each in occur]),
        f1=mean_of([each.f1 for each in occur], shared=2),  # a mistake lowers it for two classes
        classes=classes,
        confusion=confusion,
        confusions=_confusions(true, predicted, confidence, confusion, class_names),
        roc=_mean_curve([each.roc for each in curves if each.roc], steps=False),
        precision_recall=_mean_curve(
            [each.precision_recall for each in curves if each.precision_recall], steps=True
        ),
        bins=bins,
        confidence=float(confidence.mean()),
        calibration_error=sum(gaps) / len(true),
        log_loss=float(-np.log(np.clip(of_true, 1e-15, 1)).mean()),
    )


def _class_numbers(
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
        false_rate, recall, _ = metrics.roc_curve(positive, score)
        roc = Curve(false_rate, recall, float(metrics.auc(false_rate, recall)))
        precision, recall, _ = metrics.precision_recall_curve(
            positive, score, drop_intermediate=True
        )
        area = float(metrics.average_precision_score(positive, score))
    return roc, Curve(recall[::-1], precision[::-1], area)


def _mean_curve(curves: Sequence[Curve], *, steps: bool) -> Curve | None:
    """Averages curves over y.

    Args:
        curves: One a class.
        steps: Whether a curve is level up to its next point, as precision against recall is, and
            not a line between points.
    """
    if len(curves) < 2:
        return curves[0] if curves else None
    y = [c.y[np.searchsorted(c.x, _GRID)] if steps else np.interp(_GRID, c.x, c.y) for c in curves]
    mean = np.mean(y, axis=0)
    if not steps:
        mean[0] = 0
    return Curve(_GRID, mean, float(np.mean([curve.area for curve in curves])))


def _confusions(
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    confusion: np.ndarray,
    names: Sequence[str],
) -> tuple[Confusion, ...]:
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    pairs = [(i, j) for i, j in np.argwhere(confusion >= 2).tolist() if i != j]
    pairs.sort(key=lambda pair: (-confusion[pair], -shares[pair], pair))
    sums = np.zeros(confusion.shape)
    np.add.at(sums, (true, predicted), confidence)
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
    return tuple(
        Bin(
            float(edges[number]),
            float(edges[number + 1]),
            int(inside.sum()),
            float(confidence[inside].mean()),
            wilson(int(right[inside].sum()), int(inside.sum())),
        )
        for number in np.unique(place)
        for inside in [place == number]
    )
