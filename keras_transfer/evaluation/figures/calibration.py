"""The picture of calibration: how often the model is right when it is so sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_transfer.evaluation.metrics import BINS, ReportNumbers
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import BLUE, PALE, figure_style
from keras_transfer.utils.confidence_intervals import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 5, "linewidth": 1.4}
_PERFECT: dict[str, Any] = {"color": PALE, "linestyle": "--", "linewidth": 1.2}


def calibration_figure(numbers: ReportNumbers) -> Figure:
    """Draws the share that is right against confidence, and how many images have it.

    Args:
        numbers: The numbers of a report.

    Returns:
        A figure that pyplot does not know.

    Example:
        >>> figure = calibration_figure(report_numbers(true, probabilities, ["cat", "dog"]))
    """
    with figure_style():
        figure, (curve, counts) = panel_grid(2)
        _draw_curve(curve, numbers)
        _draw_counts(counts, numbers)
        low = int(BINS / len(numbers.classes)) / BINS  # nothing is below one in so many classes
        for axes in (curve, counts):
            axes.set(xlim=(low, 1), xlabel="confidence: probability of the predicted class")
        header(figure, calibration_sentence(numbers), _entries())
        arrange(figure)
        title_panel(
            curve,
            "right at that confidence",
            f"calibration error {percent(numbers.calibration_error)}",
        )
        title_panel(counts, "images at that confidence", f"{numbers.images:,} in all")
    return figure


def calibration_sentence(numbers: ReportNumbers) -> str:
    """Says in a sentence how confidence and accuracy compare."""
    sure, right = numbers.confidence, numbers.accuracy
    kind = "as sure as right, within the interval"
    if sure > right.high:
        kind = "too sure of itself"
    elif sure < right.low:
        kind = "less sure than right"
    return f"{kind}: confidence {percent(sure)}, right {percent(right.value)}"


def _draw_curve(axes: Axes, numbers: ReportNumbers) -> None:
    axes.plot([0, 1], [0, 1], label="perfect", **_PERFECT)
    x = [one.confidence for one in numbers.bins]
    y = [one.right.value for one in numbers.bins]
    low = [one.right.low for one in numbers.bins]
    high = [one.right.high for one in numbers.bins]
    axes.vlines(x, low, high, color=BLUE, linewidth=1.2, alpha=0.7)
    axes.plot(x, y, label="right", **_POINTS, clip_on=False)
    axes.set(ylim=(0, 1), ylabel="share that is right")


def _draw_counts(axes: Axes, numbers: ReportNumbers) -> None:
    axes.bar(
        [one.low for one in numbers.bins],
        [one.images for one in numbers.bins],
        width=1 / BINS,
        align="edge",
        color=BLUE,
        edgecolor="white",
    )
    axes.set_ylabel("images")


def _entries() -> list[Entry]:
    return [
        ("right, with 95 % interval", _POINTS),
        ("perfect: right as often as it is sure", _PERFECT),
    ]
