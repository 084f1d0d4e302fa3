"""BestEpoch: a callback that ends a training with the weights of its best epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from metrics import Objective


class BestEpoch(keras.callbacks.Callback):
    """Holds the weights of the best epoch, and puts them back when the training ends.

    `keras.callbacks.EarlyStopping` would copy all weights of the model at each better epoch: the
    backbone, too, which takes longer than an epoch of a head.

    Args:
        objective: What decides which epoch is the best.
        weights: Gives the weights that can train.
        patience: The training ends after so many epochs without a better one; `None`, the default,
            for never.
        not_before: The epoch, from 0, that they are counted from at the earliest: that of the last
            phase, which a training that stands still in the one before shall reach.

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
        not_before: int = 0,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.weights = weights
        self.patience = patience
        self.not_before = not_before
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
            self.epoch < 0 or self.objective.better(value, than=self.logs[name])
        ):
            self.epoch = epoch
            self.logs = {log: float(number) for log, number in logs.items()}
            self._values = [weight.numpy() for weight in self.weights()]
        latest = max(self.epoch, self.not_before - 1)
        if self.patience is not None and epoch - latest >= self.patience:
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
