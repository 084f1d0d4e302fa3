"""The page of a report: its numbers in tables and sentences, its pictures in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_transfer.evaluation.figures.calibration import calibration_sentence
from keras_transfer.evaluation.image_grid import Shown, jpeg
from keras_transfer.evaluation.metrics import BINS, Confusion, ReportNumbers
from keras_transfer.evaluation.page import (
    Chart,
    bullets,
    chart,
    data_uri,
    escaped,
    interval,
    page,
    paragraph,
    section,
    table,
)
from keras_transfer.utils.confidence_intervals import DASH, DRAWS, percent
from keras_transfer.utils.name_lists import some

_MOST_CONFUSIONS = 20
_MATRIX = 20  # classes up to which the matrix is there as a table, too

_METHOD = (
    "Intervals are 95 %. For accuracy, precision and recall they are Wilson's. For F1 they follow "
    "from Wilson's for the share of images that are both of the class and taken for it among those "
    "that are either; F1 rises with it. For means over the classes they are the percentiles of "
    f"{DRAWS:,} bootstrap samples of the images, seed 0.",
    "Means over the classes weigh each class that occurs alike; a class that is never predicted "
    "counts there with a precision of 0. A dash stands for what these images cannot tell.",
    "The curves of two classes are those of the second. Of more, each class is told from all "
    "others, and the mean is taken over the classes.",
    "Confidence is the probability of the predicted class. The calibration error is the mean gap "
    f"between confidence and the share that is right, over {BINS} stretches of equal width, each "
    "weighted by its images (Guo et al., 2017, arXiv:1706.04599).",
    "The worst mistakes are those whose true class got the least probability; the least certain "
    "right answers those with the least confidence.",
)


@dataclass(frozen=True, eq=False)
class PagePictures:
    """The pictures of a page.

    Attributes:
        charts: Figures by the name of their file, without the suffix.
        mistakes: The worst mistakes.
        uncertain: The least certain right answers.
        heat: A sentence on Grad-CAM: what it shows, or why there is none.
    """

    charts: Mapping[str, Chart]
    mistakes: Sequence[Shown]
    uncertain: Sequence[Shown]
    heat: str


def report_page(
    title: str, numbers: ReportNumbers, pictures: PagePictures, notes: Sequence[str]
) -> str:
    """Writes the page of a report.

    Args:
        title: Of the page.
        numbers: What it tells.
        pictures: What it shows.
        notes: Sentences on how the data was read.

    Returns:
        An HTML document that needs nothing but itself.
    """
    method = bullets((*notes, *_METHOD))
    parts = {
        "summary": ("Summary", _summary(numbers)),
        "classes": ("Each class", classes_part(numbers, pictures)),
        "confusions": ("Confusions", confusions_part(numbers, pictures)),
        "curves": ("ROC and precision-recall", _curves(numbers, pictures)),
        "calibration": ("Calibration", _calibration(numbers, pictures)),
        "mistakes": ("Worst mistakes", mistakes_part(numbers, pictures)),
        "uncertain": ("Least certain right answers", _uncertain(numbers, pictures)),
        "method": ("How this was computed", method),
    }
    sections = {name: (head, section(name, head, inside)) for name, (head, inside) in parts.items()}
    return page(title, lead_sentence(numbers), sections)


def lead_sentence(numbers: ReportNumbers) -> str:
    """Says the most important in one sentence."""
    images = "image" if numbers.images == 1 else "images"
    return (
        f"{percent(numbers.accuracy.value)} of {numbers.images:,} {images} right (95 % interval "
        f"{interval(numbers.accuracy)} %); always naming the most common class would get "
        f"{percent(numbers.most_common)}."
    )


def _summary(numbers: ReportNumbers) -> str:
    means = {
        "accuracy": numbers.accuracy,
        "precision, mean of the classes": numbers.precision,
        "recall, mean of the classes": numbers.recall,
        "F1, mean of the classes": numbers.f1,
    }
    rows = [(name, percent(one.value), interval(one)) for name, one in means.items()]
    whose = "" if len(numbers.classes) == 2 else ", mean of the classes"
    for name, curve in (
        ("area under the ROC curve", numbers.roc),
        ("average precision", numbers.precision_recall),
    ):
        rows.append((name + whose, DASH if curve is None else f"{curve.area:.3f}", ""))
    rows.append(("calibration error", percent(numbers.calibration_error), ""))
    rows.append(("log loss", f"{numbers.log_loss:.3f}", ""))
    return table("The whole in numbers", ("number", "value", "95 % interval"), rows)


def classes_part(numbers: ReportNumbers, pictures: PagePictures) -> str:
    """Each class in numbers: a chart and a table."""
    columns = ["class", "images", "predicted", "precision", "recall", "F1"]
    columns += ["ROC area", "average precision"]
    rows = []
    for one in numbers.classes:
        estimates = [
            f"{percent(estimate.value)} ({interval(estimate)})" if estimate.known else DASH
            for estimate in (one.precision, one.recall, one.f1)
        ]
        curves = (one.roc, one.precision_recall)
        areas = [DASH if curve is None else f"{curve.area:.3f}" for curve in curves]
        rows.append((one.name, f"{one.images:,}", f"{one.predicted:,}", *estimates, *areas))
    return (
        chart(pictures.charts["classes"], "Precision, recall and F1. File classes.png.")
        + "\n"
        + table("Each class against the rest, with 95 % intervals", columns, rows)
    )


def confusions_part(numbers: ReportNumbers, pictures: PagePictures) -> str:
    """The confusion matrix, and the confusions that recur."""
    shown = numbers.confusions[:_MOST_CONFUSIONS]
    listed = paragraph("No mistake occurs twice.")
    if shown:
        total = len(numbers.confusions)
        caption = "Confusions that recur"
        if total > len(shown):
            caption += f", the {len(shown)} most frequent of {total}"
        columns = ("true class", "taken for", "images", "share of the class", "mean confidence")
        listed = table(caption, columns, [_confusion_row(one) for one in shown])
    picture = chart(
        pictures.charts["confusion"],
        "A row for each true class, a column for each predicted one. File confusion.png.",
    )
    return "\n".join((picture, listed, _matrix(numbers)))


def _confusion_row(one: Confusion) -> tuple[str, ...]:
    return (one.true, one.predicted, f"{one.count:,}", percent(one.share), percent(one.confidence))


def _matrix(numbers: ReportNumbers) -> str:
    names = numbers.class_names
    if len(names) > _MATRIX:
        return ""
    rows = [
        (name, *map(str, counts)) for name, counts in zip(names, numbers.confusion, strict=True)
    ]
    caption = "Counts: a row for each true class, a column for each predicted one"
    inside = table(caption, ("true class", *names), rows)
    return f"<details>\n<summary>The matrix as a table</summary>\n{inside}\n</details>"


def _curves(numbers: ReportNumbers, pictures: PagePictures) -> str:
    if "curves" not in pictures.charts:
        return paragraph(
            "All images are of one class, so there is nothing to tell it from: curves need images "
            "of two classes at least."
        )
    missing = [one.name for one in numbers.classes if one.roc is None]
    note = f"Classes without images, and so without curves: {some(missing, 20)}."
    caption = "ROC and precision-recall curves. File curves.png."
    return chart(pictures.charts["curves"], caption) + (paragraph(note) if missing else "")


def _calibration(numbers: ReportNumbers, pictures: PagePictures) -> str:
    rows = [
        (
            f"{percent(one.low)} to {percent(one.high)}",
            f"{one.images:,}",
            percent(one.confidence),
            percent(one.right.value),
            interval(one.right),
        )
        for one in numbers.bins
    ]
    columns = ("confidence", "images", "mean confidence", "right", "95 % interval")
    sentence = calibration_sentence(numbers)
    return "\n".join(
        (
            paragraph(f"The model is {sentence}."),
            chart(pictures.charts["calibration"], "Calibration. File calibration.png."),
            table("Confidence and how often it is right", columns, rows),
        )
    )


def mistakes_part(numbers: ReportNumbers, pictures: PagePictures) -> str:
    """The worst mistakes with their pictures."""
    wrong = numbers.images - int(numbers.confusion.trace())
    if not wrong:
        return paragraph("There is no mistake.")
    return _grid(pictures.mistakes, f"{wrong:,} of {numbers.images:,} images are wrong.", pictures)


def _uncertain(numbers: ReportNumbers, pictures: PagePictures) -> str:
    right = int(numbers.confusion.trace())
    if not right:
        return paragraph("Nothing is right.")
    return _grid(pictures.uncertain, f"{right:,} of {numbers.images:,} are right.", pictures)


def _grid(shown: Sequence[Shown], sentence: str, pictures: PagePictures) -> str:
    if not shown:
        return paragraph(f"{sentence} No picture is shown.")
    cells = "\n".join(f"<li>{_picture(one)}</li>" for one in shown)
    return f'{paragraph(f"{sentence} {pictures.heat}")}\n<ul class="grid">\n{cells}\n</ul>'


def _picture(one: Shown) -> str:
    texts = (f"{one.name}: {', '.join(one.lines)}", f"Grad-CAM over {one.name}")
    images = "".join(
        f'<img src="{data_uri(jpeg(view), "jpeg")}" alt="{escaped(text)}">'
        for view, text in zip(one.views, texts, strict=False)
    )
    lines = "<br>".join(f'<span class="said">{escaped(line)}</span>' for line in one.lines)
    return (
        f'<figure>\n<div class="views">{images}</div>\n'
        f'<figcaption><span class="path">{escaped(one.name)}</span><br>{lines}</figcaption>\n'
        "</figure>"
    )
