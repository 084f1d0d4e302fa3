"""CacheFolder: activations in a folder, found again by what they were made of."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_transfer.data.cacheable import NotKeepable
from keras_transfer.features.npy_store import (
    ARRAY,
    FORMAT,
    MANIFEST,
    PART,
    EntryWriter,
    FileArray,
    is_disk_full,
    is_whole,
    read_manifest,
    remove,
    write_json,
)
from keras_transfer.features.shares import SHARES, Shares

_MARK = "keras_transfer_cache.json"
_LOCKS = ".locks"
_NAME = re.compile(r"[0-9a-f]{32}(\.part|\.shares)?")

_FIELDS = {  # of an origin, as people call them
    "data": "data (files, image size, seed or split)",
    "view": "augmentation",
    "weights": "weights",
    "architecture": "architecture",
    "preprocessing": "preprocessing",
    "after": "block",
    "dtype": "type",
}


class CacheFolder:
    """Complete sets of activations in a folder, one folder each with a manifest and an array.

    An entry is written under another name, stretch by stretch, and renamed when it is complete.
    What an interrupted process has left is gone on with; what a checksum refutes is made again.
    What other processes make of an entry lies in a folder beside it until it is complete: `Shares`.

    Args:
        path: The folder; made if it does not exist.
        limit: Bytes that its entries may take; the least recently used ones go.

    Raises:
        NotADirectoryError: If it is a file.
        PermissionError: If it cannot be written.
        ValueError: If it was written by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        self.path = Path(path).expanduser()
        self.limit = limit
        self.known: set[str] = set()
        self.found: list[Mapping[str, Any]] = []  # origins of what was there already
        self._prepare()

    def _prepare(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"FeatureCache({str(self.path)!r}): that is a file. Expected a folder, new or of "
                "this kind; choose another name."
            )
        mark = self.path / _MARK
        if self.path.exists() and not mark.exists():
            self._check_empty()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not mark.exists():
                write_json(mark, {"format": FORMAT})
            (self.path / _LOCKS).mkdir(exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            found = json.loads(mark.read_text())["format"]
        except OSError as error:
            raise PermissionError(
                f"FeatureCache({str(self.path)!r}): the folder cannot be written "
                f"({error.strerror or error}). Expected a folder that you may write to."
            ) from error
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"FeatureCache({str(self.path)!r}): {_MARK} in it is no such file as this version "
                "writes. Remove the folder, or choose another."
            ) from None
        if found != FORMAT:
            raise ValueError(
                f"FeatureCache({str(self.path)!r}): the folder has format {found}. This version "
                f"of keras_transfer reads format {FORMAT}. Update the package, or choose another "
                "folder."
            )

    def _check_empty(self) -> None:
        """Refuses a folder of something else, in which removing old entries would do harm."""
        others = [path for path in self.path.iterdir() if not _NAME.fullmatch(path.name)]
        # Another process may be making it just now, and have its mark there, or half of that.
        own = re.compile(rf"{re.escape(_LOCKS)}|{re.escape(_MARK)}|\.{re.escape(_MARK)}\..*")
        strange = [path.name for path in others if not own.fullmatch(path.name)]
        if strange:
            raise ValueError(
                f"FeatureCache({str(self.path)!r}): that folder holds other things, such as "
                f"{strange[0]!r}. Expected a folder of its own, new or empty."
            )

    def entry(self, origin: Mapping[str, Any]) -> "Entry":
        """Returns the entry, there or not, of activations that come from an origin.

        Args:
            origin: All that decides them, as plain values.
        """
        return Entry(self, dict(origin))

    def entries(self) -> Iterator[Path]:
        """Gives the folders of all entries, complete or not, and nothing that is not one."""
        for folder in self.path.iterdir():
            if _NAME.fullmatch(folder.name) and folder.is_dir():
                yield folder

    def nearest_miss(self, origin: Mapping[str, Any]) -> str:
        """Returns in what the entry differs that is most like an origin; empty if none is.

        Entries that this object has made or found itself are left out. Where one like this was
        found, the folder is of this data, of which this is another split.
        """
        nearest: list[str] = list(origin)
        for folder in self.entries():
            if folder.name in self.known:
                continue
            other = read_manifest(folder / MANIFEST).get("origin", {})
            differ = [name for name in origin if other.get(name) != origin[name]]
            if differ and len(differ) < len(nearest):
                nearest = differ
        if len(nearest) > 2 or "after" in nearest:  # something else altogether
            return ""
        if nearest == ["data"] and {**origin, "data": ""} in self.found:
            return ""
        return " and ".join(_FIELDS.get(name, name) for name in nearest)

    def size(self) -> int:
        """Returns the bytes that all entries take."""
        return sum(_size(folder) for folder in self.entries())

    def make_room(self, keep: Path) -> None:
        """Removes the least recently used entries until the rest is within the limit."""
        if self.limit is None:
            return
        oldest_first = sorted(self.entries(), key=lambda f: _used(f / MANIFEST))
        for folder in oldest_first:
            if self.size() <= self.limit:
                return
            if folder != keep:
                self._remove(folder)
                if folder.name in self.known:
                    self._tell_too_small()

    def _tell_too_small(self) -> None:
        warnings.warn(
            f"disk_limit={self.limit} holds not all activations of this run: older ones of them "
            f"were removed from {str(self.path)!r}, and another run computes them again. Give a "
            "higher limit, or dtype='float16'.",
            stacklevel=2,
        )

    def clear(self) -> None:
        """Removes all entries but those that another process is writing."""
        for folder in list(self.entries()):
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        from filelock import Timeout

        with contextlib.suppress(Timeout), self.lock(folder.name, wait=False):
            self.forget_shares(folder.name.partition(".")[0])
            # Under another name first: half an entry is none.
            gone = folder.with_name(f"{uuid.uuid4().hex}{PART}")
            with contextlib.suppress(OSError):
                folder.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def forget_shares(self, name: str) -> None:
        """Removes what was made for the owner of an entry, who has no need of it any more."""
        if (self.path / f"{name}{SHARES}").exists():
            remove(self.path / f"{name}{SHARES}")
            for lock in (self.path / _LOCKS).glob(f"{name}-*.lock"):
                with contextlib.suppress(OSError):  # where a file that is open stays
                    lock.unlink()

    def lock(self, name: str, *, wait: bool) -> Any:
        """Returns a lock for an entry, or a share of it, of the operating system.

        It ends with its process.
        """
        from filelock import FileLock

        locks = self.path / _LOCKS
        if not locks.exists():  # somebody has removed the folder
            self._prepare()
        return FileLock(locks / f"{name.partition('.')[0]}.lock", timeout=-1 if wait else 0)


