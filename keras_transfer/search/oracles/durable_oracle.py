"""DurableOracle: gives trials and takes what came of them, each once, whatever dies meanwhile."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_transfer.search.oracles.oracle_state import OracleState, hyperparameters
from keras_transfer.search.state.outcome import Begun, Outcome, TrialFolder

MOST_DEATHS = 3  # of the processes that run a trial, before it counts as failed


class DurableOracle(OracleState):
    """What makes an oracle of KerasTuner durable; comes before it among the bases of a class.

    What it asks for next follows from the seed, the number of the trial, and the trials before it,
    not from how often it was started.

    KerasTuner's `create_trial` and `end_trial` are written anew rather than called: they retry in
    another order, give up without releasing their lock, and cannot refuse a late report.

    Args:
        deadline: When no trial may run any more, as `time.monotonic()`; `None` for never.
        **kwargs: As for `OracleState`.

    Attributes:
        on_begin: Called with what a trial begins with.
        on_end: Called with what came of it.
    """

    def __init__(self, *, deadline: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deadline = deadline
        self.on_begin: Callable[[Begun], None] = lambda begun: None
        self.on_end: Callable[[Outcome], None] = lambda outcome: None
        self._closed = False

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
                died = f"{deaths} processes died while they ran this trial."
                trial.message = f"{died} Did they run out of memory?"
                self._end(trial, tuner_id, None)
            else:
                del self.ongoing_trials[tuner_id]
                self._retry_queue.append(trial.trial_id)
                self.save()
            return trial

    def release_left(self) -> None:
        """Takes back the trials that ran when the process before this one died.

        That counts as a death of each.

        Raises:
            OSError: If that cannot be written.
        """
        with self._lock:
            self.adopt()
            for tuner_id in self.left:
                trial = self.release(tuner_id)
                if trial is not None and trial.status == TrialStatus.RUNNING:
                    warnings.warn(
                        f"The process died while it ran trial {int(trial.trial_id) + 1}, which is "
                        f"run again. If that happens {MOST_DEATHS} times, it counts as failed.",
                        stacklevel=2,
                    )

    def give_back(self, tuner_id: str) -> None:
        """Takes back the trial of a tuner that was ended, as by Ctrl-C. That is no death."""
        with self._lock:
            trial = self.ongoing_trials.pop(tuner_id, None)
            if trial is None or trial.status != TrialStatus.RUNNING:
                return
            TrialFolder(self.folder, trial.trial_id).discard(tuner_id)
            self._retry_queue.append(trial.trial_id)
            try:
                self.save()
            except OSError:  # a full disk; without the file the trial does not count as running
                self.forget()

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


def _id(number: int) -> str:
    """The id of a trial, whatever the number of trials: it may be raised when going on."""
    return f"{number:04d}"
