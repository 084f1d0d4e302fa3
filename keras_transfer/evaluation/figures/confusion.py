"""The picture of a confusion matrix, of 2 to 100 classes and more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.evaluation.metrics import MOST_DRAWN
from keras_transfer.plotting.layout import arrange, blank_figure, fit_names, header, text_width
from keras_transfer.plotting.style import BLUE, INK, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 130.0  # points; longer names are cut
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # weights of red, green and blue
_COUNTED = 30  # classes up to which each cell shows its count


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws a confusion matrix: a row for each true class, a column for each predicted one.

    The colour of a cell is its share of the row. Up to 30 classes, cells show their counts. Of
    more than 100 classes those with the most mistakes are shown.

    Args:
        confusion: Counts `(classes, classes)`.
        class_names: The names of the classes.

    Returns:
        A figure that pyplot does not know.

    Example:
        >>> figure = confusion_figure(np.array([[8, 2], [1, 9]]), ["cat", "dog"])
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    shown = _most_mistaken(confusion)
    size = len(shown)
    cell = _cell(size)
    font = min(9.0, cell * 0.72)
    counts = confusion[np.ix_(shown, shown)]
    shares = counts / np.maximum(confusion[shown].sum(1, keepdims=True), 1)
    with figure_style():
        figure = blank_figure(1, 1, layout="constrained")
        names = fit_names(figure, [class_names[i] for i in shown], _NAME, font)
        widest = max(text_width(figure, name, font) for name in names)
        upright = widest > cell - 6
        side = cell * size
        below = widest if upright else font
        figure.set_size_inches(max(400, side + widest + 130) / 72, (side + below + 90) / 72)
        axes = figure.add_subplot(aspect="equal", anchor="W")
        blues = LinearSegmentedColormap.from_list("s", ["#FFFFFF", "#A9D0E8", BLUE, "#00324F"])
        roots = PowerNorm(0.5, vmin=0, vmax=1)  # so that confusions of a few per cent are seen
        drawn = axes.imshow(shares, cmap=blues, norm=roots)
        axes.set_yticks(range(size), names, size=font, color=INK)
        axes.set_xticks(range(size), names, size=font, color=INK, rotation=90 if upright else 0)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.tick_params(length=2, pad=2)
        axes.grid(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        if size <= _COUNTED:
            _write_counts(axes, drawn, counts, shares, cell)
        bar = figure.colorbar(drawn, ax=axes, aspect=30, shrink=min(1, 260 / side))
        bar.set_ticks([0, 0.1, 0.25, 0.5, 1], labels=["0 %", "10 %", "25 %", "50 %", "100 %"])
        bar.ax.minorticks_off()
        bar.ax.grid(False)
        bar.outline.set_visible(False)
        which = "" if size == len(confusion) else f"{size} of {len(confusion):,} classes; all: "
        right = f"{np.trace(confusion):,} of {confusion.sum():,} on the diagonal"
        header(figure, f"{which}{right}; colour: share of the row", [])
        arrange(figure)
    return figure


def _most_mistaken(confusion: np.ndarray) -> np.ndarray:
    """The places of the classes that take part in the most mistakes, in their order."""
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * np.diagonal(confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:MOST_DRAWN])


def _cell(size: int) -> float:
    """Points of a cell's side."""
    for most, points in ((3, 72.0), (6, 50.0), (12, 36.0), (20, 28.0), (_COUNTED, 24.0)):
        if size <= most:
            return points
    return 16.0 if size <= 50 else 10.5


def _write_counts(
    axes: Axes, drawn: Any, confusion: np.ndarray, shares: np.ndarray, cell: float
) -> None:
    digits = len(str(confusion.max()))
    size = min(11.0, cell * 0.42, cell * 1.45 / digits)
    for row, column in np.argwhere(confusion):
        light = np.array(drawn.to_rgba(shares[row, column])[:3]) ** 2.2 @ _LUMINANCE
        color = "white" if light < 0.18 else INK  # whichever has the greater contrast
        count = str(confusion[row, column])
        axes.text(column, row, count, size=size, color=color, ha="center", va="center")
