"""The cache of tensorflow_hub: what is broken in it is found, named, and cleared away."""

import contextlib
import hashlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from keras_transfer.console import say
from keras_transfer.saved_model_files import DamagedModule, what_is_missing

# As long as tensorflow_hub itself waits for a download that makes no progress.
_ABANDONED_SECONDS = 600.0


class CachedModule:
    """The place of one handle in the cache of tensorflow_hub.

    Args:
        hub: The library `tensorflow_hub`.
        handle: The address of a module.

    Attributes:
        cache: The cache folder: `TFHUB_CACHE_DIR`, or tensorflow_hub's own choice.
        folder: Where the module is, or would be.
    """

    def __init__(self, hub: Any, handle: str) -> None:
        self._handle = handle
        self.cache = Path(hub.resolver.tfhub_cache_dir(use_temp=True))
        # tensorflow_hub's own rule; it has no public name.
        self.folder = self.cache / hashlib.sha1(handle.encode("utf8")).hexdigest()

    @property
    def problem(self) -> str | None:
        """What is missing of the module; `None` if it is complete, or not there at all."""
        return what_is_missing(self.folder) if self.folder.exists() else None

    @property
    def is_complete(self) -> bool:
        """Whether the module is there with all its files."""
        return self.folder.is_dir() and self.problem is None

    @contextlib.contextmanager
    def set_aside(self, problem: str) -> Iterator[None]:
        """Takes a damaged copy out of the way while another is fetched, and says so.

        It is removed afterwards; where the block fails, it comes back, since there is no other.

        Raises:
            DamagedModule: If it cannot be moved. The message names it.
        """
        say(f"{self.folder}, the copy of {self._handle}, is damaged ({problem}): fetching again.")
        aside = self.folder.with_name(f"{self.folder.name}.damaged.{uuid.uuid4().hex}")
        try:
            # What a link points to is not ours.
            if self.folder.is_symlink():
                raise OSError("it is a link")
            self.folder.rename(aside)
        except OSError as error:
            raise DamagedModule(
                f"{self.folder}, the copy of {self._handle}, is damaged ({problem}) and cannot be "
                f"moved ({error}). Delete it by hand, and try again."
            ) from error
        try:
            yield
        except BaseException:
            if not self.folder.exists():
                aside.rename(self.folder)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if aside.is_file():  # in the place of a folder
                aside.unlink()

    def remove_stale_lock(self) -> None:
        """Removes the lock of a download whose process is gone, and what it had fetched."""
        lock = self.folder.with_name(f"{self.folder.name}.lock")
        try:
            host, pid, task = lock.read_text().rsplit(".", 2)
            locked = lock.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return
        except ValueError:  # an interrupted write left something else
            host, pid, task, locked = "", "", "", lock.stat().st_mtime
        fetched = self.folder.with_name(f"{self.folder.name}.{task}.tmp")
        if not (_is_gone(host, pid, locked) or _is_abandoned(lock, fetched)):
            return
        say(f"{lock} was left by an interrupted download of {self._handle}: fetching again.")
        if task.isalnum():
            shutil.rmtree(fetched, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _is_gone(host: str, pid: str, locked: float) -> bool:
    """Whether the process that holds a lock has ended, as far as this machine can tell."""
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():
        return False  # another thread
    try:
        # A number is given again to a process that began later.
        return psutil.Process(int(pid)).create_time() > locked + 1
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _is_abandoned(lock: Path, fetched: Path) -> bool:
    paths = [lock, *([fetched, *fetched.rglob("*")] if fetched.is_dir() else ())]
    newest = max(path.stat().st_mtime for path in paths)
    return time.time() - newest > _ABANDONED_SECONDS
