"""keras-transfer plot-history: draws the tables that trainings have left, without importing Keras.

keras-transfer plot-history frozen.csv fine-tuned=runs/b/history.csv -o compared.png
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_transfer.utils.console import escape_all

if TYPE_CHECKING:
    pass
from keras_transfer.plotting.plot_history import plot_history

_COMMAND = "keras-transfer plot-history"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_COMMAND,
        description="Draw the tables that HistoryPlotter and Keras' CSVLogger write, or histories "
        "that json.dump wrote: one as a picture with a diagnosis, several in the same panels.",
    )
    add = parser.add_argument
    add(
        "tables",
        nargs="+",
        metavar="[NAME=]TABLE",
        help="a .csv or .json file; NAME is for the legend",
    )
    add("-o", "--output", required=True, metavar="PICTURE", help="ends with .png, .svg or .pdf")
    add("--monitor", default="val_loss", help="the log that decides on the best epoch")
    add("--mode", choices=("auto", "min", "max"), default="auto", help="what of it is the best")
    return parser.parse_args(argv)


def named_tables(given: Sequence[str]) -> dict[str, Path]:
    """Names tables by `NAME=TABLE`, else by what tells their paths apart: the file or its folder.

    Raises:
        ValueError: If two have the same name.

    Example:
        >>> named_tables(["a/history.csv", "tuned=b/history.csv"])
        {'history': PosixPath('a/history.csv'), 'tuned': PosixPath('b/history.csv')}
    """
    pairs = [("", one) if Path(one).exists() else _split(one) for one in given]
    stems = [Path(path).stem for _, path in pairs]
    by_stem = len(set(stems)) == len(stems)
    tables: dict[str, Path] = {}
    for (name, path), stem in zip(pairs, stems, strict=True):
        key = name or (stem if by_stem else Path(path).with_suffix("").as_posix())
        if key in tables:
            raise ValueError(f"Two tables are called {key!r}. Name them apart: NAME=TABLE.")
        tables[key] = Path(path)
    return tables


def _split(one: str) -> tuple[str, str]:
    name, is_named, path = one.partition("=")
    return (name, path) if is_named else ("", one)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit status: 0, or 2 for what the user can put right."""
    escape_all()
    args = _arguments(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            tables = named_tables(args.tables)
            histories = tables if len(tables) > 1 else next(iter(tables.values()))
            plot_history(histories, args.output, monitor=args.monitor, mode=args.mode)
        except (OSError, ValueError, ImportError) as error:
            print(f"{_COMMAND}: error: {error}", file=sys.stderr)
            return 2
    print(args.output)
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line, without the place in the code."""
    print(f"{_COMMAND}: warning: {message}", file=sys.stderr)