class Entry:
    """One set of activations in a folder.

    Attributes:
        folder: Where it is when it is complete.
    """

    def __init__(self, cache: CacheFolder, origin: dict[str, Any]) -> None:
        self._cache, self._origin = cache, origin
        text = json.dumps([FORMAT, origin], sort_keys=True)
        self.folder = cache.path / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self._part = self.folder.with_name(self.folder.name + PART)

    def lock(self, *, wait: bool = True) -> Any:
        """Returns the lock under which the entry is written."""
        return self._cache.lock(self.folder.name, wait=wait)

    def shares(self, rows: int, unit: int) -> Shares:
        """Returns its rows, divided among the processes that need them.

        Args:
            rows: How many there are, at most.
            unit: Rows that should be computed together.
        """
        return Shares(self.folder, self._cache.lock, self._origin, rows, unit)

    def exists(self) -> bool:
        """Returns whether there is anything complete, sound or not."""
        return self.folder.exists()

    def begun(self) -> bool:
        """Returns whether a part of it is there, to be gone on with."""
        return self._part.exists()

    def open(self) -> FileArray | None:
        """Returns its activations; `None` if they are not there, or not whole.

        What is not whole is put aside, to be made good by `writing`.
        """
        self._cache.known.add(self.folder.name)
        if not self.folder.exists():
            return None
        stretches = read_manifest(self.folder / MANIFEST).get("stretches")
        if stretches and is_whole(self.folder / ARRAY, stretches):
            with contextlib.suppress(OSError):
                os.utime(self.folder / MANIFEST)
            self._cache.forget_shares(self.folder.name)
            self._cache.found.append({**self._origin, "data": ""})
            return self.opened()
        warnings.warn(
            f"Kept activations in {str(self.folder)!r} are damaged. What is broken is made again.",
            stacklevel=2,
        )
        remove(self._part)
        self.folder.rename(self._part)
        return None

    def discard(self) -> None:
        """Removes the complete entry. The caller holds its lock."""
        remove(self._part)
        self.folder.rename(self._part)  # half an entry is none
        remove(self._part)
        self._cache.forget_shares(self.folder.name)

    def opened(self) -> FileArray:
        """Returns its activations, which are known to be there."""
        return FileArray(self.folder / ARRAY)

    @property
    def computed(self) -> str:
        """The type that its activations had when they were computed."""
        return read_manifest(self.folder / MANIFEST)["computed"]

    @contextlib.contextmanager
    def writing(self) -> Iterator["EntryWriter"]:
        """Yields a writer that goes on where the last one stopped.

        It is complete when the block ends. After an exception what is there stays for the next
        time, but for a full disk, which is freed.

        Raises:
            OSError: If the disk is full, or cannot be written.
        """
        if not all(path.is_file() for path in _parts(self._part)):
            remove(self._part)
        self._part.mkdir(exist_ok=True)
        writer = EntryWriter(self._part, self._origin)
        try:
            with contextlib.closing(writer):
                yield writer
                writer.finish()
            self._part.rename(self.folder)
        except BaseException as error:
            full = isinstance(error, OSError) and is_disk_full(error)
            if full or not writer.rows:
                remove(self._part)
            if full or isinstance(error, NotKeepable):
                self._cache.forget_shares(self.folder.name)
            raise
        self._cache.forget_shares(self.folder.name)
        self._cache.make_room(self.folder)


def _parts(folder: Path) -> list[Path]:
    """What should be files in the folder of an entry; the folder itself if it is none."""
    if not folder.exists():
        return []
    return list(folder.iterdir()) if folder.is_dir() else [folder / "none"]


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0


def _used(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
