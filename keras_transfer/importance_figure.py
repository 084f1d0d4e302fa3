"""The picture of what each hyperparameter of a search mattered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keras_transfer.figure_layout import blank_figure, fit_text, text_width
from keras_transfer.figure_style import BLUE, GREY, INK, figure_style
from keras_transfer.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST = 4  # rows that there is room for
# Points.
_NAME, _GAP, _ABOVE, _BELOW, _PANEL, _ROW, _VALUE = 170.0, 9.0, 34.0, 40.0, 330.0, 22.0, 90.0


def importance_figure(importances: Mapping[str, Estimate], *, title: str = "importance") -> Figure:
    """Draws the importance of each hyperparameter as a bar with its spread, the largest at the top.

    Args:
        importances: Importance by name: by how much an explained share of the score falls without
            it, 0..1 mostly, and the ends of its spread. Below 0 is chance.
        title: Of the figure, one line. Default `"importance"`.

    Returns:
        A figure that no pyplot knows of.

    Raises:
        ValueError: If there is no hyperparameter.

    Example:
        >>> figure = importance_figure({"learning_rate": Estimate(0.61, 0.55, 0.66)})
    """
    if not importances:
        raise ValueError(
            "importances is empty. Expected one hyperparameter at least; where there are too few "
            "trials to tell, say so in words."
        )
    ordered = dict(sorted(importances.items(), key=lambda item: -item[1].value))
    with figure_style():
        figure = blank_figure(1, 1)
        names = [fit_text(figure, name, _NAME, 9)[0] for name in ordered]
        left = _GAP + max(text_width(figure, name, 9) for name in names) + 10
        tall = _ROW * max(_LEAST, len(names))
        width, height = left + _PANEL + _VALUE + _GAP, _ABOVE + tall + _BELOW
        figure.set_size_inches(width / 72, height / 72)
        place = (left / width, _BELOW / height, _PANEL / width, tall / height)
        axes = figure.add_axes(place)
        _draw(axes, list(ordered.values()))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
        head, size = fit_text(figure, title, width - 2 * _GAP, 11, "bold")
        top = 1 - _GAP / height
        figure.text(_GAP / width, top, head, size=size, weight="bold", ha="left", va="top")
    return figure


def _draw(axes: Axes, found: list[Estimate]) -> None:
    rows = range(len(found))
    axes.barh(rows, [one.value for one in found], height=0.62, color=BLUE)
    axes.hlines(
        rows, [one.low for one in found], [one.high for one in found], color=INK, linewidth=1.4
    )
    axes.axvline(0, color=GREY, linewidth=1.0)
    axes.set_ylim(max(_LEAST, len(found)) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlim(min(0.0, *(one.low for one in found)), max(0.05, *(one.high for one in found)))
    for row, one in enumerate(found):
        axes.annotate(
            f"{round(one.value, 2) + 0.0:.2f}",  # no -0.00
            (max(0.0, one.high), row),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_xlabel("by how much R² falls when its values are shuffled among the trials")
