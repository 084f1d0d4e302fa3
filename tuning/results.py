"""What a search leaves behind: a table, pictures, the exported model, a summary."""

import csv
import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.table import Table
from scores import Score
from trials import Outcome, Trials

from keras_transfer import TransferModel
from keras_transfer.plots import save_figure, search_figure

_FACTS = ("trial", "val_loss", "val_accuracy", "epoch")


def average_of_best(trials: Trials, count: int) -> tuple[Any, list[int]]:
    """Returns the average of the best trials, which errs less than the one that happened to win.

    Args:
        trials: The trials. Their best.keras is replaced by the average.
        count: How many to average at most; 1 for the winner alone.

    Returns:
        The model, and the numbers of the trials in it.
    """
    best = [outcome.trial for outcome in trials.ranked if outcome.score is not None][:count]
    if len(best) > 1:
        try:
            model, places = trials.hypermodel.average([trials.members[trial] for trial in best])
        except ValueError:  # they share nothing
            best = best[:1]
        else:
            trials.keep(model)
            best = [best[place] for place in places]
    return keras.saving.load_model(trials.output / "best.keras"), best


def print_leaderboard(trials: Trials, rows: int = 10) -> None:
    """Prints the best trials as a table."""
    ranked = trials.ranked
    names = list(ranked[0].hyperparameters)
    table = Table(*_FACTS, *names, "seconds")
    for outcome in ranked[:rows]:
        table.add_row(*map(_cell, _row(outcome, names)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def write_leaderboard(trials: Trials, path: Path) -> None:
    """Writes all trials as CSV, best first."""
    ranked = trials.ranked
    names = list(ranked[0].hyperparameters)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["trial", "val_loss", "val_accuracy", "epoch", *names, "seconds", "failure"]
        )
        for outcome in ranked:
            writer.writerow([*_row(outcome, names), outcome.failure])
    unfinished.replace(path)


def _row(outcome: Outcome, names: list[str]) -> list[Any]:
    values = [outcome.hyperparameters.get(name) for name in names]
    facts = [outcome.trial, outcome.score, outcome.accuracy, outcome.epoch]
    return [*facts, *values, round(outcome.seconds, 1)]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def draw_search(trials: Trials, path: Path) -> None:
    """Draws each trial's score against its number and its hyperparameters."""
    rows = [
        {"trial": o.trial, "score": o.score, "hyperparameters": o.hyperparameters}
        for o in trials.outcomes
    ]
    save_figure(search_figure(rows, score_name="val_loss"), path)


def export(model: TransferModel, folder: Path) -> None:
    """Exports the model as a SavedModel for raw 0..255 pixels, whole or not at all."""
    model.export(folder, verbose=False)


def write_summary(path: Path, trials: Trials, score: Score | None, facts: dict[str, Any]) -> None:
    """Writes what was searched and found, as JSON."""
    best = trials.best
    summary = {
        **facts,
        "best": asdict(best) if best else None,
        "test": {**asdict(score), "accuracy": score.accuracy} if score else None,
        "failed_trials": len(trials.failures),
        "trials": len(trials.outcomes),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "keras-tuner")},
    }
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(summary, indent=2) + "\n")
    unfinished.replace(path)
