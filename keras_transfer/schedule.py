"""Schedules: which blocks train from when on, and how."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import keras

from keras_transfer.optimizer_kind import serialized
from keras_transfer.supported_keras import check_keras_3

Which = str | int | Sequence[str]

# Epochs without improvement after which `"gradual"` unfreezes the next block.
GRADUAL_PATIENCE = 3


@dataclass(frozen=True)
class Phase:
    """A part of a training: it adds blocks to those that train, and may freeze some again.

    It begins at an epoch, or when the monitored metric has not improved for some epochs, or at
    whichever comes first. What is left out stays as it was.

    Attributes:
        which: The blocks that train from here on, as `FrozenBackbone.unfreeze` takes them.
        at_epoch: Its first epoch, counted from 0 as Keras does.
        patience: Epochs without improvement in the phase before, after which it begins.
        freeze: The blocks that are frozen again from here on.
        learning_rate: The base learning rate from here on.
        lr_decay: The rate of each block relative to the one above it; the top block has so much of
            the head's rate (Howard and Ruder, ULMFiT, 2018: 1 / 2.6).
        warmup: Steps over which the rate rises linearly from 0.
        optimizer: What steps all that trains from here on, with slots of its own: a Keras optimizer
            or its name. Its learning rate counts unless `learning_rate` is given.
        restore_best: Whether it goes on from the best weights and optimizer state of the phase
            before it, rather than from its last.

    Raises:
        ValueError: If a value is impossible, or neither `at_epoch` nor `patience` is given.

    Example:
        >>> BlockUnfreezer([Phase("block5", patience=3, learning_rate=1e-5),
        ...                 Phase("block4", patience=3, lr_decay=0.5)])
    """

    which: Which | None = None
    at_epoch: int | None = None
    patience: int | None = None
    freeze: Which | None = None
    learning_rate: float | None = None
    lr_decay: float | None = None
    warmup: int = 0
    optimizer: keras.optimizers.Optimizer | str | None = None
    restore_best: bool | None = None

    def __post_init__(self) -> None:
        if self.at_epoch is None and self.patience is None:
            raise ValueError(
                f"When does {self} begin? Give `at_epoch`, `patience`, or both for whichever comes "
                "first."
            )
        _check_whole("at_epoch", self.at_epoch, least=0)
        _check_whole("patience", self.patience, least=1)
        _check_whole("warmup", self.warmup, least=0)
        check_rate("learning_rate", self.learning_rate)
        check_rate("lr_decay", self.lr_decay)
        check_keras_3(optimizer=self.optimizer)
        if not isinstance(self.own_optimizer(), keras.optimizers.Optimizer | None):
            raise TypeError(
                f"`optimizer` must be a Keras optimizer or its name. Received: {self.optimizer!r}."
            )

    def __str__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value not in (None, 0)}
        return f"Phase({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def own_optimizer(self) -> Any:
        """Returns its optimizer, made from the name where there is one."""
        by_name = isinstance(self.optimizer, str)
        return keras.optimizers.get(self.optimizer) if by_name else self.optimizer

    def describe(self) -> dict[str, Any]:
        """Returns what it says, as JSON has it: equal for equal phases."""
        own = self.own_optimizer()
        optimizer = None if own is None else serialized(own)
        plain = {**vars(self), "optimizer": optimizer}
        return json.loads(json.dumps(plain, default=lambda number: number.item()))  # of NumPy


def phases(schedule: Mapping[int, Which] | Sequence[Phase]) -> tuple[Phase, ...]:
    """Returns the phases of a schedule in their order.

    Args:
        schedule: `{epoch: which}` or phases in their order.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is empty, an epoch is no whole number from 0 on, or phases are out of
            order.
    """
    if isinstance(schedule, Mapping):
        for epoch in schedule:
            _check_whole("The epochs of a schedule", epoch, least=0)
        listed = [Phase(schedule[epoch], at_epoch=epoch) for epoch in sorted(schedule)]
    elif isinstance(schedule, Sequence) and all(isinstance(one, Phase) for one in schedule):
        listed = list(schedule)
    else:
        raise TypeError(
            "A schedule must be a dict of epochs and blocks such as {20: 'block5'}, a list of "
            f"Phase, 'gradual', or a YAML file. Received: {schedule!r}."
        )
    if not listed:
        raise ValueError("The schedule is empty. Expected at least one entry: {20: 'block5'}.")
    epochs = [phase.at_epoch for phase in listed if phase.at_epoch is not None]
    if epochs != sorted(set(epochs)):
        raise ValueError(f"The phases are out of order: they begin at epochs {epochs}.")
    return tuple(listed)


def gradual(blocks: Sequence[str]) -> tuple[Phase, ...]:
    """Returns phases that unfreeze one block after the other from the top (ULMFiT, 2018).

    Args:
        blocks: Names of the blocks, first to last.
    """
    return tuple(Phase([block], patience=GRADUAL_PATIENCE) for block in reversed(blocks))


def check_rate(name: str, value: Any) -> None:
    """Checks that a value is `None` or a positive number.

    Raises:
        ValueError: If it is not.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if value is not None and not (number and 0 < float(value) < math.inf):
        raise ValueError(f"`{name}` must be a positive number. Received: {value!r}.")


def _check_whole(name: str, value: Any, *, least: int) -> None:
    number = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (number and int(value) >= least):
        raise ValueError(f"{name} must be whole numbers from {least} on. Received: {value!r}.")
