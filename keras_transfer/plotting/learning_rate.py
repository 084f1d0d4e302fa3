"""The picture of a sweep over learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.axes import log_axis, ring
from keras_transfer.plotting.curves import text_of
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import BLUE, PALE, RING, VERMILLION, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMOOTHED: dict[str, Any] = {"color": BLUE}
_BATCH: dict[str, Any] = {
    "marker": "o",
    "markersize": 3,
    "color": PALE,
    "markeredgewidth": 0,
    "linestyle": "none",
}


def rate_figure(
    rates: Sequence[float],
    losses: Sequence[float],
    batch_losses: Sequence[float],
    suggestion: float,
) -> Figure:
    """Draws a sweep: the loss of each batch and the smoothed loss against the learning rate.

    What lies far above the smoothed loss at the start, where the loss diverges, is cut off.

    Args:
        rates: The learning rates, rising.
        losses: The smoothed losses.
        batch_losses: The losses of the batches.
        suggestion: The suggested rate, one of `rates`.

    Returns:
        A figure that pyplot does not know.

    Example:
        >>> figure = rate_figure([1e-3, 1e-2, 1e-1], [0.7, 0.5, 0.6], [0.7, 0.4, 0.8], 1e-2)
    """
    loss = losses[list(rates).index(suggestion)]
    ring_line = {"color": VERMILLION, **RING}
    entries: list[Entry] = [
        ("one batch", _BATCH),
        ("smoothed", _SMOOTHED),
        ("suggestion", ring_line),
    ]
    with figure_style():
        figure, (ax,) = panel_grid(1)
        ax.plot(rates, batch_losses, **_BATCH)
        ax.plot(rates, losses, **_SMOOTHED)
        log_axis(ax, "x", rates)
        _cut_off(ax, losses, batch_losses)
        ax.set_xlabel("learning rate")
        header(figure, f"suggested learning rate {suggestion:.1e}", entries)
        arrange(figure)
        title_panel(ax, "loss", f"○ {text_of(loss)}", VERMILLION)
        ring(ax, suggestion, loss, VERMILLION)
    return figure


def _cut_off(axes: Axes, losses: Sequence[float], batch_losses: Sequence[float]) -> None:
    """A vertical axis for where the loss falls, not for where it diverges."""
    early = range(losses.index(min(losses)) + 1)
    values = [*(losses[i] for i in early), *(batch_losses[i] for i in early)]
    low, high = min(values), max(values)
    room = (high - low) or abs(high) or 1.0
    axes.set_ylim(low - 0.08 * room, high + 0.25 * room)
