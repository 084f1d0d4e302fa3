"""The area under the ROC curve of a classifier, with a 95 % interval."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from keras_transfer.intervals import UNKNOWN, Estimate, auc_interval, bootstrap_rows


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
