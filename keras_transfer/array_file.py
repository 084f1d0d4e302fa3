"""Arrays in `.npy` files: written row by row in checked stretches, read in any order."""

import hashlib
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# A stretch of about so many bytes has a checksum, so that the intact part of an interrupted or
# damaged file is used again. In a large file a stretch is one part in `_SHARE` of the bytes before
# it, since each new checksum causes a write of the list of all.
_STRETCH = 2**24
_SHARE = 256

_POSITIONED = hasattr(os, "preadv")  # not on Windows


class ArrayWriter:
    """Appends rows to a `.npy` file, and notes a checksum for each stretch of rows.

    Args:
        path: The file. What is there already and agrees with `stretches` stays.
        row_shape: Shape of a row.
        dtype: Type of its numbers.
        stretches: Rows and checksum of each stretch that should be there.

    Attributes:
        rows: Rows in whole stretches so far; appending goes on behind them.
        stretches: Rows and checksum of each of these stretches.

    Raises:
        OSError: If the file cannot be written, of a full disk for example.
    """

    def __init__(
        self,
        path: Path,
        row_shape: tuple[int, ...],
        dtype: Any,
        stretches: Sequence[tuple[int, str]] = (),
    ) -> None:
        self.path, self.row_shape, self.dtype = path, tuple(row_shape), np.dtype(dtype)
        self._row_bytes = self.dtype.itemsize * int(np.prod(row_shape))
        self._pending, self._pending_rows = hashlib.blake2b(digest_size=16), 0
        self.stretches = self._sound(stretches) if path.exists() else []
        self._file = path.open("r+b" if self.stretches else "w+b")
        self._write_header(0)
        self._start = self._file.tell()
        self._file.truncate(self._start + self.rows * self._row_bytes)
        self._file.seek(0, 2)

    def _sound(self, stretches: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        """The stretches up to the first that is not what it was."""
        sound = []
        with self.path.open("rb") as file:
            try:
                shape, _, dtype = _read_header(file)
            except ValueError:
                return []
            if (shape[1:], dtype) != (self.row_shape, self.dtype):
                return []
            left = self.path.stat().st_size - file.tell()
            for rows, checksum in stretches:
                left -= rows * self._row_bytes
                if left < 0 or _checksum(file, rows * self._row_bytes) != checksum:
                    break
                sound.append((rows, checksum))
        return sound

    @property
    def rows(self) -> int:
        """Rows in whole stretches."""
        return sum(rows for rows, _ in self.stretches)

    @property
    def nbytes(self) -> int:
        """Bytes of these rows."""
        return self.rows * self._row_bytes

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows of complete stretches, by their numbers."""
        taken = np.empty((len(rows), *self.row_shape), self.dtype)
        for place, row in enumerate(rows.tolist()):
            self._file.seek(self._start + row * self._row_bytes)
            self._file.readinto(_bytes_of(taken[place]))
        self._file.seek(0, 2)
        return taken

    def append(self, rows: np.ndarray) -> bool:
        """Appends rows; returns whether they completed a stretch, which is on the disk then."""
        data = np.ascontiguousarray(rows, self.dtype)
        self._file.write(data.data)
        self._pending.update(data.data)
        self._pending_rows += len(data)
        whole = self._pending_rows * self._row_bytes >= max(_STRETCH, self.nbytes // _SHARE)
        if whole:
            self.end_stretch()
        return whole

    def end_stretch(self) -> None:
        """Puts what was appended since the last stretch on the disk, as one of its own."""
        if not self._pending_rows:
            return
        self._file.flush()
        self.stretches.append((self._pending_rows, self._pending.hexdigest()))
        self._pending, self._pending_rows = hashlib.blake2b(digest_size=16), 0

    def finish(self) -> None:
        """Writes the number of rows into the header; the file is complete then."""
        self.end_stretch()
        self._file.seek(0)
        self._write_header(self.rows)
        self.close()

    def close(self) -> None:
        """Closes the file, as it is."""
        self._file.close()

    def _write_header(self, rows: int) -> None:
        # NumPy leaves room in the header for the first axis to grow, so its length stays.
        header = {
            "shape": (rows, *self.row_shape),
            "fortran_order": False,
            "descr": np.lib.format.dtype_to_descr(self.dtype),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class FileArray:
    """The rows of a `.npy` file, read when they are asked for.

    Rows are read by their place in the file, not through a memory map, whose pages would count as
    resident memory: of a million rows read at random nearly all pages, in 2.5 GB.

    Args:
        path: The file. It may be removed as soon as it is open, where the system allows that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.shape, _, self.dtype = _read_header(file)
            self._start = file.tell()
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self._row_bytes

    def read_into(self, array: np.ndarray) -> None:
        """Reads all rows into an array of their shape and type."""
        self._fill(_bytes_of(array), 0)

    def take(self, rows: Any) -> np.ndarray:
        """Returns rows, by their numbers or as a slice without steps.

        Raises:
            OSError: If the file is shorter than it was.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            taken = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
            self._fill(_bytes_of(taken), start)
            return taken
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        to, size = _bytes_of(taken), self._row_bytes
        for place, row in enumerate(rows.tolist()):  # the hot loop of training from a file
            self._fill(to[place * size : (place + 1) * size], row)
        return taken

    def _fill(self, to: memoryview, row: int) -> None:
        """Reads as much of the file as fits, from a row on."""
        at = self._start + row * self._row_bytes
        while to:
            count = self._read(to, at)
            if not count:
                raise OSError(f"{str(self.path)!r} is shorter than it was: somebody changed it.")
            to, at = to[count:], at + count

    def _read(self, to: memoryview, at: int) -> int:
        if _POSITIONED:
            return os.preadv(self._file, (to,), at)
        with self._lock:
            os.lseek(self._file, at, os.SEEK_SET)
            part = os.read(self._file, min(len(to), _STRETCH))
        to[: len(part)] = part
        return len(part)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def is_whole(path: Path, stretches: Sequence[tuple[int, str]]) -> bool:
    """Returns whether a complete file holds just the rows that the checksums were made of."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = _read_header(file)
            row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
            rows = sum(n for n, _ in stretches)
            if shape[0] != rows or path.stat().st_size - file.tell() != rows * row_bytes:
                return False
            return all(_checksum(file, n * row_bytes) == c for n, c in stretches)
    except (OSError, ValueError):
        return False


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        shape, order, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # NumPy evaluates the header, so a damaged one may raise anything
        raise ValueError(f"no header of an .npy file ({error})") from error
    if version != (1, 0) or order or dtype.hasobject:
        raise ValueError(f"format {version} of .npy, {dtype}")
    return shape, order, dtype


def _checksum(file: BinaryIO, size: int) -> str:
    """The checksum of the next bytes of a file."""
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, size, _STRETCH):
        digest.update(file.read(min(_STRETCH, size - start)))
    return digest.hexdigest()
