"""Requests and results: the messages between a search and the engine that runs its trials."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.state.outcome import Outcome

MOST_DEATHS = 3  # of the processes that run a trial, before it has failed

Curve = tuple[Mapping[str, list[Any]], list[int]]  # logs by name, and the epochs, from 0


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run.

    Attributes:
        id: KerasTuner's id.
        values: The hyperparameters.
        epochs: Epochs at most.
        ends: When it has to end, as `time.time()`, which other machines know, too; infinite for no
            limit.
        until: When a fine-tuning should be over, likewise, so that others fit, too.
        others: For each fold, the objective of each completed trial, epoch by epoch.
        first_epoch: The epoch to begin with, from 0; above 0 in later rounds of Hyperband.
        members: For each fold, what an earlier round has trained; empty for a fresh start.
    """

    id: str
    values: Mapping[str, Any]
    epochs: int
    ends: float
    until: float = math.inf
    others: tuple[list[list[float]], ...] = ()
    first_epoch: int = 0
    members: tuple[Member, ...] = ()

    @property
    def number(self) -> int:
        """The number of the trial, from 1."""
        return int(self.id) + 1


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        outcome: Its score, or its failure.
        curves: The curves of each fold.
        members: What was trained on each fold.
    """

    outcome: Outcome
    curves: tuple[Curve, ...] = ()
    members: tuple[Member, ...] = ()


class Engine(Protocol):
    """Runs trials, one or several at a time."""

    slots: int

    def __enter__(self) -> Self:
        """Starts what it needs."""

    def __exit__(self, *error: object) -> None:
        """Ends all that still runs."""

    def submit(self, request: TrialRequest) -> None:
        """Takes a trial to run; at most `slots` at a time."""

    def wait(self) -> tuple[TrialRequest, TrialResult]:
        """Returns a trial that has ended, as soon as one has.

        Raises:
            OSError: If the disk is full.
        """
