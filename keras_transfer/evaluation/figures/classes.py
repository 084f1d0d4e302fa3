"""The picture of precision, recall and F1 of each class, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.evaluation.metrics import MOST_DRAWN, ReportNumbers
from keras_transfer.plotting.layout import arrange, blank_figure, fit_names, header
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
_NAME = 150.0  # points


def class_figure(numbers: ReportNumbers) -> Figure:
    """Draws precision, recall and F1 of each class with 95 % intervals, the lowest F1 at the top.

    A dashed line is the mean over the classes. What is unknown is left out. Of more than 100
    classes those with the lowest F1 are shown.

    Args:
        numbers: The numbers of a report.

    Returns:
        A figure that pyplot does not know.

    Example:
        >>> figure = class_figure(report_numbers(true, probabilities, ["cat", "dog"]))
    """
    ranked = sorted(numbers.classes, key=lambda each: each.f1.value if each.f1.known else 2)
    classes = ranked[:MOST_DRAWN]
    which = "each class" if classes == ranked else f"{MOST_DRAWN} of {len(ranked):,} classes, each"
    row = 22.0 if len(classes) <= 30 else 12.0
    with figure_style():
        height = (row * max(3, len(classes)) + 80) / 72
        figure = blank_figure(9.5, height, layout="constrained")
        panels = figure.subplots(1, 3)
        font = min(9.0, row * 0.72)
        names = fit_names(figure, [each.name for each in classes], _NAME, font)
        for axes, name in zip(panels, _LOOKS, strict=True):
            estimates = [getattr(each, name.lower()) for each in classes]
            _draw(axes, name, estimates, getattr(numbers, name.lower()))
            axes.set_yticks(range(len(names)), names if axes is panels[0] else [])
            axes.tick_params(axis="y", length=0, labelsize=font, labelcolor=INK)
        title = f"{which} with its 95 % interval, the lowest F1 first; dashed: mean of the classes"
        header(figure, title, [])
        arrange(figure)
    return figure


def _draw(axes: Axes, name: str, estimates: Sequence[Estimate], mean: Estimate) -> None:
    known = [(row, each) for row, each in enumerate(estimates) if each.known]
    rows = [row for row, _ in known]
    low, high = ([getattr(each, end) for _, each in known] for end in ("low", "high"))
    line = {**_LOOKS[name], "markersize": 4.5, "linestyle": "none", "clip_on": False}
    axes.axvline(mean.value, color=PALE, linestyle="--", linewidth=1.2)
    axes.hlines(rows, low, high, color=_LOOKS[name]["color"], linewidth=1.4)
    axes.plot([each.value for _, each in known], rows, label=name, **line)
    middle, half = (len(estimates) - 1) / 2, max(3, len(estimates)) / 2
    axes.set(xlim=(0, 1), ylim=(middle + half, middle - half))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_title(name, loc="left", weight="bold")
    axes.set_title(f"mean {percent(mean.value)}", loc="right", size=9)
