"""TrialRunner: builds and trains what a trial is, on all folds."""

import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_transfer.search.callbacks import StopAtEpochEnd
from keras_transfer.search.engine.request import TrialRequest, TrialResult
from keras_transfer.search.metrics import Objective
from keras_transfer.search.state.disk_full import is_disk_full
from keras_transfer.search.state.outcome import Outcome

Callbacks = Callable[[TrialRequest, int], list[keras.callbacks.Callback]]


@dataclass(frozen=True)
class TrialRunner:
    """Runs trials. The result follows from the request and the attributes alone.

    Attributes:
        hypermodel: Its `build(hp)` and `fit(hp, model, ...)` leave `trained` behind.
        objective: What is scored.
        seed: Of the search.
        pairs: Training and validation data, one pair for each fold.
        arguments: Further arguments for `fit`, such as `class_weight`.
        callbacks: Called with the request and the number of the fold, from 0; returns further
            callbacks.
        seconds_left: Returns the seconds that the running trial has left. Default: those until the
            end that its request names.
    """

    hypermodel: Any
    objective: Objective
    seed: int
    pairs: Sequence[tuple[Any, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Callbacks = lambda request, fold: []
    seconds_left: Callable[[], float] | None = None

    def __call__(self, request: TrialRequest) -> TrialResult:
        """Runs a trial; an error is its failure, unless the disk is full.

        Raises:
            OSError: If the disk is full, which would be the end of the next trial, too.
        """
        began = time.monotonic()
        facts: dict[str, Any] = {
            "trial": request.number,
            "id": request.id,
            "hyperparameters": public_values(request.values),
            "seed": seed_of(self.seed, request.number, 0),
            "epochs": request.epochs,
        }
        self.hypermodel.until = request.until
        stop = StopAtEpochEnd(self.seconds_left or (lambda: request.ends - time.time()))
        try:
            folds = self._train(request, stop)
            scored = self._scored([trained.metrics for trained, _ in folds])
        except Exception as error:  # whatever a trial raises is its own end
            if is_disk_full(error):
                raise
            return TrialResult(failed(request, time.monotonic() - began, seed=facts["seed"]))
        outcome = Outcome(
            **facts,
            **scored,
            status="stopped" if any(cut for _, cut in folds) else "completed",
            epoch=folds[0][0].epoch,
            seconds=time.monotonic() - began,
        )
        curves = tuple((one.plotter.history, one.plotter.epochs) for one, _ in folds)
        return TrialResult(outcome, curves, tuple(trained.member for trained, _ in folds))

    def _train(self, request: TrialRequest, stop: StopAtEpochEnd) -> list[tuple[Any, bool]]:
        """Returns what was trained on each fold, and whether that was cut short."""
        folds = []
        for fold, pair in enumerate(self.pairs):
            keras.utils.clear_session()  # what Keras knows of the graphs of earlier trials
            keras.utils.set_random_seed(seed_of(self.seed, request.number, fold))
            hp = keras_tuner.HyperParameters()
            hp.values = dict(request.values)
            model = self.hypermodel.build(hp)
            if request.members:
                request.members[fold].put_into(model)
            callbacks = [stop, *self.callbacks(request, fold)]
            self.hypermodel.fit(
                hp,
                model,
                pair[0],
                validation_data=pair[1],
                epochs=request.epochs,
                initial_epoch=request.first_epoch,
                verbose=0,
                callbacks=callbacks,
                **self.arguments,
            )
            cut = any(getattr(one, "cut", False) for one in callbacks)
            # Without its model, which holds memory, on a GPU too.
            trained = SimpleNamespace(**{**vars(self.hypermodel.trained), "model": None})
            folds.append((trained, cut or stop.out_of_time))
            self._check(trained.metrics)
            if stop.out_of_time:
                break
        return folds

    def _check(self, metrics: Mapping[str, float]) -> None:
        name = self.objective.name
        if not np.isfinite(metrics.get(name, np.nan)):
            raise ValueError(
                f"{name} is {metrics.get(name)} in the best epoch. Expected a finite number; a "
                "lower learning rate may help."
            )

    def _scored(self, folds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        metrics = [{name: float(value) for name, value in one.items()} for one in folds]
        scores = [one[self.objective.name] for one in metrics]
        return {
            "score": statistics.fmean(scores),
            "deviation": statistics.stdev(scores) if len(scores) > 1 else None,
            "metrics": {name: statistics.fmean(m[name] for m in metrics) for name in metrics[0]},
            "folds": tuple(metrics) if len(self.pairs) > 1 else (),
        }


def failed(request: TrialRequest, seconds: float, text: str = "", seed: int = 0) -> Outcome:
    """Returns the outcome of a trial that failed.

    Args:
        request: The trial.
        seconds: How long it took.
        text: The traceback; that of the exception that is handled unless given.
        seed: Of its first execution.
    """
    text = text or traceback.format_exc()
    return Outcome(
        request.number,
        request.id,
        "failed",
        None,
        seconds,
        public_values(request.values),
        failure=text.strip().rpartition("\n")[2],
        traceback=text,
        seed=seed,
        epochs=request.epochs,
    )


def public_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters without those of KerasTuner itself (`tuner/...`)."""
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def seed_of(seed: int, trial: int, fold: int) -> int:
    """Returns the seed of a trial on a fold.

    Args:
        seed: Of the search, from 0 on.
        trial: The number of the trial, from 1.
        fold: Which fold, from 0.
    """
    return int(np.random.SeedSequence([seed, trial, fold]).generate_state(1)[0])
