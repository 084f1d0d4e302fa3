"""Cached rows in a folder: read, resumed or computed, under a lock that processes share."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from filelock import Timeout

from keras_transfer.features import runners, spot_check
from keras_transfer.features.cache_folder import CacheFolder
from keras_transfer.features.entry import ARRAY, Entry
from keras_transfer.features.extraction import ExtractionJob
from keras_transfer.features.npy_store import FileArray, is_disk_full
from keras_transfer.features.rows import CachedRows, loaded
from keras_transfer.features.storage import as_stored, check_disk, row_bytes
from keras_transfer.utils.memory import readable

Extract = Callable[[int], Iterable[np.ndarray]]


def rows_from_folder(
    job: ExtractionJob, folder: CacheFolder, extract: Extract, *, dtype: str | None, budget: int
) -> CachedRows | None:
    """Returns the rows of a job from a folder, computed and written there if there are none.

    Args:
        job: The activations that are wanted.
        folder: The folder.
        extract: Yields activations from a row on.
        dtype: The type to keep, as for `FeatureCache`.
        budget: Bytes that may be kept in RAM.

    Returns:
        The rows; `None`, with a warning, if the folder fails twice. The second time resumes what an
        unsteady network has interrupted.

    Raises:
        OSError: If the disk is full.
    """
    for _ in range(2):
        try:
            return _from_folder(job, folder, extract, dtype, budget)
        except OSError as error:
            if is_disk_full(error):
                raise
            reason = str(error)
    warnings.warn(
        f"FeatureCache({str(folder.path)!r}): the folder cannot be used ({reason}). "
        "Activations are kept for as long as this FeatureCache lives. Expected a folder that "
        "you may write to; what is in it already is found again when you may.",
        stacklevel=2,
    )
    return None


def _from_folder(
    job: ExtractionJob, folder: CacheFolder, extract: Extract, dtype: str | None, budget: int
) -> CachedRows:
    entry = folder.entry(job.cache_key)
    with _locked(entry, job):
        began = time.monotonic()
        is_begun = entry.is_begun()
        array = _opened(job, entry)
        if array is None:
            if not is_begun and (miss := folder.nearest_miss(job.cache_key)):
                job.say(f"computed anew: what {folder.path} keeps is of other {miss}")
            array = _write(job, entry, folder, extract, dtype)
        else:
            text = f"{len(array):,} images from {folder.path}, {readable(array.nbytes)}"
            job.say(f"{text}, {time.monotonic() - began:.1f} s")
        computed = entry.computed  # here, since another process may remove the entry
    cached = loaded(array) if array.nbytes <= budget else array
    return CachedRows(cached, computed, job.pipeline.columns or ())


def rows_if_there(job: ExtractionJob, folder: CacheFolder) -> CachedRows | None:
    """Returns the rows of a job from a folder, `None` if they are not there."""
    with contextlib.suppress(OSError):  # of a folder that cannot be used
        entry = folder.entry(job.cache_key)
        if entry.folder.exists():
            with _locked(entry, job):
                if (array := _opened(job, entry)) is not None:
                    return CachedRows(array, entry.computed, job.pipeline.columns or ())
    return None


def _opened(job: ExtractionJob, entry: Entry) -> FileArray | None:
    """Returns the activations of an entry, `None` if they are not there or stale."""
    array = entry.open()
    if array is None or not spot_check.is_stale(job, array.take, len(array)):
        return array
    path = entry.folder.parent
    job.say(f"computed anew: what {path} keeps is not what the layers give now")
    del array  # some systems remove no file that is open
    entry.discard()
    return None


def _write(
    job: ExtractionJob, entry: Entry, folder: CacheFolder, extract: Extract, dtype: str | None
) -> FileArray:
    began, there = time.monotonic(), 0
    if (found := entry.resumable()) is not None:
        # Rows that are run together are so again, which makes them bit for bit the same.
        there = len(found) - len(found) % math.lcm(job.pipeline.batch_size, runners.CPU_BATCH)
        if there and spot_check.is_stale(job, found.take, there):
            job.say("computed from the start: what was there is not what the layers give now")
            there = 0
        del found  # some systems remove no file that is open
    with entry.writing(there) as writer:
        for number, activations in enumerate(extract(there)):
            if not number:
                needed = (job.most_rows - there) * row_bytes(activations, dtype)
                check_disk(folder.path, needed, folder.limit)
            writer.append(as_stored(activations, dtype), activations.dtype.name)
    folder.make_room(entry.folder)
    before = f", {there:,} of them from before" if there else ""
    job.say(
        f"{writer.rows:,} images{before}, {time.monotonic() - began:.1f} s, "
        f"{readable(writer.nbytes)} in {folder.path}"
    )
    return FileArray(entry.folder / ARRAY)


@contextlib.contextmanager
def _locked(entry: Entry, job: ExtractionJob) -> Iterator[None]:
    """Holds the lock of an entry; waits while another process has it, and says so."""
    try:
        entry.lock.acquire(blocking=False)
    except Timeout:
        job.say("another process is computing them; waiting for it")
        entry.lock.acquire()
    try:
        yield
    finally:
        entry.lock.release()
