"""Arrays in `.npy` files: written row by row in checked stretches, read in any order."""

import errno
import hashlib
import json
import os
import shutil
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_transfer.utils.atomic_files import written_whole

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


FORMAT = 1
MANIFEST = "manifest.json"
ARRAY = "activations.npy"
PART = ".part"  # at the end of the name of what is not complete
_TYPES = ("float16", "float32", "float64", "bfloat16")


class EntryWriter:
    """Writes the activations of an entry, and its manifest whenever more of them are whole.

    Args:
        folder: Where; what of it is whole stays.
        origin: All that decides the activations.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        self._folder, self._origin = folder, origin
        self._array: Any = None  # until the first rows come
        self._computed = ""
        before = read_manifest(folder / MANIFEST)
        if before.get("stretches"):
            self._open(
                tuple(before["row_shape"]),
                before["dtype"],
                before["computed"],
                before["stretches"],
            )

    @property
    def rows(self) -> int:
        """Rows that are there, in whole stretches."""
        return self._array.rows if self._array else 0

    @property
    def nbytes(self) -> int:
        """Bytes that these rows take."""
        return self._array.nbytes if self._array else 0

    @property
    def kind(self) -> tuple[tuple[int, ...], str, str] | None:
        """Shape of a row, type, and the type when computed; `None` before the first rows."""
        if self._array is None:
            return None
        return self._array.row_shape, self._array.dtype.name, self._computed

    def _open(self, row_shape: tuple[int, ...], dtype: Any, computed: str, stretches: Any) -> None:
        self._computed = computed
        self._array = ArrayWriter(self._folder / ARRAY, row_shape, dtype, stretches)
        self._note()

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows that were written, by their numbers."""
        return self._array.take(rows)

    def restart(self) -> None:
        """Drops all rows, with their shape and type."""
        self.close()
        self._array = None

    def append(self, rows: np.ndarray, computed: str) -> None:
        """Appends rows; `computed` is the type that they had when they were computed."""
        if self._array is None:
            self._open(rows.shape[1:], rows.dtype, computed, ())
        if self._array.append(rows):
            self._note()

    def end_stretch(self) -> None:
        """Ends a stretch with the last appended row."""
        if self._array is not None:
            self._array.end_stretch()
            self._note()

    def finish(self) -> None:
        """Completes array and manifest."""
        if self._array is None:
            raise ValueError("There is nothing to keep: the data has no rows.")
        self._array.finish()
        self._note()

    def close(self) -> None:
        """Closes the file, as it is."""
        if self._array is not None:
            self._array.close()

    def _note(self) -> None:
        manifest = {
            "format": FORMAT,
            "origin": self._origin,
            "computed": self._computed,
            "dtype": self._array.dtype.name,
            "row_shape": self._array.row_shape,
            "rows": self._array.rows,
            "stretches": self._array.stretches,
            "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write_json(self._folder / MANIFEST, manifest)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns a manifest; an empty one if it is not there, or not as it was written."""
    try:
        content = json.loads(path.read_text())
        stretches = [(int(rows), str(checksum)) for rows, checksum in content["stretches"]]
        shape = [int(size) for size in content["row_shape"]]
        sound = isinstance(content["origin"], dict) and min([0, *shape]) == 0
        sound = sound and all(rows > 0 for rows, _ in stretches)
        sound = sound and {content["dtype"], content["computed"]} <= set(_TYPES)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {**content, "stretches": stretches, "row_shape": shape} if sound else {}


def is_disk_full(error: OSError) -> bool:
    """Returns whether an error means that the disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def remove(path: Path) -> None:
    """Removes a file or a folder, or neither."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
