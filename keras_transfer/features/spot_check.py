"""Compares a few kept activations with those that the layers give now."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.data.augmentation import Views
from keras_transfer.features import runners
from keras_transfer.features.extraction import ExtractionJob
from keras_transfer.features.rows import Rows

Take = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """Activations in RAM, and the images that the first of them were made of.

    Attributes:
        images: As `BatchesRead.first`.
        views: What they went through before.
        view: Which of its views.
        rows: The activations.
    """

    images: np.ndarray
    views: Views
    view: int
    rows: Rows

    def is_stale(self, job: ExtractionJob) -> bool:
        """Returns whether the layers of a job give something else now."""
        # The job's augmentation may be another object of the same class, whose code has changed.
        views = job.views if job.views.layers else self.views
        if not views.repeats(self.images):
            return False
        now = _computed(job, views.view(self.images, self.view, 0)[: runners.SOME_ROWS])
        return not runners.alike(self.rows.activations.take(slice(len(now))), now)


def is_stale(job: ExtractionJob, take: Take, rows: Iterable[int]) -> bool:
    """Returns whether the layers of a job give other activations than some kept rows.

    The data must be such that another run can know it again, and each batch be read by itself.
    Where an augmentation draws from something that no seed decides, nobody can say.

    Args:
        job: What is wanted.
        take: Gives kept rows, by their numbers.
        rows: Those to look at, rising.
    """
    numbers, images = [], []
    for row, image in _images(job, rows):
        numbers.append(row)
        images.append(image)
    if not job.views.repeats(np.stack(images)):
        return False
    return not runners.alike(take(np.array(numbers)), _computed(job, np.stack(images)))


def some_rows(job: ExtractionJob, count: int) -> list[int]:
    """Returns the first of some rows, the last, and others of up to four batches."""
    size = job.pipeline.batch_size
    last = (count - 1) // size
    generator = np.random.default_rng(0)
    batches = {0, last, *generator.integers(0, last + 1, 2).tolist()}
    drawn = (generator.integers(b * size, min((b + 1) * size, count)) for b in sorted(batches))
    return sorted({0, count - 1, *map(int, drawn)})


def _images(job: ExtractionJob, rows: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    size, read, batch = job.pipeline.batch_size, -1, np.empty(0)
    for row in rows:
        if row // size != read:
            read = row // size
            batch = np.asarray(job.views.view(job.batch(read), job.view, read * size))
        yield row, batch[row % size]


def _computed(job: ExtractionJob, images: Any) -> np.ndarray:
    return runners.by_layers(job.backbone, job.after, images)
