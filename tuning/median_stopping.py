"""MedianStopping: a callback that ends a trial which does worse than most did at that epoch."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from metrics import Objective


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
