"""Numbers that come with an interval of confidence, 95 % throughout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # the normal distribution's quantile at 97.5 %
DRAWS = 1000
_TOGETHER = 50  # draws at a time, so that the counts of 100 classes take little memory


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
    return Estimate(share, max(0.0, min(share, centre - spread)), min(1.0, centre + spread))


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


def bootstrap(
    confusion: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> np.ndarray:
    """The 95 % intervals of numbers that follow from a confusion matrix, by resampled images.

    Drawing images with replacement changes nothing but the matrix' counts, which then follow a
    multinomial distribution; so these are drawn.

    Args:
        confusion: Counts `(classes, classes)`, one at least.
        statistic: Takes `(draws, classes, classes)`, gives `(draws, numbers)`.
        seed: Decides the draws. Default 0.

    Returns:
        Lower and upper ends, `(2, numbers)`.
    """
    generator = np.random.default_rng(seed)
    cells = np.flatnonzero(confusion)
    counts = confusion.ravel()[cells]
    found = []
    for _ in range(DRAWS // _TOGETHER):
        drawn = np.zeros((_TOGETHER, confusion.size))
        drawn[:, cells] = generator.multinomial(counts.sum(), counts / counts.sum(), _TOGETHER)
        found.append(statistic(drawn.reshape(_TOGETHER, *confusion.shape)))
    return np.quantile(np.concatenate(found), [0.025, 0.975], axis=0)
