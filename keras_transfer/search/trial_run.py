"""TrialRun: builds and fits what a trial is, and leaves what came of it in its folder."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_transfer.plotting.history_table import write_csv
from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.callbacks import StopAtEpochEnd
from keras_transfer.search.metrics import Objective
from keras_transfer.search.oracles.oracle_state import hyperparameters
from keras_transfer.search.report import curves
from keras_transfer.search.report.curves import numbered
from keras_transfer.search.state.disk_full import is_disk_full
from keras_transfer.search.state.outcome import Outcome, TrialFolder

MEMBER = "member.npz"


class Source(Protocol):
    """Where trials come from: an oracle, or a chief that has one."""

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial."""

    def end_trial(self, trial: Trial, tuner_id: str | None = None) -> bool:
        """Takes what came of it; returns whether it was accepted."""

    def give_back(self, tuner_id: str) -> None:
        """Takes the trial back that a tuner has not ended, if it has one."""

    def seconds_left(self) -> float:
        """Returns the seconds that a trial which runs now has left."""


@dataclass(frozen=True)
class TrialRun:
    """Runs trials.

    Attributes:
        hypermodel: Its `build(hp)` and `fit(hp, model, ...)` leave `trained` behind.
        objective: What is scored.
        epochs: Epochs of a trial; Hyperband has its own number for each.
        seed: Of the search.
        trials: The folder of the trials.
        arguments: Further arguments for `fit`, such as `class_weight`.
        callbacks: Called with the number of the fold for further callbacks of that training.
    """

    hypermodel: Any
    objective: Objective
    epochs: int
    seed: int
    trials: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Callable[[int], list[keras.callbacks.Callback]] = lambda fold: []

    def run(
        self, trial: Trial, source: Source, tuner_id: str, pairs: Sequence[tuple[Any, Any]]
    ) -> None:
        """Runs a trial and ends it; what it raises is its failure, unless the disk is full.

        Args:
            trial: The trial.
            source: Where it comes from.
            tuner_id: Who runs it.
            pairs: Training and validation data, one pair for each fold.

        Raises:
            OSError: If nothing can be heard of the source any more, or the disk is full.
        """
        began, number = time.monotonic(), int(trial.trial_id) + 1
        folder = TrialFolder(self.trials, trial.trial_id)
        folder.discard(tuner_id)
        facts = {
            "trial": number,
            "id": trial.trial_id,
            "hyperparameters": hyperparameters(trial),
            "seed": seed_of(self.seed, number, 0),
            "worker": tuner_id,
            "epochs": self._epochs_of(trial),
        }
        try:
            facts |= self._all_folds(trial, source, folder.stage(tuner_id), pairs)
            Outcome(**facts, seconds=time.monotonic() - began).write(folder.stage(tuner_id))
            trial.status = TrialStatus.COMPLETED
        except Exception as error:  # whatever a trial raises is its own end
            if is_disk_full(error):  # which would be the end of the next one, too
                raise
            told = traceback.format_exc()
            trial.status, trial.message = TrialStatus.FAILED, told
            folder.discard(tuner_id)
            self._write_failure(folder, facts, time.monotonic() - began, told)
        source.end_trial(trial, tuner_id)

    def _write_failure(
        self, folder: TrialFolder, facts: dict[str, Any], seconds: float, told: str
    ) -> None:
        facts = {**facts, "status": "failed", "score": None, "seconds": seconds}
        facts |= {"failure": told.strip().rpartition("\n")[2], "traceback": told}
        for name in ("metrics", "epoch", "deviation", "folds"):
            facts.pop(name, None)
        try:
            Outcome(**facts).write(folder.stage(facts["worker"]))
        except OSError as error:
            if is_disk_full(error):
                raise
            folder.discard(facts["worker"])  # the oracle makes do with the message

    def _all_folds(
        self, trial: Trial, source: Source, stage: Path, pairs: Sequence[tuple[Any, Any]]
    ) -> dict[str, Any]:
        stage.mkdir(parents=True, exist_ok=True)
        stop = StopAtEpochEnd(source.seconds_left)
        metrics: list[dict[str, float]] = []
        best, stopped = None, False
        for execution, pair in enumerate(pairs):
            trained, cut = self._execute(trial, execution, pair, stop)
            metrics.append({name: float(value) for name, value in trained.metrics.items()})
            self._check(metrics[-1])
            plotter = trained.plotter
            write_csv(plotter.history, plotter.epochs, stage / numbered(curves.FILE, execution))
            trained.member.write(stage / numbered(MEMBER, execution))
            best, stopped = best or trained.epoch, stopped or cut
            if stop.out_of_time:
                stopped = True
                break
        scores = [one[self.objective.name] for one in metrics]
        return {
            "status": "stopped" if stopped else "completed",
            "score": statistics.fmean(scores),
            "deviation": statistics.stdev(scores) if len(scores) > 1 else None,
            "metrics": {name: statistics.fmean(m[name] for m in metrics) for name in metrics[0]},
            "epoch": best,
            "folds": tuple(metrics) if len(pairs) > 1 else (),
        }

    def _execute(
        self, trial: Trial, execution: int, pair: tuple[Any, Any], stop: StopAtEpochEnd
    ) -> tuple[Any, bool]:
        """What was trained, and whether it was cut short; to stand still is no cut."""
        keras.utils.clear_session()  # what Keras knows of the graphs of earlier trials
        hp = trial.hyperparameters
        keras.utils.set_random_seed(seed_of(self.seed, int(trial.trial_id) + 1, execution))
        model = self.hypermodel.build(hp)
        first = hp.values.get("tuner/initial_epoch", 0)
        if first and not self._go_on(hp.values["tuner/trial_id"], model, execution):
            first = 0
        callbacks = [stop, *self.callbacks(execution)]
        self.hypermodel.fit(
            hp,
            model,
            pair[0],
            validation_data=pair[1],
            epochs=self._epochs_of(trial),
            initial_epoch=first,
            verbose=0,
            callbacks=callbacks,
            **self.arguments,
        )
        return self.hypermodel.trained, any(getattr(one, "cut", False) for one in callbacks)

    def _epochs_of(self, trial: Trial) -> int:
        return int(trial.hyperparameters.values.get("tuner/epochs", self.epochs))

    def _check(self, metrics: Mapping[str, float]) -> None:
        name = self.objective.name
        if not np.isfinite(metrics.get(name, np.nan)):
            raise ValueError(
                f"{name} is {metrics.get(name)} in the best epoch. Expected a finite number; a "
                "lower learning rate may help."
            )

    def _go_on(self, past: str, model: Any, execution: int) -> bool:
        """Loads the weights of an earlier round of Hyperband; returns whether they are whole."""
        path = TrialFolder(self.trials, past).path / numbered(MEMBER, execution)
        try:
            member = Member.read(path)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"What trial {int(past) + 1} has trained is lost ({error}): the trial that goes on "
                "from there begins with its first epoch.",
                stacklevel=2,
            )
            return False
        if not model.built:
            model.build((None, *member.image_shape))
        parts = [(model.head.weights, member.head_weights)]
        for name, values in member.blocks.items():
            parts.append((model.backbone.block_weights(name), values))
        for weights, values in parts:
            for weight, value in zip(weights, values, strict=True):
                weight.assign(value)
        return True


def seed_of(seed: int, trial: int, execution: int) -> int:
    """Returns the seed of an execution of a trial.

    Args:
        seed: Of the search, from 0 on.
        trial: The number of the trial, from 1.
        execution: Which fold, from 0.
    """
    return int(np.random.SeedSequence([seed, trial, execution]).generate_state(1)[0])
