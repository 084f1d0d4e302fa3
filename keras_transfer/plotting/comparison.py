"""The picture of several runs in the same panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.axes import (
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
    """One of several runs: its name, its colour and dashes, its curves, its best epoch."""

    name: str
    line: Mapping[str, Any]
    curves: Mapping[str, Curve]
    best: Best | None
    kept: Best | None  # what is ringed in its place
    note: str = ""

    @property
    def ringed(self) -> Best | None:
        return self.kept or self.best


def compare_figure(
    histories: Mapping[str, Logs],
    *,
    epochs: Mapping[str, Sequence[int]] | None = None,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    title: str | None = None,
    kept: Mapping[str, int] | None = None,
    notes: Mapping[str, str] | None = None,
    footnotes: Sequence[str] = (),
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
        notes: For runs by name, what the legend says under the name of the epoch that is ringed; a
            note may have several lines. Default: nothing.
        footnotes: Sentences below the panels, broken into lines that fit. Default: none.

    Returns:
        A figure that pyplot does not know.

    Raises:
        ValueError: If there is no run or more than can be told apart, a run has nothing to draw,
            no run logged `monitor`, or it was not logged in an epoch that was `kept`.

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
    runs = _runs(histories, epochs, monitor, mode, kept or {}, notes or {})
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
        header(figure, title or _title(runs, mode), _entries(runs), footnotes)
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
    notes: Mapping[str, str],
) -> list[_Run]:
    curves = {name: _curves(name, logs, epochs[name]) for name, logs in histories.items()}
    key = monitored_log(monitor, [key for own in curves.values() for key in own])
    runs = []
    for (name, logs), style in zip(histories.items(), RUN_LINES, strict=False):
        line = {**style, "zorder": 2 + DASHES.index(style["linestyle"]) / 100}
        best = own = None
        if key and key in logs:
            best = best_epoch(logs, epochs[name], key, mode)
            if name in kept:
                own = _at(name, curves[name][key], kept[name])
        runs.append(_Run(name, line, curves[name], best, own, notes.get(name, "")))
    return runs


def _at(name: str, curve: Curve, epoch: int) -> Best | None:
    """The point of an epoch, if it can be drawn."""
    if epoch + 1 not in curve.x:
        raise ValueError(
            f"kept[{name!r}] is {epoch}, and {curve.key} was not logged in that epoch. Expected "
            f"one from {curve.x[0] - 1} to {curve.x[-1] - 1}, counted from 0."
        )
    value = curve.at(epoch + 1)
    return None if math.isnan(value) else Best(curve.key, epoch, value)


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
    """Leaves losses outside the panel that are so high that another run would be a flat line.

    Returns:
        What the panel says of that.
    """
    drawn = [
        [y for key in (name, f"val_{name}") if key in run.curves for y in run.curves[key].y]
        for run in runs
    ]
    finite = [[y for y in values if math.isfinite(y)] for values in drawn]
    peaks = [max(map(abs, values)) for values in finite if any(values)]
    high = max((peak for peak in peaks if peak <= _FLATTENS * min(peaks)), default=0.0)
    if max(peaks, default=0.0) <= high:
        return ""
    low = min(y for values in finite for y in values)
    room = 0.05 * (high - low)
    axes.set_ylim(low - room, high + room)
    return f"values above {text_of(high)} are outside"


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


def _named(run: _Run) -> str:
    """The name, and the epoch that is ringed; with a note that is a line of its own."""
    ringed = f"○ {_best_text(run.ringed)}" if run.ringed else ""
    if not run.note:
        return "  ".join(filter(None, (run.name, ringed)))
    return f"{run.name}\n" + ", ".join(filter(None, (ringed, run.note)))


def _entries(runs: Sequence[_Run]) -> list[Entry]:
    """The legend: the runs with their best epochs, then what widths, rings and crosses mean."""
    entries: list[Entry] = [(_named(run), {**run.line, **_THICK}) for run in runs]
    keys = {key for run in runs for key in run.curves if not is_rate(key)}
    if validated := {key for key in keys if key.startswith("val_")}:
        entries.append(("validation", {"color": PALE, **_THICK}))
        if keys - validated:
            entries.append(("training", {"color": PALE, "linewidth": 1.0}))
    if any(run.kept for run in runs):
        entries.append(("epoch whose weights were kept", {"color": PALE, **RING}))
    if best := next((run.best for run in runs if run.best and not run.kept), None):
        entries.append((f"best epoch by {best.key}", {"color": PALE, **RING}))
    if any(curve.lost for run in runs for curve in run.curves.values()):
        entries.append(("not finite", {"color": INK, **CROSS}))
    return entries
