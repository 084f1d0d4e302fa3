"""The picture of precision, recall and F1 of each class, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.evaluation.metrics import MOST_DRAWN, ClassNumbers, ReportNumbers
from keras_transfer.plotting.layout import blank_figure, fit_names, fit_text, text_width
from keras_transfer.plotting.style import BLUE, INK, PALE, VERMILLION, figure_style
from keras_transfer.utils.confidence_intervals import Estimate, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS: dict[str, dict[str, Any]] = {
    "precision": {"color": BLUE, "marker": "o"},
    "recall": {"color": VERMILLION, "marker": "s"},
    "F1": {"color": INK, "marker": "D"},
}
# Points.
_NAME, _GAP, _ABOVE, _BELOW, _PANEL, _SPACE = 150.0, 9.0, 46.0, 22.0, 190.0, 18.0


def class_figure(numbers: ReportNumbers) -> Figure:
    """Draws precision, recall and F1 of each class with 95 % intervals, the lowest F1 at the top.

    A dashed line is the mean over the classes. What is unknown is left out. Of more than 100
    classes those with the lowest F1 are shown.

    Args:
        numbers: Those of a report.

    Returns:
        A figure that no pyplot knows of.

    Example:
        >>> figure = class_figure(report_numbers(true, probabilities, ["cat", "dog"]))
    """
    ranked = sorted(numbers.classes, key=lambda one: one.f1.value if one.f1.known else 2)
    classes = ranked[:MOST_DRAWN]
    row = 22.0 if len(classes) <= 30 else 12.0
    means = {"precision": numbers.precision, "recall": numbers.recall, "F1": numbers.f1}
    with figure_style():
        figure = blank_figure(1, 1)
        font = min(9.0, row * 0.72)
        whole = [one.name for one in numbers.classes if one in classes]
        cut = dict(zip(whole, fit_names(figure, whole, _NAME, font), strict=True))
        names = [cut[one.name] for one in classes]
        left = _GAP + max(text_width(figure, name, font) for name in names) + 8
        tall = row * max(3, len(classes))
        width = left + 3 * _PANEL + 2 * _SPACE + 2 * _GAP
        height = _ABOVE + tall + _BELOW
        figure.set_size_inches(width / 72, height / 72)
        for number, (name, mean) in enumerate(means.items()):
            x = (left + number * (_PANEL + _SPACE)) / width
            axes = figure.add_axes((x, _BELOW / height, _PANEL / width, tall / height))
            _draw(axes, name, [_estimate(one, name) for one in classes], mean)
            axes.set_yticks(range(len(names)), names if number == 0 else [""] * len(names))
            axes.tick_params(axis="y", length=0, labelsize=font, labelcolor=INK)
        _head(figure, width, height, "each class" if classes == ranked else _some(numbers))
    return figure


def _estimate(one: ClassNumbers, name: str) -> Estimate:
    return {"precision": one.precision, "recall": one.recall, "F1": one.f1}[name]


def _draw(axes: Axes, name: str, estimates: Sequence[Estimate], mean: Estimate) -> None:
    known = [(row, one) for row, one in enumerate(estimates) if one.known]
    axes.axvline(mean.value, color=PALE, linestyle="--", linewidth=1.2)
    axes.hlines(
        [row for row, _ in known],
        [one.low for _, one in known],
        [one.high for _, one in known],
        color=_LOOKS[name]["color"],
        linewidth=1.4,
    )
    line = {**_LOOKS[name], "markersize": 4.5, "linestyle": "none", "clip_on": False}
    axes.plot([one.value for _, one in known], [row for row, _ in known], label=name, **line)
    axes.set_xlim(0, 1)
    rows = max(3, len(estimates))
    middle = (len(estimates) - 1) / 2
    axes.set_ylim(middle + rows / 2, middle - rows / 2)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_title(name, loc="left", weight="bold", pad=4)
    axes.set_title(f"mean {percent(mean.value)}", loc="right", size=9, pad=4)


def _some(numbers: ReportNumbers) -> str:
    return f"{MOST_DRAWN} of {len(numbers.classes):,} classes, each"


def _head(figure: Figure, width: float, height: float, which: str) -> None:
    title = f"{which} with its 95 % interval, the lowest F1 first; dashed: mean of the classes"
    title, size = fit_text(figure, title, width - 2 * _GAP, 11, "bold")
    top = 1 - _GAP / height
    figure.text(_GAP / width, top, title, size=size, weight="bold", ha="left", va="top")
