"""The trials of a search, run with a tuner of KerasTuner and told as they end."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from ensemble import Member
from hypermodel import TransferHyperModel

from keras_transfer.plots import save_figure

OBJECTIVE = "val_loss"
_TUNERS = {
    "bayesian": keras_tuner.BayesianOptimization,
    "hyperband": keras_tuner.Hyperband,
    "random": keras_tuner.RandomSearch,
    "grid": keras_tuner.GridSearch,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        trial: Its number, from 1.
        score: Lowest validation loss; `None` if it failed.
        accuracy: Validation accuracy in that epoch, 0..1; `None` if it failed.
        epoch: The epoch of that, from 1; `None` if it failed.
        seconds: How long it took.
        hyperparameters: Name to value.
        failure: The last line of the traceback, empty if it succeeded.
    """

    trial: int
    score: float | None
    accuracy: float | None
    epoch: int | None
    seconds: float
    hyperparameters: dict[str, Any]
    failure: str = ""

    def __str__(self) -> str:
        return f"val_loss {self.score:.4f}, val_accuracy {self.accuracy:.4f}"


class Trials:
    """Runs trials; keeps what came of each, and the best model with its curves.

    Args:
        tuner: `"bayesian"`, `"hyperband"`, `"random"` or `"grid"`.
        hypermodel: What builds and fits the model of a trial.
        count: How many trials to run at most.
        epochs: Epochs of a trial.
        seed: A number from 0 on; the same seed gives the same search.
        output: The folder for best.keras, history.png, and the state of the tuner.

    Attributes:
        outcomes: One for each trial that has ended.
        members: Trial number to what it has trained.
        best: The best of them, `None` as long as none has succeeded.
    """

    def __init__(
        self,
        tuner: str,
        hypermodel: TransferHyperModel,
        *,
        count: int,
        epochs: int,
        seed: int,
        output: Path,
    ) -> None:
        self.hypermodel = hypermodel
        self.count = count
        self.epochs = epochs
        self.seed = seed
        self.output = output
        self.outcomes: list[Outcome] = []
        self.members: dict[int, Member] = {}
        self.best: Outcome | None = None
        self._began = 0.0
        self._tuner = self._make(tuner)

    def _make(self, name: str) -> keras_tuner.Tuner:
        length = {"max_epochs": self.epochs} if name == "hyperband" else {"max_trials": self.count}
        tuner = _reporting(_TUNERS[name], self)(
            self.hypermodel,
            objective=keras_tuner.Objective(OBJECTIVE, "min"),
            seed=self.seed + 1,  # KerasTuner takes 0 for no seed
            directory=str(self.output),
            project_name="trials",
            overwrite=True,
            max_consecutive_failed_trials=self.count + 1,  # they are counted here
            **length,
        )
        tuner.oracle.max_trials = self.count  # Hyperband takes no such argument
        return tuner

    def run(self, train: tf.data.Dataset, valid: tf.data.Dataset) -> None:
        """Runs all trials."""
        self._tuner.search(
            train, validation_data=valid, epochs=self.epochs, verbose=0, callbacks=[]
        )

    @property
    def ranked(self) -> list[Outcome]:
        """The outcomes, best first, failed ones last."""
        return sorted(self.outcomes, key=lambda o: (o.score is None, o.score or 0, o.trial))

    @property
    def failures(self) -> list[Outcome]:
        """The trials that failed."""
        return [outcome for outcome in self.outcomes if outcome.score is None]

    def begin(self, trial: Any) -> None:
        """Called when a trial begins."""
        self._began = time.monotonic()
        keras.utils.set_random_seed(1000 * self.seed + len(self.outcomes))

    def end(self, trial: Any) -> None:
        """Called when a trial has ended: notes it, keeps the best model, prints a line."""
        failed = trial.status != "COMPLETED"
        trained = None if failed else self.hypermodel.trained
        outcome = Outcome(
            trial=len(self.outcomes) + 1,
            score=trained.metrics[OBJECTIVE] if trained else None,
            accuracy=trained.metrics["val_accuracy"] if trained else None,
            epoch=trained.epoch if trained else None,
            seconds=time.monotonic() - self._began,
            hyperparameters={
                name: value
                for name, value in trial.hyperparameters.values.items()
                if not name.startswith("tuner/")
            },
            failure=(trial.message or "").strip().rpartition("\n")[2] if failed else "",
        )
        self.outcomes.append(outcome)
        if trained:
            self.members[outcome.trial] = trained.member
            if outcome is self.ranked[0]:
                self.best = outcome
                self.keep(trained.model)
                save_figure(trained.plotter.figure(), self.output / "history.png")
        if failed and len(self.failures) == 1:
            print(trial.message)
        print(self._line(outcome), flush=True)

    def keep(self, model: keras.Model) -> None:
        """Writes best.keras, whole or not at all."""
        unfinished = self.output / "unfinished.keras"
        model.save(unfinished)
        unfinished.replace(self.output / "best.keras")

    def _line(self, outcome: Outcome) -> str:
        told = f"failed: {outcome.failure}" if outcome.score is None else str(outcome)
        best = f"best: trial {self.best.trial}, {self.best}" if self.best else "no best yet"
        left = self.count - outcome.trial
        seconds = left * statistics.median(o.seconds for o in self.outcomes)
        return f"trial {outcome.trial} of {self.count}: {told} | {best} | " + (
            f"{seconds:.0f} s left" if left else "done"
        )


def hyperband_needs(epochs: int) -> int:
    """Returns how many trials Hyperband runs before it has trained one to the last epoch."""
    oracle = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective(OBJECTIVE, "min"), max_epochs=epochs
    )
    # The sizes of its rounds have no public name in KerasTuner.
    bracket = oracle._get_num_brackets() - 1
    return sum(oracle._get_size(bracket, i) for i in range(oracle._get_num_rounds(bracket)))


def _reporting(kind: type[keras_tuner.Tuner], trials: Trials) -> type[keras_tuner.Tuner]:
    """The tuner's class, with a report at the begin and end of each trial."""

    class Reporting(kind):
        def on_trial_begin(self, trial: Any) -> None:
            super().on_trial_begin(trial)
            trials.begin(trial)

        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            trials.end(self.oracle.get_trial(trial.trial_id))

    return Reporting
