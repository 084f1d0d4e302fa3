"""The frame of a figure: a grid of panels, a title and a legend above it, texts that fit.

Figures are made without pyplot, so that no figure stays open, no display is needed and no global
state changes.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.style import DPI, FONT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Entry = tuple[str, Mapping[str, Any]]  # of a legend: a name, and the look of its line

_MARGIN = 9.0  # points between the figure's edge and its title, and between title and legend
_TITLE, _ROW = 16.0, 14.0  # points, height of the title and of one row of the legend


def blank_figure(width: float, height: float, **settings: Any) -> Figure:
    """A figure of a width and height in inches that can be measured and drawn without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, **settings)
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    if layout is not None:
        layout.set(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
    return figure


def panel_grid(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels and no empty one."""
    columns = columns_of(count)
    rows = math.ceil(count / columns)
    width = {1: 6.8, 2: 10.0, 3: 13.5, 4: 15.5, 5: 18.0}[columns]
    figure = blank_figure(width, 3.3 * rows + 0.7, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(count)]
    for ax in axes:
        ax.set_title(" ", loc="left")  # keeps room for the titles, which are fitted later
    return figure, axes


def columns_of(count: int) -> int:
    """One row up to three panels, then what leaves the fewest places of the grid empty."""
    if count <= 4:
        return (1, 2, 3, 2)[count - 1]
    return min((4, 5) if count > 9 else (3, 4), key=lambda columns: -count % columns)


def arrange(figure: Figure) -> None:
    """Gives the panels their places for good; texts are fitted into them afterwards.

    A second layout would cost as much as drawing, and this is done after every epoch.
    """
    layout: Any = figure.get_layout_engine()
    layout.execute(figure)
    figure.set_layout_engine("none")


def text_width(figure: Figure, text: str, size: float, weight: str = "normal") -> float:
    """Width of `text` in points."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=FONT, size=size, weight=weight)
    canvas: Any = figure.canvas
    width, _, _ = canvas.get_renderer().get_text_width_height_descent(text, font, False)
    return float(width) * 72 / figure.dpi * 1.02  # SVG and PDF set type a little wider


def lacks_letters(text: str) -> bool:
    """Whether the font of the figures lacks a letter of a text, which then shows as a box."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(family=FONT))).get_charmap()
    return any(letter.isprintable() and ord(letter) not in known for letter in text)


def fit_text(
    figure: Figure,
    text: str,
    room: float,
    size: float,
    weight: str = "normal",
    least: float = 7,
) -> tuple[str, float]:
    """Text and size that fit into `room` points: smaller first, then with its middle left out."""
    while size > least and text_width(figure, text, size, weight) > room:
        size -= 0.5
    if text_width(figure, text, size, weight) <= room or len(text) < 3:
        return text, size

    def cut(left_out: int) -> str:
        kept = len(text) - left_out
        return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"

    # By halving: the path of an image may be long, and measuring takes time.
    left_out = bisect.bisect_left(
        range(1, len(text) - 2),
        True,
        key=lambda count: text_width(figure, cut(count), size, weight) <= room,
    )
    return cut(1 + left_out), size


def fit_names(figure: Figure, names: Sequence[str], room: float, size: float) -> list[str]:
    """Cuts names to `room` points; those that would read the same begin with their places."""
    fitted = [fit_text(figure, name, room, size, least=size)[0] for name in names]
    often = Counter(fitted)
    for at, name in enumerate(names):
        if often[fitted[at]] > 1:
            left = room - text_width(figure, f"{at} ", size)
            fitted[at] = f"{at} {fit_text(figure, name, left, size, least=size)[0]}"
    return fitted


def header(figure: Figure, title: str, entries: Sequence[Entry]) -> None:
    """Puts the title and one legend for all panels above the panels."""
    from matplotlib.lines import Line2D

    width, height = (float(inches) * 72 for inches in figure.get_size_inches())
    room = width - 2 * _MARGIN
    title, size = fit_text(figure, title, room, 13, "bold")
    names = fit_names(figure, [name for name, _ in entries], room - 50, 9)
    slot = max((text_width(figure, name, 9) for name in names), default=0) + 48
    columns = max(1, min(len(names), int(room // slot)))
    rows = max(1, math.ceil(len(names) / columns))
    above = _MARGIN + _TITLE + _MARGIN
    total = height + _ROW * (rows - 1)  # more rows make the figure taller
    left = _MARGIN / width
    figure.set_size_inches(width / 72, total / 72)
    figure.text(left, 1 - _MARGIN / total, title, size=size, weight="bold", ha="left", va="top")
    figure.legend(
        [Line2D([], [], **line) for _, line in entries],
        names,
        loc="upper left",
        bbox_to_anchor=(left, 1 - above / total),
        ncols=columns,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.4,
        columnspacing=2.0,
    )
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, 1 - (above + _ROW * rows) / total))


def size_in_points(axes: Axes) -> tuple[float, float]:
    """Width and height of a panel."""
    box = axes.get_window_extent()
    dpi = axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    return box.width * 72 / dpi, box.height * 72 / dpi


def title_panel(axes: Axes, name: str, note: str = "", color: str = INK) -> None:
    """The panel's name on the left and its value at the best epoch on the right."""
    figure: Any = axes.get_figure(root=True)
    room, _ = size_in_points(axes)
    note, note_size = fit_text(figure, note, room * 0.6, 9)
    left = room - (text_width(figure, note, note_size) + 10 if note else 0)
    name, name_size = fit_text(figure, name, left, 10.5, "bold")
    axes.set_title(name, loc="left", size=name_size, weight="bold")
    if note:
        axes.set_title(note, loc="right", size=note_size, color=color)
