"""Changes during training: a line between two epochs, its label above the curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, pairwise
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.curves import BLOCK_RATE, Logs, is_number
from keras_transfer.plotting.layout import fit_text, size_in_points, text_width
from keras_transfer.plotting.style import FAINT, GREY, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 13.0  # points, height of one row of labels
_MOST_ROWS = 4
_ARROW = " ▸"

_Texts = tuple[int, list[str]]  # the epoch of a mark, and what may be written, the longest first


@dataclass(frozen=True)
class PhaseMarker:
    """A change during training, drawn as a labelled line between two epochs.

    Attributes:
        epoch: First epoch with the change, counted from 0 as Keras does.
        label: What changed, such as `"block5 unfrozen"`.
        reason: Why, such as `"val_loss no better for 3 epochs"`; drawn where there is room for it.
    """

    epoch: int
    label: str
    reason: str = ""


def phase_marks(history: Logs, epochs: Sequence[int]) -> list[PhaseMarker]:
    """Tells from what `BlockUnfreezer` logs when a phase began, and which blocks with it.

    Args:
        history: Values by name of the log, one an epoch.
        epochs: The epochs, counted from 0.

    Example:
        >>> phase_marks({"phase": [0, 1], "learning_rate/block5": [0.0, 1e-5]}, [0, 1])
        [PhaseMarker(epoch=1, label='block5 unfrozen', reason='')]
    """
    phases = list(history.get("phase", ()))
    marks = []
    for row, (before, after) in enumerate(pairwise(phases), start=1):
        if is_number(before) and is_number(after) and before != after:
            marks.append(PhaseMarker(epochs[row], _changes(history, row) or f"phase {after:g}"))
    return marks


def _changes(history: Logs, row: int) -> str:
    """Which blocks have a learning rate in a row and had none before, and which the reverse."""
    rates = {
        key.removeprefix(BLOCK_RATE): [bool(rate) for rate in values[row - 1 : row + 1]]
        for key, values in history.items()
        if key.startswith(BLOCK_RATE)
    }
    parts = []
    for change, what in (([False, True], "unfrozen"), ([True, False], "frozen")):
        names = [name for name, trains in rates.items() if trains == change]
        if names:
            listed = names if len(names) < 3 else [f"{names[0]} … {names[-1]}"]
            parts.append(f"{', '.join(listed)} {what}")
    return ", ".join(parts)


@dataclass(frozen=True)
class _Label:
    """A text from `start` to `end` in points from the panel's left edge, in a row."""

    text: str
    start: float
    end: float
    is_left: bool  # of its line
    row: int = 0

    def touches(self, other: _Label) -> bool:
        return self.row == other.row and self.start < other.end and self.end > other.start


def draw_marks(axes: Axes, marks: Sequence[PhaseMarker]) -> None:
    """Draws a line before the first epoch of each change."""
    for mark in marks:
        axes.axvline(mark.epoch + 0.5, color=FAINT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)


def label_marks(axes: Axes, marks: Sequence[PhaseMarker]) -> None:
    """Writes what each mark means, and why, above the curves, so that no two labels touch.

    Marks come in the order of their epochs. Where the rows are full, reasons are left out, and then
    one label stands for several marks and says how many follow.
    """
    if not marks:
        return
    reasoned = [(m.epoch, [f"{m.label}: {m.reason}"] * bool(m.reason) + [m.label]) for m in marks]
    tries = chain([reasoned], (_grouped(marks, size) for size in count(1)))
    labels = next(labels for texts in tries if (labels := _placed_all(axes, texts)))
    _, height = size_in_points(axes)
    _add_headroom(axes, ((max(label.row for label in labels) + 1) * _ROW + 4) / height)
    for label in labels:
        _write_label(axes, label, 1 - (label.row * _ROW + 1) / height)


def _grouped(marks: Sequence[PhaseMarker], size: int) -> list[_Texts]:
    """Returns the first of each `size` marks, with the number of those that follow."""
    groups = [marks[i : i + size] for i in range(0, len(marks), size)]
    more = [f" (+{len(group) - 1})" if len(group) > 1 else "" for group in groups]
    return [(g[0].epoch, [g[0].label + text]) for g, text in zip(groups, more, strict=True)]


def _placed_all(axes: Axes, marks: Sequence[_Texts]) -> list[_Label]:
    """Puts each label into the first row where it touches none; none if there are too many."""
    labels: list[_Label] = []
    for epoch, texts in marks:
        placed = _placed(axes, epoch, texts)
        tries = (replace(placed, row=row) for row in range(_MOST_ROWS))
        free = (label for label in tries if not any(map(label.touches, labels)))
        if (label := next(free, None)) is None:
            return []
        labels.append(label)
    return labels


def _placed(axes: Axes, epoch: int, texts: Sequence[str]) -> _Label:
    """Puts the first text that fits right or left of its line, or the last where it can stand."""
    figure: Any = axes.get_figure(root=True)
    room, _ = size_in_points(axes)
    left, right = axes.get_xlim()
    line = (epoch + 0.5 - left) / (right - left) * room
    for text in texts:
        width = text_width(figure, text, SMALL) + 6
        if line + width <= room:
            return _Label(text, line, line + width, is_left=False)
        width = text_width(figure, text + _ARROW, SMALL) + 6
        if line >= width:
            return _Label(text + _ARROW, line - width, line, is_left=True)
    text, _ = fit_text(figure, texts[-1], room - 20, SMALL, least=SMALL)
    width = text_width(figure, text, SMALL) + 6
    start = max(0.0, min(line, room - width))
    return _Label(text, start, start + width, is_left=False)


def _write_label(axes: Axes, label: _Label, top: float) -> None:
    room, _ = size_in_points(axes)
    left, right = axes.get_xlim()
    side = label.end if label.is_left else label.start
    axes.annotate(
        label.text,
        (left + (right - left) * side / room, top),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-3 if label.is_left else 3, 0),
        textcoords="offset points",
        ha="right" if label.is_left else "left",
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
