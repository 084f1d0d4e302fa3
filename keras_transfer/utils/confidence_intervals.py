"""Numbers with a confidence interval, 95 % throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # the normal distribution's quantile at 97.5 %


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
DASH = "\N{EN DASH}"  # stands for a number that is not known


def percent(share: float) -> str:
    """Formats a share, 0..1, in per cent; a dash for NaN.

    What is not quite 0 or 1 does not look so.
    """
    if math.isnan(share):
        return DASH
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def wilson(hits: float, count: float) -> Estimate:
    """Returns a share with Wilson's score interval (1927), which is not empty at 0 and 1.

    It equals `scipy.stats.binomtest(hits, count).proportion_ci(method="wilson")`, which takes whole
    numbers only and a millisecond each.

    Args:
        hits: Number of successes, 0 to `count`.
        count: Number of trials; 0 gives `UNKNOWN`.

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

    Of the images that are of a class or are predicted as it, a share J is both, and
    F1 = 2J / (1 + J). So Wilson's interval for J gives one for F1.

    Args:
        hits: Images of the class that are predicted as it.
        either: Images that are of the class, or are predicted as it; 0 gives `UNKNOWN`.
    """
    share = wilson(hits, either)
    return Estimate(*(2 * j / (1 + j) for j in (share.value, share.low, share.high)))


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Returns the difference of two shares, with Newcombe's interval.

    That is method 10 of Statistics in Medicine 17 (1998), for shares of different images; where
    both are of the same ones, the true interval is mostly narrower.

    Args:
        first: A share with Wilson's interval.
        second: The share that is subtracted, with Wilson's interval.

    Example:
        >>> difference(wilson(56, 70), wilson(48, 80))
        Estimate(value=0.2, low=0.0524..., high=0.3339...)
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)


def mean_of(estimates: Sequence[Estimate], shared: int = 1) -> Estimate:
    """Returns the mean of numbers, with an interval from the interval of each.

    The distances to their ends are added as squares, as in Newcombe's difference of shares (MOVER:
    Zou and Donner, Statistics in Medicine 27, 2008). So it is not empty where each is 0 or 1.

    Args:
        estimates: One or more, none unknown.
        shared: On how many of the numbers one mistake has an effect. Default 1: they are
            independent.

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
