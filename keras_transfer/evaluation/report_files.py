"""The files of a report: figures drawn, pictures with Grad-CAM over them, the page."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_transfer.evaluation import figures
from keras_transfer.evaluation.grad_cam import NoFeatureMap, grad_cam
from keras_transfer.evaluation.image_grid import as_pixels, under_heat
from keras_transfer.evaluation.metrics import MOST_DRAWN, ReportNumbers
from keras_transfer.evaluation.page import Chart, printable
from keras_transfer.evaluation.predictions import Classified, Example
from keras_transfer.evaluation.report_page import PagePictures, report_page
from keras_transfer.plotting.layout import lacks_letters
from keras_transfer.plotting.style import figure_style
from keras_transfer.utils.confidence_intervals import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
_CLASSES_WORDS = (
    "Precision, recall and F1 of each class with intervals; the table below has the same numbers."
)
_CHARTS = ("classes", "confusion", "curves", "calibration", "mistakes", "uncertain")
NAMES = (PAGE, *(f"{name}.png" for name in _CHARTS))  # all that a report may write


def image_names(paths: Sequence[str] | None) -> Callable[[int], str]:
    """What rows of the data are called: by their paths, or by their numbers."""
    if paths is None:
        return lambda row: f"row {row}"
    return lambda row: printable(paths[row])


def report_files(
    model: keras.Model,
    found: Classified,
    numbers: ReportNumbers,
    name: Callable[[int], str],
    title: str,
) -> dict[str, bytes]:
    """Draws and writes all that a report consists of.

    Args:
        model: The model that the report is on.
        found: What it made of the data.
        numbers: What follows from that.
        name: Names a row of the data.
        title: Of the page.

    Returns:
        The content of each file by its name, the page first.
    """
    pictures, notes = report_pictures(model, found, numbers, name)
    page = report_page(title, numbers, pictures, notes)
    return {PAGE: page.encode(), **{one.name: one.png for one in pictures.charts.values()}}


def report_pictures(
    model: keras.Model, found: Classified, numbers: ReportNumbers, name: Callable[[int], str]
) -> tuple[PagePictures, tuple[str, ...]]:
    """Draws the pictures of a report.

    Args:
        model: The model that the report is on.
        found: What it made of the data.
        numbers: What follows from that.
        name: Names a row of the data.

    Returns:
        The pictures, and sentences on how the data was read and shown.
    """
    examples = (*found.worst, *found.uncertain)
    views, heat, notes = _views(model, examples, found.logits)
    shown = [_shown(one, view, name, found) for one, view in zip(examples, views, strict=True)]
    mistakes, uncertain = shown[: len(found.worst)], shown[len(found.worst) :]
    if any(one.name.startswith("row ") for one in shown):
        notes.append("The data has no paths; rows are counted from 0, in the order of the data.")
    if len(numbers.classes) > MOST_DRAWN:
        notes.append(
            f"Of {len(numbers.classes):,} classes, figures show {MOST_DRAWN}: those with the "
            "lowest F1, or with the most mistakes. The table has all."
        )
    charts = _charts(numbers, mistakes, uncertain)
    if lacks_letters("".join((*found.class_names, *(one.name for one in shown)))):
        notes.append(
            "Some letters of names are not in the font of the figures, which show boxes for them; "
            "the tables and captions of this page have them."
        )
    return PagePictures(charts, mistakes, uncertain, heat), (*found.notes, *notes)


def _views(
    model: keras.Model, examples: Sequence[Example], logits: bool
) -> tuple[list[tuple[np.ndarray, ...]], str, list[str]]:
    """The views of each example, a sentence on what lies over them, and notes."""
    pixels, note = as_pixels([example.image for example in examples])
    notes = [note] if note else []
    if not examples:
        return [], "", notes
    try:
        where, maps = _heat(model, examples, logits)
    except NoFeatureMap as reason:
        return [(one,) for one in pixels], f"There is no Grad-CAM: {reason}.", notes
    heat = (
        f"On the right Grad-CAM at {where}: the brighter, the more a place spoke for the predicted "
        "class."
    )
    if cold := sum(not one.any() for one in maps):
        heat += f" In {cold} of {len(maps)} pictures no place did."
    return [(a, under_heat(a, b)) for a, b in zip(pixels, maps, strict=True)], heat, notes


def _heat(
    model: keras.Model, examples: Sequence[Example], logits: bool
) -> tuple[str, list[np.ndarray]]:
    """Where Grad-CAM was computed, and the map of each example; images may differ in size."""
    same = len({example.image.shape for example in examples}) == 1
    found = [
        grad_cam(
            model,
            np.stack([one.image for one in group]),
            [one.predicted for one in group],
            logits=logits,
        )
        for group in ([examples] if same else [[example] for example in examples])
    ]
    height, width = found[0].size
    where = f"block '{found[0].block}' ({height} by {width} places)"
    return where, [one for part in found for one in part.maps]


def _shown(
    example: Example, views: tuple[np.ndarray, ...], name: Callable[[int], str], found: Classified
) -> figures.Shown:
    true, predicted = found.class_names[example.true], found.class_names[example.predicted]
    lines: tuple[str, ...] = (f"{true}, rightly, {percent(example.confidence)}",)
    if true != predicted:
        lines = (
            f"true {true}, {percent(example.true_probability)}",
            f"predicted {predicted}, {percent(example.confidence)}",
        )
    return figures.Shown(name(example.row), lines, views)


def _charts(
    numbers: ReportNumbers, mistakes: Sequence[figures.Shown], uncertain: Sequence[figures.Shown]
) -> dict[str, Chart]:
    """The figures, drawn, each with what it shows in words."""
    charts = [
        png_chart("classes", figures.class_figure(numbers), _CLASSES_WORDS),
        png_chart(
            "confusion",
            figures.confusion_figure(numbers.confusion, numbers.class_names),
            _confusion_words(numbers),
        ),
        png_chart("calibration", figures.calibration_figure(numbers), _calibration_words(numbers)),
    ]
    if numbers.roc is not None and numbers.precision_recall is not None:
        words = (
            f"ROC curve with an area of {numbers.roc.area:.3f}, and precision against recall "
            f"with an average precision of {numbers.precision_recall.area:.3f}."
        )
        charts.append(png_chart("curves", figures.score_figure(numbers), words))
    for name, shown, words in (
        ("mistakes", mistakes, "the worst mistakes"),
        ("uncertain", uncertain, "the least certain right answers"),
    ):
        if shown:
            charts.append(png_chart(name, figures.pictures_figure(shown, words), words))
    return {one.name.removesuffix(".png"): one for one in charts}


def _calibration_words(numbers: ReportNumbers) -> str:
    return (
        f"Share that is right against confidence: {figures.calibration_sentence(numbers)}; the "
        "table below has the same numbers."
    )


def _confusion_words(numbers: ReportNumbers) -> str:
    words = (
        f"Confusion matrix of {len(numbers.classes)} classes: {numbers.confusion.trace():,} of "
        f"{numbers.images:,} images on the diagonal."
    )
    if numbers.confusions:
        first = numbers.confusions[0]
        words += f" Most often {first.true} is taken for {first.predicted}, {first.count:,} times."
    return words


def png_chart(name: str, figure: "Figure", alternative: str) -> Chart:
    """A figure as a PNG file.

    Args:
        name: Of the file, without its suffix.
        figure: The figure.
        alternative: What it shows, in words.
    """
    with figure_style():
        figure.savefig(file := io.BytesIO(), format="png")
    return Chart(f"{name}.png", file.getvalue(), alternative)
