"""Datasets of some rows of checked image files, and of a selection of rows of other datasets."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_transfer.data.shuffling import prefetched, row_numbers
from keras_transfer.images.discovery import CheckedImages, ImageFile

_IDENTITY_FORMAT = 1  # raise it when the same files come to give other pixels or another order


@dataclass(frozen=True, eq=False)
class Selection:
    """Which rows of other datasets a dataset has.

    Attributes:
        parts: The other datasets.
        places: Where each row is in the rows of these, one behind the other, each in path order.
    """

    parts: tuple[tf.data.Dataset, ...]
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class ImageDatasets:
    """Makes datasets of rows of the files; their attributes are described at `ImageFolder`.

    Attributes:
        files: All files.
        images: Their pixels, row for row.
        labels: Their labels, int32.
        class_names: Names of the classes.
        batch_size: Images in a batch.
        seed: Decides the order of what is shuffled.
    """

    files: Sequence[ImageFile]
    images: CheckedImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    batch_size: int
    seed: int

    def split(self, name: str, rows: np.ndarray) -> tf.data.Dataset:
        """Returns the dataset of a split; `train` is shuffled.

        Args:
            name: Of the split.
            rows: Its files, rising.
        """
        header = [self.images.image_size, self.seed, name, list(self.class_names)]
        identity = _identity(header, self.files, self.images, rows)
        return self._dataset(rows, identity, shuffled=name == "train")

    def selection(
        self,
        parts: Sequence[tuple[tf.data.Dataset, np.ndarray]],
        rows: np.ndarray,
        *,
        shuffled: bool,
    ) -> tf.data.Dataset:
        """Returns a dataset of rows of others, of which activations may be kept already.

        Args:
            parts: The others, each with its files, rising.
            rows: The files to select, rising.
            shuffled: Whether each epoch has another order.
        """
        joined = np.concatenate([of_part for _, of_part in parts])
        order = np.argsort(joined)
        places = order[np.searchsorted(joined, rows, sorter=order)]
        header = [_IDENTITY_FORMAT, "selection", [part.identity for part, _ in parts]]
        digest = hashlib.sha256(json.dumps(header).encode() + places.astype("<i8").tobytes())
        made = self._dataset(rows, digest.hexdigest(), shuffled=shuffled)
        chosen = Selection(tuple(part for part, _ in parts), places)
        made.ordered.selection = made.selection = chosen
        return made

    def _dataset(self, rows: np.ndarray, identity: str, *, shuffled: bool) -> tf.data.Dataset:
        images, labels = self.images, self.labels[rows]

        def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Not tf.gather: its tensor would be a second copy of all pixels.
            pixels = tf.numpy_function(lambda i: images.read(rows[i]), [index], tf.uint8, False)
            return tf.ensure_shape(pixels, (None, *images.image_size, 3)), tf.gather(labels, index)

        def loaded(indices: tf.data.Dataset) -> tf.data.Dataset:
            # Two at a time, so that some threads decode the next batch while others end this one.
            return prefetched(indices.map(load, num_parallel_calls=2, deterministic=True))

        def part(start: int, stop: int | None) -> tf.data.Dataset:
            # `skip` on the dataset itself would decode what it skips.
            indices = _index_batches(len(rows), self.batch_size, None).skip(start)
            return loaded(indices if stop is None else indices.take(stop - start))

        def batches(seed: int | None) -> tf.data.Dataset:
            indices = _index_batches(len(rows), self.batch_size, seed)
            dataset = loaded(indices)
            dataset.identity, dataset.shuffle_seed = identity, seed
            dataset.index_batches = _index_batches(len(rows), self.batch_size, seed)
            # The same shuffle: whichever of the two is read next goes on with the next order.
            row_numbers(dataset).to_train = indices
            dataset.labels, dataset.paths = labels, tuple(images.paths[row] for row in rows)
            dataset.content = lambda: _content(images.paths[row] for row in rows)
            dataset.class_names = self.class_names
            return dataset

        dataset = batches(self.seed if shuffled else None)
        dataset.ordered = ordered = batches(None) if shuffled else dataset
        ordered.ordered, ordered.part = ordered, part
        return dataset


def _identity(
    header: Sequence[object],
    files: Sequence[ImageFile],
    images: CheckedImages,
    rows: np.ndarray,
) -> str:
    digest = hashlib.sha256(json.dumps([_IDENTITY_FORMAT, *header]).encode())
    for row in rows:
        digest.update(json.dumps([files[row].parts, images.stamps[row]]).encode())
    return digest.hexdigest()


def _content(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _index_batches(count: int, batch_size: int, shuffle_seed: int | None) -> tf.data.Dataset:
    """Make batches of row numbers. Shuffling these costs 8 bytes a row, not an image."""
    rows = tf.data.Dataset.range(count)
    if shuffle_seed is not None:
        rows = rows.shuffle(count, seed=shuffle_seed, reshuffle_each_iteration=True)
    return rows.batch(batch_size)
