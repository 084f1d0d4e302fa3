"""PhasedCallbackList: one train-begin, one train-end and one History over several Keras fits."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import keras

from keras_transfer.training.block_unfreezer import BlockUnfreezer
from keras_transfer.training.blockwise_optimizer import BlockwiseOptimizer
from keras_transfer.utils.keras_internals import resumed_epoch


class PhasedCallbackList(keras.callbacks.CallbackList):
    """A list of callbacks that sees the fits within a `with` block as one training.

    `keras.Model.fit` takes a ready list as it is. Within the block, the begin and end of its
    trainings are not passed on: they come once, when the block is entered and left.

    Example:
        >>> with PhasedCallbackList(callbacks, model=model, add_history=True, epochs=30) as phased:
        ...     for start in phased.phases(0, 30):
        ...         keras.Model.fit(model, x, callbacks=phased, initial_epoch=start, epochs=30)
    """

    _logs: Mapping[str, Any] | None = None
    _next_start: int | None = None
    epochs_run = 0

    def __enter__(self) -> Self:
        self.model.stop_training = False
        super().on_train_begin()
        self._hold_averages(True)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        optimizer = self._hold_averages(False)
        if error is None:  # as in Keras' own `fit`, an interrupted model keeps its weights
            if optimizer is not None and self.epochs_run:
                optimizer.finalize_variable_values(self.model.trainable_weights)
            super().on_train_end(self._logs)

    def _hold_averages(self, hold: bool) -> BlockwiseOptimizer | None:
        """Sets whether the end of a phase's fit leaves the weights as they are under `use_ema`."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not isinstance(optimizer, BlockwiseOptimizer):
            return None
        optimizer.holds_averages = hold
        return optimizer

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Passes nothing on: training has begun."""

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Passes nothing on: training has not ended."""
        self._logs = logs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Passes it on, and ends the fit of the phase if the next phase is due."""
        super().on_epoch_end(epoch, logs)
        self.epochs_run += 1
        due = any(unfreezer.is_due(epoch + 1) for unfreezer in self._unfreezers)
        if due and not self.model.stop_training:
            self._next_start = epoch + 1
            self.model.stop_training = True

    @property
    def _unfreezers(self) -> list[BlockUnfreezer]:
        return [c for c in self.callbacks if isinstance(c, BlockUnfreezer)]

    @property
    def will_train(self) -> set[str]:
        """The blocks that train at some time."""
        return {block for unfreezer in self._unfreezers for block in unfreezer.blocks}

    def phases(self, start: int, epochs: int) -> Iterator[int]:
        """Yields the first epoch of each phase, with its blocks unfrozen.

        Args:
            start: The epoch to begin with. Where a callback resumes a run, its epoch counts.
            epochs: The epoch to end before.
        """
        self._next_start = resumed_epoch(self.model, start)
        while self._next_start is not None and not self.model.stop_training:
            start, self._next_start = self._next_start, None
            if start >= epochs:
                return
            for unfreezer in self._unfreezers:
                unfreezer.on_epoch_begin(start)
            yield start
            if self._next_start is not None:  # not a callback, but the phase has ended the fit
                self.model.stop_training = False
