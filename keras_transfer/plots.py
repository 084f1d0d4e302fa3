"""Pure functions from numbers to matplotlib figures: a history, a comparison, a search.

Nothing here imports Keras or TensorFlow, and matplotlib only where a figure is drawn. Figures are
made without pyplot, so that no figure stays open, no display is needed and no global state changes.
"""

from __future__ import annotations

import contextlib
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Mode = Literal["auto", "min", "max"]
# One value an epoch, by the name of the log. None: not logged in that epoch. Values that are no
# numbers (a phase's name, an array of per-class scores) are allowed and not drawn.
Logs = Mapping[str, Sequence[Any]]

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
FACTS = ("epoch", "phase", "trainable_parameters")  # logged beside the curves, no curves themselves
MAX_HYPERPARAMETERS = 5

# Okabe and Ito's palette, told apart with every common colour vision deficiency.
# https://jfly.uni-koeln.de/color/
_BLUE, _VERMILLION, _GREEN = "#0072B2", "#D55E00", "#009E73"
_RUN_COLORS = (_BLUE, _VERMILLION, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_RUN_DASHES = ("-", "--", ":", "-.")
_INK, _GREY, _PALE, _FAINT = "#202124", "#5F6368", "#9AA0A6", "#B4B9BF"
_FONT = "DejaVu Sans"  # comes with matplotlib, so that widths are the same everywhere
_STYLE: dict[str, Any] = {
    "font.family": _FONT,
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,  # a metric's name may hold a dollar sign
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _GREY,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8EAED",
    "xtick.color": _PALE,
    "ytick.color": _PALE,
    "xtick.labelcolor": _GREY,
    "ytick.labelcolor": _GREY,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
}
_DPI = 120
_MARGIN = 9.0  # points between the figure's edge and its title, and between title and legend
_SMALL = 8.0  # points, size of the labels inside a panel
_LANE = 13.0  # points, height of one row of mark labels
_MAX_LANES = 4
_ARROW = " ▸"
_FEW = 20  # a curve of at most this many points shows each of them

_LOWER = re.compile(
    r"loss|error|crossentropy|divergence|hinge|poisson|perplexity|brier|log_?cosh|false_"
    r"|(^|_)(mse|mae|mape|msle|rmse|kld)($|_)"
)
_HIGHER = re.compile(
    r"acc|auc|precision|recall|sensitivity|specificity|(^|_)f\d|fbeta|iou|io_u|dice|similarity"
    r"|kappa|r2|corr|true_|score"
)


@dataclass(frozen=True)
class Mark:
    """A change during training, drawn as a labelled line between two epochs.

    Attributes:
        epoch: First epoch with the change, counted from 0 as Keras does.
        label: What changed, such as `"block5 unfrozen"`.
    """

    epoch: int
    label: str


@dataclass(frozen=True)
class Best:
    """The best epoch of a run.

    Attributes:
        key: Name of the log that decided.
        epoch: The epoch, counted from 0 as Keras does.
        value: The log's value in that epoch.
    """

    key: str
    epoch: int
    value: float


@dataclass(frozen=True)
class _Curve:
    """Points of one log's line: epochs counted from 1, and one value for each."""

    key: str
    x: tuple[int, ...]
    y: tuple[float, ...]

    def at(self, x: int) -> float | None:
        """Finite value at epoch `x`, or None."""
        value = dict(zip(self.x, self.y, strict=True)).get(x, math.nan)
        return value if math.isfinite(value) else None


# --- deciding ------------------------------------------------------------------------------------


def lower_is_better(name: str, mode: Mode = "auto") -> bool:
    """Whether the smallest value of a log or score is its best.

    Args:
        name: Name of the log, such as `"val_loss"` or `"val_auc"`.
        mode: `"min"` or `"max"` decides; `"auto"` goes by the name. Default `"auto"`.

    Returns:
        True for losses and errors, False for accuracies, AUCs and their like.

    Raises:
        ValueError: If `mode` is unknown, or `"auto"` and the name tells nothing.

    Example:
        >>> lower_is_better("val_loss"), lower_is_better("val_accuracy")
        (True, False)
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"mode={mode!r} is unknown. Expected 'auto', 'min' or 'max'.")
    if mode != "auto":
        return mode == "min"
    if _LOWER.search(name.lower()):
        return True
    if _HIGHER.search(name.lower()):
        return False
    raise ValueError(
        f"The name {name!r} does not tell whether lower or higher is better. Expected a name with "
        "'loss', 'error', 'accuracy', 'auc' or the like in it; for this one, pass mode='min' or "
        "mode='max'."
    )


def monitored_log(monitor: str, logged: Sequence[str]) -> str | None:
    """Name of the log that decides which epoch is the best.

    Args:
        monitor: Name of the wanted log. The default of all figures, `"val_loss"`, means `"loss"`
            where nothing was validated.
        logged: Names of the logs of the epochs so far.

    Returns:
        The log's name; None if it can only come with the first validation, which has not run yet
        (`validation_freq` of `fit`).

    Raises:
        ValueError: If `monitor` is not logged.

    Example:
        >>> monitored_log("val_loss", ["loss", "accuracy"])
        'loss'
    """
    if monitor in logged:
        return monitor
    if not any(key.startswith("val_") for key in logged):
        if monitor == "val_loss" and "loss" in logged:
            return "loss"
        if monitor.startswith("val_") and monitor.removeprefix("val_") in logged:
            return None
    raise ValueError(
        f"monitor={monitor!r} is not among the logs. Logged are {sorted(logged)}. Pass one of them "
        "as monitor, or let the model compute that metric (compile(metrics=...), validation_data)."
    )


def best_epoch(
    history: Logs, epochs: Sequence[int], monitor: str = "val_loss", mode: Mode = "auto"
) -> Best | None:
    """Finds the first epoch with the best finite value of the monitored log.

    Args:
        history: Values by name of the log, one an epoch.
        epochs: The epochs, counted from 0.
        monitor: The log that decides, see `monitored_log`. Default `"val_loss"`.
        mode: See `lower_is_better`. Default `"auto"`.

    Returns:
        The best epoch; None while there is no finite value.

    Raises:
        ValueError: If the log is unknown, or its name does not tell what is better.

    Example:
        >>> best_epoch({"loss": [0.5, 0.3, 0.4]}, [0, 1, 2])
        Best(key='loss', epoch=1, value=0.3)
    """
    key = monitored_log(monitor, list(history))
    if key is None:
        return None
    sign = 1 if lower_is_better(key, mode) else -1
    values = [
        (sign * value, epoch)
        for epoch, value in zip(epochs, history[key], strict=True)
        if _is_finite(value)
    ]
    if not values:
        return None
    score, epoch = min(values)
    return Best(key, epoch, float(sign * score))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_rate(key: str) -> bool:
    return key == "learning_rate" or key.startswith("learning_rate/")


def _curves(history: Logs, epochs: Sequence[int]) -> dict[str, _Curve]:
    """The logs that can be drawn: a number or nothing in each epoch."""
    for key, values in history.items():
        if len(values) != len(epochs):
            raise ValueError(
                f"The log {key!r} has {len(values)} values for {len(epochs)} epochs. Expected one "
                "an epoch; put None where nothing was logged."
            )
    curves = {}
    for key, values in history.items():
        points = [(e + 1, v) for e, v in zip(epochs, values, strict=True) if v is not None]
        if points and key not in FACTS and all(_is_number(value) for _, value in points):
            curves[key] = _Curve(
                key, tuple(x for x, _ in points), tuple(float(y) for _, y in points)
            )
    if not curves:
        raise ValueError(
            f"There is nothing to draw: the history holds {sorted(history)} in {len(epochs)} "
            "epochs. Expected at least one log with a number an epoch, such as 'loss'; draw after "
            "the first epoch."
        )
    return curves


def _metric_names(keys: Sequence[str]) -> list[str]:
    """Panels other than learning rates: losses first, training and validation under one name."""
    names = dict.fromkeys(key.removeprefix("val_") for key in keys if not _is_rate(key))
    return sorted(names, key=lambda name: name != "loss")  # stable: the others keep their order


def _text_of(value: object) -> str:
    """A value as its reader wants it: four digits for numbers."""
    if not _is_number(value) or isinstance(value, int):
        return str(value)
    number = float(value)  # type: ignore[arg-type]
    return f"{number:.4f}" if 0.001 <= abs(number) < 10 else f"{number:.4g}"


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Moves ascending positions in 0..1 apart until neighbours are `gap` from each other."""
    places = list(wanted)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    limit = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places


# --- a figure and its frame ----------------------------------------------------------------------


def _style() -> contextlib.AbstractContextManager[None]:
    """Our look, whatever the user's own style sheet says, and only while we draw."""
    import matplotlib.style

    return matplotlib.style.context(_STYLE, after_reset=True)


def _panel_grid(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels and no empty one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _columns(count)
    rows = math.ceil(count / columns)
    width = {1: 6.8, 2: 10.0, 3: 13.5, 4: 15.5, 5: 18.0}[columns]
    figure = Figure(figsize=(width, 3.3 * rows + 0.7), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(count)]
    for ax in axes:
        ax.set_title(" ", loc="left")  # keeps room for the titles, which are fitted later
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
    return figure, axes


def _columns(count: int) -> int:
    """One row up to three panels, then what leaves the fewest places of the grid empty."""
    if count <= 4:
        return (1, 2, 3, 2)[count - 1]
    return min((4, 5) if count > 9 else (3, 4), key=lambda columns: -count % columns)


def _arrange(figure: Figure) -> None:
    """Gives the panels their places for good; texts are fitted into them afterwards.

    A second layout would cost as much as drawing, and this is done after every epoch.
    """
    layout: Any = figure.get_layout_engine()
    layout.execute(figure)
    figure.set_layout_engine("none")


def _text_width(figure: Figure, text: str, size: float, weight: str = "normal") -> float:
    """Width of `text` in points."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=_FONT, size=size, weight=weight)
    canvas: Any = figure.canvas
    width, _, _ = canvas.get_renderer().get_text_width_height_descent(text, font, False)
    return float(width) * 72 / figure.dpi * 1.02  # SVG and PDF set type a little wider


def _fit(
    figure: Figure,
    text: str,
    room: float,
    size: float,
    weight: str = "normal",
    least: float = 7,
) -> tuple[str, float]:
    """Text and size that fit into `room` points: smaller first, then with its middle left out."""
    while size > least and _text_width(figure, text, size, weight) > room:
        size -= 0.5
    shown = text
    for kept in range(len(text) - 1, 1, -1):
        if _text_width(figure, shown, size, weight) <= room:
            break
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown, size


def _header(figure: Figure, title: str, entries: Sequence[tuple[Artist, str]]) -> None:
    """Puts the title and, under it, one legend for all panels above the panels."""
    width, height = (float(inches) * 72 for inches in figure.get_size_inches())
    room = width - 2 * _MARGIN
    title, size = _fit(figure, title, room, 13, "bold")
    names = [_fit(figure, name, room - 50, 9, least=9)[0] for _, name in entries]
    slot = max(_text_width(figure, name, 9) for name in names) + 48
    columns = max(1, min(len(names), int(room // slot)))
    rows = math.ceil(len(names) / columns)
    head = _MARGIN + 16 + _MARGIN + 14 * rows
    total = height + head - (_MARGIN + 16 + _MARGIN + 14)  # more rows make the figure taller
    figure.set_size_inches(width / 72, total / 72)
    figure.text(
        _MARGIN / width, 1 - _MARGIN / total, title, size=size, weight="bold", ha="left", va="top"
    )
    figure.legend(
        [handle for handle, _ in entries],
        names,
        loc="upper left",
        bbox_to_anchor=(_MARGIN / width, 1 - (_MARGIN + 16 + _MARGIN) / total),
        ncols=columns,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.4,
        columnspacing=2.0,
    )
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, 1 - head / total))


def _size_in_points(axes: Axes) -> tuple[float, float]:
    box = axes.get_window_extent()
    dpi = axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    return box.width * 72 / dpi, box.height * 72 / dpi


def _title_panel(axes: Axes, name: str, note: str, color: str) -> None:
    """The panel's name on the left and its value at the best epoch on the right."""
    figure: Any = axes.get_figure(root=True)
    room, _ = _size_in_points(axes)
    note, note_size = _fit(figure, note, room * 0.6, 9)
    left = room - (_text_width(figure, note, note_size) + 10 if note else 0)
    name, name_size = _fit(figure, name, left, 10.5, "bold")
    axes.set_title(name, loc="left", size=name_size, weight="bold")
    if note:
        axes.set_title(note, loc="right", size=note_size, color=color)


def _entry(label: str, **line: Any) -> tuple[Artist, str]:
    from matplotlib.lines import Line2D

    return Line2D([], [], **line), label


_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "none",
    "markeredgewidth": 1.8,
    "linestyle": "none",
}
_WHOLE_NUMBERS: dict[str, Any] = {
    "nbins": 8,
    "steps": [1, 2, 5, 10],
    "integer": True,
    "min_n_ticks": 1,
}
_CROSS: dict[str, Any] = {"marker": "x", "markersize": 6, "linestyle": "none"}


# --- curves over epochs --------------------------------------------------------------------------


def _draw_curve(axes: Axes, curve: _Curve, **line: Any) -> bool:
    """Draws a curve with a gap, and a cross at the panel's upper edge, where it is not finite.

    Returns:
        Whether there was such a place.
    """
    finite = [value if math.isfinite(value) else math.nan for value in curve.y]
    marker = "o" if len(curve.x) <= _FEW else ""
    axes.plot(curve.x, finite, label=curve.key, **{"marker": marker, "markersize": 4, **line})
    lost = [x for x, value in zip(curve.x, finite, strict=True) if math.isnan(value)]
    _cross(axes, lost, line["color"])
    return bool(lost)


def _cross(axes: Axes, places: Sequence[float], color: str) -> None:
    """Crosses at the panel's upper edge; even no cross would widen the layout, so none is none."""
    if places:
        edge = [0.98] * len(places)
        line = {**_CROSS, "color": color, "transform": axes.get_xaxis_transform()}
        axes.plot(places, edge, **line, clip_on=False, in_layout=False)


def _ring(axes: Axes, x: float, y: float, color: str) -> None:
    """Rings a point, with a white halo that lifts the ring from a dense curve."""
    halo = {**_RING, "markeredgewidth": 4.5}
    for line in (
        *axes.plot([x], [y], **halo, color="white", alpha=0.9, zorder=4),
        *axes.plot([x], [y], **_RING, color=color, zorder=5),
    ):
        line.set(clip_on=False, in_layout=False)


def _epoch_axes(panels: Sequence[Axes], epochs: Iterable[int]) -> None:
    """Whole epochs, counted from 1; named under the lowest panel of each column."""
    from matplotlib.ticker import MaxNLocator

    shown = sorted(epochs)
    for ax in panels:
        ax.set_xlim(shown[0] + 0.5, shown[-1] + 1.5)
        ax.xaxis.set_major_locator(MaxNLocator(**_WHOLE_NUMBERS))
    for ax in panels[-_columns(len(panels)) :]:
        ax.set_xlabel("epoch")


def _log_axis(axes: Axes, side: Literal["x", "y"], values: Sequence[float]) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 where powers of ten would be too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values) / 1.6, max(values) * 1.6
    subs = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0)
    axes.set(**{f"{side}scale": "log", f"{side}lim": (low, high)})
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power_text(value)))


