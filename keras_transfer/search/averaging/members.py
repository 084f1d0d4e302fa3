"""Which trials are averaged: the best ones that differ, and that are anywhere near the best."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.metrics import Objective
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.confidence_intervals import difference, wilson

# Of the way from the best score down to that of chance, the share that a trial may lie behind.
_NEAR = 0.25


@dataclass(frozen=True)
class Averaged:
    """The trials to average.

    Attributes:
        trials: What came of each, and what it has trained on its folds; the best first.
        too_bad: Those that would have been next, but for their scores.
    """

    trials: tuple[tuple[Outcome, list[Member]], ...]
    too_bad: tuple[Outcome, ...]


def to_average(
    ranked: Iterable[tuple[Outcome, list[Member]]],
    objective: Objective,
    *,
    chance: float,
    most: int,
) -> Averaged:
    """Chooses the trials to average.

    Left out are those of the same hyperparameters, such as the earlier rounds of a trial of
    Hyperband, and those whose score is farther behind the winner's than a quarter of its
    distance to chance: a model that has diverged would spoil the average.

    Args:
        ranked: All trials with a score, the best first. No more of them are read than needed.
        objective: What was scored.
        chance: The score of a model that has learnt nothing.
        most: How many to average at most.
    """
    chosen: list[tuple[Outcome, list[Member]]] = []
    too_bad: list[Outcome] = []
    for outcome, members in itertools.islice(_different(ranked), most):
        score = outcome.score or 0.0
        best = (chosen[0][0].score or 0.0) if chosen else score
        limit = best + _NEAR * (chance - best)
        # Where the best is no better than chance, nothing lies between the two.
        if score == best or not objective.better(limit, than=score):
            chosen.append((outcome, members))
        else:
            too_bad.append(outcome)
    return Averaged(tuple(chosen), tuple(too_bad))


def without_heads(ranked: Sequence[Outcome], images: int) -> tuple[list[Outcome], list[Outcome]]:
    """Leaves out heads on a frozen backbone where a fine-tuning may be as good.

    They stay where the accuracy of the best is better than that of the best fine-tuning by more
    than chance would give. In further views, and on other images, what was fine-tuned gains more
    than a validation on images as they are shows.

    Args:
        ranked: The outcomes of trials, and of the probe, the best first.
        images: How many images they were validated on.

    Returns:
        The outcomes to average, and those that are left out.
    """
    whole = [one for one in ranked if not one.failed]
    tuned = [one for one in whole if one.hyperparameters.get("unfreeze")]
    heads = [one for one in whole if one not in tuned]
    if not tuned or not heads:
        return whole, []
    best = max(heads, key=_accuracy)
    shares = [wilson(_accuracy(one) * images, images) for one in (best, tuned[0])]
    return (whole, []) if difference(*shares).low > 0 else (tuned, heads)


def _accuracy(outcome: Outcome) -> float:
    return outcome.metrics.get("val_accuracy", 0.0)


def _different(
    ranked: Iterable[tuple[Outcome, list[Member]]],
) -> Iterator[tuple[Outcome, list[Member]]]:
    seen: list[Mapping[str, Any]] = []
    for outcome, members in ranked:
        own = {k: v for k, v in outcome.hyperparameters.items() if not k.startswith("tuner/")}
        if own not in seen:
            seen.append(own)
            yield outcome, members
