"""The picture of several runs in the same panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.axes import (
    cut_axis,
    draw_curve,
    draw_rate,
    epoch_axes,
    log_rates,
    ring,
)
from keras_transfer.plotting.curves import (
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
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import CROSS, DASHES, INK, PALE, RING, RUN_LINES, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_THIN: dict[str, Any] = {"linewidth": 1.0, "markersize": 2.5}
_THICK: dict[str, Any] = {"linewidth": 2.4}
_RATE = "learning_rate"
_FLATTENS = 8.0  # times the height of the lowest run: what is higher would make that one flat
_FEW = 8  # of more points, dots would hide what shows through the gaps of a dashed line


@dataclass(frozen=True)
class _Run:
    """One of several runs: its name, its colour and dashes, its curves, the epoch to ring."""

    name: str
    line: Mapping[str, Any]
    curves: Mapping[str, Curve]
    ringed: Best | None


def compare_figure(
    histories: Mapping[str, Logs],
    *,
    epochs: Mapping[str, Sequence[int]] | None = None,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    title: str | None = None,
    kept: Mapping[str, int] | None = None,
) -> Figure:
    """Draws several runs in the same panels, each in its own colour.

    Training is thin, validation thick; the legend says each run's best epoch, which is ringed. A
    loss far above those of another run, as of a training that diverged, leaves its panel.

    Args:
        histories: For each run by name, values by name of the log, one an epoch; None where
            nothing was logged. Runs may differ in length and in what they log.
        epochs: For each run by name, its epochs, counted from 0. Default: all start at 0.
        monitor: The log that decides on the best epochs. Default `"val_loss"`, which means
            `"loss"` where no run logged it.
        mode: See `history_figure`. Default `"auto"`.
        title: Default: which run is the best, and when.
        kept: For runs by name, the epoch whose weights were kept, counted from 0; it is ringed in
            the place of the best. Default: none.

    Returns:
        A figure that pyplot does not know.

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
    runs = _runs(histories, epochs, monitor, mode, kept or {})
    keys = list(dict.fromkeys(key for run in runs for key in run.curves))
    names = metric_names(keys) + [_RATE] * (_RATE in keys)
    with figure_style():
        figure, panels = panel_grid(len(names))
        for ax, name in zip(panels, names, strict=True):
            for run in runs:
                _draw_run(ax, name, run)
        cuts = {
            name: _cut_high(ax, name, runs)
            for ax, name in zip(panels, names, strict=True)
            if name.endswith("loss")
        }
        epoch_axes(panels, {epoch for name in histories for epoch in epochs[name]})
        if _RATE in keys:
            log_rates(panels[-1], [run.curves[_RATE] for run in runs if _RATE in run.curves])
        header(figure, title or _title(runs, mode), _entries(runs, kept or {}))
        arrange(figure)
        for ax, name in zip(panels, names, strict=True):
            title_panel(ax, "learning rate" if name == _RATE else name, cuts.get(name, ""))
    return figure


def _runs(
    histories: Mapping[str, Logs],
    epochs: Mapping[str, Sequence[int]],
    monitor: str,
    mode: Mode,
    kept: Mapping[str, int],
) -> list[_Run]:
    curves = {name: _curves(name, logs, epochs[name]) for name, logs in histories.items()}
    key = monitored_log(monitor, [key for own in curves.values() for key in own])
    runs = []
    for (name, logs), style in zip(histories.items(), RUN_LINES, strict=False):
        line = {**style, "zorder": 2 + DASHES.index(style["linestyle"]) / 100}
        ringed = best_epoch(logs, epochs[name], key, mode) if key and key in logs else None
        if ringed and name in kept:
            value = curves[name][ringed.key].at(kept[name] + 1)
            ringed = None if math.isnan(value) else Best(ringed.key, kept[name], value)
        runs.append(_Run(name, line, curves[name], ringed))
    return runs


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
    if run.ringed is not None and run.ringed.key.removeprefix("val_") == name:
        ring(axes, run.ringed.epoch + 1, run.ringed.value, run.line["color"])


def _cut_high(axes: Axes, name: str, runs: Sequence[_Run]) -> str:
    """Leaves losses outside the panel that are so high that another run would be a flat line."""
    drawn = [
        [y for key in (name, f"val_{name}") if key in run.curves for y in run.curves[key].y]
        for run in runs
    ]
    finite = [[y for y in values if math.isfinite(y)] for values in drawn]
    peaks = [max(map(abs, values)) for values in finite if any(values)]
    high = max((peak for peak in peaks if peak <= _FLATTENS * min(peaks)), default=0.0)
    if max(peaks, default=0.0) <= high:
        return ""
    cut_axis(axes, min(y for values in finite for y in values), high)
    return f"values above {text_of(high)} are outside"


def _title(runs: Sequence[_Run], mode: Mode) -> str:
    ringed = {run.name: run.ringed for run in runs if run.ringed is not None}
    if not ringed:
        return f"{len(runs)} runs"
    key = next(iter(ringed.values())).key
    sign = 1 if lower_is_better(key, mode) else -1
    name = min(ringed, key=lambda name: sign * ringed[name].value)
    return f"best {key} {_text(ringed[name])}: {name}"


def _text(best: Best) -> str:
    return f"{text_of(best.value)} at epoch {best.epoch + 1}"


def _entries(runs: Sequence[_Run], kept: Mapping[str, int]) -> list[Entry]:
    """Returns the legend: the runs, then what widths, rings and crosses mean."""
    entries: list[Entry] = [
        (f"{run.name}  ○ {_text(run.ringed)}" if run.ringed else run.name, {**run.line, **_THICK})
        for run in runs
    ]
    keys = {key for run in runs for key in run.curves if not is_rate(key)}
    if validated := {key for key in keys if key.startswith("val_")}:
        entries.append(("validation", {"color": PALE, **_THICK}))
        if keys - validated:
            entries.append(("training", {"color": PALE, "linewidth": 1.0}))
    if ringed := [run for run in runs if run.ringed]:
        best = next((run.ringed.key for run in ringed if run.ringed and run.name not in kept), "")
        meaning = f"best epoch by {best}" if best else "epoch whose weights were kept"
        entries.append((meaning, {"color": PALE, **RING}))
    if any(curve.lost for run in runs for curve in run.curves.values()):
        entries.append(("not finite", {"color": INK, **CROSS}))
    return entries
