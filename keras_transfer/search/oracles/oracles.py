"""The oracles that a search can use: KerasTuner's, durable."""

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from keras_tuner import Objective
from keras_tuner.engine.trial import Trial
from keras_tuner.oracles import (
    BayesianOptimizationOracle,
    GridSearchOracle,
    HyperbandOracle,
    RandomSearchOracle,
)

from keras_transfer.search.oracles.durable_oracle import DurableOracle


class DurableRandomSearch(DurableOracle, RandomSearchOracle):
    """Random search."""


class DurableBayesianOptimization(DurableOracle, BayesianOptimizationOracle):
    """Bayesian optimization."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gpr = self._make_gpr()  # with a seed that may be 0

    def _reseed(self, seed: int) -> None:
        super()._reseed(seed)
        self._random_state = np.random.RandomState(seed)

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


class DurableGridSearch(DurableOracle, GridSearchOracle):
    """Grid search, which KerasTuner neither resumes nor runs on more than one worker at a time."""

    def _asked(self, trial: Trial) -> None:
        self._populate_next.append(trial.trial_id)

    def _settle(self, trial: Trial, outcome: Any) -> None:
        super()._settle(trial, outcome)
        self._populate_next.append(trial.trial_id)

    def _rebuild(self) -> None:
        def compare(a: str, b: str) -> int:
            values = (self.trials[id].hyperparameters.values for id in (a, b))
            return self._compare(*values)

        before = None
        for id in sorted(self.trials, key=functools.cmp_to_key(compare)):
            self._ordered_ids.insert(id, before)
            before = id
        self._populate_next = list(self.trials)  # those with a next one tried are passed over


class DurableHyperband(DurableOracle, HyperbandOracle):
    """Hyperband."""

    def _rebuild(self) -> None:
        of_trial: dict[str, dict[str, Any]] = {}
        brackets: dict[int, dict[str, Any]] = {}
        for id, trial in self.trials.items():
            values = trial.hyperparameters.values
            past = values.get("tuner/trial_id")
            if "tuner/round" not in values or (past is not None and past not in of_trial):
                continue  # its trial.json was torn
            # KerasTuner notes with later rounds the bracket that is current, not that of the trial.
            number = values["tuner/bracket"]
            bracket = of_trial[past] if past is not None else brackets.get(number)
            if bracket is None:
                rounds: list[list[Any]] = [[] for _ in range(self._get_num_rounds(number))]
                bracket = brackets[number] = {"bracket_num": number, "rounds": rounds}
            bracket["rounds"][values["tuner/round"]].append({"past_id": past, "id": id})
            of_trial[id] = bracket
        if brackets:
            self._brackets = list(brackets.values())
            self._current_bracket = min(brackets)


_KINDS = {
    "bayesian": DurableBayesianOptimization,
    "hyperband": DurableHyperband,
    "random": DurableRandomSearch,
    "grid": DurableGridSearch,
}


def durable_oracle(
    name: str,
    *,
    objective: Objective,
    count: int,
    epochs: int,
    seed: int,
    folder: Path,
    deadline: float | None = None,
    **kwargs: Any,
) -> DurableOracle:
    """Returns an oracle that goes on from what lies in a folder.

    Args:
        name: `"bayesian"`, `"hyperband"`, `"random"` or `"grid"`.
        objective: What makes one trial better than another.
        count: How many trials to run at most, those in the folder counted.
        epochs: Epochs of a whole trial, for Hyperband.
        seed: A number from 0 on.
        folder: The folder of the trials; it need not be there.
        deadline: When no trial may run any more, as `time.monotonic()`; `None` for never.
        **kwargs: KerasTuner's own, such as `num_initial_points` or `hyperparameters`.

    Raises:
        ValueError: If there is no such oracle.

    Example:
        >>> oracle = durable_oracle("random", objective=Objective("val_loss", "min"), count=12,
        ...                         epochs=30, seed=0, folder=Path("runs/x/trials"))
    """
    if name not in _KINDS:
        raise ValueError(f"Unknown oracle {name!r}. Expected one of {', '.join(_KINDS)}.")
    if name == "hyperband":
        kwargs["max_epochs"] = epochs
    oracle = _KINDS[name](
        objective=objective, seed=seed, folder=folder, deadline=deadline, **kwargs
    )
    oracle.max_trials = count  # Hyperband takes no such argument
    oracle.reload()
    return oracle
