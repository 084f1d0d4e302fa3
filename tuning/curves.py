"""The curves of trials, which lie as tables in the trials' folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import PREFIX, Outcome

from keras_transfer.curve_facts import is_rate
from keras_transfer.history_table import read_csv

FILE = "history.csv"  # of the first fold, or of the only one

Curves = tuple[dict[str, list[Any]], list[int]]  # logs by name, and the epochs, from 0


def read_curves(trials_folder: Path, outcome: Outcome) -> Curves | None:
    """Reads the curves of a trial; None if there are none.

    Raises:
        ValueError: If the table is none.
    """
    path = trials_folder / f"{PREFIX}{outcome.id}" / FILE
    return read_csv(path)[:2] if path.is_file() else None


def fold_of(outcome: Outcome) -> str:
    """Says which fold the curves of a trial are of; nothing without folds."""
    return ", fold 1" if len(outcome.folds) > 1 else ""


def epochs_run(trials_folder: Path, outcome: Outcome) -> int:
    """Returns how many epochs a trial ran, over all its folds; 0 if it left no curves."""
    folder = trials_folder / f"{PREFIX}{outcome.id}"
    return sum(len(read_csv(path)[1]) for path in folder.glob("history*.csv"))


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
