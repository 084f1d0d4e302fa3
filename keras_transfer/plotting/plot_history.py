"""plot_history: one finished fit as a picture, or several in the same panels."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.annotations import PhaseMarker, phase_marks
from keras_transfer.plotting.comparison import compare_figure
from keras_transfer.plotting.curves import Logs, Mode
from keras_transfer.plotting.figure_files import save_figure
from keras_transfer.plotting.history import history_figure
from keras_transfer.plotting.history_table import read_csv
from keras_transfer.plotting.layout import lacks_letters
from keras_transfer.utils.console import in_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Run:
    history: Logs
    epochs: Sequence[int]
    marks: Sequence[PhaseMarker] = ()


def plot_history(
    histories: Any,
    path: str | Path | None = None,
    *,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    validation_freq: int | Sequence[int] = 1,
    title: str | None = None,
) -> Figure:
    """Draws one finished fit, or several in the same panels.

    Nothing here imports Keras. The command `keras-transfer plot-history` draws files.

    Args:
        histories: What `fit` returned, its `history` (lists or arrays), a `HistoryPlotter`, the
            path of a table that this or Keras' `CSVLogger` wrote, or of a `.json` file with such a
            `history`; or a mapping from the names of several runs to these. Names that are no
            text, such as numbers, are shown as text.
        path: Where to save the figure, ending with `.png`, `.svg` or `.pdf`. Default None: it is
            not saved.
        monitor: The log that decides which epoch is the best. Default `"val_loss"`, which means
            `"loss"` where no run has such a log.
        mode: Whether its best value is the `"min"` or the `"max"`; `"auto"` goes by its name.
            Default `"auto"`.
        validation_freq: As it was given to `fit`, because Keras' history does not tell which
            epochs were validated. Default 1.
        title: Of the figure. Default: the best epoch, and what the losses of a single run tell, or
            which of several is the best.

    Returns:
        A matplotlib figure that pyplot does not know.

    Raises:
        TypeError: If `histories` is or holds something else.
        ValueError: If there is nothing to draw, a name is blank, two names read the same, `monitor`
            is unknown, a file is no history, or the numbers of values and of epochs do not go
            together.
        OSError: If a file cannot be read, or the figure not written.

    Example:
        >>> history_a = model.fit(train, validation_data=valid, epochs=10)
        >>> history_b = tuned.fit(train, validation_data=valid, epochs=20)
        >>> plot_history({"feature extraction": history_a, "fine-tuning": history_b}, "both.png")
    """
    if _is_several(histories):
        runs = {
            name: _run_of(one, validation_freq, name) for name, one in _by_text(histories).items()
        }
        names = {*runs, *(key for run in runs.values() for key in run.history)}
        figure = compare_figure(
            {name: run.history for name, run in runs.items()},
            epochs={name: run.epochs for name, run in runs.items()},
            monitor=monitor,
            mode=mode,
            title=title,
        )
    else:
        run = _run_of(histories, validation_freq, "histories")
        names = set(run.history)
        figure = history_figure(
            run.history, run.epochs, monitor=monitor, mode=mode, marks=run.marks, title=title
        )
    if path is not None:
        save_figure(figure, path)
    if lacking := sorted(filter(lacks_letters, names)):
        warnings.warn(
            f"Letters of {', '.join(map(repr, lacking))} are not in the font of the figures, which "
            "show boxes for them. Names in other letters can be read.",
            stacklevel=2,
        )
    return figure


def _is_several(histories: Any) -> bool:
    """Whether these are runs by name, and not one run's values by name of the log."""
    return isinstance(histories, Mapping) and not any(map(_are_values, histories.values()))


def _are_values(one: Any) -> bool:
    """Whether these are the values of a log: a sequence, or an array of one dimension."""
    if getattr(one, "ndim", None) == 1 and hasattr(one, "tolist"):  # by what it has, as below
        return True
    return isinstance(one, Sequence) and not isinstance(one, str)


