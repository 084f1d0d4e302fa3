"""The picture of a hyperparameter search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.axes import cross, cut_axis, log_axis, ring, whole_numbers
from keras_transfer.plotting.curves import Mode, is_finite, lower_is_better, text_of
from keras_transfer.plotting.layout import (
    Entry,
    arrange,
    fit_names,
    fit_text,
    header,
    panel_grid,
    size_in_points,
    title_panel,
)
from keras_transfer.plotting.style import (
    BLUE,
    CROSS,
    GREY,
    INK,
    PALE,
    RING,
    VERMILLION,
    figure_style,
)
from keras_transfer.plotting.trials import (
    Trial,
    best_first,
    categories_of,
    spans_powers_of_ten,
    trials_text,
    values_of,
    varied,
    with_score,
    worst_shown,
)
from keras_transfer.utils.confidence_intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_POINT: dict[str, Any] = {
    "marker": "o",
    "markersize": 6,
    "color": BLUE,
    "markeredgecolor": "white",
    "linestyle": "none",
}
_RUNNING: dict[str, Any] = {"color": PALE, "drawstyle": "steps-post"}


def search_figure(
    trials: Sequence[Trial], *, score_name: str = "val_loss", mode: Mode = "auto"
) -> Figure:
    """Draws a hyperparameter search: the score by trial, and against each hyperparameter.

    Hyperparameters that never varied are left out. Trials without a finite score are crosses in
    the first panel; those far worse than the others lie outside.

    Args:
        trials: One mapping a trial: `"trial"`, its number; `"score"`, a number, or None for a
            failed trial; `"hyperparameters"`, value by name.
        score_name: What the score is. Default `"val_loss"`.
        mode: Whether the best score is the `"min"` or the `"max"`; `"auto"` goes by
            `score_name`. Default `"auto"`.

    Returns:
        A figure that pyplot does not know.

    Raises:
        ValueError: If there is no trial, or `score_name` does not tell what is better.

    Example:
        >>> figure = search_figure(
        ...     [
        ...         {"trial": 0, "score": 0.42, "hyperparameters": {"learning_rate": 1e-3}},
        ...         {"trial": 1, "score": 0.36, "hyperparameters": {"learning_rate": 1e-4}},
        ...     ]
        ... )
    """
    if not trials:
        raise ValueError("trials is empty. Expected at least one; draw after the first trial.")
    sign = 1 if lower_is_better(score_name, mode) else -1
    scored = with_score(trials)
    best = next(iter(best_first(trials, lower_is_better=sign == 1)), None)
    names = varied(trials)
    with figure_style():
        figure, (first, *others) = panel_grid(1 + len(names))
        _draw_trials(first, trials, best, sign)
        for ax, name in zip(others, names, strict=True):
            ax.sharey(first)
            _draw_hyperparameter(ax, name, scored, best)
        for ax in (first, *others):
            _score_axis(ax, score_name)
        far = _cut_far(first, scored, sign)
        header(figure, _title(best, score_name, len(trials)), _entries(best, scored, trials))
        arrange(figure)
        title_panel(first, "trials", far)
        for ax, name in zip(others, names, strict=True):
            title_panel(ax, name)
        for ax, name in zip(others, names, strict=True):
            _name_categories(ax, categories_of(values_of(scored, name)))
    return figure


def _draw_trials(axes: Axes, trials: Sequence[Trial], best: Trial | None, sign: int) -> None:
    """The score of each trial and, as steps, the best so far."""
    scored = with_score(trials)
    numbers, scores = [t["trial"] for t in scored], [t["score"] for t in scored]
    running = [sign * best for best in accumulate((sign * score for score in scores), min)]
    axes.plot(numbers, running, **_RUNNING)
    axes.plot(numbers, scores, **_POINT)
    cross(axes, [t["trial"] for t in trials if not is_finite(t["score"])], INK)
    if best:
        ring(axes, best["trial"], best["score"], VERMILLION)
    everyone = [trial["trial"] for trial in trials]
    axes.set_xlim(min(everyone) - 0.5, max(everyone) + 0.5)
    whole_numbers(axes)
    axes.set_xlabel("trial")


def _cut_far(axes: Axes, scored: Sequence[Trial], sign: int) -> str:
    """Leaves scores far worse than the others outside the axes, and says so."""
    scores = [trial["score"] for trial in scored]
    if not scores:
        return ""
    limit = worst_shown(scores, lower_is_better=sign == 1)
    if max(sign * score for score in scores) <= sign * limit:
        return ""
    low, high = sorted((limit, min(scores, key=lambda score: sign * score)))
    cut_axis(axes, low, high)
    return f"values {'above' if sign == 1 else 'below'} {text_of(limit)} are outside"


def _draw_hyperparameter(
    axes: Axes, name: str, scored: Sequence[Trial], best: Trial | None
) -> None:
    """The score against one hyperparameter: a number's axis, or a place for each category."""
    having = [trial for trial in scored if name in trial["hyperparameters"]]
    values = values_of(having, name)
    categories = categories_of(values)
    places = [categories.index(str(value)) for value in values] if categories else values
    axes.plot(places, [trial["score"] for trial in having], **_POINT)
    if best in having:
        ring(axes, places[having.index(best)], best["score"], VERMILLION)
    if categories:
        axes.set_xlim(-0.5, len(categories) - 0.5)
        axes.set_xticks([0], ["x"])  # keeps room for the names, which are fitted later
    elif spans_powers_of_ten(name, values):
        log_axis(axes, "x", values)
    else:
        axes.margins(x=0.08)
        if values and all(float(value).is_integer() for value in values):
            whole_numbers(axes)


