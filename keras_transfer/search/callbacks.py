"""The callbacks of a trial: its time, its best epoch, and the rule of the median."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import keras_tuner
import numpy as np

from keras_transfer.search.metrics import Objective


class StopAtEpochEnd(keras.callbacks.Callback):
    """Ends a training at the end of an epoch, when another would take longer than there is time.

    An epoch that takes longer than expected is cut short, so that its validation still fits. A
    training whose loss is no number any more is ended, too. This callback does not restore weights.

    Args:
        seconds_left: Gives the seconds that are left, infinite for no limit.

    Attributes:
        out_of_time: Whether it has ended a training for lack of time.
        cut: Whether it has ended the latest training.

    Example:
        >>> deadline = time.monotonic() + 600
        >>> model.fit(data, callbacks=[StopAtEpochEnd(lambda: deadline - time.monotonic())])
    """

    def __init__(self, seconds_left: Callable[[], float]) -> None:
        super().__init__()
        self.seconds_left = seconds_left
        self.out_of_time = self.cut = False
        self._began = self._validation_began = self._validation = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes the time."""
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Ends an epoch within it when no time is left."""
        if self.seconds_left() <= self._validation:
            self.out_of_time = True
            self.model.stop_training = True

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Notes the time."""
        self._validation_began = time.monotonic()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Notes how long a validation takes."""
        self._validation = time.monotonic() - self._validation_began

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Decides whether to go on, unless this was the last epoch anyway."""
        ends = self.model.stop_training and not self.out_of_time
        if not ends and self.seconds_left() < time.monotonic() - self._began:
            self.out_of_time = True
        self.cut = self.out_of_time or not math.isfinite((logs or {}).get("loss", 0.0))
        if self.cut:
            self.model.stop_training = True


class BestEpoch(keras.callbacks.Callback):
    """Holds the weights of the best epoch, and puts them back when the training ends.

    `keras.callbacks.EarlyStopping` would copy all weights of the model at each better epoch: the
    backbone, too, which takes longer than an epoch of a head.

    Args:
        objective: What decides which epoch is the best.
        weights: Gives the weights that can train.
        patience: The training ends after so many epochs without a better one; `None`, the default,
            for never.
        keep: `"best"`; or `"last"`, for a training whose last epoch is what it was all for: the
            last with a finite value is held in place of the best.

    Attributes:
        epoch: The best epoch, from 0; -1 as long as there was none with a finite value.
        logs: Its logs.
    """

    def __init__(
        self,
        objective: Objective,
        weights: Callable[[], Sequence[keras.Variable]],
        *,
        patience: int | None = None,
        keep: Literal["best", "last"] = "best",
    ) -> None:
        super().__init__()
        self.objective = objective
        self.weights = weights
        self.patience = patience
        self.keep = keep
        self.epoch = -1
        self.logs: dict[str, float] = {}
        self._values: list[np.ndarray] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts anew."""
        self.epoch, self.logs, self._values = -1, {}, []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Copies the weights if the epoch is the best so far; ends what no longer gets better.

        Raises:
            FatalValueError: If the objective is not logged.
        """
        logs = logs or {}
        name = self.objective.name
        if name not in logs:
            raise keras_tuner.errors.FatalValueError(
                f"The objective {name!r} is not logged. Logged are: {', '.join(sorted(logs))}. "
                "Give `validation_data`, or another metric."
            )
        value = float(logs[name])
        if math.isfinite(value) and (
            self.keep == "last"
            or self.epoch < 0
            or self.objective.better(value, than=self.logs[name])
        ):
            self.epoch = epoch
            self.logs = {log: float(number) for log, number in logs.items()}
            self._values = [weight.numpy() for weight in self.weights()]
        if self.patience is not None and epoch - self.epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Puts the best weights back.

        Raises:
            FailedTrialError: If the objective never was a finite number.
        """
        if self.epoch < 0:
            raise keras_tuner.errors.FailedTrialError(
                f"{self.objective.name} was no finite number in any epoch: the training diverged. "
                "A lower learning rate may do."
            )
        for weight, value in zip(self.weights(), self._values, strict=True):
            weight.assign(value)


class MedianStopping(keras.callbacks.Callback):
    """Ends a trial whose best value is worse than the median of what others had come to.

    The rule of Google Vizier (Golovin et al., KDD 2017, section 3.2.2): at each epoch, the best
    value of this trial so far is compared with the median over completed trials of their mean
    value up to that epoch. It needs no model of the curves, and a trial that is stopped still has a
    score.

    Args:
        objective: What decides which of two values is the better.
        others: Gives the objective of each completed trial, epoch by epoch. Called at the begin of
            each training.
        min_trials: So many of them must have reached the epoch.
        warmup_epochs: Epochs, from the first, at the end of which nothing is stopped.

    Attributes:
        stopped_epoch: The epoch at the end of which the trial was stopped, from 0; -1 for none.
        median: What it was compared with last, `None` if there was nothing.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> MedianStopping(objective("loss"), lambda: [[0.6, 0.4], [0.7, 0.5]], min_trials=2)
    """

    def __init__(
        self,
        objective: Objective,
        others: Callable[[], Sequence[Sequence[float]]],
        min_trials: int = 5,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("min_trials", min_trials, 1),
            ("warmup_epochs", warmup_epochs, 0),
        ):
            if not (isinstance(value, int) and value >= least):
                raise ValueError(
                    f"`{name}` must be a whole number from {least} on. Received: {value!r}."
                )
        self.objective = objective
        self.others = others
        self.min_trials = min_trials
        self.warmup_epochs = warmup_epochs
        self.stopped_epoch = -1
        self.median: float | None = None
        self._best: float | None = None
        self._curves: Sequence[Sequence[float]] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the model: a copy belongs to no fit, and must not copy all weights."""
        return {**self.__dict__, "_model": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "MedianStopping":
        # KerasTuner copies callbacks for each trial; what `others` looks at is to stay the same.
        return type(self)(self.objective, self.others, self.min_trials, self.warmup_epochs)

    @property
    def cut(self) -> bool:
        """Whether it has ended the latest training."""
        return self.stopped_epoch >= 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Asks what the others had come to."""
        self._curves = [list(curve) for curve in self.others()]
        self._best, self.median, self.stopped_epoch = None, None, -1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stops the training if the best so far is worse than the median.

        Raises:
            ValueError: If the objective is not logged.
        """
        logs = logs or {}
        if self.objective.name not in logs:
            raise ValueError(
                f"The objective {self.objective.name!r} is not logged. Logged are: "
                f"{', '.join(sorted(logs))}. Give `validation_data`, or another metric."
            )
        value = float(logs[self.objective.name])
        if math.isfinite(value) and (
            self._best is None or self.objective.better(value, than=self._best)
        ):
            self._best = value
        self.median = self._median(epoch)
        if self.median is None or epoch < self.warmup_epochs:
            return
        if self._best is None or self.objective.better(self.median, than=self._best):
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _median(self, epoch: int) -> float | None:
        """The median of the running averages at an epoch; `None` if too few have one."""
        reached = [curve[: epoch + 1] for curve in self._curves if len(curve) > epoch]
        finite = [[value for value in curve if math.isfinite(value)] for curve in reached]
        means = [statistics.fmean(curve) for curve in finite if curve]
        return statistics.median(means) if len(means) >= self.min_trials else None
