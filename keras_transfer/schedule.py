"""Schedules: which blocks train from which epoch on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Which = str | int | Sequence[str]


@dataclass(frozen=True)
class Phase:
    """From an epoch on, some more blocks train.

    Attributes:
        which: The blocks, as `FrozenBackbone.unfreeze` takes them.
        at_epoch: The first epoch, counted from 0 as Keras does.
    """

    which: Which
    at_epoch: int


def phases(schedule: Mapping[int, Which]) -> tuple[Phase, ...]:
    """Returns the phases of a schedule in their order.

    Args:
        schedule: `{epoch: which}`.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If it is empty, or an epoch is no whole number from 0 on.
    """
    if not isinstance(schedule, Mapping):
        raise TypeError(
            "A schedule must be a dict of epochs and blocks, such as {20: 'block5'}. Received: "
            f"{schedule!r} of type {type(schedule).__name__}."
        )
    if not schedule:
        raise ValueError("The schedule is empty. Expected at least one entry: {20: 'block5'}.")
    for epoch in schedule:
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise ValueError(
                f"The epochs of a schedule are whole numbers from 0 on. Received: {epoch!r}."
            )
    return tuple(Phase(schedule[epoch], epoch) for epoch in sorted(schedule))
