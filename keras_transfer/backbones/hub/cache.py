"""The cache of modules: a folder that nobody else can fill, with a SavedModel of each source."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from keras_transfer.backbones.hub.files import GRAPH, DamagedModule, what_is_missing
from keras_transfer.utils.atomic_files import folder_written_whole
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


def cached(
    place: Path, source: str, fill: Callable[[Path], None], *, damage: str | None = None
) -> Path:
    """Returns the complete SavedModel of a source, filled into the cache if it is not there.

    Args:
        place: The folder of the source in the cache.
        source: The name of the source in messages.
        fill: Writes the source's files into an empty folder, or raises.
        damage: What is wrong with the copy in the cache, if that is known; it is then replaced.

    Raises:
        DamagedModule: If the source gives no complete SavedModel. A damaged copy then stays.
    """
    from filelock import FileLock

    if damage is None and what_is_missing(_top(place)) is None:
        return _top(place)
    with FileLock(f"{place}.busy"):
        problem = damage or what_is_missing(_top(place))
        if problem is None:  # another process has filled it meanwhile
            return _top(place)
        if os.path.lexists(place):
            say(f"{place}, the copy of {source}, is damaged ({problem}): renewing it.")
        with folder_written_whole(place) as folder:
            fill(folder)
            if (problem := what_is_missing(_top(folder))) is not None:
                raise DamagedModule(
                    f"What {source} gives is no complete SavedModel: {problem}. Nothing of it was "
                    "kept."
                )
            if place.is_symlink() or place.is_file():
                place.unlink()
    return _top(place)


def _top(folder: Path) -> Path:
    """Returns the only folder in an unpacked archive, unless its files lie at the top."""
    if not folder.is_dir() or (folder / GRAPH).exists():
        return folder
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder
