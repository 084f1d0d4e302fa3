"""Progress of computing activations or predictions, shown on a terminal while it runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """How far a computation is.

    Args:
        bar: A progress bar of rich, with one task.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def start_at(self, rows: int) -> None:
        """Sets how many images were done before; the time left follows from the others."""
        self._bar.reset(self._bar.task_ids[0], completed=rows)

    def update(self, rows: int) -> None:
        """Sets how many images are done."""
        self._bar.update(self._bar.task_ids[0], completed=rows)


@contextmanager
def progress(what: str, total: int | None, *, show: bool) -> Iterator[Progress]:
    """Shows a progress bar on a terminal within a block.

    Args:
        what: What is computed.
        total: Images that there are, at most; `None` if nobody knows.
        show: Whether to show anything.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    text = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), text, MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, transient=True, disable=not (show and sys.stdout.isatty())) as bar:
        bar.add_task(what, total=total)
        yield Progress(bar)
