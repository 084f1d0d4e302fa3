"""Trials: runs the trials of a search on an engine, and reads what they left."""

import contextlib
import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_tuner import Objective as KerasTunerObjective
from keras_tuner import Oracle
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_transfer.plotting.curves import is_finite
from keras_transfer.plotting.history_table import write_csv
from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.budget.costs import Planned
from keras_transfer.search.budget.limit import uninterrupted
from keras_transfer.search.engine.in_process import InProcess
from keras_transfer.search.engine.request import MOST_DEATHS, Engine, TrialRequest, TrialResult
from keras_transfer.search.metrics import Objective
from keras_transfer.search.oracle import make_oracle
from keras_transfer.search.report import curves as curve_files
from keras_transfer.search.report.curves import Curves, numbered, read_curves
from keras_transfer.search.report.leaderboard import ranked
from keras_transfer.search.state.files import read_or_put_aside
from keras_transfer.search.state.journal import Journal
from keras_transfer.search.state.lock import alone, is_alone
from keras_transfer.search.state.outcome import PREFIX, Begun, Outcome
from keras_transfer.search.trial_runner import Callbacks, TrialRunner, failed, public_values

FOLDER = "trials"
JOURNAL = "journal.jsonl"
MEMBER = "member.npz"


def _as_it_is(values: Mapping[str, Any], left: float) -> Planned:
    return Planned(dict(values), None)


