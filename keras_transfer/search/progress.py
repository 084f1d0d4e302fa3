"""Board: the progress of a search on the terminal."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich import get_console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.leaderboard import best_of, cell, score_text, trials_of
from keras_transfer.search.state.outcome import Outcome


def seconds_left(
    seconds: Sequence[float], left: int, *, workers: int = 1, until_deadline: float | None = None
) -> float | None:
    """Returns how long a search goes on: the median of its trials, times those that are left.

    Args:
        seconds: Of each trial that has ended.
        left: Trials that have not.
        workers: How many run at a time. Default 1.
        until_deadline: Seconds until no trial goes on; None, the default, without a deadline.

    Returns:
        Seconds; None while there is nothing to judge by.

    Example:
        >>> seconds_left([10.0, 12.0, 50.0], left=6, workers=2)
        36.0
    """
    limit = None if until_deadline is None else max(0.0, until_deadline)
    if not left:
        return 0.0
    if not seconds:
        return limit
    expected = statistics.median(seconds) * left / workers
    return expected if limit is None else min(expected, limit)


def seconds_text(seconds: float) -> str:
    """A length of time as people say it.

    Example:
        >>> seconds_text(42.4), seconds_text(400), seconds_text(8000)
        ('42 s', '6 min 40 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


_LONG = 30.0  # seconds of a trial that are worth a line as it begins


class Board:
    """Shows trial i of N, the best so far, and the time left.

    On a terminal that is a live line under a line for each trial that has ended; elsewhere these
    lines alone. The traceback of the first trial that fails is shown at once.

    Args:
        objective: What makes a trial the best.
        count: How many trials there are to be.
        outcomes: Of trials that ended before, as in a search that goes on. Default: none.
        workers: How many trials run at a time. Default 1.
        deadline: When no trial goes on, in seconds of `clock`; None, the default, for never.
        clock: Default `time.monotonic`.

    Example:
        >>> with Board(Objective("val_loss", "min"), count=20) as board:
        ...     board.on_begin(1, {"hidden": 64})
        ...     board.on_end(Outcome(1, "0000", "completed", 0.31, 12.5, {"hidden": 64}))
        trial 1 of 20: score 0.3100 | best: trial 1, val_loss 0.3100 | 3 min 58 s left
    """

    def __init__(
        self,
        objective: Objective,
        *,
        count: int,
        outcomes: Iterable[Outcome] = (),
        workers: int = 1,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objective = objective
        self.count = count
        self.workers = workers
        self.deadline = deadline
        self.clock = clock
        self.running: dict[int, Mapping[str, Any]] = {}
        self._ended = {outcome.id: outcome for outcome in outcomes}
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        console = get_console()  # that of the progress bars within trials: they stand together
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (BarColumn(bar_width=20), _Line(self))
            self._live = Progress(
                *columns, console=console, transient=True, refresh_per_second=1, expand=True
            )
            self._live.add_task("", total=self.count)
            self._live.start()
            self._refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_begin(
        self, number: int, hyperparameters: Mapping[str, Any], expected: float | None = None
    ) -> None:
        """Called when a trial begins.

        Args:
            number: Of the trial; 0 is the probe.
            hyperparameters: Its values by name.
            expected: The seconds that it is expected to take, where that is known. Long ones are
                told.
        """
        self.running[number] = hyperparameters
        if expected is not None and expected >= _LONG:
            depth = hyperparameters.get("unfreeze", 0)
            what = "" if not depth else f", fine-tuning {depth:.0%} of the blocks"
            what = f", fine-tuning {depth} blocks" if depth and isinstance(depth, int) else what
            self._say(f"trial {number}{what}: about {seconds_text(expected)}")
        self._refresh()

    def on_end(self, outcome: Outcome) -> None:
        """Called when a trial has ended; a second call for the same does nothing."""
        if outcome.id in self._ended:
            return
        first = outcome.failed and not any(one.failed for one in self._ended.values())
        self._ended[outcome.id] = outcome
        self.running.pop(outcome.trial, None)
        if first:
            self._say(outcome.traceback.strip() or outcome.failure)
        self._say(self._line(outcome))
        self._refresh()

    @property
    def ended(self) -> int:
        """How many trials have ended, the probe left out."""
        return len(trials_of(self._ended.values()))

    @property
    def seconds_left(self) -> float | None:
        """How long the search goes on; None while nobody can know."""
        done = trials_of(self._ended.values())
        return seconds_left(
            [outcome.seconds for outcome in done],
            max(0, self.count - len(done)),
            workers=self.workers,
            until_deadline=None if self.deadline is None else self.deadline - self.clock(),
        )

    def status(self) -> list[str]:
        """Returns the best so far, and the time left."""
        best = best_of(self._ended.values(), self.objective)
        left = self.seconds_left
        parts = ["no best yet"]
        if best is not None:
            parts = [f"best: trial {best.trial}, {self.objective.name} {score_text(best)}"]
        if self.ended >= self.count:
            parts.append("done")
        elif left is not None:
            parts.append(f"{seconds_text(left)} left")
        return parts

    def _line(self, outcome: Outcome) -> str:
        name = f"trial {outcome.trial} of {self.count}" if outcome.trial else "trial 0 (probe)"
        stopped = " (stopped)" if outcome.status == "stopped" else ""
        status = () if self._live is not None else self.status()  # the live line shows it
        return " | ".join((f"{name}: {outcome}{stopped}", *status))

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(
                line, markup=False, emoji=False, highlight=False, soft_wrap=True
            )
        else:
            print(line, flush=True)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._live.tasks[0].id, completed=self.ended)
            self._live.refresh()

    def now(self) -> str:
        """Returns the live line: what runs, the status, and the values of the trial."""
        number = next(iter(self.running), None) if len(self.running) == 1 else None
        running = f"trial {self.ended} of {self.count}"
        if number is not None:
            running = f"trial {number} of {self.count}" if number else "trial 0 (probe)"
        elif self.running:
            running += f" done, {len(self.running)} running"
        values = self.running[number] if number is not None else {}
        shown = ", ".join(f"{name} {cell(value)}" for name, value in values.items())
        return " | ".join((running, *self.status(), *([shown] if shown else [])))


class _Line(ProgressColumn):
    """The text of the live line, which counts down by itself; what has no room is left out."""

    def __init__(self, board: Board) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis", ratio=1))
        self._board = board

    def render(self, task: Task) -> Text:
        return Text(self._board.now())
