"""The page of a report: its answer, its tables, its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.evaluation.figures.calibration import calibration_sentence
from keras_transfer.evaluation.image_grid import Shown
from keras_transfer.evaluation.metrics import BINS, ReportNumbers
from keras_transfer.evaluation.page import Chart, Fact, interval, render_page
from keras_transfer.utils.confidence_intervals import DASH, Estimate, percent
from keras_transfer.utils.name_lists import some

_MOST_CONFUSIONS = 20
_MATRIX = 20  # classes up to which the matrix is there as a table, too
_FEW = 30  # images of a class with fewer tell little about it
_OFTEN = 0.2  # of a class: a confusion to look at

_SECTIONS = {
    "mistakes": "More mistakes",
    "numbers": "The numbers",
    "classes": "Each class",
    "confusions": "Confusions",
    "curves": "ROC and precision-recall",
    "calibration": "Calibration",
    "uncertain": "Least certain right answers",
    "method": "How this was computed",
}


@dataclass(frozen=True, eq=False)
class PagePictures:
    """The contents of a report's page.

    Attributes:
        charts: Figures by the name of their file, without the suffix.
        mistakes: The worst mistakes.
        uncertain: The least certain right answers.
        heat: A sentence on Grad-CAM: what it shows, or why there is none.
        tables: Rows of tables by name.
    """

    charts: Mapping[str, Chart]
    mistakes: Sequence[Shown]
    uncertain: Sequence[Shown]
    heat: str
    tables: Mapping[str, Any]


def report_page(
    title: str,
    numbers: ReportNumbers,
    pictures: PagePictures,
    notes: Sequence[str],
    weights: int,
) -> str:
    """Writes the page of a report.

    Args:
        title: Title of the page.
        numbers: The numbers of the report.
        pictures: What it shows.
        notes: Sentences on how the data was read.
        weights: Number of weights of the model.

    Returns:
        An HTML document that needs nothing but itself.
    """
    images = f"{numbers.images:,} {'image' if numbers.images == 1 else 'images'}"
    classes = f"{len(numbers.classes):,} classes"
    no_curves = [each.name for each in numbers.classes if each.roc is None]
    more = len(pictures.mistakes) > 4  # than the answer shows
    return render_page(
        "evaluation/templates/report.html",
        title=title,
        lead=f"{percent(numbers.accuracy.value)} of {images} of {classes} right.",
        sections={name: head for name, head in _SECTIONS.items() if more or name != "mistakes"},
        facts=[
            *quality(numbers),
            Fact("What it costs", size_text(weights), "That is the size of the model."),
        ],
        next_steps=next_steps(numbers),
        numbers=numbers,
        pictures=pictures,
        notes=notes,
        without_curves=some(no_curves, 20) if no_curves else "",
        calibration=calibration_sentence(numbers),
        bins=BINS,
    )


def size_text(weights: int) -> str:
    """Formats a number of weights, such as `4.1 million weights`."""
    return f"{weights / 1e6:.1f} million weights" if weights >= 1e6 else f"{weights:,} weights"


def quality(numbers: ReportNumbers) -> list[Fact]:
    """Says how good a model is, and how sure that is."""
    right = f"{numbers.confusion.trace():,} of {numbers.images:,} images are right; always naming "
    return [
        Fact(
            "How good",
            f"{percent(numbers.accuracy.value)} right",
            f"{right}the most common class would get {percent(numbers.most_common)}.",
        ),
        Fact(
            "How sure",
            f"{interval(numbers.accuracy)} %",
            "95 % interval of the share that is right. The model itself is "
            f"{calibration_sentence(numbers)}.",
        ),
    ]


def next_steps(numbers: ReportNumbers) -> list[str]:
    """Suggests what to do about the numbers of a report, the most important first."""
    steps = []
    if numbers.accuracy.low <= numbers.most_common:
        steps.append(
            "These images do not show that the model is better than always naming the most common "
            "class. Check that labels belong to their images, and train longer."
        )
    width = 100 * (numbers.accuracy.high - numbers.accuracy.low)
    if width > 10:
        steps.append(
            f"The interval is {width:.0f} points wide. Test on four times as many images to halve "
            "it before you compare models."
        )
    steps += [
        f"Look at the {each.count:,} images of {each.true} that are taken for {each.predicted}. If "
        "their labels are right, train on more images of both."
        for each in numbers.confusions[:3]
        if each.share >= _OFTEN
    ]
    if never := [each.name for each in numbers.classes if each.images and not each.predicted]:
        steps.append(f"Never predicted: {some(never, 5)}. Train on more images of these classes.")
    if few := [each.name for each in numbers.classes if 0 < each.images < _FEW]:
        steps.append(
            f"Fewer than {_FEW} images tell about {some(few, 5)}. Add test images of these classes."
        )
    if numbers.confidence > numbers.accuracy.high:
        steps.append(
            "Do not take the probabilities at their word: the model is too sure of itself. Train "
            "with label smoothing, or calibrate it on validation images."
        )
    return steps or ["Nothing stands out. Look at the mistakes, then try it on new images."]


def report_tables(numbers: ReportNumbers) -> dict[str, Any]:
    """Returns the rows of the tables of a report, by name."""
    matrix = zip(numbers.class_names, numbers.confusion.tolist(), strict=True)
    shown = numbers.confusions[:_MOST_CONFUSIONS]
    left_out = len(numbers.confusions) > len(shown)
    return {
        "numbers": _number_rows(numbers),
        "classes": [
            (
                each.name,
                f"{each.images:,}",
                f"{each.predicted:,}",
                *map(_with_interval, (each.precision, each.recall, each.f1)),
                *(_area(curve) for curve in (each.roc, each.precision_recall)),
            )
            for each in numbers.classes
        ],
        "which_confusions": f", the {len(shown)} most frequent of {len(numbers.confusions)}"
        if left_out
        else "",
        "confusions": [
            (
                each.true,
                each.predicted,
                f"{each.count:,}",
                percent(each.share),
                percent(each.confidence),
            )
            for each in shown
        ],
        "matrix": [(name, *counts) for name, counts in matrix]
        if len(numbers.classes) <= _MATRIX
        else [],
        "calibration": [
            (
                f"{percent(each.low)} to {percent(each.high)}",
                f"{each.images:,}",
                percent(each.confidence),
                percent(each.right.value),
                interval(each.right),
            )
            for each in numbers.bins
        ],
    }


def _number_rows(numbers: ReportNumbers) -> list[tuple[str, str, str]]:
    means = {
        "accuracy": numbers.accuracy,
        "precision, mean of the classes": numbers.precision,
        "recall, mean of the classes": numbers.recall,
        "F1, mean of the classes": numbers.f1,
    }
    whose = "" if len(numbers.classes) == 2 else ", mean of the classes"
    return [
        *((name, percent(mean.value), interval(mean)) for name, mean in means.items()),
        (f"area under the ROC curve{whose}", _area(numbers.roc), ""),
        (f"average precision{whose}", _area(numbers.precision_recall), ""),
        ("calibration error", percent(numbers.calibration_error), ""),
        ("log loss", f"{numbers.log_loss:.3f}", ""),
    ]


def _with_interval(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ({interval(estimate)})" if estimate.known else DASH


def _area(curve: Any) -> str:
    return DASH if curve is None else f"{curve.area:.3f}"