def _power_text(value: float, digits: int = 1) -> str:
    """A number as it is typed: `1e-4` and not 10⁻⁴ or 0.0001."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _draw_rates(axes: Axes, rates: Mapping[str, _Curve]) -> None:
    """Learning rates as steps on a logarithmic axis."""
    for curve, color in zip(rates.values(), _rate_colors(len(rates)), strict=True):
        marker = "o" if len(curve.x) == 1 else ""
        _draw_curve(axes, curve, color=color, drawstyle="steps-mid", marker=marker)
    _log_rates(axes, rates.values())


def _rate_colors(count: int) -> tuple[str, ...]:
    return (_INK, *_RUN_COLORS[:-1] * count)[:count]


def _log_rates(axes: Axes, rates: Iterable[_Curve]) -> None:
    values = [y for curve in rates for y in curve.y if math.isfinite(y) and y > 0]
    if values:  # a rate that is always zero keeps a linear axis
        _log_axis(axes, "y", values)


def _name_rates(axes: Axes, rates: Mapping[str, _Curve]) -> list[Annotation]:
    """If there are several rates, writes their names beside the panel, for `_level_names`."""
    return [
        axes.annotate(
            "base" if key == "learning_rate" else key.removeprefix("learning_rate/"),
            (1, 0.5),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            size=_SMALL,
            color=color,
        )
        for key, color in zip(rates, _rate_colors(len(rates)), strict=True)
        if len(rates) > 1
    ]


def _level_names(names: Sequence[Annotation], axes: Axes, rates: Mapping[str, _Curve]) -> None:
    """Moves each name level with the end of its line, and apart from its neighbours."""
    ends = [_end_of(axes, curve) for curve in rates.values()]
    order = sorted(range(len(names)), key=ends.__getitem__)
    gap = min(11 / _size_in_points(axes)[1], 1 / max(len(names), 1))
    for i, place in zip(order, _spread([ends[i] for i in order], gap), strict=True):
        names[i].xy = (1, place)


def _end_of(axes: Axes, curve: _Curve) -> float:
    """Height, as a share of the panel's, at which a rate's last drawn value stands."""
    shown = [y for y in curve.y if math.isfinite(y) and y > 0]
    if not shown:
        return 0.0
    scale = axes.yaxis.get_transform()
    bottom, top, end = scale.transform([*axes.get_ylim(), shown[-1]])
    return min(max(float((end - bottom) / (top - bottom)), 0.0), 1.0)


# --- marks ---------------------------------------------------------------------------------------


def _mark_lines(axes: Axes, marks: Sequence[Mark]) -> None:
    for mark in marks:
        axes.axvline(mark.epoch + 0.5, color=_FAINT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)


@dataclass(frozen=True)
class _Label:
    """A text of a size in points, from `start` to `end` in points from the panel's left edge."""

    text: str
    size: float
    start: float
    end: float
    arrow: str  # points at the mark's line where the label stands on its left


