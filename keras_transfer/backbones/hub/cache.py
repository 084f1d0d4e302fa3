"""The cache of modules: a folder that nobody else can fill, with a SavedModel of each source."""

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_transfer.backbones.hub.files import DamagedModule, what_is_missing
from keras_transfer.utils.console import say


def cache_folder() -> Path:
    """Returns the folder of the cache, which is made if it does not exist.

    That is `TFHUB_CACHE_DIR`, as for tensorflow_hub, else a folder below `~/.cache`
    (`XDG_CACHE_HOME`) that its user alone can read. A module runs whatever its author put into it,
    so a folder that any user may have filled is refused; tensorflow_hub's own default, in the
    folder for temporary files, is one.

    Raises:
        OSError: If it cannot be made, or others can write to it.
    """
    chosen = os.environ.get("TFHUB_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(chosen or Path(home, "keras_transfer", "modules")).expanduser().absolute()
        folder.mkdir(mode=0o775 if chosen else 0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        raise OSError(
            f"The cache folder of modules cannot be made ({error}). Set TFHUB_CACHE_DIR to another "
            "one."
        ) from error
    if os.name == "posix":
        _check_writers(folder.resolve(), own=not chosen)
    return folder


def _check_writers(folder: Path, *, own: bool) -> None:
    """Checks that no other user could have put files, or the folder itself, into its place.

    Args:
        folder: The folder, without links in its path.
        own: Whether it must be the user's own; one that the user chose may be a group's.
    """
    mine = (os.geteuid(), 0)
    inner = folder.stat()
    reason = "every user may write to it" if inner.st_mode & stat.S_IWOTH else ""
    if own and not reason and inner.st_uid not in mine:
        reason = f"it is of the user {inner.st_uid}"
    for parent in () if reason else folder.parents:
        outer = parent.stat()
        if outer.st_mode & stat.S_IWOTH and inner.st_uid not in mine:  # as in /tmp
            reason = f"the user {inner.st_uid} has put it into {parent}, to which all may write"
            break
        inner = outer
    if reason:
        raise PermissionError(
            f"The cache folder of modules {folder} is not safe: {reason}. Loading a module runs "
            "what is in it, so nothing was loaded. Set TFHUB_CACHE_DIR to a folder that only you "
            "can write to; for the folder itself: chmod go-w."
        )


class CachedModule:
    """The place of one source in the cache.

    Args:
        key: The name of its folder.
        source: What it is a copy of, for messages.
        fill: Makes the folder at a path, or raises and leaves nothing there.

    Attributes:
        folder: Where the module is, or would be.
    """

    def __init__(self, key: str, source: str, fill: Callable[[Path], object]) -> None:
        self.folder = cache_folder() / key
        self._source = source
        self._fill = fill

    def complete(self) -> Path:
        """Returns the folder with all files of the module, filled if they are not there.

        Raises:
            DamagedModule: If the source gives no complete SavedModel.
        """
        if self.folder.is_dir() and what_is_missing(self.folder) is None:
            return self.folder
        with self._lock():
            if not os.path.lexists(self.folder):
                self._fill_checked()
            elif (problem := what_is_missing(self.folder)) is not None:
                self._renew(problem)
        return self.folder

    def renewed(self, problem: str) -> Path:
        """Returns the folder, filled again because its content is damaged."""
        with self._lock():
            self._renew(problem)
        return self.folder

    def _lock(self) -> Any:
        from filelock import FileLock

        return FileLock(f"{self.folder}.busy")

    def _renew(self, problem: str) -> None:
        with self._set_aside(problem):
            self._fill_checked()

    def _fill_checked(self) -> None:
        self._fill(self.folder)
        if (problem := what_is_missing(self.folder)) is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise DamagedModule(
                f"What {self._source} gives is no complete SavedModel: {problem}. Nothing of it "
                "was kept."
            )

    @contextlib.contextmanager
    def _set_aside(self, problem: str) -> Iterator[None]:
        """Moves a damaged copy away while another is made, and says so.

        It is removed afterwards; where the block fails, it comes back, since there is no other.

        Raises:
            DamagedModule: If it cannot be moved. The message names it.
        """
        say(f"{self.folder}, the copy of {self._source}, is damaged ({problem}): renewing it.")
        aside = self.folder.with_name(f"{self.folder.name}.damaged.{uuid.uuid4().hex}")
        try:
            # What a link points to is not ours.
            if self.folder.is_symlink():
                raise OSError("it is a link")
            self.folder.rename(aside)
        except OSError as error:
            raise DamagedModule(
                f"{self.folder}, the copy of {self._source}, is damaged ({problem}) and cannot be "
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
