"""A history as a table in a file: a row an epoch, a column a log."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_transfer.plotting.annotations import PhaseMarker, phase_marks
from keras_transfer.plotting.curves import Logs
from keras_transfer.utils.atomic_files import text_of_cell, write_rows

# Columns of what changed in an epoch, and of why. A log of this name comes before them.
_CHANGE, _REASON = "change", "reason"
_Row = dict[str, str | None]


def write_csv(
    history: Logs, epochs: Sequence[int], path: Path, marks: Sequence[PhaseMarker] = ()
) -> None:
    """Writes a history as a table: a row an epoch, its cell empty where nothing was logged.

    Marks are two columns more, `change` and `reason`, if there are any.

    Raises:
        OSError: If the file cannot be written.
    """
    columns = {"epoch": epochs, **{key: v for key, v in history.items() if key != "epoch"}}
    if marks and not {_CHANGE, _REASON} & set(columns):
        at = {mark.epoch: mark for mark in marks}
        columns[_CHANGE] = [at[epoch].label if epoch in at else None for epoch in epochs]
        columns[_REASON] = [at[epoch].reason if epoch in at else None for epoch in epochs]
    write_rows(path, [columns, *zip(*columns.values(), strict=True)])


@dataclass(frozen=True)
class HistoryTable:
    """What a table holds.

    Attributes:
        history: Values by name of the log, one an epoch; None where a cell is empty.
        epochs: The epochs, counted from 0; none if there is no row.
        marks: What changed in which epoch.
        notes: Sentences on rows that were left out.
    """

    history: dict[str, list[Any]]
    epochs: list[int]
    marks: list[PhaseMarker]
    notes: tuple[str, ...]


def read_csv(path: Path) -> tuple[dict[str, list[Any]], list[int], list[PhaseMarker]]:
    """Reads a history that `write_csv` or Keras' `CSVLogger` wrote: logs, epochs and marks.

    Where an epoch is there again, as `CSVLogger(append=True)` leaves it after a restart, the later
    run counts from that epoch on. A last row that is not whole does not count. Both are warnings.

    Raises:
        ValueError: If it is no such table, or has no rows, or two columns have one name.
        OSError: If it cannot be read.
    """
    table = read_table(path)
    for note in table.notes:
        warnings.warn(note, stacklevel=2)
    if not table.epochs:
        raise _no_history(path, "no rows")
    return table.history, table.epochs, table.marks


def read_table(path: Path) -> HistoryTable:
    """Reads a history like `read_csv`, without warnings, also one without rows, or an empty file.

    Raises:
        ValueError: If it is no such table, or two columns have one name.
        OSError: If it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a BOM
            names, rows, torn = _rows(file.read())
        by_epoch, again = _by_epoch(rows)
    except (ValueError, csv.Error) as error:  # also UnicodeDecodeError
        raise _no_history(path, error) from error
    epochs, columns = list(by_epoch), [name for name in names if name != "epoch"]
    history = {name: [_value(row[name]) for row in by_epoch.values()] for name in columns}
    notes = tuple(f"{str(path)!r}: {note}." for note in (*torn, *again))
    return HistoryTable(history, epochs, _take_marks(history, epochs), notes)


def _no_history(path: Path, why: object) -> ValueError:
    return ValueError(
        f"{str(path)!r} is no history ({why}). Expected a table with the column 'epoch' and one "
        "for each log, separated by commas, as HistoryPlotter and Keras' CSVLogger write."
    )


def _rows(text: str) -> tuple[list[str], list[_Row], list[str]]:
    """Returns the names of the columns, the rows, and a note on a last row that is not whole."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
    reader.fieldnames = names = [text_of_cell(name) for name in reader.fieldnames or ()]
    if names and "epoch" not in names:
        raise ValueError(f"no column 'epoch', but {', '.join(map(repr, names[:5]))}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two columns are called {twice[0]!r}")
    rows = list(reader)
    if any("" in row for row in rows):
        raise ValueError("a row longer than the header")
    # Without a line break the last number may have lost digits.
    if rows and (None in rows[-1].values() or not text.endswith(("\n", "\r"))):
        rows.pop()
        return names, rows, [f"line {reader.line_num}, the last, is left out as torn"]
    return names, rows, []


def _by_epoch(rows: Sequence[_Row]) -> tuple[dict[int, _Row], list[str]]:
    """Returns the rows by epoch; where one is there again, the later run counts from it on."""
    by_epoch: dict[int, _Row] = {}
    notes = []
    for row in rows:
        epoch = int(row["epoch"] or "")
        if epoch in by_epoch:
            notes.append(f"epoch {epoch} is there again; the later run counts from there on")
            by_epoch = {earlier: by_epoch[earlier] for earlier in by_epoch if earlier < epoch}
        by_epoch[epoch] = row
    return dict(sorted(by_epoch.items())), notes


def _take_marks(history: dict[str, list[Any]], epochs: Sequence[int]) -> list[PhaseMarker]:
    """The marks, without leaving their columns among the logs."""
    changes, reasons = history.get(_CHANGE), history.get(_REASON)
    if changes is None or reasons is None or not _are_texts([*changes, *reasons]):
        return phase_marks(history, epochs)
    del history[_CHANGE], history[_REASON]
    rows = zip(epochs, changes, reasons, strict=True)
    return [PhaseMarker(epoch, change, reason or "") for epoch, change, reason in rows if change]


def _are_texts(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def _value(cell: str | None) -> Any:
    """A cell as it was: nothing, a number, or a text."""
    if cell in (None, "", "NA"):  # what CSVLogger writes for nothing
        return None
    for number in (int, float):  # so that what was a whole number is written as one again
        try:
            return number(cell)
        except ValueError:
            continue
    return text_of_cell(cell)