def _place_label(figure: Figure, text: str, line: float, room: float) -> _Label:
    """Right of its line where it fits, else left of it, else as far right as it can stand."""
    text, size = _fit(figure, text, room - 20, _SMALL)
    width = _text_width(figure, text, size) + 6
    if line + width <= room:
        return _Label(text, size, line, line + width, "")
    wider = _text_width(figure, text + _ARROW, size) + 6
    if line >= wider:
        return _Label(text, size, line - wider, line, _ARROW)
    start = max(0.0, min(line, room - width))
    return _Label(text, size, start, start + width, "")


def _place_labels(axes: Axes, marks: Sequence[Mark]) -> list[_Label]:
    figure: Any = axes.get_figure(root=True)
    room, _ = _size_in_points(axes)
    left, right = axes.get_xlim()
    lines = [(mark.epoch + 0.5 - left) / (right - left) * room for mark in marks]
    return [_place_label(figure, m.label, x, room) for m, x in zip(marks, lines, strict=True)]


def _label_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Writes what each mark means above the curves, in rows, so that no two labels touch.

    Where the rows are full, a label is left out and the one before it says how many follow.
    """
    if not marks:
        return
    labels = _place_labels(axes, marks)
    suffix = " (+00)"
    if crowded := None in _lanes(labels):
        # Measured with the longest suffix on each, so that no suffix makes two labels touch.
        labels = _place_labels(axes, [replace(m, label=m.label + suffix) for m in marks])
    lanes = _lanes(labels)
    _, height = _size_in_points(axes)
    used = 1 + max(lane for lane in lanes if lane is not None)
    _add_headroom(axes, (used * _LANE + 4) / height)
    for i, (label, lane) in enumerate(zip(labels, lanes, strict=True)):
        if lane is not None:
            hidden = _following_none(lanes, i)
            text = label.text.removesuffix(suffix) if crowded else label.text
            shown = replace(label, text=f"{text} (+{hidden})" if hidden else text)
            _write_label(axes, shown, 1 - (lane * _LANE + 1) / height)


def _lanes(labels: Sequence[_Label]) -> list[int | None]:
    """First row in which each label touches none before it; None if all rows are full there."""
    rows: list[list[_Label]] = [[] for _ in range(_MAX_LANES)]
    chosen: list[int | None] = []
    for label in labels:
        lane = next((i for i, row in enumerate(rows) if not _touches(label, row)), None)
        if lane is not None:
            rows[lane].append(label)
        chosen.append(lane)
    return chosen


def _touches(label: _Label, row: Sequence[_Label]) -> bool:
    return any(label.start < other.end and other.start < label.end for other in row)


def _following_none(lanes: Sequence[int | None], index: int) -> int:
    following = lanes[index + 1 :]
    return next((i for i, lane in enumerate(following) if lane is not None), len(following))


def _write_label(axes: Axes, label: _Label, top: float) -> None:
    room, _ = _size_in_points(axes)
    left, right = axes.get_xlim()
    axes.annotate(
        label.text + label.arrow,
        (left + (right - left) * label.start / room, top),
        xycoords=axes.get_xaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        va="top",
        size=label.size,
        color=_GREY,
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
    )


def _add_headroom(axes: Axes, share: float) -> None:
    """Raises the upper limit so that the top `share` of the panel is free of curves."""
    scale = axes.yaxis.get_transform()
    bottom, top = scale.transform(axes.get_ylim())
    top += (top - bottom) * share / (1 - min(share, 0.8))
    axes.set_ylim(top=float(scale.inverted().transform(top)))


# --- one run -------------------------------------------------------------------------------------


def history_figure(
    history: Logs,
    epochs: Sequence[int],
    *,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    marks: Sequence[Mark] = (),
) -> Figure:
    """Draws one run: a panel for the loss, for each metric and for the learning rates.

    Training is solid, validation dashed, the best epoch is ringed in every panel and its numbers
    stand in the panels' titles. Values that are not finite leave a gap and a cross.

    Args:
        history: Values by name of the log, one an epoch; None where nothing was logged.
        epochs: The epochs, counted from 0 as Keras does; the axis counts from 1.
        monitor: The log that decides on the best epoch. Default `"val_loss"`, which means `"loss"`
            where nothing was validated.
        mode: Whether the best value is the `"min"` or the `"max"`; `"auto"` goes by the log's
            name. Default `"auto"`.
        marks: Changes to draw between epochs. Default none.

    Returns:
        A figure that no pyplot knows of.

    Raises:
        ValueError: If there is nothing to draw, a log has not one value an epoch, or `monitor` is
            unknown.

    Example:
        >>> figure = history_figure(
        ...     {"loss": [0.7, 0.5, 0.4], "val_loss": [0.8, 0.6, 0.7]},
        ...     epochs=[0, 1, 2],
        ...     marks=[Mark(1, "block5 unfrozen")],
        ... )
        >>> save_figure(figure, "history.png")
    """
    curves = _curves(history, epochs)
    best = best_epoch(history, epochs, monitor, mode)
    rates = {key: curve for key, curve in curves.items() if _is_rate(key)}
    names = _metric_names(list(curves))
    marks = sorted(marks, key=lambda mark: mark.epoch)
    with _style():
        figure, panels = _panel_grid(len(names) + bool(rates))
        lost = [_draw_metric(ax, name, curves) for ax, name in zip(panels, names, strict=False)]
        if rates:
            _draw_rates(panels[-1], rates)
        rate_names = _name_rates(panels[-1], rates)
        _epoch_axes(panels, epochs)
        for ax in panels:
            _mark_lines(ax, marks)
        title = _history_title(best, monitor, len(epochs))
        _header(figure, title, _history_entries(curves, best is not None, any(lost)))
        _arrange(figure)
        for ax, name in zip(panels, [*names, "learning rate"], strict=False):
            _ring_best(ax, name, curves, best)
        for ax in panels if len(panels) <= 3 else panels[:1]:
            _label_marks(ax, marks)
        _level_names(rate_names, panels[-1], rates)
    return figure


def _draw_metric(axes: Axes, name: str, curves: Mapping[str, _Curve]) -> bool:
    lost = False
    if name in curves:
        lost |= _draw_curve(axes, curves[name], color=_BLUE)
    if f"val_{name}" in curves:
        lost |= _draw_curve(axes, curves[f"val_{name}"], color=_VERMILLION, linestyle=(0, (4, 1.5)))
    return lost


def _ring_best(axes: Axes, name: str, curves: Mapping[str, _Curve], best: Best | None) -> None:
    """Rings the best epoch on the curve of the monitored kind and names the panel."""
    validated = best is not None and best.key.startswith("val_")
    curve = curves.get(f"val_{name}" if validated else name)
    value = curve.at(best.epoch + 1) if curve and best else None
    if best is None or value is None:
        _title_panel(axes, name, "", _INK)
        return
    _ring(axes, best.epoch + 1, value, _INK)
    _title_panel(axes, name, f"○ {_text_of(value)}", _VERMILLION if validated else _BLUE)


def _history_title(best: Best | None, monitor: str, epochs: int) -> str:
    if best is None:
        return f"no finite {monitor} in {epochs} {'epoch' if epochs == 1 else 'epochs'}"
    return f"best epoch {best.epoch + 1} of {epochs}: {best.key} {_text_of(best.value)}"


def _history_entries(keys: Iterable[str], ringed: bool, lost: bool) -> list[tuple[Artist, str]]:
    metrics = [key for key in keys if not _is_rate(key)]
    entries = []
    if any(not key.startswith("val_") for key in metrics):
        entries.append(_entry("training", color=_BLUE))
    if any(key.startswith("val_") for key in metrics):
        entries.append(_entry("validation", color=_VERMILLION, linestyle=(0, (4, 1.5))))
    if not metrics:
        entries.append(_entry("learning rate", color=_INK))
    if ringed:
        entries.append(_entry("best epoch", color=_INK, **_RING))
    if lost:
        entries.append(_entry("not finite", color=_INK, **_CROSS))
    return entries


# --- several runs --------------------------------------------------------------------------------


def compare_figure(
    histories: Mapping[str, Logs],
    *,
    epochs: Mapping[str, Sequence[int]] | None = None,
    monitor: str = "val_loss",
    mode: Mode = "auto",
) -> Figure:
    """Draws several runs in the same panels, each in its own colour.

    Training is thin, validation thick; the legend says each run's best epoch, which is ringed.

    Args:
        histories: For each run by name, values by name of the log, one an epoch; None where
            nothing was logged. Runs may differ in length and in what they log.
        epochs: For each run by name, its epochs, counted from 0. Default: all start at 0.
        monitor: The log that decides on the best epochs. Default `"val_loss"`, which means
            `"loss"` where no run was validated.
        mode: See `history_figure`. Default `"auto"`.

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
    most = len(_RUN_COLORS) * len(_RUN_DASHES)
    if not 1 <= len(histories) <= most:
        raise ValueError(
            f"histories holds {len(histories)} runs. Expected 1 to {most}, which is how many lines "
            "can be told apart; draw them in several figures."
        )
    epochs = epochs or {name: range(_length(logs)) for name, logs in histories.items()}
    if set(epochs) != set(histories):
        raise ValueError(
            f"epochs is given for {sorted(epochs)}. Expected the runs {sorted(histories)}."
        )
    runs = [
        _Run(name, _line_of(i), _curves(logs, epochs[name]))
        for i, (name, logs) in enumerate(histories.items())
    ]
    keys = list(dict.fromkeys(key for run in runs for key in run.curves))
    key = monitored_log(monitor, keys)
    bests = {
        name: best_epoch(logs, epochs[name], key, mode) if key is not None and key in logs else None
        for name, logs in histories.items()
    }
    names = _metric_names(keys) + (["learning_rate"] if "learning_rate" in keys else [])
    shown = sorted({epoch for run in epochs.values() for epoch in run})
    marker = "o" if len(shown) <= _FEW else ""
    with _style():
        figure, panels = _panel_grid(len(names))
        lost = False
        for ax, name in zip(panels, names, strict=True):
            for run in runs:
                lost |= _draw_run(ax, name, run, bests[run.name], marker)
        _epoch_axes(panels, shown)
        if names[-1] == "learning_rate":
            _log_rates(panels[-1], [r.curves[names[-1]] for r in runs if names[-1] in r.curves])
        _header(figure, _compare_title(bests, mode), _compare_entries(runs, bests, lost))
        _arrange(figure)
        for ax, name in zip(panels, names, strict=True):
            _title_panel(ax, name.replace("learning_rate", "learning rate"), "", _INK)
    return figure


