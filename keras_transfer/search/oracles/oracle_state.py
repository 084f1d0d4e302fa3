"""OracleState: the state of an oracle of KerasTuner, made of the trials' folders alone."""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from keras_tuner import Oracle
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_transfer.search.state.files import read_json, read_or_put_aside, write_json
from keras_transfer.search.state.outcome import Outcome, TrialFolder, sweep, trial_folders

_ORACLE = "oracle.json"


class OracleState(Oracle):
    """The state of an oracle, which survives whatever happens to its process.

    The trials' folders are the truth: on `reload` all else is made from them, so nothing can
    contradict them, whenever the process died. Of `oracle.json` no more is read than who ran what,
    and how often a trial's process has died.

    KerasTuner's state has private names, which its kinds of oracles share (`_tried_so_far`,
    `_retry_queue`, `_seed_state`); there is no other way to set it.

    Args:
        folder: The folder of the trials.
        seed: A number from 0 on.
        **kwargs: KerasTuner's own.

    Attributes:
        left: Tuner id to id of the trial that it ran when the state was last written.
    """

    def __init__(self, *, folder: Path, seed: int, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.seed = seed  # KerasTuner takes 0 for none
        self.verbose = 0
        self.folder = folder
        self.left: dict[str, str] = {}
        self._seconds: list[float] = []  # of the trials that have ended and not failed
        self._lock = threading.RLock()
        self._set_project_dir(str(folder.parent), folder.name)

    def _none(self, status: str) -> Trial:
        return Trial(hyperparameters=self.hyperparameters.copy(), trial_id="none", status=status)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Returns the best trials; fewer than asked for rather than failed ones."""
        with self._lock:
            done = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
            sign = -1 if self.objective.direction == "max" else 1
            return sorted(done, key=lambda t: (sign * t.score, t.trial_id))[:num_trials]

    # ---- what came of trials

    def _told(self, trial: Trial, tuner_id: str) -> Outcome:
        """What a trial says of itself, where its tuner has left no outcome."""
        if trial.status == TrialStatus.COMPLETED and trial.metrics.exists(self.objective.name):
            self.score_trial(trial)
        told = trial.message or (
            f"{tuner_id} left no outcome of trial {trial.trial_id}. Expected one in the folder "
            f"{str(self.folder)!r}, which all workers must share."
        )
        failed = trial.score is None or not np.isfinite(trial.score)
        return Outcome(
            trial=int(trial.trial_id) + 1,
            id=trial.trial_id,
            status="failed" if failed else "completed",
            score=None if failed else float(trial.score),
            seconds=0.0,
            hyperparameters=hyperparameters(trial),
            metrics={name: one.get_last_value() for name, one in trial.metrics.metrics.items()},
            epoch=None if failed else trial.best_step + 1,
            failure=told.strip().rpartition("\n")[2] if failed else "",
            traceback=told if failed else "",
            worker=tuner_id,
        )

    def _settle(self, trial: Trial, outcome: Outcome) -> None:
        """Makes a trial what came of it."""
        trial.status = TrialStatus.FAILED if outcome.failed else TrialStatus.COMPLETED
        trial.message = outcome.traceback or None
        trial.score = outcome.score
        trial.best_step = (outcome.epoch or 1) - 1
        for name, value in outcome.metrics.items():
            if not trial.metrics.exists(name) and np.isfinite(value):
                trial.metrics.update(name, value, step=trial.best_step)
        if not outcome.failed:
            self._seconds.append(outcome.seconds)
        self._record_values(trial)
        self.end_order.append(trial.trial_id)

    def _try(self, trial: Trial, write: Callable[[], Any]) -> None:
        """Writes what came of a trial. A full disk is not the end of the search."""
        try:
            write()
        except OSError as error:
            warnings.warn(
                f"What came of trial {int(trial.trial_id) + 1} cannot be written ({error}): the "
                "search will repeat it when it is started again. Free the disk.",
                stacklevel=2,
            )

    # ---- files

    def _write(self, trial: Trial) -> None:
        self._save_trial(trial)
        self.save()

    def _save_trial(self, trial: Trial) -> None:
        TrialFolder(self.folder, trial.trial_id).write_trial(trial.get_state())

    def save(self) -> None:
        """Writes oracle.json."""
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _ORACLE, self.get_state())

    def forget(self) -> None:
        """Removes oracle.json, which needs no room on the disk."""
        (self.folder / _ORACLE).unlink(missing_ok=True)

    def reload(self) -> None:
        """Makes the state of what lies in the folder; nothing there is a state, too.

        Trials that ran when it was written are the next to run.
        """
        with self._lock:
            sweep(self.folder)
            ran, deaths = self._read()
            for folder in trial_folders(self.folder):
                self._take_up(folder)
            running = [t for t in self.trials.values() if t.status == TrialStatus.RUNNING]
            self._retry_queue = [trial.trial_id for trial in running]
            self.left = {tuner: id for tuner, id in ran.items() if id in self._retry_queue}
            self._run_times.update({id: deaths.get(id, 0) for id in self._retry_queue})
            self._rebuild()

    def _read(self) -> tuple[dict[str, str], dict[str, int]]:
        """What oracle.json says: which tuner ran which trial, and the deaths of each trial."""

        def read(path: Path) -> tuple[dict[str, str], dict[str, int]]:
            state = read_json(path)
            self.update_space(type(self.hyperparameters).from_config(state["hyperparameters"]))
            deaths = {str(id): int(number) for id, number in state["run_times"].items()}
            return {tuner: str(id) for tuner, id in state["ongoing_trials"].items()}, deaths

        next_step = "it is made again from the trials"
        return read_or_put_aside(self.folder / _ORACLE, read, next_step) or ({}, {})

    def _take_up(self, folder: TrialFolder) -> None:
        folder.sweep()
        trial = folder.read_trial()
        status = None if trial is None else trial.status
        outcome = folder.outcome() or folder.finished_stage()
        if trial is not None:
            self.update_space(trial.hyperparameters)
        elif outcome is not None:  # all but KerasTuner's own values
            trial = self._none(TrialStatus.RUNNING)
            trial.trial_id, trial.hyperparameters.values = folder.id, dict(outcome.hyperparameters)
        else:
            return  # it is asked for again under the same number
        self.trials[folder.id] = trial
        self.start_order.append(folder.id)
        if outcome is None and trial.status != TrialStatus.RUNNING:
            outcome = self._told(trial, "")
            self._try(trial, lambda: outcome.write(folder.path))
        if outcome is not None:
            self._settle(trial, outcome)
        else:
            self._record_values(trial)
        if status != trial.status:
            self._try(trial, lambda: self._save_trial(trial))

    def _rebuild(self) -> None:
        """Makes what only one kind of oracle knows of its trials."""

    def adopt(self) -> None:
        """Leaves trials to the tuners that ran them when the process died, for they may live."""
        with self._lock:
            for tuner_id, trial_id in self.left.items():
                if trial_id in self._retry_queue:
                    self._retry_queue.remove(trial_id)
                    self.ongoing_trials[tuner_id] = self.trials[trial_id]


def hyperparameters(trial: Trial) -> dict[str, Any]:
    """Returns the values of a trial but for those of KerasTuner itself."""
    values = trial.hyperparameters.values
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}
