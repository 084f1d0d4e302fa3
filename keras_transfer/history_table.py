"""A history as a table in a file: a row an epoch, a column a log."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_transfer.curve_facts import Logs
from keras_transfer.whole_files import written_whole


def write_csv(history: Logs, epochs: Sequence[int], path: Path) -> None:
    """Writes a history as a table: a row an epoch, its cell empty where nothing was logged.

    Raises:
        OSError: If the file cannot be written.
    """
    columns = {"epoch": epochs, **{key: v for key, v in history.items() if key != "epoch"}}
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_csv(path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """Reads a history that `write_csv` or Keras' `CSVLogger` wrote: its logs, and its epochs.

    Raises:
        ValueError: If it is no such table.
        OSError: If it cannot be read.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, restkey="", restval=""))
    try:
        epochs = [int(row.pop("epoch")) for row in rows]
        if not epochs or any("" in row for row in rows):
            raise ValueError("no rows, or a row longer than the header")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is no history ({error}). Expected a table with the column 'epoch' and "
            "one for each log, as HistoryPlotter and Keras' CSVLogger write."
        ) from error
    return {key: [_value(row[key]) for row in rows] for key in rows[0]}, epochs


def _value(cell: str) -> Any:
    """A cell as it was: nothing, a number, or a text."""
    if cell in ("", "NA"):  # what CSVLogger writes for nothing
        return None
    try:
        return float(cell)
    except ValueError:
        return cell
