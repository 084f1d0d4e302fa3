"""Changes during training: a line between two epochs, its label above the curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from keras_transfer.figure_layout import fit_text, size_in_points, text_width
from keras_transfer.figure_style import FAINT, GREY, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LANE = 13.0  # points, height of one row of labels
_MAX_LANES = 4
_ARROW = " ▸"


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
class _Label:
    """A text, from `start` to `end` in points from the panel's left edge."""

    text: str
    start: float
    end: float


def draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draws a line before the first epoch of each change."""
    for mark in marks:
        axes.axvline(mark.epoch + 0.5, color=FAINT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)


def label_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Writes what each mark means above the curves, in rows, so that no two labels touch.

    Marks come in the order of their epochs. Where the rows are full, one label stands for several
    marks and says how many follow.
    """
    if not marks:
        return
    rows = next(rows for size in count(1) if (rows := _rows(axes, _grouped(marks, size))))
    _, height = size_in_points(axes)
    _add_headroom(axes, (len(rows) * _LANE + 4) / height)
    for i, row in enumerate(rows):
        for label in row:
            _write_label(axes, label, 1 - (i * _LANE + 1) / height)


def _grouped(marks: Sequence[Mark], size: int) -> list[Mark]:
    """The first of each `size` marks, with the number of those that follow."""
    groups = [marks[i : i + size] for i in range(0, len(marks), size)]
    more = [f" (+{len(group) - 1})" if len(group) > 1 else "" for group in groups]
    return [Mark(g[0].epoch, g[0].label + text) for g, text in zip(groups, more, strict=True)]


def _rows(axes: Axes, marks: Sequence[Mark]) -> list[list[_Label]]:
    """Each label in the first row where it touches none; no row if there are too many."""
    rows: list[list[_Label]] = [[] for _ in range(_MAX_LANES)]
    for mark in marks:
        label = _placed(axes, mark)
        free = (r for r in rows if all(label.start >= o.end or label.end <= o.start for o in r))
        if (row := next(free, None)) is None:
            return []
        row.append(label)
    return [row for row in rows if row]


def _placed(axes: Axes, mark: Mark) -> _Label:
    """Right of its line where it fits, else left of it, else as far right as it can stand."""
    figure: Any = axes.get_figure(root=True)
    room, _ = size_in_points(axes)
    left, right = axes.get_xlim()
    line = (mark.epoch + 0.5 - left) / (right - left) * room
    text, _ = fit_text(figure, mark.label, room - 20, SMALL, least=SMALL)
    width = text_width(figure, text, SMALL) + 6
    if line + width <= room:
        return _Label(text, line, line + width)
    wider = text_width(figure, text + _ARROW, SMALL) + 6
    if line >= wider:
        return _Label(text + _ARROW, line - wider, line)
    start = max(0.0, min(line, room - width))
    return _Label(text, start, start + width)


def _write_label(axes: Axes, label: _Label, top: float) -> None:
    room, _ = size_in_points(axes)
    left, right = axes.get_xlim()
    axes.annotate(
        label.text,
        (left + (right - left) * label.start / room, top),
        xycoords=axes.get_xaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        va="top",
        size=SMALL,
        color=GREY,
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
    )


def _add_headroom(axes: Axes, share: float) -> None:
    """Raises the upper limit so that the top `share` of the panel is free of curves."""
    scale = axes.yaxis.get_transform()
    bottom, top = scale.transform(axes.get_ylim())
    top += (top - bottom) * share / (1 - min(share, 0.8))
    axes.set_ylim(top=float(scale.inverted().transform(top)))
