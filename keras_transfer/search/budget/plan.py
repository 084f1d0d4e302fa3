"""TimePlan: when the trials of a search have to end, so that the whole command ends in time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from keras_transfer.search.budget.limit import OutOfTime, time_limit

T = TypeVar("T")

_MARGIN = 0.1  # of what the end is expected to take


@dataclass
class TimePlan:
    """What is left of `--minutes`, and what has to be done in it after the last trial.

    Attributes:
        end: When the command has to end, as `time.monotonic()`; infinite for no limit.
        startup: Seconds that loading Keras, the backbones and the images took.
        keep: Seconds that building, saving and loading the final model take, as measured.
        export: Seconds that exporting it takes.
        test: Seconds that the test images take.
        report: Seconds that figures and the report take.
        final_fit: Seconds that training the best trials again takes.
        skipped: What there was no time for.
        clock: Default `time.monotonic`.

    Example:
        >>> plan = TimePlan(time.monotonic() + 900, keep=6.0, export=14.0, test=57.0)
        >>> round(plan.reserve)
        92
    """

    end: float = math.inf
    startup: float = 0.0
    keep: float = 0.0
    export: float = 0.0
    test: float = 0.0
    report: float = 0.0
    final_fit: float = 0.0
    skipped: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    @property
    def closing(self) -> float:
        """Seconds that the summary and the end of the process take: half of what `keep` takes."""
        return self.keep / 2

    @property
    def reserve(self) -> float:
        """Seconds to reserve for all that comes after the last trial."""
        after = self.keep + self.export + self.test + self.report + self.final_fit
        return (1 + _MARGIN) * (after + self.closing)

    @property
    def deadline(self) -> float | None:
        """When a trial is to stop by itself; None without a limit."""
        return None if self.end == math.inf else self.end - self.reserve

    def left(self) -> float:
        """Returns the seconds until the command has to end, infinite for no limit."""
        return self.end - self.clock()

    def left_for_trials(self) -> float:
        """Returns the seconds until a trial is interrupted that has not stopped by itself."""
        return self.left() - self.reserve / (1 + _MARGIN / 2)

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
