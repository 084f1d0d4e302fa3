"""Folders of images → train, valid and test datasets, every file checked first."""

import functools
import hashlib
import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_transfer.data.fit_data import check_class_names
from keras_transfer.data.image_dataset import ImageDatasets
from keras_transfer.data.splits import deal, rank
from keras_transfer.images.discovery import (
    SPLITS,
    CheckedImages,
    ImageFile,
    LeftOut,
    check_images,
    find_images,
)
from keras_transfer.utils.console import in_line, say
from keras_transfer.utils.name_lists import some


@dataclass(frozen=True, eq=False, repr=False)
class ImageFolder:
    """Images of some classes as datasets; `print` shows a table of classes and splits.

    Each dataset yields `(images, labels)`: uint8 `(batch, height, width, 3)`, RGB, 0..255, and
    int32 `(batch,)`, positions in `class_names`. Each has the attributes

    - `identity`: hex digest of what decides its rows: files, their sizes and times of change,
      image size, seed and split.
    - `ordered`: the same rows in batches of the same size, in path order.
    - `shuffle_seed`: the seed of `train`; `None` for `valid` and `test`.
    - `index_batches`: batches of row numbers in the order in which the dataset yields the rows,
      anew in each iteration: the n-th iteration of one goes with the n-th of the other.
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
        k, seed = _check_whole("k", k, least=2), _check_integer("seed", seed, least=0)
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

    def afresh(self) -> "ImageFolder":
        """Returns the same datasets, with the order of `train` as before its first epoch.

        The order of a dataset goes on from fit to fit, and takes in the global seed of the moment
        when it is made. Where a fit should not depend on how many there were before,
        call `keras.utils.set_random_seed`, then this or `folds`, before each.
        """
        return replace(self, train=self._source.split("train", self._rows["train"]))

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
        table = Table("class", box=None, pad_edge=False)
        for split in (*self.counts, "total"):
            table.add_column(split, justify="right")
        rows = [[counts[name] for counts in self.counts.values()] for name in self.class_names]
        for name, row in zip(self.class_names, rows, strict=True):
            table.add_row(Text(name), *map(str, (*row, sum(row))))
        totals = [sum(column) for column in zip(*rows, strict=True)]
        table.add_row("total", *map(str, (*totals, sum(totals))))
        console = Console(file=(text := io.StringIO()), width=10_000, color_system=None)
        console.print(table)
        lines = (line.rstrip() for line in text.getvalue().splitlines())
        return "\n".join((self._summary(), *lines))

    __repr__ = __str__

    def _summary(self) -> str:
        images = sum(map(len, self.paths.values()))
        parts = [
            f"{in_line(str(self.directory))}: {images} images of {len(self.class_names)} classes"
        ]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped as unreadable")
        if left_out := str(LeftOut(Counter(self.ignored), Counter(self.system_files))):
            parts.append(left_out)
        return ", ".join(parts)


def image_folder(
    directory: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] = (224, 224),
    batch_size: int = 32,
    validation_split: float = 0.15,
    test_split: float = 0.15,
    seed: int = 0,
    on_corrupt: Literal["skip", "error"] = "skip",
    verbose: Literal["auto", 0, 1] = "auto",
) -> ImageFolder:
    """Make datasets of a folder of images, after reading every file once.

    The folder holds one folder per class, or folders `train`, `valid` (or `val`, `validation`)
    and `test` that hold the class folders. Splits that have no folder are taken from the training
    images, class by class. Which ones, depends on the seed and the paths below `directory` alone:
    it is the same on every machine, and hardly changes when files come or go.

    Images are the JPEG, PNG, BMP, GIF (first frame) and WebP files at any depth of a class folder.
    Files with another suffix are left out; so are hidden files and folders, and those that systems
    leave, such as `@eaDir` and `Thumbs.db`. All become upright RGB: EXIF orientation is applied,
    transparency goes on white, 16-bit grey is scaled. They are resized (bilinear, antialiased)
    straight to `image_size`, so the aspect ratio is not kept. What takes at most a quarter of the
    available memory stays there; otherwise files are decoded again in each epoch, to the same
    pixels.

    Args:
        directory: The folder.
        image_size: Height and width, or one number for a square. Defaults to `(224, 224)`.
        batch_size: Images in a batch; the last one may be smaller. Defaults to 32.
        validation_split: Share of each class that becomes `valid`, from 0 (none) up to, not
            including, 1, unless there is a folder for it. At least one image, if the class has
            enough. Defaults to 0.15.
        test_split: The same for `test`. Defaults to 0.15.
        seed: 0 or larger; decides the splits and the order of `train`. Defaults to 0.
        on_corrupt: What to do about files that are empty, truncated or otherwise unreadable:
            `"skip"` them with a warning that lists them, or raise an `"error"` that does.
            Defaults to `"skip"`.
        verbose: 1 shows a progress bar and a summary, 0 nothing; `"auto"`, the default, is 1 on a
            terminal, and elsewhere the summary alone if files were left out.

    Returns:
        The datasets, and which files are in them.

    Raises:
        FileNotFoundError: If the folder does not exist.
        NotADirectoryError: If it is a file.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range, the folders do not make two or more classes
            with readable images in each, there are too few for a split, or a file is corrupt and
            `on_corrupt` is `"error"`.

    Warns:
        UserWarning: Of unreadable files, of pictures in formats that are not read, such as TIFF, of
            classes that are missing in a split, and of files that are in two splits.

    Example:
        >>> data = image_folder("photos/", image_size=150)
        >>> model.fit(data.train, validation_data=data.valid)
    """
    size = _check_size(image_size)
    batch_size = _check_integer("batch_size", batch_size, least=1)
    seed = _check_integer("seed", seed, least=0)
    _check_options(validation_split, test_split, on_corrupt, verbose)
    root = _check_directory(directory)
    show = verbose == 1 or (verbose == "auto" and sys.stdout.isatty())

    files, left_out = find_images(root)
    check_class_names(file.class_name for file in files)
    if pictures := left_out.unread_pictures:
        warnings.warn(
            f"{str(root)!r} holds pictures that are left out, for their formats are not read: "
            f"{pictures}. Expected JPEG, PNG, BMP, GIF or WebP files. Convert or remove them.",
            stacklevel=2,
        )
    images = check_images([file.path for file in files], size, show_progress=show)
    _report_corrupt(root, images, on_corrupt)
    _check_not_emptied(files, images)
    rows = _split(files, images, {"valid": validation_split, "test": test_split}, seed)
    _warn_of_copies(root, files, images)
    folder = _assemble(root, files, images, rows, left_out, batch_size, seed)
    if show or (verbose == "auto" and left_out):
        say(folder._summary())
    return folder


def _check_directory(directory: str | os.PathLike[str]) -> Path:
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"directory={directory!r} is no path. Pass the folder of class folders.")
    root = Path(directory).expanduser()
    if not root.exists():
        raise FileNotFoundError(
            f"directory={str(directory)!r} does not exist (looked for {str(root.absolute())!r}). "
            "Pass the folder that holds the class folders."
        )
    if not root.is_dir():
        raise NotADirectoryError(
            f"directory={str(directory)!r} is a file. Pass the folder that holds the class "
            "folders; unpack an archive first."
        )
    return root


def _check_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(image_size, Sequence) and not isinstance(image_size, str):
        sides: tuple[Any, ...] = tuple(image_size)
    else:
        sides = (image_size, image_size)
    if len(sides) != 2:
        raise ValueError(
            f"image_size={image_size!r} has {len(sides)} numbers. Pass (height, width), without "
            "channels, or one number for a square."
        )
    height, width = (_check_integer("image_size", side, least=1) for side in sides)
    return height, width


def _check_integer(name: str, value: int, *, least: int) -> int:
    if _check_whole(name, value, least=least) < least:
        raise ValueError(f"{name} holds {value}. Pass a whole number of {least} or more.")
    return int(value)


def _check_whole(name: str, value: int, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} holds {value!r}. Pass a whole number of {least} or more.")
    return int(value)


def _check_options(
    validation_split: float, test_split: float, on_corrupt: str, verbose: str | int
) -> None:
    for name, share in (("validation_split", validation_split), ("test_split", test_split)):
        if not (isinstance(share, int | float | np.number) and 0 <= share < 1):
            raise ValueError(
                f"{name}={share!r} is no share of the images. Pass a number from 0 (no such "
                "split) to less than 1."
            )
    if validation_split + test_split >= 1:
        raise ValueError(
            f"validation_split={validation_split} and test_split={test_split} leave nothing to "
            "train on. Pass shares that sum to less than 1."
        )
    if on_corrupt not in ("skip", "error"):
        raise ValueError(f'on_corrupt={on_corrupt!r} is unknown. Pass "skip" or "error".')
    if verbose not in ("auto", 0, 1):
        raise ValueError(f'verbose={verbose!r} is unknown. Pass "auto", 0 or 1.')


def _report_corrupt(root: Path, images: CheckedImages, on_corrupt: str) -> None:
    if not images.reasons:
        return
    found = (
        f"{len(images.reasons)} of {len(images.paths)} image files in {str(root)!r} cannot be "
        f"read:\n{_tell_corrupt(images, images.reasons)}\n"
    )
    if on_corrupt == "error":
        raise ValueError(f'{found}Replace or remove them, or pass on_corrupt="skip".')
    warnings.warn(f"{found}They are skipped. Replace or remove them.", stacklevel=3)


def _check_not_emptied(files: Sequence[ImageFile], images: CheckedImages) -> None:
    rows: dict[tuple[str, str], list[int]] = {}
    for row, file in enumerate(files):
        rows.setdefault((file.split, file.class_name), []).append(row)
    for (split, class_name), of_class in rows.items():
        if all(row in images.reasons for row in of_class):
            raise ValueError(
                f"Class {class_name!r} is empty: none of its {len(of_class)} image files in "
                f"{split} can be read.\n{_tell_corrupt(images, of_class)}\n"
                "Replace them, or remove the class folder."
            )


def _warn_of_copies(root: Path, files: Sequence[ImageFile], images: CheckedImages) -> None:
    """Warn of the same file in the folders of two splits."""
    groups = [[row for row in range(len(files)) if row not in images.reasons]]
    keys: tuple[Callable[[int], Any], ...] = (
        lambda row: images.stamps[row][0],
        lambda row: _digest(files[row].path, 16_384),  # so that few are read in full
        lambda row: _digest(files[row].path, -1),
    )
    for key in keys:
        groups = [
            group
            for rows in groups
            for group in _grouped(rows, key)
            if len({files[row].split for row in group}) > 1
        ]
    if groups:
        lines = [
            " = ".join(str(files[row].path.relative_to(root)) for row in group[:4])
            for group in groups[:5]
        ]
        lines += ["..."] if len(groups) > 5 else []
        warnings.warn(
            f"{len(groups)} images of {str(root)!r} are in more than one split, byte for byte:\n  "
            + "\n  ".join(lines)
            + "\nA model has seen them in training, so its scores are too good. Remove the copies "
            "from one of the splits.",
            stacklevel=3,
        )


def _grouped(rows: Iterable[int], key: Callable[[int], Any]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _digest(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(size)).digest()
    except OSError:  # gone meanwhile: like no other
        return os.fsencode(path)


def _tell_corrupt(images: CheckedImages, rows: Iterable[int]) -> str:
    return "\n".join(f"  {images.paths[row]}: {images.reasons[row]}" for row in rows)


def _split(
    files: Sequence[ImageFile], images: CheckedImages, shares: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Give each readable file a split: its folder's, or a share of its class in train."""
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    classes: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        if row not in images.reasons:
            of_class = classes.setdefault(file.class_name, [])
            (of_class if file.split == "train" else rows[file.split]).append(row)
    wanted = {split: share for split, share in shares.items() if share and not rows[split]}
    _check_enough({name: len(of_class) for name, of_class in classes.items()}, wanted)
    for of_class in classes.values():
        ranked = sorted(of_class, key=lambda row: rank(files[row], seed))
        valid, test = _sizes(len(ranked), wanted.get("valid", 0), wanted.get("test", 0))
        # From both ends, so that the test images stay the same whatever the validation split.
        rows["valid"] += ranked[:valid]
        rows["train"] += ranked[valid : len(ranked) - test]
        rows["test"] += ranked[len(ranked) - test :]
    return {split: np.sort(of_split) for split, of_split in rows.items() if of_split}


