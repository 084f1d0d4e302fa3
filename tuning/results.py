"""What a search leaves behind: a table, pictures, the exported model, a summary."""

import csv
import json
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
from outcome import Outcome
from rich.console import Console
from rich.table import Table
from scores import Score
from trials import Trials

from keras_transfer import TransferModel
from keras_transfer.plots import history_figure, save_figure, search_figure
from keras_transfer.whole_files import written_whole

_FACTS = ("trial", "val_loss", "val_accuracy", "epoch")


def average_of_best(trials: Trials, count: int) -> tuple[Any, list[int]]:
    """Returns the average of the best trials, which errs less than the one that happened to win.

    Args:
        trials: The trials. The model is written as best.keras into their folder.
        count: How many to average at most; 1 for the winner alone.

    Returns:
        The model, and the numbers of the trials in it.
    """
    best = [outcome for outcome in trials.ranked if not outcome.failed][:count]
    members = [trials.member(outcome) for outcome in best]
    try:
        model, places = trials.hypermodel.average(members)
    except ValueError:  # they share nothing
        places = (0,)
    if len(places) == 1:
        model = trials.hypermodel.model_of(members[0])
    with written_whole(trials.output / "best.keras") as temporary:
        unfinished = temporary.with_name(f"{temporary.name}.keras")  # Keras asks for the suffix
        model.save(unfinished)
        unfinished.replace(temporary)
    return keras.saving.load_model(trials.output / "best.keras"), [best[i].trial for i in places]


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
    accuracy = outcome.metrics.get("val_accuracy")
    facts = [outcome.trial, outcome.score, accuracy, outcome.epoch]
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


def draw_history(trials: Trials, path: Path) -> None:
    """Draws the curves of the best trial."""
    history, epochs = trials.history(trials.ranked[0])
    save_figure(history_figure(history, epochs, monitor=trials.objective.name), path)


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
