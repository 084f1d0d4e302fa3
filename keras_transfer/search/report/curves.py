"""The curves of trials, which lie as tables in the trials' folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_transfer.plotting.curves import is_rate
from keras_transfer.plotting.history_table import read_table
from keras_transfer.search.state.files import read_or_put_aside
from keras_transfer.search.state.outcome import PREFIX, Outcome

FILE = "history.csv"  # of the first fold, or of the only one

Curves = tuple[dict[str, list[Any]], list[int]]  # logs by name, and the epochs, from 0


def read_curves(trials_folder: Path, outcome: Outcome, fold: int = 0) -> Curves | None:
    """Reads the curves of a trial; None if there are none. A damaged table is put aside.

    Args:
        trials_folder: The folder of all trials.
        outcome: The outcome of the trial.
        fold: Which fold, from 0.
    """
    path = trials_folder / f"{PREFIX}{outcome.id}" / numbered(FILE, fold)
    return read_or_put_aside(path, _curves, f"trial {outcome.trial} has no curves any more")


def _curves(path: Path) -> Curves:
    table = read_table(path)
    if table.notes or not table.epochs:  # a search writes whole tables, each epoch once
        raise ValueError(table.notes[0] if table.notes else f"{str(path)!r} has no rows.")
    return table.history, table.epochs


def numbered(name: str, fold: int) -> str:
    """Returns the name of a fold's file: `history.csv`, `history-2.csv`, and so on."""
    stem, dot, suffix = name.rpartition(".")
    return name if not fold else f"{stem}-{fold + 1}{dot}{suffix}"


def fold_of(outcome: Outcome) -> str:
    """Says which fold the curves of a trial are of; nothing without folds."""
    return ", fold 1" if len(outcome.folds) > 1 else ""


def curves_of(trials_folder: Path, outcomes: Sequence[Outcome]) -> dict[str, Curves]:
    """Reads the curves of several trials, by a name of each, without their learning rates.

    Of trials with folds they are those of the first, and the name says so. What has no curves is
    left out.
    """
    found = {}
    for outcome in outcomes:
        curves = read_curves(trials_folder, outcome)
        if curves is not None:
            logs, epochs = curves
            shown = {name: values for name, values in logs.items() if not is_rate(name)}
            found[f"trial {outcome.trial}{fold_of(outcome)}"] = shown, epochs
    return found
