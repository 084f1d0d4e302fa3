"""What the trials of a search say: which hyperparameters varied, which axis suits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_transfer.plotting.curves import is_finite

_FAR = 5.0  # the worst shown are so many times as far from the best as the median is

Trial = Mapping[str, Any]  # "trial", "score" and "hyperparameters", see search_figure


def with_score(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with a finite score."""
    return [trial for trial in trials if is_finite(trial["score"])]


def best_first(trials: Sequence[Trial], *, lower_is_better: bool) -> list[Trial]:
    """The trials with a finite score, the best first; of equal ones the one that was earlier.

    Args:
        trials: In any order.
        lower_is_better: Whether the lowest score is the best.
    """
    sign = 1 if lower_is_better else -1
    return sorted(with_score(trials), key=lambda trial: (sign * trial["score"], trial["trial"]))


def varied(trials: Sequence[Trial]) -> list[str]:
    """Hyperparameters with several values, in the order seen; all of them if none has several."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial["hyperparameters"].items():
            values.setdefault(name, set()).add(repr(value))
    return [name for name, seen in values.items() if len(seen) > 1] or list(values)


def values_of(trials: Sequence[Trial], name: str) -> list[Any]:
    """The values of a hyperparameter, where it was set."""
    return [t["hyperparameters"][name] for t in trials if name in t["hyperparameters"]]


def categories_of(values: Sequence[Any]) -> list[str]:
    """Values that are not all numbers, in the order seen; none for numbers."""
    return [] if all(map(is_finite, values)) else list(dict.fromkeys(map(str, values)))


def spans_powers_of_ten(name: str, values: Sequence[float]) -> bool:
    """Whether a logarithmic axis suits numbers."""
    low, high = min(values, default=0), max(values, default=0)
    return low > 0 and ("learning_rate" in name or high > 100 * low)


def trials_text(count: int) -> str:
    """A number of trials, as it is said."""
    return f"{count} {'trial' if count == 1 else 'trials'}"


def worst_shown(scores: Sequence[float], *, lower_is_better: bool) -> float:
    """The worst score that a picture shows in its place: a trial that diverged hides no other.

    Args:
        scores: One a trial, finite; one at least.
        lower_is_better: Whether the lowest is the best.

    Example:
        >>> worst_shown([0.2, 0.3, 0.3, 9.0], lower_is_better=True)
        0.7
    """
    sign = -1 if lower_is_better else 1
    signed = sorted(sign * score for score in scores)
    best, median = signed[-1], signed[len(signed) // 2]
    limit = best - _FAR * (best - median)
    return sign * (max(signed[0], limit) if best > median else signed[0])
