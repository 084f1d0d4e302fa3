"""What panels are made of: curves, rings, crosses, axes of epochs and of powers of ten."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from keras_transfer.plotting.curves import BLOCK_RATE, Curve
from keras_transfer.plotting.layout import columns_of
from keras_transfer.plotting.style import CROSS, INK, RING, RUN_LINES, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 20  # a curve of at most this many points shows each of them
_ROWS = 14  # of a legend beside a panel


def draw_curve(axes: Axes, curve: Curve, **line: Any) -> None:
    """Draws a curve with a gap, and a cross at the panel's upper edge, where it is not finite."""
    marker = "o" if len(curve.x) <= _FEW else ""
    axes.plot(curve.x, curve.y, label=curve.key, **{"marker": marker, "markersize": 4, **line})
    cross(axes, curve.lost, line["color"])


def shade_between(axes: Axes, one: Curve, other: Curve, *, color: str) -> None:
    """Shades the gap between two curves, where both have a value."""
    there = dict(zip(other.x, other.y, strict=True))
    both = [(x, y, there[x]) for x, y in zip(one.x, one.y, strict=True) if x in there]
    if both:
        x, low, high = zip(*both, strict=True)
        axes.fill_between(x, low, high, color=color, alpha=0.08, linewidth=0)


def draw_rate(axes: Axes, curve: Curve, **line: Any) -> None:
    """Draws a learning rate as steps."""
    marker = "o" if len(curve.x) == 1 else ""
    draw_curve(axes, curve, **{"drawstyle": "steps-mid", "marker": marker, **line})


def draw_rates(axes: Axes, rates: Sequence[Curve]) -> None:
    """The learning rates of one run; if there are several, a legend beside the panel."""
    lines = ({"color": INK}, *RUN_LINES * len(rates))
    for curve, line in zip(rates, lines, strict=False):
        draw_rate(axes, curve, **line)
    log_rates(axes, rates)
    if len(rates) > 1:
        _name_rates(axes, rates)


def _name_rates(axes: Axes, rates: Sequence[Curve]) -> None:
    """The legend, in the order in which the lines end."""
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = sorted(rates, key=lambda curve: curve.y[-1], reverse=True)
    names = [curve.key.removeprefix(BLOCK_RATE) for curve in ordered]
    axes.legend(
        [drawn[curve.key] for curve in ordered],
        ["base" if name == "learning_rate" else name for name in names],
        loc="upper left",
        bbox_to_anchor=(1, 1),
        ncols=math.ceil(len(rates) / _ROWS),
        fontsize=SMALL,
        frameon=False,
        handlelength=1.6,
        labelspacing=0.25,
        borderpad=0,
    )


def log_rates(axes: Axes, rates: Iterable[Curve]) -> None:
    """A logarithmic axis, unless all rates are zero always."""
    values = [y for curve in rates for y in curve.y if y > 0]
    if values:
        log_axis(axes, "y", values)


def epoch_axes(panels: Sequence[Axes], epochs: Iterable[int]) -> None:
    """Whole epochs, counted from 1; named under the lowest panel of each column."""
    shown = sorted(epochs)
    for ax in panels:
        ax.set_xlim(shown[0] + 0.5, shown[-1] + 1.5)
        whole_numbers(ax)
        if not math.isfinite(ax.dataLim.height):  # nothing is finite, and any scale an invention
            ax.set_yticks([])
    for ax in panels[-columns_of(len(panels)) :]:
        ax.set_xlabel("epoch")


def cross(axes: Axes, places: Sequence[float], color: str) -> None:
    """Crosses at the panel's upper edge; even no cross would widen the layout, so none is none."""
    if places:
        edge = [0.98] * len(places)
        line = {**CROSS, "color": color, "transform": axes.get_xaxis_transform()}
        axes.plot(places, edge, **line, clip_on=False, in_layout=False)


def ring(axes: Axes, x: float, y: float, color: str) -> None:
    """Rings a point, with a white halo that lifts the ring from a dense curve."""
    halo = {**RING, "markeredgewidth": 4.5}
    for line in (
        *axes.plot([x], [y], **halo, color="white", alpha=0.9, zorder=4),
        *axes.plot([x], [y], **RING, color=color, zorder=5),
    ):
        line.set(clip_on=False, in_layout=False)


def whole_numbers(axes: Axes) -> None:
    """Ticks of the horizontal axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(
        MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )


def log_axis(axes: Axes, side: Literal["x", "y"], values: Sequence[float]) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 where powers of ten would be too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values) / 1.6, max(values) * 1.6
    subs = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0)
    axes.set(**{f"{side}scale": "log", f"{side}lim": (low, high)})
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_text(value)))


def cut_axis(axes: Axes, low: float, high: float) -> None:
    """Shows what lies between two values, and leaves the rest outside."""
    room = 0.06 * (high - low)
    axes.set_ylim(low - room, high + room)


def power_text(value: float) -> str:
    """A number as it is typed: `1e-4` and not 10⁻⁴ or 0.0001."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
