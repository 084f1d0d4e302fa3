"""Compares a few cached activations with those that the layers give now."""

from collections.abc import Callable

import numpy as np

from keras_transfer.features import runners
from keras_transfer.features.extraction import ExtractionJob
from keras_transfer.features.rows import CachedRows


def is_stale_in_memory(job: ExtractionJob, rows: CachedRows) -> bool:
    """Returns whether the layers of a job give other activations than the first cached ones."""
    images = job.first_of(job.batch(0)) if rows.first is None else rows.first
    if not job.views.repeats(images):
        return False
    images = job.views.view(images, job.view, 0)[: runners.SOME_ROWS]
    now = runners.by_layers(job.backbone, job.after, images)
    return not runners.alike(rows.activations.take(slice(len(now))), now)


def is_stale(job: ExtractionJob, take: Callable[[np.ndarray], np.ndarray], count: int) -> bool:
    """Returns whether the layers of a job give other activations than some cached rows.

    The first row, the last, and two drawn ones are compared. Views that no seed decides cannot be
    compared, and count as up to date.

    Args:
        job: The activations that are wanted, of data that another run can recognize.
        take: Returns cached rows, by their numbers.
        count: How many there are.
    """
    drawn = np.random.default_rng(0).integers(0, count, 2).tolist()
    rows = sorted({0, count - 1, *drawn})
    size, batches = job.pipeline.batch_size, {}
    for number in {row // size for row in rows}:
        batches[number] = np.asarray(job.views.view(job.batch(number), job.view, number * size))
    images = np.stack([batches[row // size][row % size] for row in rows])
    if not job.views.repeats(images):
        return False
    now = runners.by_layers(job.backbone, job.after, images)
    return not runners.alike(take(np.array(rows)), now)
