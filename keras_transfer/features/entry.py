"""Entry: one set of activations in a cache folder, with the manifest that describes it."""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from keras_transfer.features.npy_store import (
    CHUNK,
    ArrayWriter,
    FileArray,
    checksum,
    is_disk_full,
    remove,
)
from keras_transfer.utils.atomic_files import written_whole

FORMAT = 1
MANIFEST = "manifest.json"
ARRAY = "activations.npy"
PART = ".part"  # at the end of the name of an entry that is not complete
_TYPES = ("float16", "float32", "float64", "bfloat16")


class Entry:
    """One set of activations in a folder of its own: an array and a manifest.

    It is written under another name, and renamed when it is complete. Interrupted writes are
    resumed; a damaged entry is removed.

    Args:
        cache: The cache folder.
        key: Everything that decides the activations, as plain values.
        lock: The lock under which it is read and written.

    Attributes:
        folder: Its folder when it is complete.
        lock: The lock. It ends with its process.
    """

    def __init__(self, cache: Path, key: Mapping[str, Any], lock: FileLock) -> None:
        self.folder, self.lock, self._key = cache / name_of(key), lock, dict(key)
        self._part = self.folder.with_name(self.folder.name + PART)

    @property
    def computed(self) -> str:
        """The type that the activations had when they were computed."""
        return read_manifest(self.folder)["computed"]

    def is_begun(self) -> bool:
        """Returns whether it is there, complete, damaged or in part."""
        return self.folder.exists() or self._part.exists()

    def open(self) -> FileArray | None:
        """Returns the activations; `None` if there are none, or they were damaged."""
        if not self.folder.exists():
            return None
        if (array := _intact(self.folder, complete=True)) is not None:
            with contextlib.suppress(OSError):
                os.utime(self.folder / MANIFEST)
            return array
        warnings.warn(
            f"Kept activations in {str(self.folder)!r} are damaged. They are computed again.",
            stacklevel=2,
        )
        self.discard()
        return None

    def discard(self) -> None:
        """Removes the complete entry. The caller holds its lock."""
        remove(self._part)
        self.folder.rename(self._part)  # half an entry is none
        remove(self._part)

    def resumable(self) -> FileArray | None:
        """Returns the rows that an interrupted process has written, if they are intact."""
        return _intact(self._part, complete=False)

    @contextlib.contextmanager
    def writing(self, rows: int = 0) -> Iterator["EntryWriter"]:
        """Yields a writer; the entry is complete when the block ends.

        After an exception the rows stay for the next time, unless the disk is full.

        Args:
            rows: How many of the resumable rows stay.

        Raises:
            OSError: If the disk is full, or cannot be written.
        """
        if not rows:
            remove(self._part)
            self._part.mkdir()
        writer = EntryWriter(self._part, self._key, rows)
        try:
            with contextlib.closing(writer):
                yield writer
                writer.finish()
            self._part.rename(self.folder)
        except BaseException as error:
            full = isinstance(error, OSError) and is_disk_full(error)
            if full or not (self._part / MANIFEST).exists():
                remove(self._part)
            raise


class EntryWriter:
    """Writes the activations of an entry, and its manifest after each 16 MB.

    Args:
        folder: The folder of the entry in part.
        key: Everything that decides the activations.
        rows: How many of the rows that are there stay.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], rows: int) -> None:
        self._folder, self._key = folder, key
        self._array: ArrayWriter | None = None  # until the first rows come
        self._computed, self._noted_bytes = "", 0
        if rows:
            manifest = read_manifest(folder)
            self._begin(manifest["row_shape"], manifest["dtype"], manifest["computed"], rows)

    def _begin(self, shape: tuple[int, ...], dtype: Any, computed: str, rows: int) -> ArrayWriter:
        self._array = ArrayWriter(self._folder / ARRAY, shape, dtype, rows=rows)
        self._computed, self._noted_bytes = computed, self._array.nbytes
        return self._array

    @property
    def rows(self) -> int:
        """Number of rows so far."""
        return self._array.rows if self._array else 0

    @property
    def nbytes(self) -> int:
        """Bytes of these rows."""
        return self._array.nbytes if self._array else 0

    def append(self, rows: np.ndarray, computed: str) -> None:
        """Appends rows; `computed` is the type that they had when they were computed."""
        if (array := self._array) is None:
            array = self._begin(rows.shape[1:], rows.dtype, computed, 0)
        array.append(rows)
        if array.nbytes - self._noted_bytes >= CHUNK:
            self._note(array)

    def finish(self) -> None:
        """Completes array and manifest."""
        if self._array is None:
            raise ValueError("There is nothing to keep: the data has no rows.")
        self._note(self._array)
        self._array.finish()

    def close(self) -> None:
        """Closes the file, as it is."""
        if self._array is not None:
            self._array.close()

    def _note(self, array: ArrayWriter) -> None:
        array.flush()
        manifest = {
            "format": FORMAT,
            "origin": self._key,
            "computed": self._computed,
            "dtype": array.dtype.name,
            "row_shape": array.row_shape,
            "rows": array.rows,
            "checksum": array.checksum,
            "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write_json(self._folder / MANIFEST, manifest)
        self._noted_bytes = array.nbytes


def name_of(key: Mapping[str, Any]) -> str:
    """Returns the name of the folder of an entry."""
    text = json.dumps([FORMAT, dict(key)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an entry; an empty one if it is not there, or not as written."""
    try:
        content = json.loads((folder / MANIFEST).read_text())
        shape = tuple(int(size) for size in content["row_shape"])
        sound = isinstance(content["origin"], dict) and min((0, *shape)) == 0
        sound = sound and isinstance(content["rows"], int) and content["rows"] > 0
        sound = sound and {content["dtype"], content["computed"]} <= set(_TYPES)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {**content, "row_shape": shape} if sound else {}


def _intact(folder: Path, *, complete: bool) -> FileArray | None:
    """Returns the array of an entry if it holds what the manifest says.

    Entries of earlier versions have no checksum of the whole; of these the size is checked.
    """
    manifest, path = read_manifest(folder), folder / ARRAY
    if not manifest or not (complete or "checksum" in manifest):
        return None
    rows = manifest["rows"]
    try:
        array = FileArray(path, rows=None if complete else rows)
        intact = array.shape == (rows, *manifest["row_shape"])
        intact = intact and array.dtype.name == manifest["dtype"]
        if intact and "checksum" in manifest:
            intact = checksum(path, rows) == manifest["checksum"]
    except (OSError, ValueError):
        return None
    return array if intact else None
