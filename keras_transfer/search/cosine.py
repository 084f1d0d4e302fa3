"""CosineRate: the learning rate of a fine-tuning, which ends with the last epoch that fits."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras

_WARM_UP = 0.5  # epochs


class CosineRate(keras.callbacks.Callback):
    """Raises the learning rate for half an epoch, then lowers it to 0 along half a cosine.

    What is lowered to the end counts: so the curve ends with the last epoch that fits into the
    time, as far as the epochs before tell. Without a time limit it depends on steps alone.

    Args:
        peak: The highest rate.
        epochs: Epochs of the training at most.
        first: The first epoch, from 0; those before it keep their rate.
        seconds_left: Gives the seconds until the training should be over, infinite for no limit.

    Attributes:
        epochs: How many epochs there will be, the earlier ones included.

    Example:
        >>> model.fit(data, epochs=10, callbacks=[CosineRate(5e-4, 10)])

    Reference:
        Loshchilov and Hutter 2017, SGDR, https://arxiv.org/abs/1608.03983; training to a budget: Li
        et al. 2020, https://arxiv.org/abs/1905.04753
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        *,
        first: int = 0,
        seconds_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        super().__init__()
        self.peak = peak
        self.epochs = epochs
        self.first = first
        self.seconds_left = seconds_left
        self._most = epochs
        self._epoch = 0
        self._begins: list[float] = []  # of the batches of an epoch
        self._seconds = 0.0  # that an epoch takes

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Decides how many epochs there will be."""
        self._epoch, self._begins = epoch, []
        if epoch > self.first and (left := self.seconds_left()) < math.inf:
            fitting = max(1, math.floor(left / self._seconds))
            self.epochs = min(self._most, epoch + fitting)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Sets the rate of the steps that come next."""
        self._begins.append(time.monotonic())
        if self._epoch >= self.first:
            steps = self.params.get("steps") or 1
            self.model.optimizer.learning_rate = self.rate(self._epoch + min(batch / steps, 1))

    def rate(self, epochs: float) -> float:
        """Returns the rate after so many epochs, parts of one included."""
        done = epochs - self.first
        part = min(1.0, done / max(1, self.epochs - self.first))
        warmed = min(1.0, (done + 0.05) / _WARM_UP)  # the first step moves, too
        return self.peak * warmed * 0.5 * (1 + math.cos(math.pi * part))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Ends the training after the last epoch; notes how long one takes, without tracing."""
        ends, begins = time.monotonic(), self._begins
        if len(begins) > 2:  # the first and the last are traced in the first epoch
            usual = sorted(b - a for a, b in itertools.pairwise(begins[1:]))
            self._seconds = usual[len(usual) // 2] * len(begins) + (ends - begins[-1]) / 2
        if not self._seconds or epoch > self.first:
            self._seconds = ends - begins[0] if begins else 0.0
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True
