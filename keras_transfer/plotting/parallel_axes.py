"""The axes of parallel coordinates: where a value stands between 0 and 1, and which are named."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.plotting.axes import power_text
from keras_transfer.plotting.trials import (
    Trial,
    categories_of,
    spans_powers_of_ten,
    values_of,
    worst_shown,
)

NOT_SET = -0.12  # the place of trials that had no such hyperparameter
_FEW = 6  # so many different numbers are named each
_APART = 0.06  # the least distance of two names on an axis

Tick = tuple[float, str]


@dataclass(frozen=True)
class ParallelAxis:
    """One axis.

    Attributes:
        name: Of the hyperparameter or score.
        places: Place of each trial's value, in the order of the trials.
        ticks: Places that are named, lowest first.
    """

    name: str
    places: tuple[float, ...]
    ticks: tuple[Tick, ...]


def hyperparameter_axis(name: str, trials: Sequence[Trial]) -> ParallelAxis:
    """The axis of a hyperparameter: of names, of numbers, or of numbers on a logarithmic scale.

    Args:
        name: Its name.
        trials: The trials; those that had none stand at `NOT_SET`.

    Example:
        >>> hyperparameter_axis("depth", [{"hyperparameters": {"depth": n}} for n in (1, 2)])
        ParallelAxis(name='depth', places=(0.0, 1.0), ticks=((0.0, '1'), (1.0, '2')))
    """
    values = values_of(trials, name)
    categories = categories_of(values)
    if categories:
        known: Mapping[Any, float] = {
            c: _share(i, 0, len(categories) - 1) for i, c in enumerate(categories)
        }
        ticks = [(place, category) for category, place in known.items()]
        places = [known[str(value)] for value in values]
    else:
        log = spans_powers_of_ten(name, values) or _is_geometric(values)
        low, high = min(values), max(values)
        places = [_place(value, low, high, log) for value in values]
        ticks = [(_place(v, low, high, log), power_text(v)) for v in _round(values, log)]
    placed = iter(places)
    all_places = [next(placed) if name in t["hyperparameters"] else NOT_SET for t in trials]
    missing = [(NOT_SET, "not set")] * (NOT_SET in all_places)
    return ParallelAxis(name, tuple(all_places), (*missing, *_spread(ticks)))


def score_axis(name: str, scores: Sequence[float], *, lower_is_better: bool) -> ParallelAxis:
    """The axis of the score, its best at the top.

    Scores that are far worse than the others stand together at the bottom, which then says so:
    one trial that diverged would leave all others in one place.

    Args:
        name: Of the score.
        scores: One a trial, finite.
        lower_is_better: Whether the lowest is the best.
    """
    sign = -1 if lower_is_better else 1
    best, worst = max(sign * score for score in scores), min(sign * score for score in scores)
    floor = sign * worst_shown(scores, lower_is_better=lower_is_better)
    cut = floor > worst
    places = [_share(max(sign * score, floor), floor, best) for score in scores]
    ticks = [
        (_share(sign * value, floor, best), f"{value:.4g}")
        for value in _round([sign * floor, sign * best], log=False)
    ]
    if cut:
        mark = "≥" if lower_is_better else "≤"
        ticks = [(0.0, f"{mark} {sign * floor:.3g}"), *(t for t in ticks if t[0] > _APART)]
    return ParallelAxis(name, tuple(places), _spread(sorted(ticks)))


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _place(value: float, low: float, high: float, log: bool) -> float:
    if log:
        return _share(math.log(value), math.log(low), math.log(high))
    return _share(value, low, high)


def _is_geometric(values: Sequence[float]) -> bool:
    """Whether each number is the same multiple of the one before it, as in 32, 64, 128."""
    distinct = sorted(set(values))
    if len(distinct) < 3 or distinct[0] <= 0:
        return False
    ratios = [high / low for low, high in itertools.pairwise(distinct)]
    return max(ratios) <= 1.01 * min(ratios) and min(ratios) > 1.9


def _round(values: Sequence[float], log: bool) -> list[float]:
    """Numbers to name: the values if they are few, else round ones between their ends."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = min(values), max(values)
    distinct = sorted(set(values))
    if len(distinct) == 1 or (2 < len(distinct) <= _FEW and all(_is_short(v) for v in distinct)):
        return distinct
    if log:
        subs = (1.0,) if high / low > 1000 else (1.0, 2.0, 5.0)
        locator: Any = LogLocator(subs=subs)
    else:
        whole = all(float(value).is_integer() for value in values)
        locator = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole)
    room = 1e-9 * (high - low)
    inside = [float(v) for v in locator.tick_values(low, high) if low - room <= v <= high + room]
    return inside if len(inside) > 1 else [low, high]


def _is_short(value: float) -> bool:
    return float(power_text(value)) == value


def _spread(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Leaves out what would touch the name below it."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick[0] - kept[-1][0] >= _APART:
            kept.append(tick)
    return tuple(kept)