def _check_enough(counts: Mapping[str, int], wanted: Mapping[str, float]) -> None:
    least = 1 + len(wanted)
    few = {name: count for name, count in counts.items() if count < least}
    if not few:
        return
    message = (
        f"Classes with fewer than {least} images, one for each of train, {' and '.join(wanted)}: "
        f"{some([f'{name!r} has {count}' for name, count in few.items()])}. "
        "Add images, or pass 0 as the share of a split that you do without."
    )
    if max(counts.values()) < least:
        raise ValueError(message)
    warnings.warn(f"{message} They are missing in a split.", stacklevel=4)


def _sizes(count: int, valid_share: float, test_share: float) -> tuple[int, int]:
    """Divide a class: one image at least for train, then valid, then test, then by share."""
    valid = test = 0
    if valid_share:
        most = max(count - 1 - bool(test_share), min(count - 1, 1))
        valid = min(most, max(1, int(count * valid_share + 0.5)))
    if test_share:
        test = min(count - 1 - valid, max(1, int(count * test_share + 0.5)))
    return valid, test


def _assemble(
    root: Path,
    files: Sequence[ImageFile],
    images: CheckedImages,
    rows: Mapping[str, np.ndarray],
    left_out: LeftOut,
    batch_size: int,
    seed: int,
) -> ImageFolder:
    names = tuple(sorted({file.class_name for file in files}))
    position = {name: label for label, name in enumerate(names)}
    all_labels = np.array([position[file.class_name] for file in files], np.int32)
    labels = {split: all_labels[rows[split]] for split in rows}
    source = ImageDatasets(files, images, all_labels, names, batch_size, seed)
    made = {split: source.split(split, rows[split]) for split in rows}
    return ImageFolder(
        train=made["train"],
        valid=made.get("valid"),
        test=made.get("test"),
        class_names=names,
        counts={split: _count(names, labels[split]) for split in rows},
        paths={split: tuple(images.paths[row] for row in rows[split]) for split in rows},
        labels=labels,
        skipped=tuple((images.paths[row], reason) for row, reason in images.reasons.items()),
        ignored=dict(sorted(left_out.suffixes.items())),
        system_files=dict(sorted(left_out.system.items())),
        directory=root,
        _source=source,
        _rows=dict(rows),
    )


def _count(names: Sequence[str], labels: np.ndarray) -> dict[str, int]:
    return dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
