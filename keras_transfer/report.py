"""report: what a trained classifier makes of a test split, as a page to look at."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.classified import Classified, classify
from keras_transfer.classifier_outputs import FromLogits
from keras_transfer.grad_cam import find_backbone
from keras_transfer.page_parts import printable
from keras_transfer.report_files import NAMES, image_names, report_files
from keras_transfer.report_numbers import ReportNumbers, report_numbers
from keras_transfer.row_order import all_stages
from keras_transfer.whole_files import check_folder, write_together


@dataclass(frozen=True, eq=False)
class Report:
    """A report that was written.

    Attributes:
        path: The page.
        pictures: The PNG files beside it.
        numbers: What it tells.
    """

    path: Path
    pictures: tuple[Path, ...]
    numbers: ReportNumbers


def report(
    model: keras.Model,
    data: Any,
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    paths: Sequence[str | os.PathLike[str]] | None = None,
    from_logits: FromLogits = "auto",
    pictures: int = 12,
    title: str | None = None,
    verbose: Literal["auto", 0, 1] = "auto",
) -> Report:
    """Writes what a classifier makes of labelled images: `report.html` and its pictures.

    The page is one file that needs no network and no JavaScript: accuracy, precision, recall and
    F1 of each class with 95 % intervals, confusion matrix, ROC and precision-recall curves,
    calibration, the confusions that recur, and the worst mistakes and the least certain right
    answers as pictures. Over these lies Grad-CAM for the predicted class, at the last block of the
    model's `FrozenBackbone`; a model without one gets none, and the page says so. The data is read
    once, and nothing is written before all is computed.

    Args:
        model: A `TransferModel`, or any Keras model with one output: one unit for two classes, or
            one for each class.
        data: Batches of images and labels: a split of `image_folder`, any `tf.data.Dataset` or
            `PyDataset`. Labels are whole numbers from 0, or one-hot.
        folder: Where the files go; made if it does not exist. An earlier report there is replaced.
        class_names: The classes. Default: those of the model or of the data, else numbers.
        paths: A name for each image, in the order of `data`. Default: the files, if `data` is a
            split of `image_folder`, else row numbers.
        from_logits: Whether the model gives logits. Default `"auto"`: as its loss says, or if its
            last layer has no activation; the page tells which.
        pictures: How many mistakes, and how many right answers, are shown. Default 12; 0 for none.
        title: Of the page. Default: the model's name.
        verbose: 1 shows a progress bar, 0 nothing; `"auto"`, the default, is 1 on a terminal.

    Returns:
        Where it was written, and the numbers.

    Raises:
        TypeError: If `data` is no dataset.
        ValueError: If there are no labels or no images, a label is no class, an output no
            probability or not finite, `class_names` or `paths` do not fit, or there are `paths`
            for data that is shuffled.
        OSError: If the folder cannot be written to.

    Example:
        >>> data = image_folder("photos/")
        >>> written = report(model, data.test, "runs/report")
        >>> written.numbers.accuracy
        Estimate(value=0.91, low=0.87, high=0.94)
    """
    if isinstance(pictures, bool) or not isinstance(pictures, int) or pictures < 0:
        raise ValueError(f"pictures={pictures!r} is no number of pictures. Pass 0 or more.")
    data, known_paths = _in_order(data)
    if paths is not None:
        _check_unshuffled(data)
    paths = known_paths if paths is None else [os.fspath(path) for path in paths]
    root = check_folder(folder, NAMES)
    backbone = find_backbone(model)
    found = classify(
        model,
        data,
        lambda count: _class_names(count, class_names, model, data),
        pictures=pictures,
        from_logits=from_logits,
        check=backbone.check_pixels if backbone is not None else lambda images: None,
        show=verbose == 1 or (verbose == "auto" and sys.stdout.isatty()),
    )
    _check_paths(paths, len(found.true))
    _check_finite(found, paths)
    numbers = report_numbers(found.true, found.probabilities, found.class_names)
    name = image_names(paths)
    files = report_files(model, found, numbers, name, title or f"Report on {model.name}")
    page, *others = write_together(root, files)
    for old in set(NAMES) - set(files):  # of an earlier report, where this one has no such picture
        (root / old).unlink(missing_ok=True)
    return Report(page, tuple(others), numbers)


def _in_order(data: Any) -> tuple[Any, Sequence[str] | None]:
    """A split in the order of its paths, and the paths; anything else as it is."""
    if hasattr(data, "test") and hasattr(data, "class_names"):
        raise TypeError("data is a whole ImageFolder. Pass the split to report on, as data.test.")
    if data is None:
        raise TypeError(
            "data is None. If it is the split of an `image_folder`, there is no such split: give "
            "it a share of the images by test_split=, or a folder of its own."
        )
    if not hasattr(data, "paths"):
        return data, None
    return data.ordered, [str(path) for path in data.paths]


def _check_unshuffled(data: Any) -> None:
    """Refuses data whose order is another one than that of any list of paths."""
    stages = all_stages(data) if isinstance(data, tf.data.Dataset) else ()
    if any("Shuffle" in type(stage).__name__ for stage in stages):
        raise ValueError(
            "paths are given, and the data is shuffled, so they would stand under other images. "
            "Pass the data without its shuffle, or leave paths out."
        )


def _class_names(
    count: int, given: Sequence[str] | None, model: keras.Model, data: Any
) -> tuple[str, ...]:
    """The names of the classes, from who knows them."""
    count = max(2, count)  # one unit tells two classes apart
    numbers = tuple(map(str, range(count)))
    of_model = tuple(getattr(model, "class_names", ()))
    of_data = tuple(getattr(data, "class_names", ()))
    if of_model and of_data and of_model != numbers and of_model != of_data:
        raise ValueError(
            f"The model knows the classes {_some(of_model)}, the data the classes "
            f"{_some(of_data)}. The same label would mean two things: report on data with the "
            "classes that the model was trained on."
        )
    names = tuple(map(str, given)) if given is not None else ()
    names = names or (of_model if of_model != numbers else ()) or of_data or numbers
    names = tuple(map(printable, names))
    if len(names) != count or len(set(names)) < count:
        raise ValueError(
            f"class_names holds {_some(names)}. Expected {count} names, each different: the model "
            f"tells so many classes apart."
        )
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f", ... ({len(names)})" if len(names) > 5 else "")


def _check_paths(paths: Sequence[str] | None, count: int) -> None:
    if paths is not None and len(paths) != count:
        raise ValueError(
            f"paths holds {len(paths)} names, and the data {count} images. Give one name for each "
            "image, in the order of the data."
        )


def _check_finite(found: Classified, paths: Sequence[str] | None) -> None:
    rows = np.flatnonzero(np.isnan(found.probabilities).any(1))
    if len(rows):
        some = ", ".join(map(image_names(paths), rows[:3].tolist()))
        raise ValueError(
            f"The model gives NaN or infinity for {len(rows)} of {len(found.true)} images, the "
            f"first of them {some}. No report can be right about that: look for NaN in these "
            "images and in the model's weights; a lower learning rate may keep training finite."
        )
