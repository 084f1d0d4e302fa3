"""The importance of each hyperparameter in a search, or the reason why it is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from keras_transfer.plotting.trials import Trial, categories_of, values_of, varied, with_score
from keras_transfer.utils.confidence_intervals import Estimate

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

LEAST_TRIALS = 10
LEAST_R2 = 0.2  # of searches where nothing matters, fewer than one in twenty gets as far
_TREES, _SHUFFLES = 200, 10


@dataclass(frozen=True)
class Importance:
    """How much each hyperparameter mattered.

    Attributes:
        trials: How many trials with a score this is from.
        r2: The share of the variance of the score's ranks that a random forest explains in trials
            that its trees have not seen (out of bag); NaN where there are too few trials for one.
        of: For each hyperparameter by which number `r2` falls when its values are shuffled among
            the trials, the mean of several shuffles with their standard deviation on both sides;
            empty if there is no telling.
        reason: Why there is no telling; empty if there is.
    """

    trials: int
    r2: float
    of: Mapping[str, Estimate] = field(default_factory=dict)
    reason: str = ""


def importance(trials: Sequence[Trial], *, seed: int = 0) -> Importance:
    """Returns how much each hyperparameter mattered to the score.

    A random forest learns the rank of the score from the hyperparameters (Breiman, Random Forests,
    Machine Learning, 2001). Ranks, so that one trial that diverged does not count for all.
    Everything is measured out of bag: on trials that a tree has not learned from.

    Args:
        trials: As `search_figure` takes them.
        seed: Of the forest and the shuffles. Default 0.

    Returns:
        The importances; none, with the reason, for fewer than `LEAST_TRIALS` trials with a score,
        or where the forest explains less than `LEAST_R2`.

    Example:
        >>> importance([{"trial": 1, "score": 0.3, "hyperparameters": {"a": 1}}]).reason
        'Too few trials to tell: 1 with a score, 10 at least are needed.'
    """
    known = with_score(trials)
    names = varied(known)
    if len(known) < LEAST_TRIALS:
        reason = f"{len(known)} with a score, {LEAST_TRIALS} at least are needed."
        return Importance(len(known), np.nan, reason=f"Too few trials to tell: {reason}")
    ranks = rankdata([trial["score"] for trial in known])
    if not names or not np.ptp(ranks):
        return Importance(len(known), np.nan, reason="Nothing differed between the trials.")
    columns = np.column_stack([_column(known, name) for name in names])
    forest = _forest(columns, ranks, seed)
    r2 = float(forest.oob_score_)
    if r2 < LEAST_R2:
        return Importance(len(known), r2, reason=_unexplained(len(known), r2))
    losses = _losses(forest, columns, ranks, np.random.default_rng(seed))
    return Importance(len(known), r2, dict(zip(names, map(_estimate, losses), strict=True)))


def _unexplained(trials: int, r2: float) -> str:
    share = f"{r2:.0%}" if r2 > 0.005 else "nothing"
    return (
        f"Too few trials to tell: from {trials} trials a random forest explains {share} of the "
        f"differences in score (out-of-bag R²), and {LEAST_R2:.0%} at least are needed."
    )


def _column(trials: Sequence[Trial], name: str) -> np.ndarray:
    """The values of a hyperparameter as numbers, and below all of them where it was not set."""
    values = values_of(trials, name)
    categories = categories_of(values)
    lowest = -1.0 if categories else min(values) - 1.0

    def number(trial: Trial) -> float:
        if name not in trial["hyperparameters"]:
            return lowest
        value: Any = trial["hyperparameters"][name]
        return float(categories.index(str(value))) if categories else float(value)

    return np.array([number(trial) for trial in trials])


def _forest(columns: np.ndarray, ranks: np.ndarray, seed: int) -> RandomForestRegressor:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        _TREES, min_samples_leaf=2, max_features=0.5, oob_score=True, random_state=seed
    )
    return forest.fit(columns, ranks)


def _losses(
    forest: RandomForestRegressor,
    columns: np.ndarray,
    ranks: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """By how much the out-of-bag R² falls, `(hyperparameters, shuffles)`."""
    rows, names = columns.shape
    shuffled = np.tile(columns, (names * _SHUFFLES + 1, 1, 1))  # the last is as it is
    for number in range(names * _SHUFFLES):
        name = number // _SHUFFLES
        shuffled[number, :, name] = generator.permutation(columns[:, name])
    sums, counts = np.zeros(shuffled.shape[:2]), np.zeros(rows)
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(rows), seen)
        found = tree.predict(shuffled[:, unseen].reshape(-1, names))
        sums[:, unseen] += found.reshape(len(shuffled), len(unseen))
        counts[unseen] += 1
    errors = ((sums / counts - ranks) ** 2).mean(1) / ranks.var()
    return (errors[:-1] - errors[-1]).reshape(names, _SHUFFLES)


def _estimate(losses: np.ndarray) -> Estimate:
    mean, deviation = float(losses.mean()), float(losses.std(ddof=1))
    return Estimate(mean, mean - deviation, mean + deviation)