def _by_text(histories: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns several runs by names that can be drawn: numbers and the like become text."""
    named = {in_line(str(name)): one for name, one in histories.items()}
    if len(named) < len(histories) or not all(name.strip() for name in named):
        raise ValueError(
            f"histories names runs {', '.join(map(repr, histories))}, of which one is blank or "
            "some read the same. Give each run a name of its own."
        )
    return named


def _run_of(one: Any, validation_freq: int | Sequence[int], name: str) -> _Run:
    """The numbers of one fit, None where its validation did not run."""
    # By what they have, not by class: to draw, nothing as heavy as Keras is imported.
    if isinstance(one, str | os.PathLike):
        if Path(one).suffix.lower() != ".json":
            return _Run(*_read(Path(one)))
        one = _read_json(Path(one))
    if hasattr(one, "history") and hasattr(one, "epochs"):
        return _Run(one.history, one.epochs, getattr(one, "marks", ()))
    if isinstance(getattr(one, "history", None), Mapping):
        history, epochs = one.history, getattr(one, "epoch", [])  # none before the first fit
    elif isinstance(one, Mapping) and all(map(_are_values, one.values())):
        history, epochs = one, list(range(max(map(len, one.values()), default=0)))
    else:
        raise TypeError(
            f"{name} is of type {type(one).__name__}. Expected what fit returned, its history "
            "dict, a HistoryPlotter, or the path of a file; several of them as a dict by name."
        )
    values = {key: v.tolist() if hasattr(v, "tolist") else v for key, v in history.items()}
    history = {key: _aligned(key, v, epochs, validation_freq) for key, v in values.items()}
    return _Run(history, epochs, phase_marks(history, epochs))


def _read(path: Path) -> tuple[Logs, Sequence[int], Sequence[PhaseMarker]]:
    """A table, with a warning of the columns that will be missing in the picture."""
    history, epochs, marks = read_csv(path)
    for key, values in history.items():
        if text := next((value for value in values if isinstance(value, str)), None):
            warnings.warn(
                f"{str(path)!r}: the column {key!r} is not drawn, since it holds text, such as "
                f"{text!r:.40}. Expected numbers, and empty cells where nothing was logged.",
                stacklevel=2,
            )
    return history, epochs, marks


def _read_json(path: Path) -> dict[str, list[Any]]:
    """Reads the dictionary of a history, as `json.dump` writes it."""
    why: object = "it is no dictionary of lists of numbers"
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
        if history and isinstance(history, dict) and all(map(_are_numbers, history.values())):
            return history
    except ValueError as error:  # also UnicodeDecodeError
        why = error
    raise ValueError(
        f"{str(path)!r} is no history ({why}). Expected what json.dump(fit.history, file) writes: "
        '{"loss": [0.9, 0.8], "val_loss": [0.95, 0.9]}.'
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float | None) for v in values)


def _aligned(
    key: str, values: Sequence[Any], epochs: Sequence[int], validation_freq: int | Sequence[int]
) -> Sequence[Any]:
    """The values at their epochs, where Keras' history only holds those that were validated."""
    if len(values) == len(epochs):
        return values
    validated = [epoch for epoch in epochs if _is_validated(epoch, validation_freq)]
    if not key.startswith("val_") or len(validated) != len(values):
        raise ValueError(
            f"The log {key!r} has {len(values)} values for {len(epochs)} epochs, "
            f"{len(validated)} of them validated with validation_freq={validation_freq!r}. Pass "
            "validation_freq as it was given to fit, or draw a HistoryPlotter, which knows."
        )
    at = dict(zip(validated, values, strict=True))
    return [at.get(epoch) for epoch in epochs]


def _is_validated(epoch: int, validation_freq: int | Sequence[int]) -> bool:
    """Keras' own rule (`Trainer._should_eval`), which counts epochs from 1."""
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    return epoch + 1 in validation_freq
