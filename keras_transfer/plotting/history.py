"""The picture of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.annotations import PhaseMarker, draw_marks, label_marks
from keras_transfer.plotting.axes import draw_curve, draw_rates, epoch_axes, ring, shade_between
from keras_transfer.plotting.curves import (
    Best,
    Curve,
    Logs,
    Mode,
    best_epoch,
    curves_of,
    is_rate,
    metric_names,
    text_of,
)
from keras_transfer.plotting.diagnosis import Diagnosis, diagnose
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import BLUE, CROSS, INK, RING, VERMILLION, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAINING: dict[str, Any] = {"color": BLUE}
_VALIDATION: dict[str, Any] = {"color": VERMILLION, "linestyle": (0, (4, 1.5))}


def history_figure(
    history: Logs,
    epochs: Sequence[int],
    *,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    marks: Sequence[PhaseMarker] = (),
    title: str | None = None,
) -> Figure:
    """Draws one run: a panel for the loss, for each metric and for the learning rates.

    Training is solid, validation dashed, the gap between them shaded; the best epoch is ringed in
    every panel and its numbers stand in the panels' titles. Values that are not finite leave a gap
    and a cross. The title says what the losses show (`diagnose`), and a line marks where
    overfitting starts.

    Args:
        history: Values by name of the log, one an epoch; None where nothing was logged.
        epochs: The epochs, counted from 0 as Keras does; the axis counts from 1.
        monitor: The log that decides on the best epoch. Default `"val_loss"`, which means `"loss"`
            where that is not logged.
        mode: Whether the best value is the `"min"` or the `"max"`; `"auto"` goes by the log's
            name. Default `"auto"`.
        marks: Changes to draw between epochs. Default none.
        title: Default: the best epoch, and what the losses tell.

    Returns:
        A figure that pyplot does not know.

    Raises:
        ValueError: If there is nothing to draw, a log has not one value an epoch, or `monitor` is
            unknown.

    Example:
        >>> figure = history_figure(
        ...     {"loss": [0.7, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]},
        ...     epochs=[0, 1, 2],
        ...     marks=[PhaseMarker(1, "block5 unfrozen")],
        ... )
        >>> save_figure(figure, "history.png")
    """
    curves = curves_of(history, epochs)
    best = best_epoch(history, epochs, monitor, mode)
    names = metric_names(curves)
    diagnosis = diagnose(history, epochs)
    if diagnosis.kind == "overfitting" and diagnosis.epoch is not None:
        marks = [*marks, PhaseMarker(diagnosis.epoch + 1, "overfitting")]
    marks = sorted(marks, key=lambda mark: mark.epoch)
    rates = [curve for key, curve in curves.items() if is_rate(key)]
    with figure_style():
        figure, panels = panel_grid(len(names) + bool(rates))
        for ax, name in zip(panels, names, strict=False):
            _draw_metric(ax, name, curves)
        if rates:
            draw_rates(panels[-1], rates)
        epoch_axes(panels, epochs)
        for ax in panels:
            draw_marks(ax, marks)
        header(figure, title or _title(best, monitor, epochs, diagnosis), _entries(curves, best))
        arrange(figure)
        for ax, name in zip(panels, [*names, "learning rate"], strict=False):
            _ring_best(ax, name, curves, best)
        label_marks(panels[0], marks)
        for ax in panels[1:] if len(panels) <= 3 else ():
            label_marks(ax, [replace(mark, reason="") for mark in marks])
    return figure


def _draw_metric(axes: Axes, name: str, curves: Mapping[str, Curve]) -> None:
    for key, line in ((name, _TRAINING), (f"val_{name}", _VALIDATION)):
        if key in curves:
            draw_curve(axes, curves[key], **line)
    if {name, f"val_{name}"} <= set(curves):
        shade_between(axes, curves[name], curves[f"val_{name}"], color=VERMILLION)


def _ring_best(axes: Axes, name: str, curves: Mapping[str, Curve], best: Best | None) -> None:
    """Rings the best epoch on the curve of the monitored kind and names the panel."""
    validated = best is not None and best.key.startswith("val_")
    curve = curves.get(f"val_{name}" if validated else name)
    value = curve.at(best.epoch + 1) if curve and best else math.nan
    if best is None or math.isnan(value):
        title_panel(axes, name)
        return
    ring(axes, best.epoch + 1, value, INK)
    title_panel(axes, name, f"○ {text_of(value)}", VERMILLION if validated else BLUE)


def _title(best: Best | None, monitor: str, epochs: Sequence[int], diagnosis: Diagnosis) -> str:
    if best is None:
        count = f"{len(epochs)} {'epoch' if len(epochs) == 1 else 'epochs'}"
        return f"no finite {monitor} in {count} · {diagnosis}"
    which = f"best epoch {best.epoch + 1} of {max(epochs) + 1}"
    return f"{which}: {best.key} {text_of(best.value)} · {diagnosis}"


def _entries(curves: Mapping[str, Curve], best: Best | None) -> list[Entry]:
    """Returns a legend of what the picture shows."""
    metrics = [key for key in curves if not is_rate(key)]
    every = (
        (any(not key.startswith("val_") for key in metrics), "training", _TRAINING),
        (any(key.startswith("val_") for key in metrics), "validation", _VALIDATION),
        (best is not None, "best epoch", {"color": INK, **RING}),
        (any(curve.lost for curve in curves.values()), "not finite", {"color": INK, **CROSS}),
    )
    return [(name, line) for is_shown, name, line in every if is_shown]
