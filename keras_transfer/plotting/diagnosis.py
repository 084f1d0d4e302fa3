"""Diagnosis: what the losses of a run show, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keras_transfer.plotting.curves import Logs, is_finite, is_number

Kind = Literal["short", "diverged", "overfitting", "improving", "plateau"]

_FEWEST = 5  # epochs; fewer show nothing
_MATTERS = 0.05  # of the loss


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a run's losses.

    Attributes:
        kind: `"short"` (fewer than 5 epochs), `"diverged"`, `"overfitting"`, `"improving"` or
            `"plateau"`; see `diagnose`.
        epoch: The epoch, counted from 0, after which it overfits, or in which a loss stopped being
            finite; None for the other kinds.
        sentence: The same in words, with epochs counted from 1 as in the figure.
    """

    kind: Kind
    epoch: int | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class _Loss:
    """The finite values of a loss, and which of its changes are more than noise."""

    name: str
    epochs: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, name: str, epochs: Sequence[int], values: Sequence[object]) -> _Loss:
        points = [(e, v) for e, v in zip(epochs, values, strict=True) if is_finite(v)]
        at, finite = zip(*points, strict=True) if points else ((), ())
        return cls(name, np.array(at, int), np.array(finite, float))

    @property
    def jitter(self) -> float:
        """By how much a step from one epoch to the next usually differs from the step before."""
        return float(np.median(np.abs(np.diff(self.values, n=2))))

    def rises_from(self, before: float) -> bool:
        """Whether the loss ends above a value, by 5 % of it and by more than its jitter."""
        return self.end - before > max(_MATTERS * abs(before), 1.25 * self.jitter)

    @property
    def end(self) -> float:
        """The mean of the last three epochs."""
        return float(self.values[-3:].mean())


def diagnose(history: Logs, epochs: Sequence[int]) -> Diagnosis:
    """Shows from the losses how a run is going, by three rules.

    1. It diverged if a loss is not finite at its end, or ends above where it began.
    2. It overfits if the validation loss has risen from its lowest value while the training loss
       went on falling.
    3. It still improves if the loss of the last third of the epochs is below that of the third
       before; otherwise it is on a plateau.

    A loss begins and ends at the mean of three epochs. It has risen if that is 5 % more, and more
    than its jitter explains. Where nothing is validated, the training loss is judged.

    Args:
        history: Values by name of the log, one an epoch: `"loss"`, and `"val_loss"` if there is
            one.
        epochs: The epochs, counted from 0.

    Example:
        >>> diagnose({"loss": [0.9, 0.5, 0.3]}, [0, 1, 2]).kind
        'short'
    """
    names = {"loss": "training loss", "val_loss": "validation loss"}
    losses = [_Loss.of(names[key], epochs, history[key]) for key in names if key in history]
    for key in names:
        if key in history and (lost := _lost_in(history[key], epochs)) is not None:
            sentence = f"diverged: {key} of epoch {lost + 1} is not finite"
            return Diagnosis("diverged", lost, sentence)
    if not losses or len(losses[-1].values) < _FEWEST:
        count = len(losses[-1].values) if losses else 0
        return Diagnosis("short", None, f"too short to say: {count} of {_FEWEST} epochs")
    judged = losses[-1]
    if (after := _overfits_after(losses[0], judged)) is not None:
        return Diagnosis("overfitting", after, f"overfitting since epoch {after + 2}")
    for loss in losses:
        if loss.rises_from(float(loss.values[:3].mean())):
            return Diagnosis("diverged", None, f"diverged: {loss.name} ends above its beginning")
    third = max(2, len(judged.values) // 3)
    before, late = judged.values[-2 * third : -third].mean(), judged.values[-third:].mean()
    if before - late > max(0.01 * abs(before), 1.7 * judged.jitter / third**0.5):
        return Diagnosis("improving", None, f"still improving: {judged.name} falls")
    return Diagnosis("plateau", None, f"plateau: {judged.name} no longer falls")


def _lost_in(values: Sequence[object], epochs: Sequence[int]) -> int | None:
    """Returns the first epoch that is not finite, if the last one is not finite either."""
    numbers = [(e, v) for e, v in zip(epochs, values, strict=True) if is_number(v)]
    lost = [epoch for epoch, value in numbers if not is_finite(value)]
    return lost[0] if lost and lost[-1] == numbers[-1][0] else None


def _overfits_after(training: _Loss, validation: _Loss) -> int | None:
    """Returns the epoch of the lowest validation loss, if the run overfits from there on."""
    if training is validation:
        return None
    lowest = int(np.argmin(validation.values))
    around = float(validation.values[max(0, lowest - 1) : lowest + 2].mean())
    at = int(validation.epochs[lowest])
    then, later = training.values[training.epochs <= at], training.values[training.epochs > at]
    falls = len(later) > 1 and len(then) and later[-3:].mean() < then[-3:].mean()
    return at if falls and validation.rises_from(around) else None
