"""ScheduleState: how far a schedule has come, in variables that are saved with the optimizer."""

from typing import Any

import keras
from keras import ops

from keras_transfer.optimizer_kind import steps_of


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

    phase: int
    epoch: int
    wait: int
    best: float
    begun_at: int
    warmup: int

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        integers = {"phase": 0, "epoch": -1, "wait": 0, "begun_at": 0, "warmup": 0}
        variables = {
            name: optimizer.add_variable((), initializer="zeros", dtype="int32", name=name)
            for name in integers
        }
        variables["best"] = optimizer.add_variable((), dtype="float32", name="best")
        variables["epoch"].assign(-1)
        variables["best"].assign(float("inf"))
        self.__dict__["_optimizer"] = optimizer
        self.__dict__["_variables"] = lambda: variables  # behind a call: Keras tracks no dicts

    def __getattr__(self, name: str) -> Any:
        variables = self.__dict__["_variables"]()
        if name not in variables:
            raise AttributeError(name)
        value = variables[name].numpy()
        return float(value) if name == "best" else int(value)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["_variables"]()[name].assign(value)

    def restart(self, phase: int, epoch: int, warmup: int) -> None:
        """Begins the counts of a phase.

        Args:
            phase: How many phases have begun.
            epoch: The epoch that comes next.
            warmup: Steps over which its rate rises.
        """
        self.phase, self.epoch = phase, epoch - 1
        self.wait, self.best = 0, float("inf")
        self.begun_at, self.warmup = steps_of(self._optimizer), warmup

    def warmed_up(self) -> Any:
        """The part of the phase's warm-up that is over at this step, 0 to 1."""
        variables = self.__dict__["_variables"]()
        steps = ops.cast(
            self.__dict__["_optimizer"].iterations - variables["begun_at"] + 1, "float32"
        )
        warmup = ops.cast(variables["warmup"], "float32")
        part = ops.minimum(steps / ops.maximum(warmup, 1.0), 1.0)
        return ops.where(warmup > 0, part, ops.ones_like(part))
