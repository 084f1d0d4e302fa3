"""The picture of a search as parallel coordinates: a line a trial, an axis a hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.curves import Mode, lower_is_better, text_of
from keras_transfer.plotting.layout import (
    Entry,
    arrange,
    blank_figure,
    fit_text,
    header,
    text_width,
)
from keras_transfer.plotting.parallel_axes import (
    NOT_SET,
    ParallelAxis,
    hyperparameter_axis,
    score_axis,
)
from keras_transfer.plotting.style import GREY, INK, SMALL, VERMILLION, figure_style
from keras_transfer.plotting.trials import Trial, best_first, trials_text, varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 12  # hyperparameters
_RIGHT = 0.8  # of the distance of two axes: room for the numbers of the score
_FEW = 30  # trials whose lines are thick
_COLOURS = "cividis"  # made for colour vision deficiencies, Nuñez et al., PLOS ONE, 2018
_WIDE, _NARROW = 96.0, 77.0  # points between two axes: of a few, and of more than nine
_BEST: dict[str, Any] = {"color": VERMILLION, "linewidth": 3.2, "marker": "o", "markersize": 6}


def parallel_figure(
    trials: Sequence[Trial], *, score_name: str = "val_loss", mode: Mode = "auto"
) -> Figure:
    """Draws a hyperparameter search as parallel coordinates.

    Each trial is a line over one axis a hyperparameter to its score, the darker the better; the
    best trial is thick and over all others. Hyperparameters that never varied and trials without
    a finite score are left out; a hyperparameter that a trial did not have stands under its axis.

    Args:
        trials: As `search_figure` takes them.
        score_name: What the score is. Default `"val_loss"`.
        mode: Whether the best score is the `"min"` or the `"max"`; `"auto"` goes by
            `score_name`. Default `"auto"`.

    Returns:
        A figure that pyplot does not know.

    Raises:
        ValueError: If no trial has a finite score or a hyperparameter, or `score_name` does not
            tell what is better.

    Example:
        >>> figure = parallel_figure(
        ...     [
        ...         {"trial": 1, "score": 0.42, "hyperparameters": {"learning_rate": 1e-3}},
        ...         {"trial": 2, "score": 0.36, "hyperparameters": {"learning_rate": 1e-4}},
        ...     ]
        ... )
    """
    lower = lower_is_better(score_name, mode)
    scored = best_first(trials, lower_is_better=lower)[::-1]  # the best last, on top of all
    names = varied(scored)
    if not names:
        raise ValueError(
            f"trials holds {len(trials)} trials, {len(scored)} of them with a finite score, and no "
            "hyperparameter of theirs. Expected one at least; draw after the first that succeeds."
        )
    axes_shown = [hyperparameter_axis(name, scored) for name in names[:_MOST]]
    scores = [trial["score"] for trial in scored]
    axes_shown.append(score_axis(score_name, scores, lower_is_better=lower))
    with figure_style():
        slot = _WIDE if len(axes_shown) <= 9 else _NARROW
        figure = blank_figure(1, 4.6, layout="constrained")
        first = [text_width(figure, text, SMALL) + 12 for _, text in axes_shown[0].ticks]
        left = min(max(0.7, *(width / slot for width in first)), 1.4)  # of the distance of two axes
        figure.set_figwidth(max(slot * (len(axes_shown) - 1 + left + _RIGHT), 440) / 72)
        axes = figure.add_subplot()
        axes.set(xlim=(-left, len(axes_shown) - 1 + _RIGHT), ylim=(NOT_SET - 0.05, 1.03), yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        heads = ["\n".join(_fitted(figure, axis.name, slot - 8)) for axis in axes_shown]
        axes.set_xticks(range(len(heads)), heads, size=9, weight="bold", color=INK)
        header(figure, _title(scored, trials, names, score_name), _entries(len(scored)))
        arrange(figure)
        _draw_lines(axes, scored, axes_shown)
        for number, axis in enumerate(axes_shown):
            room = {0: left * slot, len(heads) - 1: _RIGHT * slot}.get(number, 0.75 * slot) - 10
            _draw_axis(axes, number, axis, room, is_last=number == len(heads) - 1)
    return figure


def _fitted(figure: Figure, name: str, room: float) -> list[str]:
    """Parts a name at an underscore or space into two lines, and cuts what does not fit."""
    cuts = [place + 1 for place, letter in enumerate(name) if letter in "_ -/" and place]
    parts = [name]
    if cuts and text_width(figure, name, 9, "bold") > room:
        cut = min(cuts, key=lambda place: max(place, len(name) - place))
        parts = [name[:cut], name[cut:]]
    return [fit_text(figure, part, room, 9, "bold", least=9)[0] for part in parts]


def _draw_lines(axes: Axes, scored: Sequence[Trial], shown: Sequence[ParallelAxis]) -> None:
    """Draws a line for each trial, the best last and so on top; many are thin."""
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS]
    for row, trial in enumerate(scored):
        places = [axis.places[row] for axis in shown]
        line: dict[str, Any] = {
            "color": colours(_tone(shown[-1].places[row])),
            "linewidth": 1.6 if len(scored) <= _FEW else 0.9,
            "alpha": 0.8,
            "zorder": 2,
        }
        if trial is scored[-1]:
            line |= {**_BEST, "alpha": 1, "markeredgecolor": "white", "zorder": 4}
        axes.plot(range(len(places)), places, label=f"trial {trial['trial']}", **line)


def _tone(place: float) -> float:
    """The best is the darkest; the palest tones would be lost on white."""
    return 0.95 * (1 - place)


def _draw_axis(axes: Axes, number: int, axis: ParallelAxis, room: float, *, is_last: bool) -> None:
    """Draws the line of an axis with the values that are named."""
    from matplotlib.patheffects import withStroke

    figure: Any = axes.get_figure(root=True)
    axes.plot([number, number], [0, 1], color=GREY, linewidth=1.0, zorder=2.5)
    for place, text in axis.ticks:
        text, size = fit_text(figure, text, room, SMALL)
        axes.annotate(
            text,
            (number, place),
            (12 if is_last else -6, 0),
            textcoords="offset points",
            ha="left" if is_last else "right",
            va="center",
            size=size,
            color=INK,
            path_effects=[withStroke(linewidth=4, foreground="white", alpha=0.9)],
            zorder=6,
        )


def _title(
    scored: Sequence[Trial], trials: Sequence[Trial], names: Sequence[str], score_name: str
) -> str:
    best = scored[-1]
    title = f"best of {trials_text(len(trials))}: trial {best['trial']}"
    title += f", {score_name} {text_of(best['score'])}"
    if lost := len(trials) - len(scored):
        title += f" · {trials_text(lost)} without a score left out"
    if len(names) > _MOST:
        title += f" · {_MOST} of {len(names)} hyperparameters"
    return title


def _entries(count: int) -> list[Entry]:
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS]
    entries: list[Entry] = [("best trial", _BEST)]
    if count > 1:
        good = {"color": colours(_tone(1)), "linewidth": 1.6}
        bad = {"color": colours(_tone(0)), "linewidth": 1.6}
        entries += [("a good score", good), ("a bad score", bad)]
    return entries
