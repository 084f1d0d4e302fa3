"""The picture of a confusion matrix, of 2 to 100 classes and more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.evaluation.metrics import MOST_DRAWN
from keras_transfer.plotting.layout import blank_figure, fit_names, fit_text, text_width
from keras_transfer.plotting.style import BLUE, GREY, INK, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points. Names are cut where they would take more than `_NAME`.
_NAME, _GAP, _TITLE, _BAR, _TICK = 130.0, 8.0, 26.0, 12.0, 34.0
_LEAST = 340.0  # width of the figure, which the title needs
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
        A figure that no pyplot knows of.

    Example:
        >>> figure = confusion_figure(np.array([[8, 2], [1, 9]]), ["cat", "dog"])
    """
    shown = _most_mistaken(confusion)
    size = len(shown)
    cell = _cell(size)
    font = min(9.0, cell * 0.72)
    with figure_style():
        figure = blank_figure(1, 1)
        names = fit_names(figure, [class_names[i] for i in shown], _NAME, font)
        widths = [text_width(figure, name, font) for name in names]
        upright = max(widths) > cell - 6
        left = _GAP + 16 + max(widths) + 8
        below = _GAP + 16 + (max(widths) if upright else font * 1.4) + 8
        side = cell * size
        width = max(_LEAST, left + side + 2 * _GAP + _BAR + _TICK)
        height = below + side + _TITLE + _GAP
        figure.set_size_inches(width / 72, height / 72)
        axes = figure.add_axes((left / width, below / height, side / width, side / height))
        counts = confusion[np.ix_(shown, shown)]
        shares = counts / np.maximum(confusion[shown].sum(1, keepdims=True), 1)
        drawn = axes.imshow(shares, cmap=_whites_to_blue(), norm=_roots(), aspect="auto")
        _frame(axes, names, font, upright)
        if size <= _COUNTED:
            _write_counts(axes, drawn, counts, shares, cell)
        _color_bar(figure, drawn, (left + side + 2 * _GAP, below, width, height), min(side, 260))
        which = "" if size == len(confusion) else f"{size} of {len(confusion):,} classes; all: "
        _texts(figure, which, confusion, (left, below, side))
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


def _whites_to_blue() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#A9D0E8", BLUE, "#00324F"])


def _roots() -> Any:
    """Colours by square roots, so that confusions of a few per cent are seen."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=1)


def _frame(axes: Axes, names: Sequence[str], font: float, upright: bool) -> None:
    axes.set_yticks(range(len(names)), names, size=font, color=INK)
    turned: dict[str, Any] = {"rotation": 90} if upright else {}
    axes.set_xticks(range(len(names)), names, size=font, color=INK, **turned)
    axes.tick_params(length=2, pad=2)
    axes.grid(False)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="#DADCE0", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


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


def _color_bar(figure: Figure, drawn: Any, place: tuple[float, ...], tall: float) -> None:
    left, below, width, height = place
    axes = figure.add_axes((left / width, below / height, _BAR / width, tall / height))
    bar = figure.colorbar(drawn, cax=axes)
    bar.set_ticks([0, 0.1, 0.25, 0.5, 1], labels=["0 %", "10 %", "25 %", "50 %", "100 %"])
    bar.ax.minorticks_off()
    axes.tick_params(labelsize=8, length=2)
    axes.grid(False)
    bar.outline.set_visible(False)


def _texts(figure: Figure, which: str, confusion: np.ndarray, place: tuple[float, ...]) -> None:
    left, below, side = place
    width, height = (float(inches) * 72 for inches in figure.get_size_inches())
    count = int(confusion.sum())
    title = f"{which}{np.trace(confusion):,} of {count:,} on the diagonal; colour: share of the row"
    title, size = fit_text(figure, title, width - 2 * _GAP, 10.5, "bold")
    top = 1 - _GAP / height
    figure.text(_GAP / width, top, title, size=size, weight="bold", ha="left", va="top")
    middle = (below + side / 2) / height
    across = (left + side / 2) / width
    figure.text(across, _GAP / height, "predicted class", ha="center", va="bottom", color=GREY)
    turned: dict[str, Any] = {"rotation": 90, "ha": "left", "va": "center", "color": GREY}
    figure.text(_GAP / width, middle, "true class", **turned)