@dataclass(frozen=True)
class _Run:
    """One of several runs: its name, its colour and dashes, its curves."""

    name: str
    line: Mapping[str, Any]
    curves: Mapping[str, _Curve]


def _length(logs: Logs) -> int:
    return max((len(values) for values in logs.values()), default=0)


def _line_of(index: int) -> dict[str, Any]:
    dashes = _RUN_DASHES[index // len(_RUN_COLORS)]
    return {"color": _RUN_COLORS[index % len(_RUN_COLORS)], "linestyle": dashes}


def _draw_run(axes: Axes, name: str, run: _Run, best: Best | None, marker: str) -> bool:
    """One run in one panel: training thin, validation thick, its best epoch ringed.

    Returns:
        Whether a value was not finite.
    """
    lost = False
    thin: dict[str, Any] = {"linewidth": 1.0, "markersize": 2.5, "marker": marker}
    if name == "learning_rate":
        thin.update(linewidth=1.8, drawstyle="steps-mid")
    if name in run.curves:
        lost |= _draw_curve(axes, run.curves[name], **run.line, **thin)
    if f"val_{name}" in run.curves:
        lost |= _draw_curve(
            axes, run.curves[f"val_{name}"], **run.line, linewidth=2.4, marker=marker
        )
    if best is not None and best.key.removeprefix("val_") == name:
        _ring(axes, best.epoch + 1, best.value, run.line["color"])
    return lost


def _compare_title(bests: Mapping[str, Best | None], mode: Mode) -> str:
    found = {name: best for name, best in bests.items() if best is not None}
    if not found:
        return f"{len(bests)} runs"
    key = next(iter(found.values())).key
    sign = 1 if lower_is_better(key, mode) else -1
    name = min(found, key=lambda run: sign * found[run].value)
    return f"best {key}: {name}, {_text_of(found[name].value)} at epoch {found[name].epoch + 1}"


def _compare_entries(
    runs: Sequence[_Run], bests: Mapping[str, Best | None], lost: bool
) -> list[tuple[Artist, str]]:
    entries = []
    for run in runs:
        best = bests[run.name]
        note = "" if best is None else f"  ○ {_text_of(best.value)} at epoch {best.epoch + 1}"
        entries.append(_entry(run.name + note, linewidth=2.4, **run.line))
    keys = {key for run in runs for key in run.curves if not _is_rate(key)}
    if any(key.startswith("val_") for key in keys):
        entries.append(_entry("validation", color=_PALE, linewidth=2.4))
        if any(not key.startswith("val_") for key in keys):
            entries.append(_entry("training", color=_PALE, linewidth=1.0))
    if lost:
        entries.append(_entry("not finite", color=_INK, **_CROSS))
    return entries


# --- a search ------------------------------------------------------------------------------------


def search_figure(
    trials: Sequence[Mapping[str, Any]], *, score_name: str = "val_loss", mode: Mode = "auto"
) -> Figure:
    """Draws a hyperparameter search: the score by trial, and against each hyperparameter.

    Hyperparameters that never varied are left out, and so are those after the first five; the
    title says so. Trials without a finite score are crosses in the first panel.

    Args:
        trials: One mapping a trial: `"trial"`, its number; `"score"`, a number, or None for a
            failed trial; `"hyperparameters"`, value by name.
        score_name: What the score is. Default `"val_loss"`.
        mode: Whether the best score is the `"min"` or the `"max"`; `"auto"` goes by
            `score_name`. Default `"auto"`.

    Returns:
        A figure that no pyplot knows of.

    Raises:
        ValueError: If there is no trial, a trial lacks one of its entries, or `score_name` does
            not tell what is better.

    Example:
        >>> figure = search_figure(
        ...     [
        ...         {"trial": 0, "score": 0.42, "hyperparameters": {"learning_rate": 1e-3}},
        ...         {"trial": 1, "score": 0.36, "hyperparameters": {"learning_rate": 1e-4}},
        ...     ]
        ... )
    """
    _check_trials(trials)
    sign = 1 if lower_is_better(score_name, mode) else -1
    scored = [trial for trial in trials if _is_finite(trial["score"])]
    best = min(scored, key=lambda trial: sign * trial["score"], default=None)
    varied = _varied(trials)
    names = varied[:MAX_HYPERPARAMETERS]
    with _style():
        figure, panels = _panel_grid(1 + len(names))
        _draw_trials(panels[0], trials, best, sign)
        categories = []
        for ax, name in zip(panels[1:], names, strict=True):
            ax.sharey(panels[0])
            categories.append(_draw_hyperparameter(ax, name, scored, best))
        for ax in panels:
            _score_axis(ax, score_name)
        left_out = f", first {len(names)} of {len(varied)} hyperparameters"
        title = _search_title(best, score_name, len(trials))
        _header(
            figure,
            title + (left_out if len(names) < len(varied) else ""),
            _search_entries(best is not None, len(scored) < len(trials)),
        )
        _arrange(figure)
        _title_panel(panels[0], "trials", _best_text(best, "score"), _VERMILLION)
        for ax, name, own in zip(panels[1:], names, categories, strict=True):
            _title_panel(ax, name, _best_text(best, name), _VERMILLION)
            _name_categories(ax, own)
    return figure


def _check_trials(trials: Sequence[Mapping[str, Any]]) -> None:
    if not trials:
        raise ValueError("trials is empty. Expected at least one; draw after the first trial.")
    for trial in trials:
        missing = [key for key in ("trial", "score", "hyperparameters") if key not in trial]
        if missing:
            raise ValueError(
                f"The trial {dict(trial)!r} lacks {missing}. Expected 'trial', 'score' and "
                "'hyperparameters' in each."
            )


def _varied(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Hyperparameters with several values, in the order seen; all of them if none has several."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial["hyperparameters"].items():
            values.setdefault(name, set()).add(repr(value))
    return [name for name, seen in values.items() if len(seen) > 1] or list(values)


_POINT: dict[str, Any] = {
    "marker": "o",
    "markersize": 6,
    "color": _BLUE,
    "markeredgecolor": "white",
    "linestyle": "none",
}
_RUNNING: dict[str, Any] = {"color": _PALE, "drawstyle": "steps-post"}


def _draw_trials(
    axes: Axes, trials: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, sign: int
) -> None:
    """The score of each trial and, as steps, the best so far."""
    from matplotlib.ticker import MaxNLocator

    scored = [(t["trial"], float(t["score"])) for t in trials if _is_finite(t["score"])]
    numbers, scores = [number for number, _ in scored], [score for _, score in scored]
    running = [sign * best for best in accumulate((sign * score for score in scores), min)]
    axes.plot(numbers, running, **_RUNNING)
    axes.plot(numbers, scores, **_POINT)
    _cross(axes, [t["trial"] for t in trials if not _is_finite(t["score"])], _INK)
    if best:
        _ring(axes, best["trial"], best["score"], _VERMILLION)
    everyone = [trial["trial"] for trial in trials]
    axes.set_xlim(min(everyone) - 0.5, max(everyone) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(**_WHOLE_NUMBERS))
    axes.set_xlabel("trial")


def _draw_hyperparameter(
    axes: Axes, name: str, scored: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None
) -> list[str]:
    """The score against one hyperparameter: a number's axis, or a place for each category.

    Returns:
        The categories, for `_name_categories`; none for numbers.
    """
    having = [trial for trial in scored if name in trial["hyperparameters"]]
    values = [trial["hyperparameters"][name] for trial in having]
    numeric = all(map(_is_finite, values))
    categories = [] if numeric else list(dict.fromkeys(map(str, values)))
    places = values if numeric else [categories.index(str(value)) for value in values]
    axes.plot(places, [trial["score"] for trial in having], **_POINT)
    for trial, place in zip(having, places, strict=True):
        if trial is best:
            _ring(axes, place, best["score"], _VERMILLION)
    if numeric:
        _value_axis(axes, name, values)
    else:
        axes.set_xlim(-0.5, len(categories) - 0.5)
        axes.set_xticks([0], ["x"])  # keeps room for the names, which are fitted later
    return categories


def _value_axis(axes: Axes, name: str, values: Sequence[float]) -> None:
    """Logarithmic for learning rates and whatever spans more than two powers of ten."""
    from matplotlib.ticker import MaxNLocator

    if not values:
        return
    low, high = min(values), max(values)
    if low > 0 and ("learning_rate" in name or high > 100 * low):
        _log_axis(axes, "x", values)
        return
    whole = all(float(value).is_integer() for value in values)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, min_n_ticks=1))
    axes.margins(x=0.08)


