"""ScheduleState: how far an unfreezing schedule has come, in variables that are saved."""

from typing import Any

import keras
from keras import ops


class Untracked:
    """Holds a value that Keras is not to track as a part of an optimizer."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _InVariable:
    """A number that is held in a variable."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, state: Any, owner: type | None = None) -> Any:
        return self if state is None else state.variables.value[self.name].numpy().item()

    def __set__(self, state: Any, value: float) -> None:
        state.variables.value[self.name].assign(value)


class ScheduleState:
    """How far a schedule has come.

    Args:
        optimizer: The optimizer that saves it.

    Attributes:
        phase: How many phases have begun.
        epoch: The last epoch that has ended, -1 for none.
        wait: Epochs since the monitored metric was best in this phase.
        best: Its best value in this phase; infinite as long as there is none.
        begun_at: The step at which the phase began.
        warmup: Steps over which its rate rises.
    """

    phase = _InVariable()
    epoch = _InVariable()
    wait = _InVariable()
    best = _InVariable()
    begun_at = _InVariable()
    warmup = _InVariable()

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self._optimizer = optimizer
        names = ("phase", "epoch", "wait", "begun_at", "warmup")  # in the order of saved files
        held = {name: optimizer.add_variable((), dtype="int32", name=name) for name in names}
        held["best"] = optimizer.add_variable((), dtype="float32", name="best")
        self.variables = Untracked(held)
        self.epoch, self.best = -1, float("inf")

    def restart(self, phase: int, epoch: int, warmup: int) -> None:
        """Begins the counts of a phase.

        Args:
            phase: How many phases have begun.
            epoch: The epoch that comes next.
            warmup: Steps over which the phase's rate rises.
        """
        self.phase, self.epoch = phase, epoch - 1
        self.wait, self.best = 0, float("inf")
        self.begun_at, self.warmup = self._optimizer.iterations.numpy(), warmup

    def warmed_up(self) -> Any:
        """Returns the part of the phase's warm-up that is over at this step, 0 to 1."""
        held = self.variables.value
        steps = ops.cast(self._optimizer.iterations - held["begun_at"] + 1, "float32")
        warmup = ops.cast(held["warmup"], "float32")
        part = ops.minimum(steps / ops.maximum(warmup, 1.0), 1.0)
        return ops.where(warmup > 0, part, ops.ones_like(part))
