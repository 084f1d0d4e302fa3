"""What a search gained over its probe, with the interval that its folds or images allow."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from metrics import Objective
from outcome import Outcome
from scipy.stats import t

from keras_transfer.intervals import difference, wilson


@dataclass(frozen=True)
class Gain:
    """By how much the winner is better than the probe in one metric.

    Attributes:
        metric: Its name.
        probe: Its value for the probe.
        winner: Its value for the winner.
        value: The gain, above 0 where the winner is better.
        low: Lower end of its 95 % interval; None where nothing is known of it.
        high: Upper end of it.
        how: How the interval was computed, or why there is none.
    """

    metric: str
    probe: float
    winner: float
    value: float
    low: float | None
    high: float | None
    how: str


def gains(
    winner: Outcome, probe: Outcome, objective: Objective, images: int | None = None
) -> list[Gain]:
    """Returns the gain in the objective, and in accuracy.

    Args:
        winner: The best trial.
        probe: Trial 0.
        objective: What the search aims at.
        images: How many images a validation without folds is of; None if that is not known.

    Example:
        >>> for gain in gains(best, probe, Objective("val_accuracy", "max"), images=328):
        ...     print(f"{gain.metric} {gain.value:+.3f}")
        val_accuracy +0.021
    """
    modes = {objective.name: objective.mode, "val_accuracy": "max"}
    return [
        _gain(metric, 1 if mode == "max" else -1, winner, probe, images)
        for metric, mode in modes.items()
        if metric in winner.metrics and metric in probe.metrics
    ]


def _gain(metric: str, sign: int, winner: Outcome, probe: Outcome, images: int | None) -> Gain:
    ours, theirs = winner.metrics[metric], probe.metrics[metric]
    pairs = list(zip(winner.folds, probe.folds, strict=False))
    low = high = None
    how = "no interval: one validation split tells nothing of its own spread"
    if len(winner.folds) == len(probe.folds) > 1:
        steps = [sign * (one[metric] - other[metric]) for one, other in pairs]
        low, high = _of_folds(steps)
        how = f"t interval of the differences in {len(steps)} folds, whose training images overlap"
    elif metric == "val_accuracy" and images:
        both = difference(wilson(ours * images, images), wilson(theirs * images, images))
        low, high = both.low, both.high
        how = (
            f"Newcombe's interval for shares of {images:,} images each; on the same images, as "
            "here, the true one is narrower"
        )
    return Gain(metric, theirs, ours, sign * (ours - theirs), low, high, how)


def _of_folds(differences: Sequence[float]) -> tuple[float, float]:
    count, mean = len(differences), statistics.fmean(differences)
    spread = float(t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return mean - spread, mean + spread
