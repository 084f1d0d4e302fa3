"""The picture of ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from keras_transfer.evaluation.metrics import MOST_DRAWN, ClassNumbers, Curve, ReportNumbers
from keras_transfer.plotting.layout import Entry, arrange, header, panel_grid, title_panel
from keras_transfer.plotting.style import FAINT, INK, PALE, RUN_LINES, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EACH = 6  # classes up to which each has a colour of its own
_NAMED = 3  # of more classes, so many are named: those of the lowest average precision
_MEAN: dict[str, Any] = {"color": INK, "linewidth": 2.6}
_CHANCE: dict[str, Any] = {"color": PALE, "linestyle": (0, (1, 2)), "linewidth": 1.2}
_THIN: dict[str, Any] = {"color": FAINT, "linewidth": 0.6, "alpha": 0.6}

Kind = Literal["roc", "precision_recall"]


def score_figure(numbers: ReportNumbers) -> Figure:
    """Draws ROC and precision-recall curves side by side.

    Of two classes the curve of the second; of more those of each class against the rest and their
    mean. Of more than six classes three have names: those of the lowest average precision; of more
    than 100 no others are shown.

    Args:
        numbers: Those of a report.

    Returns:
        A figure that no pyplot knows of.

    Raises:
        ValueError: If there is no curve, since the images are of one class only.

    Example:
        >>> figure = score_figure(report_numbers(true, probabilities, ["cat", "dog"]))
    """
    if numbers.roc is None or numbers.precision_recall is None:
        raise ValueError("All images are of one class. Curves need images of two at least.")
    lines = _lines(numbers)
    with figure_style():
        figure, (roc, precision) = panel_grid(2)
        _draw(roc, numbers, "roc", lines)
        _draw(precision, numbers, "precision_recall", lines)
        roc.plot([0, 1], [0, 1], label="chance", **_CHANCE)
        if len(numbers.classes) == 2:
            share = numbers.classes[1].images / numbers.images
            precision.plot([0, 1], [share, share], label="chance", **_CHANCE)
        roc.set(xlabel="share of other images taken for it", ylabel="recall")
        precision.set(xlabel="recall", ylabel="precision")
        header(figure, _title(numbers), _entries(numbers, lines))
        arrange(figure)
        title_panel(roc, "ROC", f"area {numbers.roc.area:.3f}")
        area = numbers.precision_recall.area
        title_panel(precision, "precision and recall", f"average precision {area:.3f}")
    return figure


def _lines(numbers: ReportNumbers) -> Mapping[str, Mapping[str, Any]]:
    """The look of each class's line, the plain ones first, so that they lie below."""
    classes = [one for one in _drawn(numbers) if one.precision_recall is not None]
    if len(classes) <= _EACH:
        return dict(zip((one.name for one in classes), RUN_LINES, strict=False))
    ranked = sorted(classes, key=_average_precision)
    named = dict(zip((one.name for one in ranked[:_NAMED]), RUN_LINES[1:], strict=False))
    others = classes if len(classes) <= MOST_DRAWN else ()
    return {**{one.name: _THIN for one in others}, **dict(reversed(named.items()))}


def _drawn(numbers: ReportNumbers) -> Sequence[ClassNumbers]:
    return numbers.classes[1:] if len(numbers.classes) == 2 else numbers.classes


def _average_precision(one: ClassNumbers) -> float:
    return one.precision_recall.area if one.precision_recall else 1.0


def _draw(
    axes: Axes, numbers: ReportNumbers, kind: Kind, lines: Mapping[str, Mapping[str, Any]]
) -> None:
    curves = {one.name: getattr(one, kind) for one in numbers.classes}
    for number, (name, line) in enumerate(lines.items()):
        _plot(axes, curves[name], kind, label=name, zorder=2 + number / 1000, **line)
    if len(lines) > 1:
        _plot(axes, getattr(numbers, kind), kind, label="mean of the classes", zorder=4, **_MEAN)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def _plot(axes: Axes, curve: Curve, kind: Kind, **line: Any) -> None:
    # Between two thresholds the precision does not lie on the line that joins them.
    style: dict[str, Any] = {"drawstyle": "steps-pre"} if kind == "precision_recall" else {}
    axes.plot(curve.x, curve.y, **style, **line)


def _title(numbers: ReportNumbers) -> str:
    if len(numbers.classes) == 2:
        return f"{numbers.classes[1].name} told from {numbers.classes[0].name}"
    of_all = f"; the lowest {_NAMED} of {len(numbers.classes):,}"
    shown = of_all if len(numbers.classes) > MOST_DRAWN else ""
    return f"each class told from all others{shown}"


def _entries(numbers: ReportNumbers, lines: Mapping[str, Mapping[str, Any]]) -> list[Entry]:
    """The legend: what has a colour of its own, then what the others mean."""
    areas = {one.name: _average_precision(one) for one in numbers.classes}
    own = sorted((name for name, line in lines.items() if line is not _THIN), key=areas.__getitem__)
    is_ranked = len(lines) > _EACH or len(numbers.classes) > MOST_DRAWN
    ranked = own if is_ranked else list(lines)
    entries: list[Entry] = [
        (f"{name} (average precision {areas[name]:.2f})", lines[name]) for name in ranked
    ]
    if len(lines) == 1:
        entries = [(name, line) for name, line in lines.items()]
    else:
        entries.append(("mean of the classes", _MEAN))
    if len(lines) > _EACH:
        entries.append((f"the other {len(lines) - len(own)} classes", _THIN))
    return [*entries, ("chance", _CHANCE)]
