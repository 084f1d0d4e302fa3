"""The trials of a search in order of their scores: as a table on the screen and as a file."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_transfer.plotting.trials import Trial, varied
from keras_transfer.search.metrics import Objective
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.atomic_files import write_rows

FILE = "leaderboard.csv"
PROBE = "probe"
_FACTS = ("trial", "val_loss", "val_accuracy", "epoch")
_MORE = ("status", "score", "deviation", "folds", "seed", "id")
_WIDTH = 200  # where there is no terminal to fit the table to


def trials_of(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Returns the outcomes of trials, without that of the probe."""
    return [outcome for outcome in outcomes if outcome.trial]


def probe_of(outcomes: Iterable[Outcome]) -> Outcome | None:
    """Returns the outcome of the probe, None if there is none."""
    return next((outcome for outcome in outcomes if not outcome.trial), None)


def ranked(
    outcomes: Iterable[Outcome], objective: Objective, *, probe: bool = False
) -> list[Outcome]:
    """Returns the trials, best first, failed ones last.

    Args:
        outcomes: Of trials, and of the probe.
        objective: What makes one better than another.
        probe: Whether the probe is among them. Default `False`.

    Example:
        >>> [outcome.trial for outcome in ranked(outcomes, Objective("val_loss", "min"))]
        [7, 3, 12]
    """
    sign = 1 if objective.mode == "min" else -1
    return sorted(
        outcomes if probe else trials_of(outcomes),
        key=lambda o: (o.score is None, sign * (o.score or 0), o.trial),
    )


def best_of(outcomes: Iterable[Outcome], objective: Objective) -> Outcome | None:
    """Returns the best trial, None if none has a score."""
    first = next(iter(ranked(outcomes, objective)), None)
    return None if first is None or first.score is None else first


def as_trials(outcomes: Iterable[Outcome]) -> list[Trial]:
    """Returns the trials without the probe, in the form that figures take."""
    return [
        {"trial": o.trial, "score": o.score, "hyperparameters": o.hyperparameters}
        for o in trials_of(outcomes)
    ]


def status_of(outcome: Outcome) -> str:
    """Returns the status of an outcome as the table shows it."""
    return outcome.status if outcome.trial else PROBE


def epochs_differ(outcomes: Iterable[Outcome]) -> bool:
    """Whether some trials were allowed more epochs than others, as by Hyperband."""
    return len({outcome.epochs for outcome in trials_of(outcomes)} - {None}) > 1


def hyperparameter_names(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the names of all hyperparameters; those of the probe alone come last."""
    later = [outcome for outcome in outcomes if not outcome.trial]
    ordered = [*trials_of(outcomes), *later]
    return list(dict.fromkeys(name for outcome in ordered for name in outcome.hyperparameters))


def write_leaderboard(path: Path, outcomes: Sequence[Outcome], objective: Objective) -> None:
    """Writes all outcomes as CSV: the probe as row 0, then the best first, failed ones last.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    names = hyperparameter_names(outcomes)
    logged = dict.fromkeys(name for outcome in outcomes for name in outcome.metrics)
    metrics = [name for name in logged if name not in (*_FACTS, *_MORE, *names)]
    granted = ["epochs"] * epochs_differ(outcomes)
    table: list[list[Any]] = [
        [*_FACTS, *granted, *names, "seconds", "expected_seconds", "failure", *_MORE, *metrics]
    ]
    for one in _rows(outcomes, objective):
        values = [one.hyperparameters.get(name) for name in names]
        expected = None if one.expected is None else round(one.expected, 1)
        ends = [round(one.seconds, 1), expected, one.failure]
        more = [status_of(one), one.score, one.deviation, len(one.folds) or None]
        more += [one.seed, one.id, *(one.metrics.get(name) for name in metrics)]
        allowed = [one.epochs] if granted else []
        table.append([*_facts(one), *allowed, *values, *ends, *more])
    write_rows(path, table)


def print_leaderboard(outcomes: Sequence[Outcome], objective: Objective, rows: int = 10) -> None:
    """Prints the probe and the best trials as a table that fits the terminal.

    Args:
        outcomes: The outcomes of all trials.
        objective: What decides on their order.
        rows: How many trials at most. Default 10.
    """
    columns, cells = board(outcomes, objective)
    shown = rows + (probe_of(outcomes) is not None)
    table = Table()
    for name in columns[:-1]:
        table.add_column(Text(name), no_wrap=True)
    table.add_column(columns[-1])
    for row in cells[:shown]:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
    if len(cells) > shown:
        print(f"{len(cells) - shown} more in {FILE}.")


def board(outcomes: Sequence[Outcome], objective: Objective) -> tuple[list[str], list[list[str]]]:
    """Returns columns and rows as people read them, the hyperparameters in the last column."""
    shown = _rows(outcomes, objective)
    names = varied(as_trials(outcomes))
    logged = dict.fromkeys(name for one in shown for name in one.metrics if "val_" in name)
    metrics = [name for name in logged if name != objective.name]
    allowed = ["epochs"] * epochs_differ(shown)
    known = ["expected"] * any(one.expected is not None for one in shown)
    columns = ["trial", objective.name, *metrics, "epoch", *allowed, "seconds", *known]
    columns.append("hyperparameters")
    marks = {PROBE: f" ({PROBE})", "stopped": " (stopped)"}
    return columns, [
        [
            f"{one.trial}{marks.get(status_of(one), '')}",
            score_text(one),
            *(f"{one.metrics[m]:z.4f}" if m in one.metrics else "" for m in metrics),
            cell(one.epoch),
            *(cell(one.epochs) for _ in allowed),
            f"{one.seconds:.1f}",
            *("" if one.expected is None else f"{one.expected:.0f}" for _ in known),
            ", ".join(
                f"{n} {cell(one.hyperparameters[n])}" for n in names if n in one.hyperparameters
            ),
        ]
        for one in shown
    ]


def _rows(outcomes: Iterable[Outcome], objective: Objective) -> list[Outcome]:
    outcomes = list(outcomes)
    probe = probe_of(outcomes)
    return [*([probe] if probe else []), *ranked(outcomes, objective)]


def _facts(outcome: Outcome) -> list[Any]:
    loss, accuracy = (outcome.metrics.get(name) for name in ("val_loss", "val_accuracy"))
    return [outcome.trial, loss, accuracy, outcome.epoch]


def score_text(outcome: Outcome) -> str:
    """Formats a score, with its deviation over folds where there are any."""
    if outcome.score is None:
        return outcome.status
    deviation = "" if outcome.deviation is None else f" ± {outcome.deviation:.4f}"
    return f"{outcome.score:.4f}{deviation}"


def cell(value: Any) -> str:
    """Formats a value for a table; empty for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
