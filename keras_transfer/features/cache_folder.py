"""CacheFolder: activations in a folder, found again by what they were made of."""

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from keras_transfer.features.entry import (
    FORMAT,
    MANIFEST,
    PART,
    Entry,
    name_of,
    read_manifest,
    write_json,
)

_MARK = "keras_transfer_cache.json"
_LOCKS = ".locks"
_NAME = re.compile(r"[0-9a-f]{32}(\.part|\.shares)?")  # shares: of earlier versions
# Another process may be making the folder just now, and have its mark there, or half of that.
_OWN = re.compile(
    rf"{_NAME.pattern}|{re.escape(_LOCKS)}|{re.escape(_MARK)}|\.{re.escape(_MARK)}\..*"
)

_FIELDS = {  # of a cache key, as people call them
    "data": "data (files, image size, seed or split)",
    "view": "augmentation",
    "weights": "weights",
    "architecture": "architecture",
    "preprocessing": "preprocessing",
    "after": "block",
    "dtype": "type",
}


class CacheFolder:
    """A folder of sets of activations, each in a folder of its own.

    Args:
        path: The folder; made if it does not exist.
        limit: Bytes that its entries may take; the least recently used ones are removed.

    Raises:
        NotADirectoryError: If it is a file.
        PermissionError: If it cannot be written.
        ValueError: If it holds other things, or was written by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        self.path = Path(path).expanduser()
        self.limit = limit
        self._used: set[str] = set()  # entries that this object has read or written
        self._prepare()

    def _prepare(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"FeatureCache({str(self.path)!r}): that is a file. Expected a folder, new or of "
                "this kind; choose another name."
            )
        mark = self.path / _MARK
        try:
            if self.path.exists() and not mark.exists():
                self._check_empty()
            self.path.mkdir(parents=True, exist_ok=True)
            if not mark.exists():
                write_json(mark, {"format": FORMAT})
            (self.path / _LOCKS).mkdir(exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            text = mark.read_text()
        except OSError as error:
            raise PermissionError(
                f"FeatureCache({str(self.path)!r}): the folder cannot be written "
                f"({error.strerror or error}). Expected a folder that you may write to."
            ) from error
        try:
            written = json.loads(text)["format"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"FeatureCache({str(self.path)!r}): {_MARK} in it is no such file as this version "
                "writes. Remove the folder, or choose another."
            ) from None
        if written != FORMAT:
            raise ValueError(
                f"FeatureCache({str(self.path)!r}): the folder has format {written}. This version "
                f"of keras_transfer reads format {FORMAT}. Update the package, or choose another "
                "folder."
            )

    def _check_empty(self) -> None:
        """Refuses a folder of something else, in which removing old entries would do harm."""
        others = [path.name for path in self.path.iterdir() if not _OWN.fullmatch(path.name)]
        if others:
            raise ValueError(
                f"FeatureCache({str(self.path)!r}): that folder holds other things, such as "
                f"{others[0]!r}. Expected a folder of its own, new or empty."
            )

    def entry(self, key: Mapping[str, Any]) -> Entry:
        """Returns the entry, there or not, of activations that have a cache key.

        Args:
            key: Everything that decides the activations, as plain values.
        """
        name = name_of(key)
        self._used.add(name)
        return Entry(self.path, key, self._lock(name))

    def entries(self) -> Iterator[Path]:
        """Yields the folders of all entries, complete or not."""
        for folder in self.path.iterdir():
            if _NAME.fullmatch(folder.name) and folder.is_dir():
                yield folder

    def nearest_miss(self, key: Mapping[str, Any]) -> str:
        """Returns in what the entry differs that is most like a cache key; empty if none is.

        Entries that this object has used are left out. Where one of these differs in its data
        alone, it is another split of the same folder, and so nothing was missed.
        """
        nearest: list[str] = list(key)
        for folder in self.entries():
            other = read_manifest(folder).get("origin", {})
            differ = [name for name in key if other.get(name) != key[name]]
            if folder.name in self._used:
                if differ == ["data"]:
                    return ""
            elif differ and len(differ) < len(nearest):
                nearest = differ
        if len(nearest) > 2 or "after" in nearest:  # something else altogether
            return ""
        return " and ".join(_FIELDS.get(name, name) for name in nearest)

    def size(self) -> int:
        """Returns the bytes that all entries take."""
        return sum(map(_size, self.entries()))

    def make_room(self, keep: Path) -> None:
        """Removes the least recently used entries until the rest is within the limit."""
        if self.limit is None:
            return
        for folder in sorted(self.entries(), key=_last_use):
            if self.size() <= self.limit:
                return
            if folder != keep:
                self._remove(folder)
                if folder.name in self._used:
                    warnings.warn(
                        f"disk_limit={self.limit} holds not all activations of this run: older "
                        f"ones of them were removed from {str(self.path)!r}, and another run "
                        "computes them again. Give a higher limit, or dtype='float16'.",
                        stacklevel=2,
                    )

    def clear(self) -> None:
        """Removes all entries but those that another process is writing."""
        for folder in list(self.entries()):
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        with contextlib.suppress(Timeout), self._lock(folder.name).acquire(blocking=False):
            # Under another name first: half an entry is none.
            gone = folder.with_name(f"{uuid.uuid4().hex}{PART}")
            with contextlib.suppress(OSError):
                folder.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _lock(self, name: str) -> FileLock:
        locks = self.path / _LOCKS
        if not locks.exists():  # somebody has removed the folder
            self._prepare()
        return FileLock(locks / f"{name.partition('.')[0]}.lock")


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0


def _last_use(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return (folder / MANIFEST).stat().st_mtime
    return 0.0
