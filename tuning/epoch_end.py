"""StopAtEpochEnd: a callback that ends a training which has no time left, or nothing to gain."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras


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
        """Decides whether to go on."""
        if self.seconds_left() < time.monotonic() - self._began:
            self.out_of_time = True
        self.cut = self.out_of_time or not math.isfinite((logs or {}).get("loss", 0.0))
        if self.cut:
            self.model.stop_training = True
