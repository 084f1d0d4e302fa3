"""The trials of a search: run with an oracle, told as they end, read from their files."""

import contextlib
import functools
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
from keras_tuner import Objective as KerasTunerObjective
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import TrialStatus

from keras_transfer.plotting.curves import is_finite
from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.budget.limit import uninterrupted
from keras_transfer.search.metrics import Objective
from keras_transfer.search.oracles.durable_oracle import DurableOracle
from keras_transfer.search.oracles.oracles import durable_oracle
from keras_transfer.search.report.curves import Curves, numbered, read_curves
from keras_transfer.search.report.leaderboard import ranked
from keras_transfer.search.state.files import read_or_put_aside
from keras_transfer.search.state.lock import alone, is_alone
from keras_transfer.search.state.outcome import Begun, Outcome, TrialFolder, read_all
from keras_transfer.search.trial_run import MEMBER, Source, TrialRun

FOLDER = "trials"
_PAUSE = 0.2  # seconds until an oracle is asked again that has no trial for now


class Trials:
    """Runs trials. What came of them lies in their folders, where another process finds it, too.

    Args:
        hypermodel: What builds and fits the model of a trial.
        oracle_name: `"bayesian"`, `"hyperband"`, `"random"` or `"grid"`.
        objective: What makes one trial better than another.
        count: How many trials to run at most, those counted that the folder holds already.
        epochs: Epochs of a trial.
        seed: A number from 0 on; the same seed gives the same search.
        output: The folder of the search. A search that was interrupted goes on from what is there.
        deadline: When the last trial has to end, as `time.monotonic()`; `None` for no limit.
        folds: Pairs of training and validation data; each trial trains on all of them, and its
            score is the mean.
        on_begin: Called as a trial begins, in the process that has the oracle.
        on_end: Called with what came of it. Prints a line unless given.
        callbacks: Called with the number of the fold, from 0, for further callbacks of that
            training, such as `MedianStopping`.
        between: Called after each trial, in the process that has run it. What it raises ends the
            process's part in the search, such as `renewal.GrownError`.

    Example:
        >>> trials = Trials(hypermodel, "bayesian", objective=objective("loss"), count=12,
        ...                 epochs=30, seed=0, output=Path("runs/photos"))
        >>> trials.run(data.train, data.valid)
        >>> print(trials.best)
    """

    def __init__(
        self,
        hypermodel: Any,
        oracle_name: str,
        *,
        objective: Objective,
        count: int,
        epochs: int,
        seed: int,
        output: Path,
        deadline: float | None = None,
        folds: Sequence[tuple[Any, Any]] | None = None,
        on_begin: Callable[[Begun], None] | None = None,
        on_end: Callable[[Outcome], None] | None = None,
        callbacks: Callable[[int], list[keras.callbacks.Callback]] = lambda fold: [],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.hypermodel = hypermodel
        self.oracle_name = oracle_name
        self.objective = objective
        self.count = count
        self.epochs = epochs
        self.seed = seed
        self.output = output
        self.deadline = deadline
        self.folds = folds
        self.on_begin = on_begin or (lambda begun: None)
        self.on_end = on_end or self._print
        self.callbacks = callbacks
        self.between = between
        self._traceback_told = False

    @functools.cached_property
    def oracle(self) -> DurableOracle:
        """The oracle, which goes on from what lies in the folder. A worker has none of its own.

        Raises:
            RuntimeError: If this process does not hold the lock of the search, and so would mend
                what another process is writing.
        """
        if not is_alone(self.output):
            raise RuntimeError(f"Expected to be called within `alone({str(self.output)!r})`.")
        oracle = durable_oracle(
            self.oracle_name,
            objective=KerasTunerObjective(self.objective.name, self.objective.mode),
            count=self.count,
            epochs=self.epochs,
            seed=self.seed,
            folder=self.output / FOLDER,
            deadline=self.deadline,
            **self._initial_points(),
        )
        # KerasTuner explores which hyperparameters there are when it makes a tuner.
        BaseTuner(oracle, self.hypermodel, directory=str(self.output), project_name=FOLDER)
        oracle.on_begin, oracle.on_end = self.on_begin, self.on_end
        return oracle

    def _initial_points(self) -> dict[str, int]:
        """How many trials are drawn at random first: a few, not KerasTuner's 3 a dimension."""
        if self.oracle_name != "bayesian":
            return {}
        return {"num_initial_points": max(3, min(10, self.count // 3))}

    def run(self, train: Any = None, valid: Any = None, **arguments: Any) -> None:
        """Runs all trials in this process.

        Args:
            train: Training data, unless there are folds.
            valid: Validation data, unless there are folds.
            **arguments: Further ones for `fit`, such as `class_weight`.

        Raises:
            OSError: If another process runs this search, or a trial cannot be written, not even
                that it begins.
        """
        tuner_id = os.environ.get("KERASTUNER_TUNER_ID", "tuner0")
        with alone(self.output):
            self.oracle.release_left()
            self.work(self.oracle, tuner_id, train, valid, **arguments)

    def work(
        self, source: Source, tuner_id: str, train: Any = None, valid: Any = None, **arguments: Any
    ) -> None:
        """Runs trials until there are no more.

        Args:
            source: Where they come from: an oracle, or a chief.
            tuner_id: Who runs them.
            train: As for `run`.
            valid: As for `run`.
            **arguments: As for `run`.
        """
        pairs = self.folds or [(train, valid)]
        runs = TrialRun(
            self.hypermodel,
            self.objective,
            self.epochs,
            self.seed,
            self.output / FOLDER,
            arguments,
            self.callbacks,
        )
        with _only_new_garbage(), _given_back(source, tuner_id):
            while (trial := source.create_trial(tuner_id)).status != TrialStatus.STOPPED:
                if trial.status == TrialStatus.RUNNING:
                    runs.run(trial, source, tuner_id, pairs)
                    self.between()
                else:
                    time.sleep(_PAUSE)

    # ---- what came of them

    @property
    def outcomes(self) -> list[Outcome]:
        """What came of the trials that have ended, in order of their numbers; not the probe."""
        return [one for one in read_all(self.output / FOLDER)[0] if one.trial > 0]

    @property
    def ranked(self) -> list[Outcome]:
        """The outcomes, best first, failed ones last."""
        return ranked(self.outcomes, self.objective)

    @property
    def best(self) -> Outcome | None:
        """The best of them; `None` if none has succeeded."""
        first = next(iter(self.ranked), None)
        return None if first is None or first.failed else first

    @property
    def failures(self) -> list[Outcome]:
        """The trials that failed."""
        return [outcome for outcome in self.outcomes if outcome.failed]

    def folder(self, outcome: Outcome) -> Path:
        """Returns the folder of a trial."""
        return TrialFolder(self.output / FOLDER, outcome.id).path

    def member(self, outcome: Outcome, fold: int = 0) -> Member | None:
        """Returns what a trial has trained; `None` if it is lost. A damaged file is put aside."""
        path = self.folder(outcome) / numbered(MEMBER, fold)
        return read_or_put_aside(
            path, Member.read, f"trial {outcome.trial} has no weights any more"
        )

    def history(self, outcome: Outcome, fold: int = 0) -> Curves | None:
        """Returns the curves of a trial, and the epochs that they are of; `None` if there are none.

        A damaged table is put aside.
        """
        return read_curves(self.output / FOLDER, outcome, fold)

    def curves(self, fold: int = 0) -> list[list[float]]:
        """Returns the objective of each trial that was not stopped and left curves on a fold."""
        completed = [outcome for outcome in self.outcomes if outcome.status == "completed"]
        found = [self.history(outcome, fold) for outcome in completed]
        columns = [logs.get(self.objective.name, []) for logs, _ in filter(None, found)]
        return [[one if is_finite(one) else math.nan for one in column] for column in columns]

    # ---- as they end

    def _print(self, outcome: Outcome) -> None:
        if outcome.failed and not self._traceback_told:
            self._traceback_told = True
            print(outcome.traceback, flush=True)
        outcomes, best = self.outcomes, self.best
        left = self.count - len(outcomes)
        told = f"best: trial {best.trial}, {best}" if best else "no best yet"
        usual = statistics.median(one.seconds for one in outcomes or [outcome])
        seconds = max(0.0, min(left * usual, self.oracle.seconds_left()))
        print(
            f"trial {outcome.trial} of {self.count}: {outcome} | {told} | "
            + (f"{seconds:.0f} s left" if left else "done"),
            flush=True,
        )


@contextlib.contextmanager
def _given_back(source: Source, tuner_id: str) -> Iterator[None]:
    """Gives a trial back that an exception ends, such as Ctrl-C: that is no death of the trial."""
    try:
        yield
    except BaseException:
        with uninterrupted():
            source.give_back(tuner_id)
        raise


@contextlib.contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Spares the collections between trials what was there before, a third of a second each."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
