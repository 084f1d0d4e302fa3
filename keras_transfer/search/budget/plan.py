"""TimePlan: when the trials of a search have to end, so that the whole command ends in time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from keras_transfer.search.budget.limit import OutOfTime, time_limit

T = TypeVar("T")

_MARGIN = 0.15  # of what the end is expected to take


@dataclass
class TimePlan:
    """What is left of `--minutes`, and what has to be done in it after the last trial.

    Attributes:
        end: When the command has to end, as `time.monotonic()`; infinite for no limit.
        keep: Seconds that building, saving and loading the final model take, as measured.
        export: Seconds that exporting it takes.
        test: Seconds that the test images take.
        report: Seconds that figures and the report take.
        final_fit: Seconds that training the best trials again takes.
        scored: Whether there is a score: that of an epoch, even if its trial still runs.
        trained: Whether a trial that has a score has ended.
        skipped: What there was no time for.
        clock: Default `time.monotonic`.

    Example:
        >>> plan = TimePlan(time.monotonic() + 900, keep=6.0, export=14.0, test=57.0)
        >>> round(plan.reserve)
        92
    """

    end: float = math.inf
    keep: float = 0.0
    export: float = 0.0
    test: float = 0.0
    report: float = 0.0
    final_fit: float = 0.0
    scored: bool = False
    trained: bool = False
    skipped: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    @property
    def closing(self) -> float:
        """Seconds that the summary and the end of the process take: half of what `keep` takes."""
        return self.keep / 2

    @property
    def reserve(self) -> float:
        """Seconds to reserve for all that comes after the last trial."""
        return self.least + (1 + _MARGIN) * (self.export + self.test + self.final_fit)

    @property
    def least(self) -> float:
        """Seconds to reserve for the model and the report, which are always written."""
        return (1 + _MARGIN) * (self.keep + self.report + self.closing)

    @property
    def deadline(self) -> float | None:
        """When a trial is to stop by itself; None without a limit.

        That leaves time for all that comes after the trials. If it is too late for that before
        anything has a score, a trial may take the time of what can be left out.
        """
        if self.end == math.inf:
            return None
        all_fits = self.scored or self.left() > self.reserve
        return self.end - (self.reserve if all_fits else self.least)

    def left(self) -> float:
        """Returns the seconds until the command has to end, infinite for no limit."""
        return self.end - self.clock()

    def left_for_trials(self) -> float:
        """Returns the seconds until a trial is interrupted that has not stopped by itself.

        Until a trial has ended with a score there is no model without the one that runs, so that
        time is only kept for the model and the report.
        """
        kept = self.reserve if self.trained else self.least
        return self.left() - kept / (1 + _MARGIN / 2)

    def in_time(self, what: str, work: Callable[[], T], after: float = 0.0) -> T | None:
        """Runs some work, unless the time is needed for what comes after it.

        Args:
            what: Names the work in the sentence that says that there was no time for it.
            work: Called without arguments.
            after: Seconds that what comes after it needs.

        Returns:
            What the work returned; None if there was no time for it.
        """
        try:
            with time_limit(lambda: self.left() - after - self.closing):
                return work()
        except OutOfTime:
            self.skipped.append(what)
            print(f"There was no time left for {what}. Give more --minutes.", flush=True)
            return None
