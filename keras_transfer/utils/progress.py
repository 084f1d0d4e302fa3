"""Progress of computing activations, on a terminal while it runs and as a line when it is done."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """How far a computation has come; `row` images are done."""

    def __init__(self, what: str, total: int | None, show: bool) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._began, self._total, self._first = time.monotonic(), total, 0
        columns = (BarColumn(), TextColumn("{task.description}", markup=False))
        self._bar = Bar(*columns, transient=True, disable=not (show and sys.stdout.isatty()))
        self._what = what
        self._task = self._bar.add_task(what, total=total)

    def start_at(self, rows: int) -> None:
        """Says how many rows were there already."""
        self._first = rows

    def update(self, rows: int) -> None:
        """Says how many rows are there now."""
        text = f"{self._what}: {rows:,} images"
        if self._total is not None:
            text = f"{self._what}: {rows:,} of {self._total:,} images, {self.left(rows):.1f} s left"
        self._bar.update(self._task, completed=rows, description=text)

    def left(self, rows: int) -> float:
        """Returns the seconds left, judging by the time taken so far."""
        if self._total is None:
            return math.nan
        return self.seconds * (self._total - rows) / max(1, rows - self._first)

    @property
    def seconds(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self._began


@contextmanager
def progress(what: str, total: int | None, *, show: bool) -> Iterator[Progress]:
    """Shows a progress bar on a terminal within a block.

    Args:
        what: What is computed.
        total: Images that there are, at most; None if nobody knows.
        show: Whether to show anything.
    """
    shown = Progress(what, total, show)
    with shown._bar:
        yield shown
