"""The lock of a search: only the process that holds it may change the state of the search."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from keras_transfer.utils.atomic_files import no_empty_folder

LOCK = "trials/.lock"


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Holds the lock of a search within a block, also within another such block.

    The lock ends with its process, however that ends.

    Args:
        output: The folder of the search.

    Raises:
        OSError: If another process holds the lock, or the file cannot be made.

    Example:
        >>> with alone(Path("runs/photos")):
        ...     trials.run(data.train, data.valid)
    """
    folder = (output / LOCK).parent
    lock = _lock(output)
    try:
        with no_empty_folder(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout:
        raise OSError(
            f"--output {output}: another process runs this search. Wait for it or end it, or name "
            "another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_alone(output: Path) -> bool:
    """Returns whether this thread holds the lock of a search."""
    return _lock(output).is_locked


def _lock(output: Path) -> FileLock:
    """The one object of this process for the lock, so that it counts how often it is held."""
    return FileLock((output / LOCK).resolve(), timeout=0, is_singleton=True)
