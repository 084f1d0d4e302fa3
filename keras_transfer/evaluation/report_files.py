"""The files of a report: figures, pictures with Grad-CAM over them, the page."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_transfer.evaluation import figures
from keras_transfer.evaluation.grad_cam import NoFeatureMap, grad_cam
from keras_transfer.evaluation.image_grid import Shown, as_pixels, under_heat
from keras_transfer.evaluation.metrics import MOST_DRAWN, ReportNumbers
from keras_transfer.evaluation.page import Chart, png_chart, printable
from keras_transfer.evaluation.predictions import Classified, Example
from keras_transfer.evaluation.report_page import PagePictures, report_page, report_tables
from keras_transfer.plotting.layout import lacks_letters
from keras_transfer.utils.confidence_intervals import percent

PAGE = "report.html"
_CHARTS = ("classes", "confusion", "curves", "calibration", "mistakes", "uncertain")
NAMES = (PAGE, *(f"{name}.png" for name in _CHARTS))  # all that a report may write


def image_names(paths: Sequence[str] | None) -> Callable[[int], str]:
    """Returns a function that names rows of the data: by their paths, or by their numbers."""
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
    """Draws the pictures of a report and writes its page.

    Args:
        model: The model that the report is on.
        found: Its predictions.
        numbers: What follows from these.
        name: Names a row of the data.
        title: Title of the page.

    Returns:
        The content of each file by its name, the page first.
    """
    pictures, notes = report_pictures(model, found, numbers, name)
    page = report_page(title, numbers, pictures, notes, model.count_params())
    return {PAGE: page.encode(), **{each.name: each.png for each in pictures.charts.values()}}


def report_pictures(
    model: keras.Model, found: Classified, numbers: ReportNumbers, name: Callable[[int], str]
) -> tuple[PagePictures, tuple[str, ...]]:
    """Draws the pictures of a report, and returns them with sentences on the data.

    Args:
        model: The model that the report is on.
        found: Its predictions.
        numbers: What follows from these.
        name: Names a row of the data.
    """
    examples = (*found.worst, *found.uncertain)
    pixels, note = as_pixels([example.image for example in examples])
    maps, heat = _heat(model, examples, found.logits)
    views: list[tuple[np.ndarray, ...]] = [(image,) for image in pixels]
    if maps:
        views = [(image, under_heat(image, m)) for image, m in zip(pixels, maps, strict=True)]
    shown = [
        _shown(example, view, name, found) for example, view in zip(examples, views, strict=True)
    ]
    mistakes, uncertain = shown[: len(found.worst)], shown[len(found.worst) :]
    notes = [note] if note else []
    if any(image.name.startswith("row ") for image in shown):
        notes.append("The data has no paths; rows are counted from 0, in the order of the data.")
    if len(numbers.classes) > MOST_DRAWN:
        notes.append(
            f"Of {len(numbers.classes):,} classes, figures show {MOST_DRAWN}: those with the "
            "lowest F1, or with the most mistakes. The table has all."
        )
    if lacks_letters("".join((*found.class_names, *(image.name for image in shown)))):
        notes.append(
            "Some letters of names are not in the font of the figures, which show boxes for them; "
            "the tables and captions of this page have them."
        )
    charts = _charts(numbers, mistakes, uncertain)
    pictures = PagePictures(charts, mistakes, uncertain, heat, report_tables(numbers))
    return pictures, (*found.notes, *notes)


def _heat(
    model: keras.Model, examples: Sequence[Example], logits: bool
) -> tuple[list[np.ndarray], str]:
    """Returns the Grad-CAM of each example, or of none, and a sentence that says which."""
    if not examples:
        return [], ""
    same_size = len({example.image.shape for example in examples}) == 1
    groups = [examples] if same_size else [[example] for example in examples]
    try:
        heat = [
            grad_cam(
                model,
                np.stack([example.image for example in group]),
                [example.predicted for example in group],
                logits=logits,
            )
            for group in groups
        ]
    except NoFeatureMap as reason:
        return [], f"There is no Grad-CAM: {reason}."
    maps = [m for of_group in heat for m in of_group.maps]
    height, width = heat[0].size
    sentence = (
        f"On the right Grad-CAM at block '{heat[0].block}' ({height} by {width} places): the "
        "brighter, the more a place spoke for the predicted class."
    )
    if cold := sum(not m.any() for m in maps):
        sentence += f" In {cold} of {len(maps)} pictures no place did."
    return maps, sentence


def _shown(
    example: Example, views: tuple[np.ndarray, ...], name: Callable[[int], str], found: Classified
) -> Shown:
    true, predicted = found.class_names[example.true], found.class_names[example.predicted]
    lines: tuple[str, ...] = (f"{true}, rightly, {percent(example.confidence)}",)
    if true != predicted:
        lines = (
            f"true {true}, {percent(example.true_probability)}",
            f"predicted {predicted}, {percent(example.confidence)}",
        )
    return Shown(name(example.row), lines, views)


def _charts(
    numbers: ReportNumbers, mistakes: Sequence[Shown], uncertain: Sequence[Shown]
) -> dict[str, Chart]:
    """Draws the figures, each with what it shows in words."""
    right = f"{numbers.confusion.trace():,} of {numbers.images:,} images on the diagonal."
    drawn = {
        "classes": (
            figures.class_figure(numbers),
            "Precision, recall and F1 of each class with intervals; as in the table below.",
        ),
        "confusion": (
            figures.confusion_figure(numbers.confusion, numbers.class_names),
            f"Confusion matrix of {len(numbers.classes)} classes: {right}",
        ),
        "calibration": (
            figures.calibration_figure(numbers),
            f"Share that is right against confidence: {figures.calibration_sentence(numbers)}.",
        ),
    }
    if numbers.roc is not None and numbers.precision_recall is not None:
        drawn["curves"] = (
            figures.score_figure(numbers),
            f"ROC curve with an area of {numbers.roc.area:.3f}, and precision against recall with "
            f"an average precision of {numbers.precision_recall.area:.3f}.",
        )
    for name, shown, words in (
        ("mistakes", mistakes, "the worst mistakes"),
        ("uncertain", uncertain, "the least certain right answers"),
    ):
        if shown:
            drawn[name] = figures.pictures_figure(shown, words), words
    return {name: png_chart(name, figure, words) for name, (figure, words) in drawn.items()}
