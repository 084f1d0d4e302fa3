"""Arrays in `.npy` files: written row by row with a checksum, read in any order."""

import errno
import hashlib
import os
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 2**24  # bytes; an interrupted file is resumed at about so many bytes before its end


class ArrayWriter:
    """Appends rows to a `.npy` file.

    Args:
        path: The file.
        row_shape: Shape of a row.
        dtype: Type of its numbers.
        rows: Rows of an interrupted file that stay; those behind them are dropped.

    Attributes:
        rows: Number of rows so far.

    Raises:
        OSError: If the file cannot be written, of a full disk for example.
    """

    def __init__(
        self, path: Path, row_shape: tuple[int, ...], dtype: Any, *, rows: int = 0
    ) -> None:
        self.row_shape, self.dtype, self.rows = tuple(row_shape), np.dtype(dtype), rows
        self._digest = _digest_of(path, rows) if rows else hashlib.blake2b(digest_size=16)
        self._file = path.open("r+b" if rows else "w+b")
        self._write_header(0)
        self._file.truncate(self._file.tell() + self.nbytes)
        self._file.seek(0, 2)

    @property
    def nbytes(self) -> int:
        """Bytes of these rows."""
        return self.rows * self.dtype.itemsize * int(np.prod(self.row_shape))

    @property
    def checksum(self) -> str:
        """A digest of these rows."""
        return self._digest.hexdigest()

    def append(self, rows: np.ndarray) -> None:
        """Appends rows."""
        data = np.ascontiguousarray(rows, self.dtype)
        self._file.write(data.data)
        self._digest.update(data.data)
        self.rows += len(data)

    def flush(self) -> None:
        """Hands the rows over to the system, where a killed process leaves them."""
        self._file.flush()

    def finish(self) -> None:
        """Writes the number of rows into the header; the file is complete then."""
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

    Rows are read by their position in the file, not through a memory map, whose pages would count
    as resident memory: of a million rows read at random nearly all pages, in 2.5 GB.

    Args:
        path: The file. It may be removed as soon as it is open, where the system allows that.
        rows: Number of rows, if the file is not complete.

    Raises:
        ValueError: If it is no `.npy` file as `ArrayWriter` writes them.
        OSError: If it cannot be read, or is shorter than its rows.
    """

    def __init__(self, path: Path, *, rows: int | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        try:
            version = np.lib.format.read_magic(self._file)
            shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(self._file)
        except Exception as error:  # NumPy evaluates the header: a damaged one may raise anything
            raise ValueError(f"no header of an .npy file ({error})") from error
        if version != (1, 0) or fortran or self.dtype.hasobject:
            raise ValueError(f"format {version} of .npy, {self.dtype}")
        self.shape = (shape[0] if rows is None else rows, *shape[1:])
        self._start = self._file.tell()
        self._row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        if os.fstat(self._file.fileno()).st_size < self._start + self.nbytes:
            raise self._error()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self._row_bytes

    def read_into(self, array: np.ndarray) -> None:
        """Reads all rows into an array of their shape and type."""
        self._fill(array.reshape(-1).view(np.uint8).data, 0)

    def take(self, rows: Any) -> np.ndarray:
        """Returns rows, by their numbers or as a slice without steps.

        Raises:
            OSError: If the file is shorter than it was.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            taken = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
            self._fill(taken.reshape(-1).view(np.uint8).data, start)
            return taken
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        to, size = taken.reshape(-1).view(np.uint8).data, self._row_bytes
        for place, row in enumerate(rows.tolist()):  # the hot loop of training from a file
            self._fill(to[place * size : (place + 1) * size], row)
        return taken

    def _fill(self, to: memoryview, row: int) -> None:
        """Reads as much of the file as fits, from a row on."""
        with self._lock:
            self._file.seek(self._start + row * self._row_bytes)
            while to:
                if not (count := self._file.readinto(to)):
                    raise self._error()
                to = to[count:]

    def _error(self) -> OSError:
        return OSError(f"{str(self.path)!r} is shorter than its rows: somebody changed it.")


def _digest_of(path: Path, rows: int) -> Any:
    array, digest = FileArray(path, rows=rows), hashlib.blake2b(digest_size=16)
    step = max(1, CHUNK * rows // max(1, array.nbytes))
    for row in range(0, rows, step):
        digest.update(array.take(slice(row, row + step)).reshape(-1).view(np.uint8).data)
    return digest


def checksum(path: Path, rows: int) -> str:
    """Returns the digest of the first rows of a file.

    Raises:
        ValueError: If it is no such `.npy` file.
        OSError: If it cannot be read, or is shorter.
    """
    return _digest_of(path, rows).hexdigest()


def is_disk_full(error: OSError) -> bool:
    """Returns whether an error means that the disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def remove(path: Path) -> None:
    """Removes a file or a folder, or neither."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
