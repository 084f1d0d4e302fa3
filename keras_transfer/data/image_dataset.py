"""Datasets of some rows of checked image files, and of a selection of rows of other datasets."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_transfer.data.shuffling import RowOrder, prefetched
from keras_transfer.images.decoding import CheckedImages
from keras_transfer.images.discovery import ImageFile

_IDENTITY_FORMAT = 1  # raise it when the same files come to give other pixels or another order


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

    def split(self, name: str, rows: np.ndarray, order_seed: int | None = None) -> tf.data.Dataset:
        """Returns the dataset of a split; `train` is shuffled.

        Args:
            name: Name of the split.
            rows: Row numbers of its files, rising.
            order_seed: Decides the order of `train`; `seed` unless given.
        """
        header = [self.images.image_size, self.seed, name, list(self.class_names)]
        digest = hashlib.sha256(json.dumps([_IDENTITY_FORMAT, *header]).encode())
        for row in rows:
            digest.update(json.dumps([self.files[row].parts, self.images.stamps[row]]).encode())
        seed = self.seed if order_seed is None else order_seed
        return self._dataset(rows, digest.hexdigest(), seed if name == "train" else None)

    def selection(
        self,
        parts: Sequence[tuple[tf.data.Dataset, np.ndarray]],
        rows: np.ndarray,
        *,
        shuffled: bool,
    ) -> tf.data.Dataset:
        """Returns a dataset of rows of others, of which activations may be kept already.

        Its `places` are the positions of its rows in those of its `parts`, concatenated.

        Args:
            parts: The others, each with the row numbers of its files, rising.
            rows: The files to select, rising.
            shuffled: Whether each epoch has another order.
        """
        joined = np.concatenate([of_part for _, of_part in parts])
        order = np.argsort(joined)
        places = order[np.searchsorted(joined, rows, sorter=order)]
        header = [_IDENTITY_FORMAT, "selection", [part.identity for part, _ in parts]]
        digest = hashlib.sha256(json.dumps(header).encode() + places.astype("<i8").tobytes())
        dataset = self._dataset(rows, digest.hexdigest(), self.seed if shuffled else None)
        dataset.parts = dataset.ordered.parts = tuple(part for part, _ in parts)
        dataset.places = dataset.ordered.places = places
        return dataset

    def _dataset(self, rows: np.ndarray, identity: str, seed: int | None) -> tf.data.Dataset:
        images, labels, count = self.images, self.labels[rows], len(rows)
        paths = tuple(images.paths[row] for row in rows)

        def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Not tf.gather: its tensor would be a second copy of all pixels.
            pixels = tf.numpy_function(lambda i: images.read(rows[i]), [index], tf.uint8, False)
            return tf.ensure_shape(pixels, (None, *images.image_size, 3)), tf.gather(labels, index)

        def loaded(indices: tf.data.Dataset) -> tf.data.Dataset:
            # Two at a time, so that some threads decode the next batch while others end this one.
            return prefetched(indices.map(load, num_parallel_calls=2, deterministic=True))

        def part(start: int, stop: int | None) -> tf.data.Dataset:
            last = count if stop is None else min(stop * self.batch_size, count)
            indices = tf.data.Dataset.range(start * self.batch_size, last)
            return loaded(indices.batch(self.batch_size))

        def dataset_of(order: RowOrder) -> tf.data.Dataset:
            dataset = loaded(order.batches(self.batch_size))
            dataset.identity, dataset.shuffle_seed = identity, order.seed
            dataset.row_order, dataset.batch_size, dataset.part = order, self.batch_size, part
            dataset.labels, dataset.paths = labels, paths
            dataset.content = lambda: _content(paths)
            dataset.class_names = self.class_names
            dataset.parts, dataset.places = (), None
            return dataset

        dataset = dataset_of(RowOrder(count, seed))
        ordered = dataset if seed is None else dataset_of(RowOrder(count, None))
        dataset.ordered = ordered.ordered = ordered
        return dataset


def _content(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
