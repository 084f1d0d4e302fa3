"""The axes of parallel coordinates: where a value stands between 0 and 1, and which are named."""

from __future__ import annotations

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
        name: Name of the hyperparameter or score.
        places: Place of each trial's value, in the order of the trials.
        ticks: Places that are named, lowest first.
    """

    name: str
    places: tuple[float, ...]
    ticks: tuple[Tick, ...]


def hyperparameter_axis(name: str, trials: Sequence[Trial]) -> ParallelAxis:
    """Returns the axis of a hyperparameter: of names, or of numbers, where it suits logarithmic.

    Args:
        name: Its name.
        trials: The trials; those that had none stand at `NOT_SET`.

    Example:
        >>> hyperparameter_axis("depth", [{"hyperparameters": {"depth": n}} for n in (1, 2)])
        ParallelAxis(name='depth', places=(0.0, 1.0), ticks=((0.0, '1'), (1.0, '2')))
    """
    values = values_of(trials, name)
    if categories := categories_of(values):
        known: Mapping[Any, float] = {
            c: _share(i, 0, len(categories) - 1) for i, c in enumerate(categories)
        }
        ticks = [(place, category) for category, place in known.items()]
        places = [known[str(value)] for value in values]
    else:
        log = spans_powers_of_ten(name, values)
        scale = math.log if log else float
        low, high = scale(min(values)), scale(max(values))
        places = [_share(scale(value), low, high) for value in values]
        ticks = [(_share(scale(v), low, high), power_text(v)) for v in _named(values, log)]
    placed = iter(places)
    all_places = [next(placed) if name in t["hyperparameters"] else NOT_SET for t in trials]
    missing = [(NOT_SET, "not set")] * (NOT_SET in all_places)
    return ParallelAxis(name, tuple(all_places), (*missing, *_spread(ticks)))


def score_axis(name: str, scores: Sequence[float], *, lower_is_better: bool) -> ParallelAxis:
    """Returns the axis of the score, its best at the top.

    Scores that are far worse than the others stand together at the bottom, which then says so:
    one trial that diverged would leave all others in one place.

    Args:
        name: Name of the score.
        scores: One a trial, finite.
        lower_is_better: Whether the lowest is the best.
    """
    sign = -1 if lower_is_better else 1
    signed = [sign * score for score in scores]
    floor, best = sign * worst_shown(scores, lower_is_better=lower_is_better), max(signed)
    places = tuple(_share(max(score, floor), floor, best) for score in signed)
    named = _named([sign * floor, sign * best], log=False)
    ticks = sorted((_share(sign * value, floor, best), f"{value:.4g}") for value in named)
    if floor > min(signed):
        mark = "≥" if lower_is_better else "≤"
        ticks = [(0.0, f"{mark} {sign * floor:.3g}"), *(t for t in ticks if t[0] > _APART)]
    return ParallelAxis(name, places, _spread(ticks))


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _named(values: Sequence[float], log: bool) -> list[float]:
    """Returns the numbers to name: the values if they are few, else round ones between them."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = min(values), max(values)
    distinct = sorted(set(values))
    short = all(float(power_text(value)) == value for value in distinct)
    if len(distinct) == 1 or (2 < len(distinct) <= _FEW and short):
        return distinct
    if log:
        locator: Any = LogLocator(subs=(1.0,) if high / low > 1000 else (1.0, 2.0, 5.0))
    else:
        whole = all(float(value).is_integer() for value in values)
        locator = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole)
    room = 1e-9 * (high - low)
    inside = [float(v) for v in locator.tick_values(low, high) if low - room <= v <= high + room]
    return inside if len(inside) > 1 else [low, high]


def _spread(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Leaves out what would touch the name below it."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick[0] - kept[-1][0] >= _APART:
            kept.append(tick)
    return tuple(kept)
