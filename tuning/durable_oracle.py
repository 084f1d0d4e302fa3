"""Oracles of KerasTuner whose state survives whatever happens to their process."""

import statistics
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from keras_tuner import Objective, Oracle
from keras_tuner.engine.trial import Trial, TrialStatus
from outcome import Begun, Outcome
from state_files import put_aside, read_json, write_json
from trial_folder import TrialFolder, trial_folders

MOST_DEATHS = 3  # of those who run a trial, before it counts as failed
_ORACLE = "oracle.json"


class DurableOracle(Oracle):
    """What makes an oracle of KerasTuner durable; comes before it among the bases of a class.

    The trials' folders are the truth: on `reload` all else is made from them, so nothing can
    contradict them, whenever the process died. What the oracle asks for next follows from the
    seed, the number of the trial, and the trials before it, not from how often it was started.

    KerasTuner's `create_trial` and `end_trial` are written anew rather than called: they retry
    under another order, give up without releasing their lock, and cannot refuse a late report.
    Their state has private names, which the kinds of oracles share (`_tried_so_far`,
    `_retry_queue`, `_seed_state`); there is no other way to set it.

    Args:
        folder: The folder of the trials.
        seed: A number from 0 on.
        deadline: When no trial may run any more, as `time.monotonic()`; `None` for never.
        **kwargs: KerasTuner's own.

    Attributes:
        on_begin: Called with what a trial begins with.
        on_end: Called with what came of it.
        left: Tuner id to id of the trial that it ran when the state was last written.
    """

    def __init__(
        self, *, folder: Path, seed: int, deadline: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.seed = seed  # KerasTuner takes 0 for none
        self.verbose = 0
        self.folder = folder
        self.deadline = deadline
        self.on_begin: Callable[[Begun], None] = lambda begun: None
        self.on_end: Callable[[Outcome], None] = lambda outcome: None
        self.left: dict[str, str] = {}
        self._seconds: list[float] = []  # of the trials that have ended and not failed
        self._closed = False
        self._lock = threading.RLock()
        self._set_project_dir(str(folder.parent), folder.name)

    # ---- trials begin

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the trial to run next: one that nobody has ended yet, or a new one.

        Returns:
            A trial; its status is `RUNNING`, `IDLE` if one may come later, or `STOPPED`.

        Raises:
            OSError: If it cannot be written.
        """
        with self._lock:
            if tuner_id in self.ongoing_trials:
                return self.ongoing_trials[tuner_id]
            if self._closed or not self._in_time():
                return self._none(TrialStatus.STOPPED)
            trial = self._begun_before() or self._new()
            if trial.status == TrialStatus.RUNNING:
                self.tuner_ids.add(tuner_id)
                self.ongoing_trials[tuner_id] = trial
                self._write(trial)
                self.on_begin(self._begun(trial, tuner_id))
            return trial

    def _in_time(self) -> bool:
        usual = statistics.median(self._seconds) if self._seconds else 0.0
        return self.seconds_left() > usual

    def seconds_left(self) -> float:
        """Returns the seconds until the deadline, infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def _none(self, status: str) -> Trial:
        return Trial(hyperparameters=self.hyperparameters.copy(), trial_id="none", status=status)

    def _begun_before(self) -> Trial | None:
        if not self._retry_queue:
            return None
        self._retry_queue.sort()
        return self.trials[self._retry_queue.pop(0)]

    def _new(self) -> Trial:
        number = next(n for n in range(len(self.trials) + 1) if _id(n) not in self.trials)
        # Whoever runs one of the others may die, and its trial be given to who asks now.
        none_left = TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED
        if self.max_trials is not None and number >= self.max_trials:
            return self._none(none_left)
        answer = self.populate_space(_id(number))
        if answer["status"] != TrialStatus.RUNNING:
            return self._none(
                none_left if answer["status"] == TrialStatus.STOPPED else answer["status"]
            )
        trial = self._none(TrialStatus.RUNNING)
        trial.trial_id = _id(number)
        trial.hyperparameters.values = answer["values"]
        self._record_values(trial)
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self._asked(trial)
        return trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns KerasTuner's answer, drawn from a seed of the trial's own."""
        self._reseed(int(np.random.SeedSequence([self.seed, int(trial_id)]).generate_state(1)[0]))
        return super().populate_space(trial_id)

    def _reseed(self, seed: int) -> None:
        """Sets all state of chance of the oracle."""
        self._seed_state = seed

    def _asked(self, trial: Trial) -> None:
        """Called with a trial that is new."""

    def _begun(self, trial: Trial, tuner_id: str) -> Begun:
        return Begun(
            int(trial.trial_id) + 1, trial.trial_id, hyperparameters(trial), worker=tuner_id
        )

    # ---- trials end

    def end_trial(self, trial: Trial, tuner_id: str | None = None) -> bool:
        """Takes the results that a tuner has left in the trial's folder.

        A tuner that leaves none, as those of KerasTuner, is taken at its word.

        Args:
            trial: The trial.
            tuner_id: Who ran it; `None` for whoever has it.

        Returns:
            Whether they were accepted: only of who has the trial, so that each trial ends once.
        """
        with self._lock:
            if tuner_id is None:
                tuner_id = self._holder(trial.trial_id)
            folder = TrialFolder(self.folder, trial.trial_id)
            if tuner_id is None or not self._has(tuner_id, trial.trial_id):
                if tuner_id is not None:
                    folder.discard(tuner_id)
                ended = self.trials.get(trial.trial_id)
                return (
                    ended is not None
                    and ended.status != TrialStatus.RUNNING
                    and (getattr(folder.outcome(), "worker", None) == tuner_id)
                )
            own = self.trials[trial.trial_id]
            own.status, own.message = trial.status, trial.message
            self.update_space(trial.hyperparameters)
            self._end(own, tuner_id, self._committed(folder, tuner_id))
            return True

    def _holder(self, trial_id: str) -> str | None:
        return next(
            (t for t, trial in self.ongoing_trials.items() if trial.trial_id == trial_id), None
        )

    def _has(self, tuner_id: str, trial_id: str) -> bool:
        return tuner_id in self.ongoing_trials and (
            self.ongoing_trials[tuner_id].trial_id == trial_id
        )

    def _committed(self, folder: TrialFolder, tuner_id: str) -> Outcome | None:
        try:
            return folder.commit(tuner_id)
        except OSError:
            self.trials[folder.id].message = traceback.format_exc()
            self.trials[folder.id].status = TrialStatus.FAILED
            return None

    def _end(self, trial: Trial, tuner_id: str, outcome: Outcome | None) -> None:
        if outcome is None:
            outcome = self._told(trial, tuner_id)
            self._try(trial, lambda: outcome.write(TrialFolder(self.folder, trial.trial_id).path))
        self._settle(trial, outcome)
        del self.ongoing_trials[tuner_id]
        self._try(trial, lambda: self._write(trial))
        self.on_end(outcome)

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

    def release(self, tuner_id: str) -> Trial | None:
        """Takes the trial of a dead tuner back, to be given to another.

        After `MOST_DEATHS` the trial itself is taken for the cause, and has failed.

        Returns:
            The trial, `None` if the tuner had none.
        """
        with self._lock:
            self.tuner_ids.discard(tuner_id)
            trial = self.ongoing_trials.get(tuner_id)
            if trial is None:
                return None
            self._run_times[trial.trial_id] += 1
            deaths = self._run_times[trial.trial_id]
            TrialFolder(self.folder, trial.trial_id).discard(tuner_id)
            if deaths >= MOST_DEATHS:
                trial.message = f"{deaths} workers died while they ran this trial."
                self._end(trial, tuner_id, None)
            else:
                del self.ongoing_trials[tuner_id]
                self._retry_queue.append(trial.trial_id)
                self.save()
            return trial

    def exhausted(self) -> bool:
        """Whether all trials have ended, or no time is left for another; KerasTuner may know more.

        A grid, or Hyperband, can also come to its end before `max_trials`.
        """
        with self._lock:
            if self.ongoing_trials:
                return False
            if self._closed or not self._in_time():
                return True
            most = self.max_trials
            return not self._retry_queue and most is not None and len(self.trials) >= most

    def close(self) -> None:
        """Lets no further trial begin."""
        self._closed = True

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Returns the best trials; fewer than asked for rather than failed ones."""
        with self._lock:
            done = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
            sign = -1 if self.objective.direction == "max" else 1
            return sorted(done, key=lambda t: (sign * t.score, t.trial_id))[:num_trials]

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

    def reload(self) -> None:
        """Makes the state of what lies in the folder; nothing there is a state, too.

        Trials that ran when it was written are the next to run.
        """
        with self._lock:
            state = self._read()
            if "hyperparameters" in state:
                self.update_space(type(self.hyperparameters).from_config(state["hyperparameters"]))
            for folder in trial_folders(self.folder):
                self._take_up(folder)
            running = [t for t in self.trials.values() if t.status == TrialStatus.RUNNING]
            self._retry_queue = [trial.trial_id for trial in running]
            known = state.get("ongoing_trials", {})
            self.left = {tuner: id for tuner, id in known.items() if id in self._retry_queue}
            self._rebuild()

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self.folder / _ORACLE)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            put_aside(self.folder / _ORACLE, error, "it is made again from the trials")
            return {}

    def _take_up(self, folder: TrialFolder) -> None:
        state = folder.read_trial()
        outcome = folder.outcome() or folder.finished_stage()
        if state is not None:
            trial = Trial.from_state(state)
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
        if state is None or state["status"] != trial.status:
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


def objective_of(name: str, mode: str) -> Objective:
    """Returns KerasTuner's form of an objective.

    Args:
        name: Of a log, such as `"val_loss"`.
        mode: `"min"` or `"max"`.
    """
    return Objective(name, mode)


def _id(number: int) -> str:
    """The id of a trial, whatever the number of trials: it may be raised when going on."""
    return f"{number:04d}"
