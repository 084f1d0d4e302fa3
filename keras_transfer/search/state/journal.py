"""Journal: an append-only file of what happened in a search, which is its whole state."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_transfer.search.state.files import as_json


class Journal:
    """JSON objects, one a line, in the order in which they happened.

    Each line is on the disk before `append` returns. A last line that a killed process left
    half-written is no event; it is removed before the next one is written.

    Args:
        path: The file; it need not be there.

    Example:
        >>> journal = Journal(Path("runs/x/trials/journal.jsonl"))
        >>> journal.append("created", id="0000", values={"rate": 0.1})
        >>> [event["id"] for event in journal.read()]
        ['0000']
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Its size in bytes, which grows with each event."""
        return self.path.stat().st_size if self.path.exists() else 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yields all events.

        Raises:
            ValueError: If a line before the last one is damaged.
        """
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn
            try:
                event = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{str(self.path)!r}, line {number}, is damaged: {error}. Remove that line and "
                    "those after it to go on from there, or start a search in another folder."
                ) from None
            yield event

    def append(self, event: str, **facts: Any) -> None:
        """Adds an event.

        Raises:
            OSError: If it cannot be written; the file then stays as it was.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = memoryview(as_json({"event": event, **facts}).encode() + b"\n")
        with self.path.open("a+b", buffering=0) as file:  # a buffer would be written at `close`
            end = _end_of_last_line(file)
            file.truncate(end)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise


def _end_of_last_line(file: Any) -> int:
    """Returns the place behind the last newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
