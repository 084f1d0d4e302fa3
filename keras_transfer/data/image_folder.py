"""ImageFolder: the datasets of a folder of images, and their folds for cross-validation."""

import functools
import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_transfer.data.image_dataset import ImageDatasets
from keras_transfer.data.splits import deal, rank
from keras_transfer.images.discovery import LeftOut
from keras_transfer.utils.console import in_line


@dataclass(frozen=True, eq=False, repr=False)
class ImageFolder:
    """Images of some classes as datasets; `print` shows a table of classes and splits.

    Each dataset yields `(images, labels)`: uint8 `(batch, height, width, 3)`, RGB, 0..255, and
    int32 `(batch,)`, positions in `class_names`. Each has the attributes

    - `identity`: hex digest of what decides its rows: files, their sizes and times of change,
      image size, seed and split.
    - `ordered`: the same rows in batches of the same size, in path order.
    - `shuffle_seed`: the seed of `train`; `None` for `valid` and `test`.
    - `row_order`: the order of the rows: `row_order.of_epoch(n)` are their numbers in the n-th
      iteration, from 0 on, which depend on `shuffle_seed` and n alone.
    - `batch_size`: images in a batch; the last one may be smaller.
    - `labels`: int32 array, the label of each row in path order.
    - `paths`: the file of each row in path order.
    - `class_names`: names of the class folders, sorted.
    - `content`: a function that reads all files and returns a hex digest of what is in them.

    Attributes:
        train: Shuffled anew in each epoch.
        valid: In path order; `None` if there is no such split.
        test: In path order; `None` if there is no such split.
        class_names: Names of the class folders, sorted.
        counts: Split to class to number of images. Splits that are `None` have no entry, here
            and in the next two.
        paths: Split to its files in path order, the rows of `ordered`.
        labels: Split to an int32 array, the label of each of `paths`.
        skipped: Path of and reason for each file with an image suffix that is no usable image.
        ignored: Suffix to number of files left out: by their suffix, or outside class folders.
        system_files: Name to number of hidden files and folders, and of those that systems leave,
            such as `@eaDir` and `Thumbs.db`. What is in such a folder is left out, too.
        directory: The folder, as it was given.
    """

    train: tf.data.Dataset
    valid: tf.data.Dataset | None
    test: tf.data.Dataset | None
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    paths: dict[str, tuple[Path, ...]]
    labels: dict[str, np.ndarray]
    skipped: tuple[tuple[Path, str], ...]
    ignored: dict[str, int]
    system_files: dict[str, int]
    directory: Path
    _source: ImageDatasets
    _rows: dict[str, np.ndarray]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self._source.images.image_size

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        return self._source.batch_size

    @property
    def seed(self) -> int:
        """The seed of splits and order."""
        return self._source.seed

    @functools.cached_property
    def train_and_valid(self) -> tf.data.Dataset:
        """The images of `train` and `valid` together, shuffled anew in each epoch.

        Has the attributes of the other datasets. Activations of it are those of `train` and
        `valid`.
        """
        return self._selected(self._to_fold, shuffled=True)

    @property
    def stamps(self) -> dict[str, tuple[int, int]]:
        """Path below `directory` to size in bytes and time of change in ns, of all images in use.

        Paths have slashes. Of the same files it is the same whatever the size and the seed.
        """
        root = Path(self.directory).expanduser()
        rows = np.sort(np.concatenate(list(self._rows.values())))
        images = self._source.images
        return {images.paths[row].relative_to(root).as_posix(): images.stamps[row] for row in rows}

    def folds(self, k: int, seed: int = 0) -> list[tuple[tf.data.Dataset, tf.data.Dataset]]:
        """Divides the images of `train` and `valid` for cross-validation; `test` stays apart.

        Each image is in the validation part of one fold. In these parts the classes have the
        shares that they have in all. Which image is where, depends on the seed and the paths below
        the folder alone.

        Activations of the folds are rows of those of `train` and `valid`. So for any number of
        folds a backbone runs once, if a `FeatureCache` is shared.

        Args:
            k: How many folds, 2 up to the number of images of the smallest class.
            seed: 0 or larger; decides what is in them. Defaults to 0.

        Returns:
            For each fold a dataset to train on, shuffled anew in each epoch, and one to validate
            on, in path order, with the attributes of the other datasets.

        Raises:
            TypeError: If an argument is no whole number.
            ValueError: If there are fewer than two folds, or fewer images of a class than folds.

        Example:
            >>> for train, valid in data.folds(5):
            ...     model.fit(train, validation_data=valid)
        """
        k, seed = check_whole("k", k, least=2), check_whole("seed", seed, least=0)
        rows = self._to_fold
        ranks = [rank(self._source.files[row], seed) for row in rows]
        fold = deal(self._source.labels[rows], ranks, k, self.class_names)
        return [
            (
                self._selected(rows[fold != number], shuffled=True),
                self._selected(rows[fold == number], shuffled=False),
            )
            for number in range(k)
        ]

    def afresh(self, seed: int | None = None) -> "ImageFolder":
        """Returns the same datasets, with `train` before its first epoch.

        The order of a dataset continues from fit to fit. Where a fit should not depend on how many
        there were before, call this or `folds` before each.

        Args:
            seed: 0 or larger; decides the order of `train`. That of the folder unless given.
        """
        return replace(self, train=self._source.split("train", self._rows["train"], seed))

    @property
    def _to_fold(self) -> np.ndarray:
        parts = [self._rows[split] for split in ("train", "valid") if split in self._rows]
        return np.sort(np.concatenate(parts))

    def _selected(self, rows: np.ndarray, *, shuffled: bool) -> tf.data.Dataset:
        parts = [(self.train, self._rows["train"])]
        if self.valid is not None:
            parts.append((self.valid, self._rows["valid"]))
        return self._source.selection(parts, rows, shuffled=shuffled)

    def __str__(self) -> str:
        rows = [[counts[name] for counts in self.counts.values()] for name in self.class_names]
        rows = [[*row, sum(row)] for row in rows]
        lines = [
            ("class", *self.counts, "total"),
            *((name, *row) for name, row in zip(self.class_names, rows, strict=True)),
            ("total", *map(sum, zip(*rows, strict=True))),
        ]
        table = Table(box=None, show_header=False, pad_edge=False)
        for line in lines:
            table.add_row(*(Text(str(cell)) for cell in line))
        for column in table.columns[1:]:
            column.justify = "right"
        console = Console(file=(text := io.StringIO()), width=10_000, color_system=None)
        console.print(table)
        return "\n".join([self.summary(), *map(str.rstrip, text.getvalue().splitlines())])

    __repr__ = __str__

    def summary(self) -> str:
        """Returns a line on how many images and classes there are, and what is left out."""
        parts = [
            f"{in_line(str(self.directory))}: {sum(map(len, self.paths.values()))} images of "
            f"{len(self.class_names)} classes"
        ]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped as unreadable")
        if left_out := str(LeftOut(Counter(self.ignored), Counter(self.system_files))):
            parts.append(left_out)
        return ", ".join(parts)


def check_whole(name: str, value: int, *, least: int) -> int:
    """Returns a whole number of a user's.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} holds {value!r}. Pass a whole number of {least} or more.")
    if value < least:
        raise ValueError(f"{name} holds {value}. Pass a whole number of {least} or more.")
    return int(value)