class Trials:
    """Runs trials on an engine. Whatever kills the process, the next one goes on from there.

    The journal holds what was created, started and ended, in order; KerasTuner's oracle is brought
    to the same state by the same calls. The folder of a trial holds its curves and its weights.

    Args:
        hypermodel: Builds and fits the model of a trial.
        oracle_name: `"bayesian"`, `"hyperband"`, `"random"` or `"grid"`.
        objective: The log that ranks trials.
        count: How many trials to run at most, those that have ended included.
        epochs: Epochs of a trial.
        seed: 0 or larger; the same seed gives the same search.
        output: The folder of the search.
        deadline: When the last trial has to end, as `time.monotonic()`; `None` for no limit.
        folds: Pairs of training and validation data; each trial trains on all of them, and its
            score is the mean.
        on_begin: Called as a trial begins.
        on_end: Called with the outcome of a trial. Prints a line unless given.
        callbacks: Called with the request of a trial and the number of the fold, from 0, for
            further callbacks of that training, such as `MedianStopping`.
        plan: Called with the values of a trial and the seconds that are left; returns what fits, or
            None if nothing does.
        between: Called after each trial. What it raises ends the run, such as `GrownError`.
        engine: Runs the trials; this process unless given.

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
        callbacks: Callbacks = lambda request, fold: [],
        plan: Callable[[Mapping[str, Any], float], Planned | None] = _as_it_is,
        between: Callable[[], None] = lambda: None,
        engine: Engine | None = None,
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
        self.plan = plan
        self.between = between
        self.engine = engine
        self.journal = Journal(output / FOLDER / JOURNAL)
        self._oracle: Oracle | None = None
        self._outcomes: tuple[int, list[Outcome]] | None = None  # and the journal's size then
        self._unfinished: list[Trial] = []
        self._running: dict[str, Trial] = {}
        self._expected: dict[str, float | None] = {}
        self._is_over = False  # there is no time for another trial

    # ---- running them

    @property
    def oracle(self) -> Oracle:
        """KerasTuner's oracle, in the state that the journal tells of.

        Raises:
            RuntimeError: If this process does not hold the lock of the search.
            ValueError: If the journal is damaged.
        """
        if self._oracle is None:
            if not is_alone(self.output):
                raise RuntimeError(f"Expected to be called within `alone({str(self.output)!r})`.")
            self._oracle = self._replayed()
        return self._oracle

    def run(self, train: Any = None, valid: Any = None, **arguments: Any) -> None:
        """Runs all trials.

        Args:
            train: Training data, unless there are folds.
            valid: Validation data, unless there are folds.
            **arguments: Further ones for `fit`, such as `class_weight`.

        Raises:
            OSError: If another process runs this search, or the disk is full.
            ValueError: If the journal is damaged.
        """
        runner = TrialRunner(
            self.hypermodel,
            self.objective,
            self.seed,
            self.folds or [(train, valid)],
            arguments,
            self.callbacks,
            self.seconds_left,
        )
        with alone(self.output), self.engine or InProcess(runner) as engine:
            self.oracle  # noqa: B018 - replays the journal
            with self._interrupted_ones_noted(), _only_new_garbage():
                self._fail_deadly_ones()
                while True:
                    while len(self._running) < engine.slots and (following := self._next()):
                        self._submit(engine, *following)
                    if not self._running:
                        return
                    request, result = engine.wait()
                    expected = self._expected.pop(request.id, None)
                    outcome = replace(result.outcome, expected=expected)
                    result = replace(result, outcome=outcome)
                    with uninterrupted():
                        self._end(request, result)
                    self.on_end(result.outcome)
                    self.between()

    def exhausted(self) -> bool:
        """Whether no trial is left to run, or no time for another."""
        ended = len(self.oracle.trials) - len(self._unfinished) >= self.count
        return ended or self.seconds_left() <= 0

    def seconds_left(self) -> float:
        """Returns the seconds until the deadline, infinite without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def _next(self) -> tuple[Trial, Planned] | None:
        """Returns the trial to run next; None if there is none, or none as long as others run."""
        left = self.seconds_left()
        if self._is_over or left <= 0:
            return None
        if self.plan is _as_it_is and left <= self._shortest() / 2:
            return None
        if self._unfinished:
            planned = self.plan(self._unfinished[0].hyperparameters.values, left)
            return (self._unfinished.pop(0), planned) if planned else None
        if len(self.oracle.trials) >= self.count:
            return None
        trial = self._created()
        if trial.status != TrialStatus.RUNNING:
            return None
        planned = self.plan(trial.hyperparameters.values, left)
        if planned is None:
            # Nothing of it is in the journal, so the next run of the search asks for it again.
            self._is_over = True
            return None
        trial.hyperparameters.values = planned.values
        self.journal.append("created", id=trial.trial_id, values=planned.values)
        return trial, planned

    def _shortest(self) -> float:
        """Returns the seconds of the shortest trial that has a score."""
        return min((one.seconds for one in self.outcomes if not one.failed), default=0.0)

    def _created(self) -> Trial:
        return self.oracle.create_trial(f"slot-{len(self.oracle.trials)}")

    def _submit(self, engine: Engine, trial: Trial, planned: Planned) -> None:
        request = self._request(trial, planned)
        if self.engine is None:  # others notice themselves when a trial kills its process
            self.journal.append("started", id=trial.trial_id)
        self._running[trial.trial_id] = trial
        self._expected[trial.trial_id] = planned.seconds
        self.on_begin(
            Begun(request.number, request.id, public_values(request.values), planned.seconds)
        )
        engine.submit(request)

    def _request(self, trial: Trial, planned: Planned | None = None) -> TrialRequest:
        values = trial.hyperparameters.values
        first = values.get("tuner/initial_epoch", 0)
        members = self._members(values["tuner/trial_id"]) if first else ()
        return TrialRequest(
            trial.trial_id,
            dict(values),
            int(values.get("tuner/epochs", self.epochs)),
            time.time() + self.seconds_left(),
            time.time() + (planned.share if planned else math.inf),
            tuple(self.curves(fold) for fold in self._fold_numbers),
            first if members else 0,
            members,
        )

    def _members(self, past: str) -> tuple[Member, ...]:
        """Returns what an earlier round of Hyperband has trained; nothing if it is lost."""
        outcome = next(one for one in self.outcomes if one.id == past)
        members = [self.member(outcome, fold) for fold in self._fold_numbers]
        if any(one is None for one in members):
            warnings.warn(
                f"The weights of trial {outcome.trial} are lost: the trial that goes on from there "
                "begins with its first epoch.",
                stacklevel=2,
            )
            return ()
        return tuple(one for one in members if one is not None)

    def _end(self, request: TrialRequest, result: TrialResult) -> None:
        """Writes the result of a trial, its line in the journal last."""
        folder = self.folder(result.outcome)
        folder.mkdir(parents=True, exist_ok=True)
        for fold, (history, epochs) in enumerate(result.curves):
            write_csv(history, epochs, folder / numbered(curve_files.FILE, fold))
        for fold, member in enumerate(result.members):
            member.write(folder / numbered(MEMBER, fold))
        self.journal.append("ended", id=request.id, outcome=result.outcome.to_json())
        _end_in(self.oracle, self._running.pop(request.id), result.outcome)

    @property
    def _fold_numbers(self) -> range:
        return range(len(self.folds) if self.folds else 1)

    # ---- the journal

    def _replayed(self) -> Oracle:
        events = list(self.journal.read())
        created = {one["id"]: one["values"] for one in events if one["event"] == "created"}
        oracle = make_oracle(
            self.oracle_name,
            self.hypermodel,
            objective=KerasTunerObjective(self.objective.name, self.objective.mode),
            count=self.count,
            epochs=self.epochs,
            seed=self.seed,
            known=created,
            first=getattr(self.hypermodel, "recommended", list)(),
        )
        running: dict[str, Trial] = {}
        for event in events:
            if event["event"] == "created":
                running[event["id"]] = oracle.create_trial(f"slot-{len(oracle.trials)}")
            elif event["event"] == "ended":
                outcome = Outcome.from_json(event["outcome"])
                _end_in(oracle, running.pop(event["id"]), outcome)
        self._unfinished = list(running.values())
        return oracle

    def _fail_deadly_ones(self) -> None:
        """Ends the trials during which the process has died too often."""
        deaths = dict.fromkeys((trial.trial_id for trial in self._unfinished), 0)
        for event in self.journal.read():
            if event["id"] in deaths:
                change = {"started": 1, "interrupted": -1}.get(event["event"], 0)
                deaths[event["id"]] += change
        for trial in list(self._unfinished):
            count, number = deaths[trial.trial_id], int(trial.trial_id) + 1
            if count >= MOST_DEATHS:
                self._unfinished.remove(trial)
                self._running[trial.trial_id] = trial
                text = f"{count} processes died while they ran this trial. "
                request = self._request(trial)
                outcome = failed(request, 0.0, text + "Did they run out of memory?")
                self._end(request, TrialResult(outcome))
                self.on_end(outcome)
            elif count:
                warnings.warn(
                    f"The process died while it ran trial {number}, which is run again. If that "
                    f"happens {MOST_DEATHS} times, it counts as failed.",
                    stacklevel=2,
                )

    @contextlib.contextmanager
    def _interrupted_ones_noted(self) -> Iterator[None]:
        """Notes the trials that an exception interrupts, such as Ctrl-C: no death of theirs."""
        try:
            yield
        finally:
            with uninterrupted():
                for id in self._running:
                    # On a full disk the trial counts as one that died, once.
                    with contextlib.suppress(OSError):
                        self.journal.append("interrupted", id=id)
                self._unfinished = [*self._running.values(), *self._unfinished]
                self._running = {}

    # ---- what they left

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of the trials that have ended, in order of their numbers."""
        size = self.journal.size
        if self._outcomes is None or self._outcomes[0] != size:
            ended = (event for event in self.journal.read() if event["event"] == "ended")
            outcomes = (Outcome.from_json(event["outcome"]) for event in ended)
            self._outcomes = size, sorted(outcomes, key=lambda outcome: outcome.trial)
        return list(self._outcomes[1])

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
        return self.output / FOLDER / f"{PREFIX}{outcome.id}"

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
        tables = [self.history(outcome, fold) for outcome in completed]
        columns = [logs.get(self.objective.name, []) for logs, _ in filter(None, tables)]
        return [[one if is_finite(one) else math.nan for one in column] for column in columns]

    def _print(self, outcome: Outcome) -> None:
        outcomes, best = self.outcomes, self.best
        if outcome.failed and len(self.failures) == 1:
            print(outcome.traceback, flush=True)
        left = self.count - len(outcomes)
        score = f"best: trial {best.trial}, {best}" if best else "no best yet"
        usual = statistics.median(one.seconds for one in outcomes)
        seconds = max(0.0, min(left * usual, self.seconds_left()))
        print(
            f"trial {outcome.trial} of {self.count}: {outcome} | {score} | "
            + (f"{seconds:.0f} s left" if left else "done"),
            flush=True,
        )


def _end_in(oracle: Oracle, trial: Trial, outcome: Outcome) -> None:
    """Tells an oracle the result of a trial."""
    if outcome.score is None:
        trial.status, trial.message = TrialStatus.FAILED, outcome.traceback
    else:
        step = (outcome.epoch or 1) - 1
        oracle.update_trial(trial.trial_id, {oracle.objective.name: outcome.score}, step=step)
        trial.status = TrialStatus.COMPLETED
    oracle.end_trial(trial)


@contextlib.contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Excludes existing objects from garbage collection, which would take a third of a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
