"""Colours, line styles and settings that all figures share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

# Okabe and Ito's palette, told apart with every common colour vision deficiency.
# https://jfly.uni-koeln.de/color/
BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, GREY, PALE, FAINT = "#202124", "#5F6368", "#9AA0A6", "#B4B9BF"
_COLORS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# From what leaves no gap to what leaves the most: drawn in this order, none hides another.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (4.5, 1.3)),
    (0, (4, 1.4, 1, 1.4)),
    (0, (2.4, 1.6)),
    (0, (3, 1.4, 1, 1.4, 1, 1.4)),
    (0, (1, 1.65)),
)
# All pairs; neighbours differ in both, so that a line shows through the gaps of an equal one.
RUN_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": _COLORS[i % 6], "linestyle": DASHES[(i + i // 6) % 6]} for i in range(24)
)
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgewidth": 1.8,
    "linestyle": "none",
}
CROSS: dict[str, Any] = {"marker": "x", "markersize": 6, "linestyle": "none"}

FONT = "DejaVu Sans"  # comes with matplotlib, so that widths are the same everywhere
SMALL = 8.0  # points, size of the labels inside a panel
DPI = 120
_SETTINGS: dict[str, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a metric's name may hold a dollar sign
    "axes.edgecolor": PALE,
    "axes.labelcolor": GREY,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8EAED",
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Our look, whatever the user's own style sheet says, and only while we draw.

    Letters that the font lacks show as boxes. Matplotlib would say so of each, whenever a text is
    measured and drawn; whoever knows where the names come from says it once (`lacks_letters`).
    """
    import matplotlib.style

    with matplotlib.style.context(_SETTINGS, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ")
        yield
