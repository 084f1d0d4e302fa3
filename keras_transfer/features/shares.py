"""Shares: the rows of an entry, divided among the processes that need them."""

import contextlib
import json
import math
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.features.npy_store import (
    ARRAY,
    MANIFEST,
    PART,
    EntryWriter,
    FileArray,
    is_whole,
    read_manifest,
    remove,
    write_json,
)

SHARES = ".shares"
_LAYOUT = "layout.json"
# A share should take seconds: with less, processes would be busy with files; with more, those that
# are done first would wait long for the last.
_LEAST_ROWS = 128
_MOST_SHARES = 256
_AT_A_TIME = 64  # rows that are copied
# Seconds that the owner waits for a share in which somebody hangs. It may come later all the same.
_PATIENCE = 120.0

Stretch = tuple[int, int]


class Shares:
    """Divides the rows of an entry among several processes, so that each is computed once.

    Who has the lock of the entry, its owner, goes through the shares from the first on and appends
    to the entry. Who waits for the entry meanwhile helps: it goes through them from the last one
    back, and leaves each in a folder beside the entry, where the owner finds it. So the two meet
    somewhere, and nobody waits for longer than a share takes. Each share has a lock of the
    operating system, which ends with its process: what that was computing is computed by another.

    Args:
        entry: The folder of the entry when it is complete.
        lock: Returns a lock by its name.
        origin: All that decides the activations.
        rows: How many there are, at most.
        unit: Rows that should be computed together. A share has a multiple of that, so that its
            rows are the same as if one process had computed all.

    Attributes:
        from_others: Rows of this entry that other processes have computed.

    Example:
        >>> with contextlib.closing(shares.own(writer)) as stretches:
        ...     for start, stop in stretches:
        ...         writer.append(compute(start, stop), "float32")
    """

    def __init__(
        self,
        entry: Path,
        lock: Callable[..., Any],
        origin: Mapping[str, Any],
        rows: int,
        unit: int,
    ) -> None:
        self.folder = entry.with_name(entry.name + SHARES)
        self.from_others = 0
        self._entry, self._lock, self._origin, self._rows = entry, lock, dict(origin), rows
        self._step = math.ceil(max(_LEAST_ROWS, rows / _MOST_SHARES) / unit) * unit
        self._writer: EntryWriter | None = None  # of the share that is computed for the owner

    def __len__(self) -> int:
        return math.ceil(self._rows / self._step)

    def _stretches(self) -> list[Stretch]:
        starts = range(0, self._rows, self._step)
        return [(start, min(start + self._step, self._rows)) for start in starts]

    @property
    def rows_there(self) -> int:
        """Rows of shares that are there, for the owner to append."""
        made = [path for path in self.folder.glob("[0-9]*") if path.suffix != PART]
        manifests = [read_manifest(path / MANIFEST) for path in made]
        return sum(rows for one in manifests for rows, _ in one.get("stretches", ()))

    # ---- of the owner

    def own(
        self, writer: EntryWriter, is_stale: Callable[[FileArray, int], bool] = lambda *_: False
    ) -> Generator[Stretch]:
        """Gives the stretches of rows that the owner has to compute and append.

        What others have made is appended on the way. After each share all is on the disk.

        Args:
            writer: Of the entry, with the rows that are there already.
            is_stale: Returns whether a share that another process has made, from a row on, is not
                to be taken.
        """
        if len(self) < 2:
            yield writer.rows, self._rows
            return
        self._begin()
        for start, stop in self._stretches():
            if stop <= writer.rows:
                continue
            with self._held(start):
                if not self._append(writer, start, stop, is_stale):
                    yield max(start, writer.rows), stop
                writer.end_stretch()
                remove(self._path(start))

    @contextlib.contextmanager
    def _held(self, start: int) -> Iterator[None]:
        """Holds the lock of a share; goes on without it if its holder does not end."""
        from filelock import Timeout

        lock = self._lock(self._name(start), wait=False)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            lock.release()

    def _begin(self) -> None:
        if self._layout() is None:
            remove(self.folder)
            self.folder.mkdir()
            write_json(self.folder / _LAYOUT, {"rows": self._rows, "step": self._step})
        self._step = self._layout() or self._step

    def _append(
        self,
        writer: EntryWriter,
        start: int,
        stop: int,
        is_stale: Callable[[FileArray, int], bool],
    ) -> bool:
        """Appends what another process has made of a share; returns whether that was whole."""
        folder = self._path(start)
        if not folder.exists():
            return False
        manifest = read_manifest(folder / MANIFEST)
        if not self._is_sound(folder, manifest, start, stop):
            warnings.warn(
                f"A share of activations in {str(folder)!r} is damaged. It is made again.",
                stacklevel=2,
            )
            return False
        array, computed = FileArray(folder / ARRAY), manifest["computed"]
        if writer.kind not in (None, (array.shape[1:], array.dtype.name, computed)):
            return False
        if is_stale(array, start):
            return False
        there = max(0, writer.rows - start)
        for row in range(there, len(array), _AT_A_TIME):
            writer.append(array.take(slice(row, row + _AT_A_TIME)), computed)
        self.from_others += len(array) - there
        return True

    def _is_sound(self, folder: Path, manifest: Mapping[str, Any], start: int, stop: int) -> bool:
        if manifest.get("origin") != self._of(start, stop):
            return False
        stretches = manifest["stretches"]
        short = sum(rows for rows, _ in stretches) != stop - start
        return not (short and stop < self._rows) and is_whole(folder / ARRAY, stretches)

    # ---- of those who wait for the owner

    def help(self) -> Generator[Stretch]:
        """Gives the stretches of rows to compute for the owner, and to `append` here.

        There are none before the owner has begun, and when nothing is left that nobody computes.
        """
        from filelock import Timeout

        step = self._layout()
        if step is None:
            return
        self._step = step  # another batch size would divide the rows otherwise
        for start, stop in reversed(self._stretches()):
            if stop <= self._done() or self._layout() != self._step:
                return
            lock = self._lock(self._name(start), wait=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            try:
                if self._is_free(start, stop):
                    yield from self._made(start, stop)
            finally:
                lock.release()

    def _is_free(self, start: int, stop: int) -> bool:
        if self._layout() != self._step or self._entry.exists():
            return False
        return stop > self._done() and not self._path(start).exists()

    def _done(self) -> int:
        """How many rows the owner has on the disk."""
        part = self._entry.with_name(self._entry.name + PART)
        return sum(rows for rows, _ in read_manifest(part / MANIFEST).get("stretches", ()))

    def _made(self, start: int, stop: int) -> Generator[Stretch]:
        path = self._path(start)
        part = path.with_name(path.name + PART)
        try:
            with self._unless_cleared():
                remove(part)
                part.mkdir()
                self._writer = EntryWriter(part, self._of(start, stop))
                yield start, stop
                if self._writer is not None:
                    self._writer.finish()
                    part.rename(path)
        finally:
            self._close()
            remove(part)

    def append(self, rows: np.ndarray, computed: str) -> None:
        """Appends rows to the share that `help` has given last.

        Args:
            rows: The rows.
            computed: The type that they had when they were computed.

        Raises:
            OSError: If the disk is full, or cannot be written.
        """
        with self._unless_cleared():
            if self._writer is not None:
                self._writer.append(rows, computed)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    @contextlib.contextmanager
    def _unless_cleared(self) -> Iterator[None]:
        """Ignores that the owner, or somebody who clears the folder, has removed everything."""
        try:
            yield
        except FileNotFoundError:
            if self._layout() == self._step:
                raise
            self._close()

    # ---- in the folder

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:09d}"

    def _name(self, start: int) -> str:
        return f"{self._entry.name}-{start:09d}"

    def _of(self, start: int, stop: int) -> dict[str, Any]:
        return {**self._origin, "rows": [start, stop]}

    def _layout(self) -> int | None:
        """The rows of a share, as the first owner has divided them; `None` if none has."""
        try:
            found = json.loads((self.folder / _LAYOUT).read_text())
            rows, step = int(found["rows"]), int(found["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return step if rows == self._rows and step > 0 else None
