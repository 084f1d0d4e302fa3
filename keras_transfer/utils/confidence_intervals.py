"""Numbers that come with an interval of confidence, 95 % throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """A share, 0..1, in per cent; a dash for NaN. What is not quite 0 or 1 does not look so."""
    if math.isnan(share):
        return DASH
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def wilson(hits: float, count: float) -> Estimate:
    """A share with Wilson's score interval (1927), which is not empty at 0 and 1.

    Args:
        hits: How many of them, 0 to `count`.
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
    """F1 with an interval, from a share of which it is an increasing function.

    Of the images that are of a class or are taken for it, a share J is both, and F1 = 2J / (1 + J).
    So Wilson's interval for J gives one for F1, and unlike a bootstrap's it is not empty where
    there is no mistake.

    Args:
        hits: Images of the class that are taken for it.
        either: Images that are of the class, or are taken for it; 0 gives `UNKNOWN`.
    """
    share = wilson(hits, either)
    return Estimate(*(2 * j / (1 + j) for j in (share.value, share.low, share.high)))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two shares, with Newcombe's interval (Statistics in Medicine 17, 1998).

    That is his method 10, for shares of different images; where both are of the same ones, the
    true interval is mostly narrower.

    Args:
        one: A share with Wilson's interval.
        other: What is taken from it, with the same.

    Example:
        >>> difference(wilson(56, 70), wilson(48, 80))
        Estimate(value=0.2, low=0.0524..., high=0.3339...)
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above)


def mean_of(estimates: Sequence[Estimate], shared: int = 1) -> Estimate:
    """The mean of numbers, with an interval from those of each.

    Their ends' distances are added as squares, as in Newcombe's difference of shares (MOVER: Zou
    and Donner, Statistics in Medicine 27, 2008). So it is not empty where each is 0 or 1.

    Args:
        estimates: One at least, none unknown.
        shared: In how many of them a mistake shows. Default 1: they are independent.

    Example:
        >>> mean_of([wilson(10, 10), wilson(10, 10)])
        Estimate(value=1.0, low=0.8036..., high=1.0)
    """
    count = len(estimates)
    value = sum(one.value for one in estimates) / count
    below, above = (
        min(math.sqrt(shared) * math.hypot(*distances), sum(distances)) / count
        for distances in (
            [one.value - one.low for one in estimates],
            [one.high - one.value for one in estimates],
        )
    )
    return Estimate(value, value - below, value + above)


def auc_interval(area: float, positives: int, negatives: int) -> Estimate:
    """The area under an ROC curve with an interval that is not empty at 0 and 1.

    That is method 5 of Newcombe, Statistics in Medicine 25 (2006): all areas that lie at most 1.96
    of their own standard deviations (Hanley and McNeil, 1982, for classes of equal size) away.

    Args:
        area: 0..1.
        positives: Images of the class.
        negatives: All other images; without both kinds it is `UNKNOWN`.

    Example:
        >>> auc_interval(1.0, 20, 20)
        Estimate(value=1.0, low=0.86..., high=1.0)
    """
    if not (positives and negatives):
        return UNKNOWN
    pairs, others = positives * negatives, (positives + negatives) / 2 - 1

    def deviation(a: float) -> float:
        shared = others * ((1 - a) / (2 - a) + a / (1 + a))
        return math.sqrt(a * (1 - a) * (1 + shared) / pairs)

    def end(far: float) -> float:
        near = area
        for _ in range(50):  # the half in which the distance comes to be 1.96 deviations
            middle = (near + far) / 2
            if abs(middle - area) > _Z * deviation(middle):
                far = middle
            else:
                near = middle
        return far

    return Estimate(area, end(0.0), end(1.0))


def bootstrap(
    confusion: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    seed: int = 0,
) -> np.ndarray:
    """The 95 % intervals of numbers that follow from a confusion matrix, by resampled images.

    Drawing images with replacement changes nothing but the matrix' counts, which then follow a
    multinomial distribution; so these are drawn. Only cells that hold images can change.

    Args:
        confusion: Counts `(classes, classes)`, one at least.
        statistic: Takes for each class how many images are right, are of it, and are taken for it,
            `(draws, classes)` each; gives `(draws, numbers)`.
        seed: Decides the draws. Default 0.

    Returns:
        Lower and upper ends, `(2, numbers)`; both the same where all draws are, which says nothing.
    """
    from scipy.sparse import csr_array

    generator = np.random.default_rng(seed)
    true, predicted = np.nonzero(confusion)
    counts, every = confusion[true, predicted], np.arange(len(true))
    ones = np.ones(len(true))
    of_true, of_predicted, of_right = (
        csr_array((kept, (every, classes)), shape=(len(true), len(confusion)))
        for kept, classes in ((ones, true), (ones, predicted), (1.0 * (true == predicted), true))
    )
    found = []
    for _ in range(DRAWS // _TOGETHER):
        drawn = generator.multinomial(counts.sum(), counts / counts.sum(), _TOGETHER)
        found.append(statistic(drawn @ of_right, drawn @ of_true, drawn @ of_predicted))
    return np.quantile(np.concatenate(found), [0.025, 0.975], axis=0)


def bootstrap_rows(
    rows: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a number that follows from rows, by resampling them.

    Args:
        rows: How many there are, one at least.
        statistic: Takes how often each row is drawn, `(draws, rows)`, and gives `(draws,)`, NaN
            where there is nothing to count.
        seed: Decides the draws. Default 0.
    """
    generator = np.random.default_rng(seed)
    shares = np.full(rows, 1 / rows)
    found = [
        statistic(generator.multinomial(rows, shares, _TOGETHER)) for _ in range(DRAWS // _TOGETHER)
    ]
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)
