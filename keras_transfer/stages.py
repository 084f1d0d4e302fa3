"""Stages: what trains, and how, before the first phase and in each phase of a schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.blockwise_optimizer import TRAINED, BlockwiseOptimizer
from keras_transfer.model_blocks import ModelBlocks
from keras_transfer.schedule import Phase


@dataclass(frozen=True)
class Stage:
    """The time from the begin of a phase to that of the next.

    Attributes:
        phase: The phase; `None` before the first.
        trained: The blocks of the schedule that train.
        sets_rate: The base rate that its begin sets; `None` to leave it.
        rate: The base rate that was set last, by it or a stage before it.
        lr_decay: The rate of each block relative to the one above it.
        active: Which optimizer steps.
        restore_best: Whether it begins from the best of the stage before.
    """

    phase: Phase | None
    trained: frozenset[str]
    sets_rate: float | None
    rate: float | None
    lr_decay: float
    active: int
    restore_best: bool

    def describe(self) -> dict[str, Any]:
        """Returns what it does, as plain values: equal for equal stages."""
        described = self.phase.describe() if self.phase else {}
        return {
            **described,
            "learning_rate": self.sets_rate,
            "lr_decay": self.lr_decay,
            "restore_best": self.restore_best,
            TRAINED: sorted(self.trained),
        }


def stages(
    phases: Sequence[Phase],
    blocks: ModelBlocks,
    optimizer: BlockwiseOptimizer,
    *,
    learning_rate: float | None = None,
    lr_decay: float = 1.0,
    restore_best: bool = False,
) -> tuple[Stage, ...]:
    """Returns the stage before the first phase, and that of each phase.

    Args:
        phases: The schedule.
        blocks: The blocks of the model.
        optimizer: Where the optimizers of phases are added to.
        learning_rate: The base rate of the first phase, unless the phase has its own.
        lr_decay: The decay from the first phase on, unless a phase has its own.
        restore_best: For phases that do not say it themselves.

    Raises:
        ValueError: If a phase names an unknown block or changes nothing, or a rate is to be set
            where the model was compiled with a learning rate schedule.
    """
    compiled = optimizer.compiled_learning_rate
    found = [Stage(None, frozenset(), None, compiled, 1.0, 0, False)]
    for number, phase in enumerate(phases, 1):
        before = found[-1]
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
        stage = Stage(
            phase=phase,
            trained=trained,
            sets_rate=rate,
            rate=before.rate if rate is None else rate,
            lr_decay=decay,
            active=active,
            restore_best=restore_best if phase.restore_best is None else phase.restore_best,
        )
        if (stage.trained, active, decay, rate) == (*_same(before), None):
            raise ValueError(
                f"Phase {number} trains nothing new: {phase}. What it names trains already, or is "
                "frozen again at once."
            )
        found.append(stage)
    return tuple(found)


def _same(stage: Stage) -> tuple[frozenset[str], int, float]:
    return stage.trained, stage.active, stage.lr_decay
