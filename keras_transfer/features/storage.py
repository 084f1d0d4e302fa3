"""Storage of activations: in RAM or a temporary file, and what a full disk means."""

import contextlib
import errno
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features.npy_store import ArrayWriter, FileArray, is_disk_full
from keras_transfer.features.rows import ArrayInMemory, aligned
from keras_transfer.utils.memory import readable


def in_memory(batches: Iterable[np.ndarray], most_rows: int) -> ArrayInMemory:
    """Collects batches of rows in RAM; `most_rows` is how many there will be, most likely."""
    kept, done = np.empty(0), 0
    for batch in batches:
        if not done:
            kept = aligned((most_rows, *batch.shape[1:]), batch.dtype)
        if done + len(batch) > len(kept):  # a PyDataset whose later batches are larger
            larger = aligned((2 * (done + len(batch)), *kept.shape[1:]), kept.dtype)
            larger[:done] = kept[:done]
            kept = larger
        kept[done : done + len(batch)] = batch
        done += len(batch)
    return ArrayInMemory(kept[:done])


def in_temporary_file(batches: Iterable[np.ndarray], folder: Path) -> FileArray:
    """Collects batches of rows in a file below a folder.

    Where the system allows it the file has no name any more, so nothing is left of it.
    """
    with tempfile.TemporaryDirectory(
        prefix="keras_transfer_", dir=folder, ignore_cleanup_errors=True
    ) as temporary:
        path = Path(temporary) / "activations.npy"
        batches = iter(batches)
        first = next(batches)
        with contextlib.closing(ArrayWriter(path, first.shape[1:], first.dtype)) as writer:
            for batch in itertools.chain([first], batches):
                writer.append(batch)
            writer.finish()
        return FileArray(path)


def check_disk(folder: Path, needed: int, limit: int | None) -> None:
    """Checks that so many bytes fit into a folder.

    Raises:
        NotCacheable: If they are more than the limit.
        OSError: If they are more than the disk has left.
    """
    free = shutil.disk_usage(folder).free
    if limit is not None and needed > limit:
        raise NotCacheable(
            f"the activations take {readable(needed)}, more than the disk_limit of "
            f"{readable(limit)}"
        )
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{readable(needed)} of activations, {readable(free)} free", str(folder)
        )


@contextlib.contextmanager
def warn_of_full_disk() -> Iterator[None]:
    """Turns a disk-full error into a warning and `NotCacheable`.

    Raises:
        NotCacheable: If the disk is full.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        warnings.warn(
            f"The disk is full: {error}. Free some of it, or give FeatureCache a folder elsewhere.",
            stacklevel=3,
        )
        raise NotCacheable("the disk is full") from error


def as_stored(activations: np.ndarray, dtype: str | None) -> np.ndarray:
    """Returns activations in the type to keep.

    Args:
        activations: As they were computed.
        dtype: As for `FeatureCache`.

    Raises:
        NotCacheable: If they do not fit into float16.
    """
    stored = _stored(activations, dtype)
    if stored == np.float16 and activations.dtype != stored:
        most = float(np.abs(activations).max(initial=0))
        if float(np.finfo(np.float16).max) < most < np.inf:
            raise NotCacheable(
                f"activations of up to {most:.3g} do not fit into float16, which ends at 65,504"
                "; leave `dtype` of the FeatureCache out"
            )
    return activations.astype(stored, copy=False)


def row_bytes(activations: np.ndarray, dtype: str | None) -> int:
    """Returns the bytes that a row takes when it is kept."""
    return int(np.prod(activations.shape[1:])) * _stored(activations, dtype).itemsize


def _stored(activations: np.ndarray, dtype: str | None) -> np.dtype:
    """The type to keep: NumPy's files know no bfloat16, which float32 holds exactly."""
    bfloat16 = activations.dtype.name == "bfloat16"
    return np.dtype(dtype or ("float32" if bfloat16 else activations.dtype))
