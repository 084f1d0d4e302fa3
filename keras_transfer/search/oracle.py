"""KerasTuner's oracles, whose suggestions follow from the seed and earlier trials alone."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras_tuner import HyperModel, Objective, Oracle
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.oracles import (
    BayesianOptimizationOracle,
    GridSearchOracle,
    HyperbandOracle,
    RandomSearchOracle,
)


class _Replayable(Oracle):
    """Draws each suggestion from a seed of the trial's own, and repeats those of a journal.

    KerasTuner keeps the state of its generators in private attributes, `_seed_state` and
    `_random_state`, and writes trials by `_save_trial`; there is no public way around these.

    Args:
        seed: 0 or larger.
        known: Trial id to values, as a journal holds them.
        first: The values of the first trials.
        **kwargs: KerasTuner's own.
    """

    replays_values = True  # the others need to compute theirs, to know where they are

    def __init__(
        self,
        *,
        seed: int,
        known: Mapping[str, Mapping[str, Any]],
        first: Sequence[Mapping[str, Any]],
        **kwargs: Any,
    ) -> None:
        # The trials of a search may all fail; whoever runs it decides when that is enough.
        super().__init__(seed=seed, max_consecutive_failed_trials=10**9, **kwargs)
        self.seed = seed  # KerasTuner takes 0 for none
        self.verbose = 0
        self.known = known
        self.first = first

    def explore(self, hypermodel: HyperModel) -> None:
        """Finds out which hyperparameters there are, as KerasTuner does when it makes a tuner."""
        with tempfile.TemporaryDirectory() as folder:  # which it makes, and leaves empty
            BaseTuner(self, hypermodel, directory=folder, project_name="oracle")

    def save(self) -> None:
        """Writes nothing: a search has a journal."""

    def _save_trial(self, trial: Trial) -> None:
        """Writes nothing."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of a trial."""
        if self.replays_values and trial_id in self.known:
            return {"status": "RUNNING", "values": dict(self.known[trial_id])}
        if self.replays_values and int(trial_id) < len(self.first):
            return {"status": "RUNNING", "values": dict(self.first[int(trial_id)])}
        seed = int(np.random.SeedSequence([self.seed, int(trial_id)]).generate_state(1)[0])
        self._seed_state = seed
        self._random_state = np.random.RandomState(seed)
        return super().populate_space(trial_id)


class _Random(_Replayable, RandomSearchOracle):
    """Random search."""


class _Bayesian(_Replayable, BayesianOptimizationOracle):
    """Bayesian optimization."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gpr.random_state = self.seed  # which may be 0

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns KerasTuner's answer, sooner and without warnings of its Gaussian process."""
        from sklearn import config_context
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits  # which scikit-learn needs, too

        with (
            warnings.catch_warnings(),
            # Thousands of predictions on a few rows: several threads take five times as long.
            threadpool_limits(1),
            config_context(assume_finite=True, skip_parameter_validation=True),
        ):
            # Of 20 restarts some end at the edge, which is no news to who searches.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().populate_space(trial_id)


class _Grid(_Replayable, GridSearchOracle):
    """Grid search, in KerasTuner's order, but by several workers at a time."""

    replays_values = False

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial, while others run, too: KerasTuner waits until they have ended."""
        trial = super().create_trial(tuner_id)
        if trial.trial_id in self.trials:
            self._populate_next.append(trial.trial_id)
        return trial


class _Hyperband(_Replayable, HyperbandOracle):
    """Hyperband."""

    replays_values = False


_KINDS = {"bayesian": _Bayesian, "hyperband": _Hyperband, "random": _Random, "grid": _Grid}


def make_oracle(
    name: str,
    hypermodel: HyperModel,
    *,
    objective: Objective,
    count: int,
    epochs: int,
    seed: int,
    known: Mapping[str, Mapping[str, Any]],
    first: Sequence[Mapping[str, Any]] = (),
) -> Oracle:
    """Returns an oracle that knows the hyperparameters of a hypermodel, and has no trial yet.

    Args:
        name: `"bayesian"`, `"hyperband"`, `"random"` or `"grid"`.
        hypermodel: Declares the hyperparameters.
        objective: The log that ranks trials.
        count: How many trials are planned. The oracle itself has no limit.
        epochs: Epochs of a whole trial, for Hyperband.
        seed: 0 or larger.
        known: Trial id to values, of trials that were created before.
        first: The values of the first trials, where the oracle can be told: not of a grid, and not
            of Hyperband.

    Raises:
        ValueError: If there is no such oracle.
    """
    if name not in _KINDS:
        raise ValueError(f"Unknown oracle {name!r}. Expected one of {', '.join(_KINDS)}.")
    options: dict[str, Any] = {}
    if name == "hyperband":
        options["max_epochs"] = epochs
    if name == "bayesian":  # a few random ones first, not KerasTuner's 3 a dimension
        options["num_initial_points"] = max(3, min(10, count // 3))
    oracle = _KINDS[name](objective=objective, seed=seed, known=known, first=first, **options)
    oracle.max_trials = None  # and so ids have four digits, however many trials are asked for
    oracle.explore(hypermodel)
    return oracle
