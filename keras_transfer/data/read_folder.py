"""Reads a folder of images into train, valid and test datasets, every file checked first."""

import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_transfer.data.image_dataset import ImageDatasets
from keras_transfer.data.image_folder import ImageFolder, check_whole
from keras_transfer.data.labels import check_class_names
from keras_transfer.data.splits import divide
from keras_transfer.images.decoding import CheckedImages, check_images
from keras_transfer.images.discovery import ImageFile, LeftOut, copies_between_splits, find_images
from keras_transfer.utils.console import say


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
    batch_size = check_whole("batch_size", batch_size, least=1)
    seed = check_whole("seed", seed, least=0)
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
    rows = divide(files, images.reasons, {"valid": validation_split, "test": test_split}, seed)
    readable = {f: images.stamps[n][0] for n, f in enumerate(files) if n not in images.reasons}
    _warn_of_copies(root, copies_between_splits(readable))
    folder = _assemble(root, files, images, rows, left_out, batch_size, seed)
    if show or (verbose == "auto" and left_out):
        say(folder.summary())
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
    height, width = (check_whole("image_size", side, least=1) for side in sides)
    return height, width


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
    message = (
        f"{len(images.reasons)} of {len(images.paths)} image files in {str(root)!r} cannot be "
        f"read:\n{_listed(images, images.reasons)}\n"
    )
    if on_corrupt == "error":
        raise ValueError(f'{message}Replace or remove them, or pass on_corrupt="skip".')
    warnings.warn(f"{message}They are skipped. Replace or remove them.", stacklevel=3)


def _check_not_emptied(files: Sequence[ImageFile], images: CheckedImages) -> None:
    rows: dict[tuple[str, str], list[int]] = {}
    for row, file in enumerate(files):
        rows.setdefault((file.split, file.class_name), []).append(row)
    for (split, class_name), of_class in rows.items():
        if all(row in images.reasons for row in of_class):
            raise ValueError(
                f"Class {class_name!r} is empty: none of its {len(of_class)} image files in "
                f"{split} can be read.\n{_listed(images, of_class)}\n"
                "Replace them, or remove the class folder."
            )


def _listed(images: CheckedImages, rows: Iterable[int]) -> str:
    return "\n".join(f"  {images.paths[row]}: {images.reasons[row]}" for row in rows)


def _warn_of_copies(root: Path, groups: Sequence[Sequence[ImageFile]]) -> None:
    """Warns of the same file in the folders of two splits."""
    if not groups:
        return
    lines = [
        " = ".join(str(file.path.relative_to(root)) for file in group[:4]) for group in groups[:5]
    ]
    lines += ["..."] if len(groups) > 5 else []
    warnings.warn(
        f"{len(groups)} images of {str(root)!r} are in more than one split, byte for byte:\n  "
        + "\n  ".join(lines)
        + "\nA model has seen them in training, so its scores are too good. Remove the copies "
        "from one of the splits.",
        stacklevel=3,
    )


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
        counts={
            split: dict(
                zip(names, np.bincount(of_split, minlength=len(names)).tolist(), strict=True)
            )
            for split, of_split in labels.items()
        },
        paths={split: tuple(images.paths[row] for row in rows[split]) for split in rows},
        labels=labels,
        skipped=tuple((images.paths[row], reason) for row, reason in images.reasons.items()),
        ignored=dict(sorted(left_out.suffixes.items())),
        system_files=dict(sorted(left_out.system.items())),
        directory=root,
        _source=source,
        _rows=dict(rows),
    )
