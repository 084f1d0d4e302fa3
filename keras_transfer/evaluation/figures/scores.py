"""The picture of ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.evaluation.metrics import ClassNumbers, ReportNumbers
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import INK, PALE, RUN_LINES, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EACH = 6  # classes up to which all are drawn
_LOWEST = 3  # of more classes, so many are drawn: those of the lowest average precision
_MEAN: dict[str, Any] = {"color": INK, "linewidth": 2.6}
_CHANCE: dict[str, Any] = {"color": PALE, "linestyle": (0, (1, 2)), "linewidth": 1.2}


def score_figure(numbers: ReportNumbers) -> Figure:
    """Draws ROC and precision-recall curves side by side.

    Of two classes the curve of the second; of up to six those of each class against the rest and
    their mean; of more the mean and the three of the lowest average precision.

    Args:
        numbers: The numbers of a report.

    Returns:
        A figure that pyplot does not know.

    Raises:
        ValueError: If there is no curve, since the images are of one class only.

    Example:
        >>> figure = score_figure(report_numbers(true, probabilities, ["cat", "dog"]))
    """
    if numbers.roc is None or numbers.precision_recall is None:
        raise ValueError("All images are of one class. Curves need images of two at least.")
    shown = _shown(numbers)
    lines = dict(zip((each.name for each in shown), RUN_LINES, strict=False))
    entries: list[Entry] = [
        (f"{each.name} (average precision {_average_precision(each):.2f})", lines[each.name])
        for each in shown
    ]
    if len(numbers.classes) > 2:
        entries.append(("mean of the classes", _MEAN))
    with figure_style():
        figure, (roc, precision) = panel_grid(2)
        for axes, kind in ((roc, "roc"), (precision, "precision_recall")):
            # Between two thresholds the precision does not lie on the line that joins them.
            steps: dict[str, Any] = {"drawstyle": "steps-pre"} if axes is precision else {}
            for each in shown:
                curve = getattr(each, kind)
                axes.plot(curve.x, curve.y, label=each.name, **lines[each.name], **steps)
            if len(numbers.classes) > 2:
                mean = getattr(numbers, kind)
                axes.plot(mean.x, mean.y, label="mean of the classes", zorder=4, **_MEAN, **steps)
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
        roc.plot([0, 1], [0, 1], label="chance", **_CHANCE)
        if len(numbers.classes) == 2:
            share = numbers.classes[1].images / numbers.images
            precision.plot([0, 1], [share, share], label="chance", **_CHANCE)
        roc.set(xlabel="share of other images predicted as it", ylabel="recall")
        precision.set(xlabel="recall", ylabel="precision")
        header(figure, _title(numbers), [*entries, ("chance", _CHANCE)])
        arrange(figure)
        title_panel(roc, "ROC", f"area {numbers.roc.area:.3f}")
        area = numbers.precision_recall.area
        title_panel(precision, "precision and recall", f"average precision {area:.3f}")
    return figure


def _shown(numbers: ReportNumbers) -> Sequence[ClassNumbers]:
    classes = numbers.classes[1:] if len(numbers.classes) == 2 else numbers.classes
    known = [each for each in classes if each.precision_recall is not None]
    return known if len(known) <= _EACH else sorted(known, key=_average_precision)[:_LOWEST]


def _average_precision(each: ClassNumbers) -> float:
    return each.precision_recall.area if each.precision_recall else 1.0


def _title(numbers: ReportNumbers) -> str:
    if len(numbers.classes) == 2:
        return f"{numbers.classes[1].name} told from {numbers.classes[0].name}"
    few = f"; the lowest {_LOWEST} of {len(numbers.classes):,}"
    return f"each class told from all others{few if len(numbers.classes) > _EACH else ''}"
