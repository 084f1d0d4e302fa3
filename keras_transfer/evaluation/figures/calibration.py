"""The picture of calibration: how often the model is right when it is so sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_transfer.evaluation.metrics import BINS, ReportNumbers
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import BLUE, PALE, figure_style
from keras_transfer.utils.confidence_intervals import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 5, "linewidth": 1.4}
_PERFECT: dict[str, Any] = {"color": PALE, "linestyle": "--", "linewidth": 1.2}
_ENTRIES: list[Entry] = [
    ("right, with 95 % interval", _POINTS),
    ("perfect: right as often as it is sure", _PERFECT),
]


def calibration_figure(numbers: ReportNumbers) -> Figure:
    """Draws the share that is right against confidence, and how many images have it.

    Args:
        numbers: The numbers of a report.

    Returns:
        A figure that pyplot does not know.

    Example:
        >>> figure = calibration_figure(report_numbers(true, probabilities, ["cat", "dog"]))
    """
    bins = numbers.bins
    confidence, right = [each.confidence for each in bins], [each.right for each in bins]
    with figure_style():
        figure, (curve, counts) = panel_grid(2)
        curve.plot([0, 1], [0, 1], label="perfect", **_PERFECT)
        low, high = ([getattr(each, end) for each in right] for end in ("low", "high"))
        curve.vlines(confidence, low, high, color=BLUE, linewidth=1.2, alpha=0.7)
        shares = [each.value for each in right]
        curve.plot(confidence, shares, label="right", **_POINTS, clip_on=False)
        curve.set(ylim=(0, 1), ylabel="share that is right")
        look: dict[str, Any] = {"align": "edge", "color": BLUE, "edgecolor": "white"}
        edges, images = [each.low for each in bins], [each.images for each in bins]
        counts.bar(edges, images, width=1 / BINS, **look)
        counts.set_ylabel("images")
        left = int(BINS / len(numbers.classes)) / BINS  # nothing is below one in so many classes
        for axes in (curve, counts):
            axes.set(xlim=(left, 1), xlabel="confidence: probability of the predicted class")
        header(figure, calibration_sentence(numbers), _ENTRIES)
        arrange(figure)
        error = f"calibration error {percent(numbers.calibration_error)}"
        title_panel(curve, "right at that confidence", error)
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
