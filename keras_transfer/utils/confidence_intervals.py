"""Estimates with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_Z = 1.959963984540054  # the normal distribution's quantile at 97.5 %
DRAWS = 1000
_TOGETHER = 50  # draws at a time, so that the counts of many images take little memory


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; all three are NaN where there is nothing to count.

    Attributes:
        value: The number.
        low: The interval's lower end.
        high: The interval's upper end.
    """

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there was anything to count."""
        return not math.isnan(self.value)


UNKNOWN = Estimate(math.nan, math.nan, math.nan)
DASH = "\N{EN DASH}"  # in the place of a number that there is not


def percent(share: float) -> str:
    """Returns a share, 0..1, in per cent; a dash for NaN. Only 0 and 1 look like 0 and 100 %."""
    if math.isnan(share):
        return DASH
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def wilson(hits: float, count: float) -> Estimate:
    """Returns a share with Wilson's score interval (1927), which is not empty at 0 and 1.

    Args:
        hits: 0 to `count`; no whole number for a mean of several runs.
        count: How many there are; 0 gives `UNKNOWN`.

    Example:
        >>> wilson(9, 10)
        Estimate(value=0.9, low=0.5958..., high=0.9821...)
    """
    if not count:
        return UNKNOWN
    share, z = hits / count, _Z**2 / count
    centre = (share + z / 2) / (1 + z)
    spread = math.sqrt(share * (1 - share) * z + z**2 / 4) / (1 + z)
    low, high = min(share, centre - spread), max(share, centre + spread)  # of rounding errors
    return Estimate(share, max(0.0, low), min(1.0, high))


def f1_interval(hits: float, either: float) -> Estimate:
    """Returns F1 with an interval, from a share of which it is an increasing function.

    Args:
        hits: Images of the class that are taken for it.
        either: Images that are of the class, or are taken for it; 0 gives `UNKNOWN`. A share J of
            them is both, and F1 = 2J / (1 + J).
    """
    share = wilson(hits, either)
    return Estimate(*(2 * j / (1 + j) for j in (share.value, share.low, share.high)))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Returns the difference of two shares of different images, with Newcombe's interval.

    Method 10 of Newcombe, Statistics in Medicine 17 (1998), from Wilson's interval of each share.

    Example:
        >>> difference(wilson(56, 70), wilson(48, 80))
        Estimate(value=0.2, low=0.0524..., high=0.3339...)
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above)


def mean_of(estimates: Sequence[Estimate], shared: int = 1) -> Estimate:
    """Returns the mean of numbers, with an interval that is not empty where each is 0 or 1.

    The ends' distances are added as squares (MOVER: Zou and Donner, Statistics in Medicine 27,
    2008).

    Args:
        estimates: One at least, none unknown.
        shared: In how many of them a mistake shows. Default 1: they are independent.
    """
    count = len(estimates)
    value = sum(estimate.value for estimate in estimates) / count
    below, above = (
        min(math.sqrt(shared) * math.hypot(*distances), sum(distances)) / count
        for distances in (
            [estimate.value - estimate.low for estimate in estimates],
            [estimate.high - estimate.value for estimate in estimates],
        )
    )
    return Estimate(value, value - below, value + above)


def auc_interval(area: float, positives: int, negatives: int) -> Estimate:
    """Returns the area under an ROC curve with an interval that is not empty at 0 and 1.

    Method 5 of Newcombe, Statistics in Medicine 25 (2006): all areas that lie at most 1.96 of their
    own standard deviations (Hanley and McNeil, 1982, for classes of equal size) away.

    Args:
        area: 0..1.
        positives: Images of the class.
        negatives: All other images; without both kinds it is `UNKNOWN`.
    """
    from scipy.optimize import brentq

    if not (positives and negatives):
        return UNKNOWN
    pairs, others = positives * negatives, (positives + negatives) / 2 - 1

    def beyond(a: float) -> float:
        shared = others * ((1 - a) / (2 - a) + a / (1 + a))
        return abs(a - area) - _Z * math.sqrt(a * (1 - a) * (1 + shared) / pairs)

    near = 1e-9  # at the area itself the deviation may be 0
    low = brentq(beyond, 0.0, area - near) if area > near else area
    high = brentq(beyond, area + near, 1.0) if area < 1 - near else area
    return Estimate(area, low, high)


def bootstrap(
    confusion: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    seed: int = 0,
) -> np.ndarray:
    """Returns the 95 % intervals of numbers that follow from a confusion matrix.

    Drawing images with replacement changes nothing but the matrix' counts.

    Args:
        confusion: Counts `(classes, classes)`, one at least.
        statistic: Takes for each class how many images are right, are of it, and are taken for it,
            `(draws, classes)` each; gives `(draws, numbers)`.
        seed: Decides the draws. Default 0.

    Returns:
        Lower and upper ends, `(2, numbers)`; both the same where all draws are, which says nothing.
    """
    true, predicted = np.nonzero(confusion)
    right = np.where(true == predicted, 1.0, 0.0)

    def of_counts(drawn: np.ndarray) -> np.ndarray:
        def by(classes: np.ndarray, weights: Any = 1.0) -> np.ndarray:
            return np.stack([np.bincount(classes, w, len(confusion)) for w in drawn * weights])

        return statistic(by(true, right), by(true), by(predicted))

    return _resampled(confusion[true, predicted], of_counts, seed)


def bootstrap_rows(
    rows: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % interval of a number that follows from rows, by resampling them.

    Args:
        rows: How many there are, one at least.
        statistic: Takes how often each row is drawn, `(draws, rows)`, and gives `(draws,)`, NaN
            where there is nothing to count.
        seed: Decides the draws. Default 0.
    """
    low, high = _resampled(np.ones(rows), statistic, seed)
    return float(low), float(high)


def _resampled(
    counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> np.ndarray:
    """Returns the quantiles of a statistic over resampled counts, `(draws, len(counts))`."""
    generator, total = np.random.default_rng(seed), int(counts.sum())
    values = [
        statistic(generator.multinomial(total, counts / total, _TOGETHER))
        for _ in range(DRAWS // _TOGETHER)
    ]
    return np.nanquantile(np.concatenate(values), [0.025, 0.975], axis=0)