def _name_categories(axes: Axes, categories: Sequence[str]) -> None:
    """Shortens the categories' names until they stand beside each other."""
    if categories:
        figure: Any = axes.get_figure(root=True)
        slot = size_in_points(axes)[0] / len(categories) - 4
        fitted = [fit_text(figure, name, slot, 8.5) for name in categories]
        axes.set_xticks(range(len(fitted)), [name for name, _ in fitted])
        axes.tick_params(axis="x", labelsize=min(size for _, size in fitted))


def _score_axis(axes: Axes, score_name: str) -> None:
    """Names and numbers the shared score axis at the left of each row only."""
    spec: Any = axes.get_subplotspec()
    if spec.is_first_col():
        axes.set_ylabel(score_name)
    else:
        axes.tick_params(axis="y", labelleft=False)


def _title(best: Trial | None, score_name: str, trials: int) -> str:
    count = trials_text(trials)
    if best is None:
        return f"no finite {score_name} in {count}"
    return f"best of {count}: trial {best['trial']}, {score_name} {text_of(best['score'])}"


def _entries(best: Trial | None, scored: Sequence[Trial], trials: Sequence[Trial]) -> list[Entry]:
    ring_line = {"color": VERMILLION, **RING}
    found: list[Entry] = [("trial", _POINT), ("best so far", _RUNNING), ("best trial", ring_line)]
    lost: list[Entry] = [("no finite score", {"color": INK, **CROSS})]
    return found * (best is not None) + lost * (len(scored) < len(trials))


_NAME = 170.0  # points


def importance_figure(importances: Mapping[str, Estimate], *, title: str = "importance") -> Figure:
    """Draws the importance of each hyperparameter as a bar with its spread, the largest at the top.

    Args:
        importances: Importance by name: by how much an explained share of the score falls without
            it, 0..1 mostly, and the ends of its spread. Below 0 is chance.
        title: Of the figure, one line. Default `"importance"`.

    Returns:
        A figure that pyplot does not know.

    Raises:
        ValueError: If there is no hyperparameter.

    Example:
        >>> figure = importance_figure({"learning_rate": Estimate(0.61, 0.55, 0.66)})
    """
    if not importances:
        raise ValueError(
            "importances is empty. Expected one hyperparameter at least; where there are too few "
            "trials to tell, say so in words."
        )
    ordered = sorted(importances.items(), key=lambda item: -item[1].value)
    rows = range(len(ordered))
    with figure_style():
        figure, (axes,) = panel_grid(1)
        figure.set_figheight(max(4, len(ordered)) * 0.3 + 1.2)
        names = fit_names(figure, [name for name, _ in ordered], _NAME, 9)
        low, high = ([getattr(one, end) for _, one in ordered] for end in ("low", "high"))
        axes.barh(rows, [one.value for _, one in ordered], height=0.62, color=BLUE)
        axes.hlines(rows, low, high, color=INK, linewidth=1.4)
        axes.axvline(0, color=GREY, linewidth=1.0)
        axes.invert_yaxis()
        axes.set_xlim(1.12 * min(0.0, *low), 1.12 * max(0.05, *high))
        axes.set_yticks(rows, names)
        axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=INK)
        axes.grid(False, axis="y")
        for row, (_, one) in enumerate(ordered):
            place = (max(0.0, one.high), row)
            offset: Any = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{one.value:z.2f}", place, color=INK, **offset)
        axes.set_xlabel("by how much R² falls when its values are shuffled")
        header(figure, title, [])
        arrange(figure)
    return figure