def _name_categories(axes: Axes, categories: Sequence[str]) -> None:
    """Shortens the categories' names until they stand beside each other."""
    if categories:
        figure: Any = axes.get_figure(root=True)
        slot = _size_in_points(axes)[0] / len(categories) - 4
        fitted = [_fit(figure, name, slot, 8.5) for name in categories]
        axes.set_xticks(range(len(fitted)), [name for name, _ in fitted])
        axes.tick_params(axis="x", labelsize=min(size for _, size in fitted))


def _score_axis(axes: Axes, score_name: str) -> None:
    """Names and numbers the shared score axis at the left of each row only."""
    spec: Any = axes.get_subplotspec()
    if spec.is_first_col():
        axes.set_ylabel(score_name)
    else:
        axes.tick_params(axis="y", labelleft=False)


def _best_text(best: Mapping[str, Any] | None, name: str) -> str:
    """The best trial's score or hyperparameter, as a panel's title shows it."""
    if best is None or name not in {"score", *best["hyperparameters"]}:
        return ""
    if name == "score":
        return f"○ {_text_of(best['score'])}"
    value = best["hyperparameters"][name]
    return f"○ {_power_text(value, 3) if isinstance(value, float) else value}"


def _search_title(best: Mapping[str, Any] | None, score_name: str, trials: int) -> str:
    count = f"{trials} {'trial' if trials == 1 else 'trials'}"
    if best is None:
        return f"no finite {score_name} in {count}"
    return f"best of {count}: trial {best['trial']}, {score_name} {_text_of(best['score'])}"


