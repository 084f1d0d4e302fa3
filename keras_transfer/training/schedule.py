"""Schedules: which blocks train from which epoch on, and how."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import keras

from keras_transfer.backbones.blocks import Which
from keras_transfer.backbones.model_blocks import ModelBlocks
from keras_transfer.training.blockwise_optimizer import BlockwiseOptimizer
from keras_transfer.training.optimizer_template import serialized
from keras_transfer.utils.supported_keras import check_keras_3

# Epochs without improvement after which `"gradual"` unfreezes the next block.
GRADUAL_PATIENCE = 3


@dataclass(frozen=True)
class Phase:
    """A phase of a training: it unfreezes blocks, and may freeze others again.

    It begins at an epoch, or when the monitored metric has not improved for some epochs, or at
    whichever comes first. Fields that are left out change nothing.

    Attributes:
        which: The blocks that train from here on, as `FrozenBackbone.unfreeze` takes them.
        at_epoch: Its first epoch, counted from 0 as Keras does.
        patience: Epochs without improvement in the phase before, after which it begins.
        freeze: The blocks that are frozen again from here on.
        learning_rate: The base learning rate from here on.
        lr_decay: The rate of each block relative to the block above it, and of the top block
            relative to the head (Howard and Ruder, ULMFiT, 2018: 1 / 2.6).
        warmup: Steps over which the rate rises linearly from 0.
        optimizer: The Keras optimizer of all weights from here on, or its name. It has slots of its
            own, and its learning rate counts unless `learning_rate` is given.
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
        _check_blocks("which", self.which)
        _check_blocks("freeze", self.freeze)
        check_rate("learning_rate", self.learning_rate)
        check_rate("lr_decay", self.lr_decay)
        check_keras_3(optimizer=self.optimizer)
        if not isinstance(self.restore_best, bool | None):
            raise ValueError(
                f"`restore_best` must be true or false. Received: {self.restore_best!r}."
            )
        if not isinstance(self.own_optimizer(), keras.optimizers.Optimizer | None):
            raise TypeError(
                f"`optimizer` must be a Keras optimizer or its name. Received: {self.optimizer!r}."
            )

    def __str__(self) -> str:
        fields = {name: value for name, value in vars(self).items() if value not in (None, 0)}
        return f"Phase({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    def own_optimizer(self) -> Any:
        """Returns its optimizer, made from the name where there is one."""
        by_name = isinstance(self.optimizer, str)
        return keras.optimizers.get(self.optimizer) if by_name else self.optimizer


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
    elif isinstance(schedule, Sequence) and all(isinstance(phase, Phase) for phase in schedule):
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


def _check_blocks(name: str, value: Any) -> None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        fits = len(value) > 0 and all(isinstance(block, str) and block for block in value)
    elif isinstance(value, Integral) and not isinstance(value, bool):
        fits = int(value) > 0
    else:
        fits = value is None or (isinstance(value, str) and value != "")
    if not fits:
        raise ValueError(
            f"`{name}` must be a block's name, a glob, a list of these, a number from 1 on, or "
            f"'all'. Received: {value!r:.60}."
        )


@dataclass(frozen=True)
class ResolvedPhase:
    """A phase of a schedule, or the time before the first, resolved against a model.

    Attributes:
        phase: The phase; `None` before the first.
        trained: The blocks of the schedule that train.
        sets_rate: The base rate that is set when it begins; `None` to leave it.
        rate: The base rate that was set last, by this phase or one before it.
        lr_decay: The rate of each block relative to the one above it.
        active: Which optimizer steps.
        restore_best: Whether it begins from the best of the phase before.
    """

    phase: Phase | None
    trained: frozenset[str]
    sets_rate: float | None
    rate: float | None
    lr_decay: float
    active: int
    restore_best: bool

    def describe(self) -> dict[str, Any]:
        """Returns what it does, as JSON has it: equal for phases that do the same."""
        own = self.phase.own_optimizer() if self.phase else None
        plain = {
            **(vars(self.phase) if self.phase else {}),
            "optimizer": None if own is None else serialized(own),
            "learning_rate": self.sets_rate,
            "lr_decay": self.lr_decay,
            "restore_best": self.restore_best,
            "trained": sorted(self.trained),
        }
        return json.loads(json.dumps(plain, default=lambda number: number.item()))  # of NumPy


def resolve(
    phases: Sequence[Phase],
    blocks: ModelBlocks,
    optimizer: BlockwiseOptimizer,
    *,
    learning_rate: float | None = None,
    lr_decay: float = 1.0,
    restore_best: bool = False,
) -> tuple[ResolvedPhase, ...]:
    """Resolves the time before the first phase, and each phase, against a model.

    Args:
        phases: The schedule.
        blocks: The blocks of the model.
        optimizer: The optimizer, which gets the optimizers of phases.
        learning_rate: The base rate of the first phase, unless the phase has its own.
        lr_decay: The decay from the first phase on, unless a phase has its own.
        restore_best: For phases that do not say it themselves.

    Raises:
        ValueError: If a phase names an unknown block or changes nothing, or a rate is to be set
            where the model was compiled with a learning rate schedule.
    """
    compiled = optimizer.learning_rate_of()
    resolved = [ResolvedPhase(None, frozenset(), None, compiled, 1.0, 0, False)]
    for number, phase in enumerate(phases, 1):
        before = resolved[-1]
        rate, active = phase.learning_rate, before.active
        if phase.optimizer is not None:
            active = optimizer.add_optimizer(phase.own_optimizer())
            own_rate = optimizer.learning_rate_of(active)
            if own_rate is None:
                raise ValueError(
                    f"Phase {number}: its optimizer has a learning rate schedule. Expected a "
                    "number; `warmup`, or a phase for each rate, may do what you want."
                )
            if compiled is not None:  # a schedule that the model was compiled with goes on
                rate = rate or own_rate
        if rate is None and number == 1:
            rate = learning_rate
        if rate is not None and compiled is None:
            raise ValueError(
                f"learning_rate={rate:g} cannot be set: the model was compiled with a learning "
                "rate schedule. Leave it out, or compile with a number."
            )
        trained = before.trained | set(blocks.select(phase.which) if phase.which else ())
        trained -= set(blocks.select(phase.freeze) if phase.freeze else ())
        decay = phase.lr_decay or (lr_decay if number == 1 else before.lr_decay)
        former = (before.trained, before.active, before.lr_decay, None)
        if (trained, active, decay, rate) == former:
            raise ValueError(
                f"Phase {number} trains nothing new: {phase}. What it names trains already, or is "
                "frozen again at once."
            )
        resolved.append(
            ResolvedPhase(
                phase=phase,
                trained=trained,
                sets_rate=rate,
                rate=before.rate if rate is None else rate,
                lr_decay=decay,
                active=active,
                restore_best=restore_best if phase.restore_best is None else phase.restore_best,
            )
        )
    return tuple(resolved)
