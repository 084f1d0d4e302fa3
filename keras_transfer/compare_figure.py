"""The picture of several runs in the same panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_transfer.curve_facts import (
    Best,
    Curve,
    Logs,
    Mode,
    best_epoch,
    curves_of,
    is_rate,
    lower_is_better,
    metric_names,
    monitored_log,
    text_of,
)
from keras_transfer.figure_layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.figure_style import CROSS, INK, PALE, RING, RUN_LINES, figure_style
from keras_transfer.panel_parts import draw_curve, draw_rate, epoch_axes, log_rates, ring

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_THIN: dict[str, Any] = {"linewidth": 1.0, "markersize": 2.5}
_THICK: dict[str, Any] = {"linewidth": 2.4}
_RATE = "learning_rate"
_FEW = 8  # of more points, dots would hide what shows through the gaps of a dashed line


@dataclass(frozen=True)
class _Run:
    """One of several runs: its name, its colour and dashes, its curves, its best epoch."""

    name: str
    line: Mapping[str, Any]
    curves: Mapping[str, Curve]
    best: Best | None


def compare_figure(
    histories: Mapping[str, Logs],
    *,
    epochs: Mapping[str, Sequence[int]] | None = None,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    title: str | None = None,
) -> Figure:
    """Draws several runs in the same panels, each in its own colour.

    Training is thin, validation thick; the legend says each run's best epoch, which is ringed.

    Args:
        histories: For each run by name, values by name of the log, one an epoch; None where
            nothing was logged. Runs may differ in length and in what they log.
        epochs: For each run by name, its epochs, counted from 0. Default: all start at 0.
        monitor: The log that decides on the best epochs. Default `"val_loss"`, which means
            `"loss"` where no run logged it.
        mode: See `history_figure`. Default `"auto"`.
        title: Default: which run is the best, and when.

    Returns:
        A figure that no pyplot knows of.

    Raises:
        ValueError: If there is no run or more than can be told apart, a run has nothing to draw,
            or no run logged `monitor`.

    Example:
        >>> figure = compare_figure(
        ...     {
        ...         "feature extraction": {"val_loss": [0.7, 0.5]},
        ...         "fine-tuning": {"val_loss": [0.6, 0.4, 0.3]},
        ...     }
        ... )
    """
    if not histories:
        raise ValueError("There is no run to draw: histories is empty. Expected one at least.")
    if len(histories) > len(RUN_LINES):
        raise ValueError(
            f"histories holds {len(histories)} runs. Expected at most {len(RUN_LINES)}, since no "
            "more lines can be told apart; draw them in several figures."
        )
    epochs = epochs or {
        name: range(max(map(len, logs.values()), default=0)) for name, logs in histories.items()
    }
    runs = _runs(histories, epochs, monitor, mode)
    keys = list(dict.fromkeys(key for run in runs for key in run.curves))
    names = metric_names(keys) + [_RATE] * (_RATE in keys)
    with figure_style():
        figure, panels = panel_grid(len(names))
        for ax, name in zip(panels, names, strict=True):
            for run in runs:
                _draw_run(ax, name, run)
        epoch_axes(panels, {epoch for name in histories for epoch in epochs[name]})
        if _RATE in keys:
            log_rates(panels[-1], [run.curves[_RATE] for run in runs if _RATE in run.curves])
        header(figure, title or _title(runs, mode), _entries(runs))
        arrange(figure)
        for ax, name in zip(panels, names, strict=True):
            title_panel(ax, "learning rate" if name == _RATE else name)
    return figure


def _runs(
    histories: Mapping[str, Logs], epochs: Mapping[str, Sequence[int]], monitor: str, mode: Mode
) -> list[_Run]:
    curves = {name: _curves(name, logs, epochs[name]) for name, logs in histories.items()}
    key = monitored_log(monitor, [key for own in curves.values() for key in own])
    bests = {
        name: best_epoch(logs, epochs[name], key, mode) if key and key in logs else None
        for name, logs in histories.items()
    }
    return [
        _Run(name, line, curves[name], bests[name])
        for name, line in zip(histories, RUN_LINES, strict=False)
    ]


def _curves(name: str, logs: Logs, epochs: Sequence[int]) -> dict[str, Curve]:
    try:
        return curves_of(logs, epochs)
    except ValueError as error:
        raise ValueError(f"Run {name!r}: {error}") from error


def _draw_run(axes: Axes, name: str, run: _Run) -> None:
    """One run in one panel: training thin, validation thick, its best epoch ringed."""
    if name == _RATE:
        if name in run.curves:
            draw_rate(axes, run.curves[name], **run.line)
        return
    for key, width in ((name, _THIN), (f"val_{name}", _THICK)):
        if key in run.curves:
            dots = {"marker": ""} if len(run.curves[key].x) > _FEW else {}
            draw_curve(axes, run.curves[key], **run.line, **width, **dots)
    if run.best is not None and run.best.key.removeprefix("val_") == name:
        ring(axes, run.best.epoch + 1, run.best.value, run.line["color"])


def _title(runs: Sequence[_Run], mode: Mode) -> str:
    found = {run.name: run.best for run in runs if run.best is not None}
    if not found:
        return f"{len(runs)} runs"
    key = next(iter(found.values())).key
    sign = 1 if lower_is_better(key, mode) else -1
    name = min(found, key=lambda name: sign * found[name].value)
    return f"best {key} {_best_text(found[name])}: {name}"


def _best_text(best: Best) -> str:
    return f"{text_of(best.value)} at epoch {best.epoch + 1}"


def _entries(runs: Sequence[_Run]) -> list[Entry]:
    """The legend: the runs with their best epochs, then what widths, rings and crosses mean."""
    entries: list[Entry] = [
        (run.name + (f"  ○ {_best_text(run.best)}" if run.best else ""), {**run.line, **_THICK})
        for run in runs
    ]
    keys = {key for run in runs for key in run.curves if not is_rate(key)}
    if validated := {key for key in keys if key.startswith("val_")}:
        entries.append(("validation", {"color": PALE, **_THICK}))
        if keys - validated:
            entries.append(("training", {"color": PALE, "linewidth": 1.0}))
    if best := next((run.best for run in runs if run.best), None):
        entries.append((f"best epoch by {best.key}", {"color": PALE, **RING}))
    if any(curve.lost for run in runs for curve in run.curves.values()):
        entries.append(("not finite", {"color": INK, **CROSS}))
    return entries