def _search_entries(found: bool, lost: bool) -> list[tuple[Artist, str]]:
    entries = []
    if found:
        entries.append(_entry("trial", **_POINT))
        entries.append(_entry("best so far", **_RUNNING))
        entries.append(_entry("best trial", color=_VERMILLION, **_RING))
    if lost:
        entries.append(_entry("no finite score", color=_INK, **_CROSS))
    return entries


# --- files ---------------------------------------------------------------------------------------


def figure_path(path: str | Path) -> Path:
    """Checks that a figure can be saved under a path, and makes its folder.

    Args:
        path: Where a figure shall go; its suffix says the format.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix is not one of `FIGURE_SUFFIXES`.
        IsADirectoryError: If the path is a folder.
        NotADirectoryError: If a part of it that ought to be a folder is a file.

    Example:
        >>> figure_path("pictures/history.png").suffix
        '.png'
    """
    path = Path(path)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(
            f"path={str(path)!r} ends with {path.suffix!r}. Expected one of "
            f"{', '.join(FIGURE_SUFFIXES)}, which says the picture's format."
        )
    if path.is_dir():
        raise IsADirectoryError(
            f"path={str(path)!r} is a folder. Expected the name of a file; remove the folder or "
            "choose another name."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"path={str(path)!r} cannot be written: {str(path.parent)!r} is, or lies under, a "
            "file. Expected a folder; choose another path."
        ) from error
    return path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Lets a file be written under another name beside it, and puts it in place when complete.

    Args:
        path: The file to write. Its old content stays until the new one is complete.

    Yields:
        The name to write to. If the block fails, nothing is left under it.

    Example:
        >>> with written_whole(Path("history.csv")) as temporary:
        ...     temporary.write_text("epoch,loss")
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Saves a figure whole or not at all, and makes its folder if needed.

    Args:
        figure: The figure.
        path: Where it goes, ending with `.png`, `.svg` or `.pdf`.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix is none of these.
        OSError: If the file cannot be written there.

    Example:
        >>> save_figure(history_figure({"loss": [0.5, 0.4]}, [0, 1]), "pictures/history.svg")
        PosixPath('pictures/history.svg')
    """
    path = figure_path(path)
    with _style(), written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."))
    return path
