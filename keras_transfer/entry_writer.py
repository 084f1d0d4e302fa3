"""EntryWriter: writes activations into a folder with a manifest, so that what is whole stays."""

import errno
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.array_file import ArrayWriter
from keras_transfer.whole_files import written_whole

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
