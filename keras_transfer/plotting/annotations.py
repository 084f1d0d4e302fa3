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
    from matplotlib.figure import Figure

_LANE = 13.0  # points, height of one row of labels
_MAX_LANES = 4
_MAX_REASONED = 6  # lanes, where labels give reasons
_ARROW = " ▸"


@dataclass(frozen=True)
class Mark:
    """A change during training, drawn as a labelled line between two epochs.

    Attributes:
        epoch: First epoch with the change, counted from 0 as Keras does.
        label: What changed, such as `"block5 unfrozen"`.
        reason: Why, such as `"val_loss no better for 3 epochs"`; drawn where there is room for it.
    """

    epoch: int
    label: str
    reason: str = ""


def phase_marks(history: Logs, epochs: Sequence[int]) -> list[Mark]:
    """Tells from what `BlockUnfreezer` logs when a phase began, and which blocks with it.

    Args:
        history: Values by name of the log, one an epoch.
        epochs: The epochs, counted from 0.

    Example:
        >>> phase_marks({"phase": [0, 1], "learning_rate/block5": [0.0, 1e-5]}, [0, 1])
        [Mark(epoch=1, label='block5 unfrozen', reason='')]
    """
    phases = list(history.get("phase", ()))
    marks = []
    for row, (before, after) in enumerate(pairwise(phases), start=1):
        if is_number(before) and is_number(after) and before != after:
            marks.append(Mark(epochs[row], _changes(history, row) or f"phase {after:g}"))
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
    """A text of one or two lines, from `start` to `end` in points from the panel's left edge."""

    text: str
    start: float
    end: float
    is_left: bool = False  # of its line
    row: int = 0

    @property
    def rows(self) -> int:
        return self.text.count("\n") + 1

    def touches(self, other: _Label) -> bool:
        above = self.row + self.rows <= other.row or other.row + other.rows <= self.row
        return not (above or self.start >= other.end or self.end <= other.start)


def draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draws a line before the first epoch of each change."""
    for mark in marks:
        axes.axvline(mark.epoch + 0.5, color=FAINT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)


def label_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Writes what each mark means, and why, above the curves, so that no two labels touch.

    Marks come in the order of their epochs. Where the rows are full, reasons that were given before
    are left out, then all, and then one label stands for several marks and says how many follow.
    """
    if not marks:
        return
    plain = [replace(mark, reason="") for mark in marks]
    tries = chain(
        ((some, _MAX_REASONED) for some in (marks, _new_only(marks))),
        ((_grouped(plain, size), _MAX_LANES) for size in count(1)),
    )
    labels = next(found for some, most in tries if (found := _all(axes, some, most)))
    _, height = size_in_points(axes)
    rows = max(label.row + label.rows for label in labels)
    _add_headroom(axes, (rows * _LANE + 4) / height)
    for label in labels:
        _write_label(axes, label, 1 - (label.row * _LANE + 1) / height)


def _new_only(marks: Sequence[Mark]) -> list[Mark]:
    """Marks with their reason, unless it is that of the mark before."""
    before = ["", *(mark.reason for mark in marks)]
    return [
        replace(mark, reason="") if mark.reason == reason else mark
        for mark, reason in zip(marks, before, strict=False)
    ]


def _grouped(marks: Sequence[Mark], size: int) -> list[Mark]:
    """The first of each `size` marks, with the number of those that follow."""
    groups = [marks[i : i + size] for i in range(0, len(marks), size)]
    more = [f" (+{len(group) - 1})" if len(group) > 1 else "" for group in groups]
    return [Mark(g[0].epoch, g[0].label + text) for g, text in zip(groups, more, strict=True)]


def _all(axes: Axes, marks: Sequence[Mark], lanes: int) -> list[_Label]:
    """Each label in the first rows where it touches none; no label if there are too many."""
    labels: list[_Label] = []
    for mark in marks:
        one = _placed(axes, mark)
        tries = (replace(one, row=row) for row in range(lanes - one.rows + 1))
        free = (label for label in tries if not any(map(label.touches, labels)))
        if (label := next(free, None)) is None:
            return []
        labels.append(label)
    return labels


def _placed(axes: Axes, mark: Mark) -> _Label:
    """Right of its line where it fits, else left of it, else as far right as it can stand.

    A reason that would not fit at the side of its line is left out.
    """
    figure: Any = axes.get_figure(root=True)
    room, _ = size_in_points(axes)
    left, right = axes.get_xlim()
    line = (mark.epoch + 0.5 - left) / (right - left) * room
    label, _ = fit_text(figure, mark.label, room - 20, SMALL, least=SMALL)
    for why in (["\n" + mark.reason] if mark.reason else []) + [""]:
        width = _width(figure, label + why)
        if line + width <= room:
            return _Label(label + why, line, line + width)
        wider = _width(figure, label + _ARROW + why)
        if line >= wider:
            return _Label(label + _ARROW + why, line - wider, line, is_left=True)
    start = max(0.0, min(line, room - width))
    return _Label(label, start, start + width)


def _width(figure: Figure, text: str) -> float:
    return max(text_width(figure, line, SMALL) for line in text.split("\n")) + 6


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
        linespacing=1.15,
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
