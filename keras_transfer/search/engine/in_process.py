"""InProcess: runs trials in this process, one after another."""

from collections.abc import Callable
from typing import Self

from keras_transfer.search.engine.request import TrialRequest, TrialResult


class InProcess:
    """Runs trials in this process, one after another.

    Args:
        run: Runs a trial.
    """

    slots = 1

    def __init__(self, run: Callable[[TrialRequest], TrialResult]) -> None:
        self._run = run
        self._waiting: list[TrialRequest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._waiting.clear()

    def submit(self, request: TrialRequest) -> None:
        """Takes a trial to run."""
        self._waiting.append(request)

    def wait(self) -> tuple[TrialRequest, TrialResult]:
        """Runs the trial that was taken first, and returns it with its result."""
        request = self._waiting.pop(0)
        return request, self._run(request)
