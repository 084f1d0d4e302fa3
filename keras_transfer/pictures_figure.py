"""Pictures with what the model made of them, as a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.figure_layout import blank_figure, fit_text
from keras_transfer.figure_style import GREY, INK, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Points: a picture's height, the gap, a line of text, and what the title takes.
_TALL, _GAP, _LINE, _TITLE = 118.0, 12.0, 12.0, 30.0


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture with its caption.

    Attributes:
        name: Path or row of the image.
        lines: What is to be said about it, a line each.
        views: The picture, and others of the same size beside it: uint8 `(height, width, 3)`.
    """

    name: str
    lines: tuple[str, ...]
    views: tuple[np.ndarray, ...]


def pictures_figure(shown: Sequence[Shown], title: str) -> Figure:
    """Draws pictures in a grid, each with its name and lines under it.

    Args:
        shown: One or more pictures, each with as many views and lines as the first.
        title: What they have in common.

    Returns:
        A figure that no pyplot knows of.

    Example:
        >>> grey = np.full((96, 96, 3), 128, "uint8")
        >>> figure = pictures_figure([Shown("cat/1.png", ("true cat",), (grey,))], "mistakes")
    """
    views = len(shown[0].views)
    aspect = shown[0].views[0].shape[1] / shown[0].views[0].shape[0]
    wide = min(240.0, max(60.0, _TALL * aspect))
    tall = wide / aspect
    slot = max(180.0, views * wide + (views - 1) * 4)
    columns = min(len(shown), max(1, int(980 // (slot + _GAP))), 4)
    rows = math.ceil(len(shown) / columns)
    text = _LINE * (1 + len(shown[0].lines)) + 6
    width = columns * (slot + _GAP) + _GAP
    height = _TITLE + rows * (tall + text + _GAP) + _GAP
    with figure_style():
        figure = blank_figure(width / 72, height / 72)
        title, size = fit_text(figure, title, width - 2 * _GAP, 12, "bold", least=8)
        top: dict[str, Any] = {"weight": "bold", "ha": "left", "va": "top"}
        figure.text(_GAP / width, 1 - _GAP / height, title, size=size, **top)
        for number, one in enumerate(shown):
            x = _GAP + (number % columns) * (slot + _GAP)
            y = height - _TITLE - (number // columns) * (tall + text + _GAP) - _GAP / 2
            _draw(figure, one, (x, y, slot), (wide, tall))
    return figure


def _draw(
    figure: Figure, one: Shown, place: tuple[float, float, float], size: tuple[float, float]
) -> None:
    """Draws one picture with its upper left corner at a place, given in points."""
    (x, y, slot), (wide, tall) = place, size
    width, height = (float(inches) * 72 for inches in figure.get_size_inches())
    for number, view in enumerate(one.views):
        left = x + number * (wide + 4)
        axes = figure.add_axes((left / width, (y - tall) / height, wide / width, tall / height))
        axes.imshow(view, interpolation="nearest")
        axes.set_anchor("NW")  # where a picture has another shape than the first
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for number, line in enumerate((one.name, *one.lines)):
        text, size_of_text = fit_text(figure, line, slot, 8.5, least=7.5)
        style: dict[str, Any] = {"color": GREY if number == 0 else INK, "size": size_of_text}
        below = y - tall - 3 - number * _LINE
        figure.text(x / width, below / height, text, ha="left", va="top", **style)
