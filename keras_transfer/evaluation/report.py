"""report: writes how a trained classifier does on a test split, as a page."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from keras_transfer.evaluation.examine import examine
from keras_transfer.evaluation.metrics import ReportNumbers
from keras_transfer.evaluation.report_files import NAMES, report_files
from keras_transfer.models.outputs import FromLogits
from keras_transfer.utils.atomic_files import check_folder, no_empty_folder, write_together


@dataclass(frozen=True, eq=False)
class Report:
    """A report that was written.

    Attributes:
        path: The page.
        pictures: The PNG files beside it.
        numbers: The numbers on it.
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
    """Writes how a classifier does on labelled images: `report.html` and its pictures.

    The page is one file that needs no network and no JavaScript. It opens with the answer: how good
    the model is, how sure that is, what it costs, the worst mistakes and what to do next. Below are
    precision, recall and F1 of each class with 95 % intervals, the confusion matrix, ROC and
    precision-recall curves, calibration, and the least certain right answers. Beside the pictures
    stands Grad-CAM for the predicted class, at the last block of the model's `FrozenBackbone`; a
    model without one gets none, and the page says so. The data is read once, and nothing is written
    before all is computed.

    Args:
        model: A `TransferModel`, or any Keras model with one output: one unit for two classes, or
            one for each class. Any number of classes, 2 or more, is taken; of more than 100 the
            figures show those with the most mistakes.
        data: Batches of images and labels: a split of `image_folder`, any `tf.data.Dataset` or
            `PyDataset`. Labels are whole numbers from 0, or one-hot.
        folder: The folder for the files; made if needed. An earlier report there is replaced.
        class_names: The classes. Default: those of the model or of the data, else numbers.
        paths: A name for each image, in the order of `data`. Default: the files, if `data` is a
            split of `image_folder`, else row numbers.
        from_logits: Whether the model gives logits. Default `"auto"`: as its loss says, or if its
            last layer has no activation; the page tells which.
        pictures: Number of mistakes, and of right answers, that are shown. Default 12; 0 for none.
        title: Title of the page. Default: the model's name.
        verbose: 1 shows a progress bar, 0 nothing; `"auto"`, the default, is 1 on a terminal.

    Returns:
        Paths of the files, and the numbers.

    Raises:
        TypeError: If `model` is no Keras model, or `data` no dataset.
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
    root = Path(folder).expanduser()
    with no_empty_folder(root):
        examined = examine(
            model,
            data,
            class_names=class_names,
            paths=paths,
            from_logits=from_logits,
            pictures=pictures,
            verbose=verbose,
            before=lambda: check_folder(folder, NAMES),
        )
        files = report_files(
            model,
            examined.found,
            examined.numbers,
            examined.name,
            title or f"Report on {model.name}",
        )
        page, *others = write_together(root, files)
    for old in set(NAMES) - set(files):  # of an earlier report, where this one has no such picture
        (root / old).unlink(missing_ok=True)
    return Report(page, tuple(others), examined.numbers)
