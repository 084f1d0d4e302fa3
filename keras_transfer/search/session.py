"""Session: one run of a search in this process, from the probe to the report."""

import contextlib
import gc
import math
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.search.averaging.winner import best_tuned
from keras_transfer.search.budget.limit import OutOfTime, time_limit
from keras_transfer.search.budget.plan import TimePlan
from keras_transfer.search.budget.rehearsal import Rehearsal
from keras_transfer.search.progress import Board
from keras_transfer.search.results import finish
from keras_transfer.search.settings import Settings
from keras_transfer.search.state import search_file
from keras_transfer.search.state.lock import alone
from keras_transfer.search.state.outcome import Begun, Outcome
from keras_transfer.search.study import Study
from keras_transfer.utils.exit_codes import ALL_FAILED, DONE, INTERRUPTED


def run(settings: Settings, data: Path | ImageFolder, began: float) -> int:
    """Runs a search in this process; returns its exit code.

    Args:
        settings: What is asked for.
        data: The folder of images, or the images themselves.
        began: When the search began, as `time.monotonic()`.

    Raises:
        ValueError: If settings do not fit each other or what the output folder holds.
        ImportError: If a package is missing.
        OSError: If something cannot be read or written.
    """
    plan = TimePlan() if settings.minutes is None else TimePlan(began + 60 * settings.minutes)
    with contextlib.ExitStack() as stack:
        try:
            with time_limit(plan.left):
                study = Study.of(
                    settings,
                    data,
                    began,
                    plan,
                    before_writing=lambda: stack.enter_context(alone(settings.output)),
                )
        except OutOfTime:
            return _no_time()
        return Session(study).run()


class Session:
    """Runs the trials of a search, and finishes it; this process holds its lock.

    Args:
        study: The search.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        resumed = search_file.begin(study.output, study.identity(), study.data.stamps)
        self.trials = study.trials(
            self._on_begin,
            self._on_end,
        )
        if resumed and self.trials.outcomes:  # another machine may just have made the folder
            print(f"Going on with the search in {study.output}.", flush=True)
            if failures := self.trials.failures:
                print(f"{len(failures)} of its trials failed and are not repeated.", flush=True)
        self.board = Board(
            study.objective,
            count=study.settings.trials,
            outcomes=self.trials.outcomes,
            workers=study.settings.workers,
            deadline=study.plan.deadline,
        )
        self._rehearsal: Rehearsal | None = None
        self._probed = False

    def run(self) -> int:
        """Runs what is left of the search; returns its exit code."""
        try:
            code = self._run_trials()
        except KeyboardInterrupt:
            code = INTERRUPTED
            count = len(self.trials.outcomes)
            when = f"after {count} trials" if count else "before the first trial ended"
            print(f"Interrupted {when}.", file=sys.stderr)
        except OutOfTime:
            code = DONE
            print("The time is up. What was running is left out.", flush=True)
            # TensorFlow's threads of a dataset that is still being read would abort the process.
            gc.collect()
        # Without a trial the result is the probe, unless all have failed.
        some = self.trials.best is not None or (self._probed and not self.trials.failures)
        if some and (code == DONE or self.trials.outcomes):
            finish(self.study, self.trials, interrupted=code == INTERRUPTED)
            return DONE
        return code or self._without_result()

    def _run_trials(self) -> int:
        """Runs the probe and the trials."""
        study, trials = self.study, self.trials
        trials.oracle  # noqa: B018 - brings it to where the journal ends
        self._warn_of_grid()
        with self.board, time_limit(study.plan.left_for_trials):
            self._probe()
            trials.run(study.data.train, study.data.valid, **study.fit_arguments)
        return DONE

    def _probe(self) -> None:
        self.board.on_begin(0, {})
        self.board.on_end(self.study.probe())
        self._probed = True
        if not self.trials.exhausted():
            self._rehearsal = Rehearsal(self.study)
        self._update_plan()

    def _on_begin(self, begun: Begun) -> None:
        self.board.on_begin(begun.trial, begun.hyperparameters, begun.expected)

    def _on_end(self, outcome: Outcome) -> None:
        if not outcome.failed and outcome.epoch is not None:
            values, costs = outcome.hyperparameters, self.study.costs
            costs.note(values, outcome.epoch, outcome.seconds)
        self.board.on_end(outcome)
        self._update_plan()

    def _update_plan(self) -> None:
        """Updates the plan by the trials that have ended."""
        study, plan, settings = self.study, self.study.plan, self.study.settings
        if self._rehearsal is not None and not settings.is_parallel:  # no worker waits meanwhile
            self._rehearsal.renew(self._averaged())
        best = [one for one in self.trials.ranked if not one.failed][: settings.average]
        if settings.final_fit and best:
            seconds = sum(one.seconds / max(1, len(one.folds)) for one in best)
            plan.final_fit = study.more_images * seconds
        elif study.refits and (tuned := best_tuned(self.trials)) is not None:
            seconds = study.more_images * study.costs.seconds(tuned.hyperparameters, tuned.epoch)
            fits = seconds < plan.left() - replace(plan, final_fit=0.0).reserve
            plan.final_fit = seconds if fits else 0.0
            study.costs.again = 0.0
        self._set_deadline()

    def _averaged(self) -> list[Mapping[str, Any]]:
        """The hyperparameters of what will be averaged, as far as that can be known."""
        whole = [one for one in self.trials.ranked if not one.failed]
        tuned = [one.hyperparameters for one in whole if one.hyperparameters.get("unfreeze")]
        if not tuned:
            return []
        return [*tuned, *[tuned[0]] * (1 + self.study.refits)][: self.study.settings.average]

    def _set_deadline(self) -> None:
        self.trials.deadline = self.board.deadline = self.study.plan.deadline

    def _warn_of_grid(self) -> None:
        """Warns of a grid that is too fine to be gone through, which KerasTuner does in order."""
        settings = self.study.settings
        points = math.prod(len(list(one.values)) for one in self.trials.oracle.get_space().space)
        if settings.tuner == "grid" and settings.trials < points:
            warnings.warn(
                "--tuner grid goes through its combinations in order, so that most hyperparameters "
                f"keep their first value in {settings.trials} trials of up to {points:,}. Give "
                "fewer values in --space, more --trials, or --tuner random.",
                stacklevel=2,
            )

    def _without_result(self) -> int:
        if not self.trials.failures:
            return _no_time()
        last = self.trials.failures[-1].failure
        print(f"keras-transfer search: error: all trials failed: {last}", file=sys.stderr)
        return ALL_FAILED


def _no_time() -> int:
    print(
        "keras-transfer search: error: there was no time for a trial. Give more --minutes.",
        file=sys.stderr,
    )
    return ALL_FAILED
