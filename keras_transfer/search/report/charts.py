"""The charts of a search's page, each with what it shows in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.evaluation.page import Chart
from keras_transfer.evaluation.report_files import png_chart
from keras_transfer.plotting.comparison import compare_figure
from keras_transfer.plotting.parallel_coordinates import parallel_figure
from keras_transfer.plotting.search import importance_figure, search_figure
from keras_transfer.plotting.trials import varied, with_score
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.curves import curves_of
from keras_transfer.search.report.importance import Importance
from keras_transfer.search.report.leaderboard import as_trials, ranked, score_text
from keras_transfer.search.state.outcome import Outcome

CHARTS = ("search", "parallel", "importance", "best_five")
_CURVES = 5


def search_charts(
    outcomes: Sequence[Outcome], objective: Objective, found: Importance, trials_folder: Path
) -> dict[str, Chart]:
    """Draws what can be drawn of a search, by the names in `CHARTS`.

    Args:
        outcomes: The outcomes of all trials.
        objective: What the search aimed at.
        found: The importance of each hyperparameter.
        trials_folder: The folder with the curves of the trials.
    """
    trials = as_trials(outcomes)
    score: dict[str, Any] = {"score_name": objective.name, "mode": objective.mode}
    charts = {}
    if trials:
        words = f"{objective.name} of each trial, and against each hyperparameter."
        charts["search"] = png_chart("search", search_figure(trials, **score), words)
    if varied(with_score(trials)):
        words = "A line for each trial over all hyperparameters to its score; the best is thick."
        charts["parallel"] = png_chart("parallel", parallel_figure(trials, **score), words)
    if found.of:
        title = f"importance from {found.trials} trials · out-of-bag R² {found.r2:.2f}"
        words = "A bar for each hyperparameter; the table below has the same numbers."
        figure = importance_figure(found.of, title=title)
        charts["importance"] = png_chart("importance", figure, words)
    best = [one for one in ranked(outcomes, objective) if one.score is not None][:_CURVES]
    curves = curves_of(trials_folder, best)
    if curves:
        logs: Mapping[str, Mapping[str, list]] = {name: one for name, (one, _) in curves.items()}
        figure = compare_figure(
            logs,
            epochs={name: epochs for name, (_, epochs) in curves.items()},
            monitor=_monitor(objective, logs),
            mode=objective.mode,
            # With folds the curves are those of the first, of which another trial may be the best.
            title=f"best of the search: trial {best[0].trial}, {objective.name} "
            f"{score_text(best[0])}"
            if best[0].folds
            else None,
        )
        words = f"Curves of {', '.join(curves)}, the best epoch of each ringed."
        charts["best_five"] = png_chart("best_five", figure, words)
    return charts


def _monitor(objective: Objective, logs: Mapping[str, Mapping[str, list]]) -> str:
    """The objective; the loss of curves that another program wrote without it."""
    logged = any(objective.name in one for one in logs.values())
    return objective.name if logged else "val_loss"
