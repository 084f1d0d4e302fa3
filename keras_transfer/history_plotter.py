"""HistoryPlotter: the history of a fit as a picture and a table, complete after every epoch."""

from __future__ import annotations

import csv
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.plots import (
    Logs,
    Mark,
    Mode,
    compare_figure,
    figure_path,
    history_figure,
    lower_is_better,
    monitored_log,
    save_figure,
    written_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAUSE = 1.0  # seconds, at least, from one drawing to the next
_SHARE = 4  # training gets at least this many times as long as drawing


class HistoryPlotter(keras.callbacks.Callback):
    """Draws the history of a fit after every epoch, and writes it as a table.

    The picture shows training and validation in one panel for the loss and each metric, the best
    epoch, the learning rates, and where blocks of a `FrozenBackbone` were unfrozen. Beside it a
    CSV file of the same name holds the numbers: a row an epoch (counted from 0, as in Keras'
    `CSVLogger`), a column a log, empty where nothing was logged. Both are replaced whole, so that
    whoever reads them never sees half a file.

    The table is complete after every epoch. Where epochs are short, the picture is drawn at most
    once a second and in at most a fifth of the time, and always when the training ends. Once the
    first drawing succeeded, no failure to write ends the training: it is a warning.

    Put it behind callbacks that add logs, such as `ReduceLROnPlateau`, to have these in it.

    Args:
        path: The picture, ending with `.png`, `.svg` or `.pdf`. Default None: nothing is written,
            `figure()` draws.
        monitor: The log that decides which epoch is the best. Default `"val_loss"`, which means
            `"loss"` where nothing is validated.
        mode: Whether its best value is the `"min"` or the `"max"`; `"auto"` goes by its name.
            Default `"auto"`.

    Attributes:
        history: Values by name of the log, one an epoch; None where nothing was logged.
        epochs: The epochs, counted from 0.
        marks: The epochs in which other blocks were trained than in the one before.

    Raises:
        ValueError: If `monitor` does not tell what is better and `mode` does not either; when the
            training begins, if `path` has no supported suffix; after the first epoch, if `monitor`
            is not logged.
        OSError: When the training begins, if `path` cannot be a file.

    Example:
        >>> plotter = HistoryPlotter("history.png", monitor="val_accuracy")
        >>> model.fit(train, validation_data=valid, epochs=40, callbacks=[plotter])
        >>> plotter.history["val_accuracy"][-1]
        0.9375
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        monitor: str = "val_loss",
        mode: Mode = "auto",
    ) -> None:
        super().__init__()
        lower_is_better(monitor, mode)
        self.path = path
        self.monitor = monitor
        self.mode = mode
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the model: a copy belongs to no fit, and must not copy all weights."""
        return {**self.__dict__, "_model": None}

    def _begin(self) -> None:
        self.history: dict[str, list[Any]] = {}
        self.epochs: list[int] = []
        self.marks: list[Mark] = []
        self._trained: tuple[TrainedBlocks, ...] | None = None
        self._trained_before: tuple[TrainedBlocks, ...] | None = None
        self._drawn_epochs = 0
        self._next_drawing = 0.0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts anew and refuses a path that cannot be written, before the first batch."""
        self._begin()
        if self.path is not None:
            figure_path(self.path)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes, once an epoch, which blocks train in it.

        Not at the epoch's end, where another callback may already have unfrozen the next block.
        """
        if self._trained is None:
            self._trained = trained_blocks(self.model)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Collects the epoch's logs and writes the files."""
        self._collect_logs(epoch, logs or {})
        self._collect_mark(epoch)
        if len(self.epochs) == 1:
            self._check_monitor()
            self._write(drawing=True)
            return
        self._write_or_warn(drawing=time.monotonic() >= self._next_drawing)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Draws the last epochs, if the pauses between drawings left them out."""
        if self._drawn_epochs < len(self.epochs):
            self._write_or_warn(drawing=True)

    def figure(self) -> Figure:
        """Draws the epochs so far.

        Returns:
            A matplotlib figure that no pyplot knows of.

        Raises:
            ValueError: If no epoch has ended yet.

        Example:
            >>> plotter.figure().savefig("loss.png", dpi=300)
        """
        return history_figure(
            self.history, self.epochs, monitor=self.monitor, mode=self.mode, marks=self.marks
        )

    def _collect_logs(self, epoch: int, logs: Mapping[str, Any]) -> None:
        for key in logs:
            self.history.setdefault(key, [None] * len(self.epochs))
        for key, values in self.history.items():
            values.append(_plain(logs.get(key)))
        self.epochs.append(epoch)

    def _collect_mark(self, epoch: int) -> None:
        trained = self._trained or trained_blocks(self.model)
        label = describe_change(self._trained_before or trained, trained)
        if label:
            self.marks.append(Mark(epoch, label))
        self._trained_before, self._trained = trained, None

    def _check_monitor(self) -> None:
        if monitored_log(self.monitor, list(self.history)) is None:
            warnings.warn(
                f"HistoryPlotter cannot tell the best epoch yet: monitor={self.monitor!r}, and "
                f"epoch {self.epochs[0] + 1} was not validated. It can with the first validation "
                "(validation_freq of fit); without validation_data, monitor one of "
                f"{sorted(self.history)}.",
                stacklevel=2,
            )

    def _write_or_warn(self, drawing: bool) -> None:
        try:
            self._write(drawing)
        except Exception as error:  # hours of training are worth more than a picture of them
            warnings.warn(
                f"HistoryPlotter could not write {str(self.path)!r} or the table beside it: "
                f"{error!r}. The training goes on, and the next epoch tries again.",
                stacklevel=2,
            )

    def _write(self, drawing: bool) -> None:
        if self.path is None:
            return
        write_csv(self.history, self.epochs, Path(self.path).with_suffix(".csv"))
        if drawing:
            began = time.monotonic()
            # Set before drawing, so that a failure is not repeated after each short epoch.
            self._next_drawing = began + _PAUSE
            save_figure(self.figure(), self.path)
            self._drawn_epochs = len(self.epochs)
            ended = time.monotonic()
            self._next_drawing = ended + max(_PAUSE, _SHARE * (ended - began))


def _plain(value: Any) -> Any:
    """Numbers of numpy and of tensors as Python's, arrays as lists; anything else as it came."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    try:
        return np.asarray(value).tolist()
    except Exception:  # an object of some other callback, which is none of our business
        return value


def write_csv(history: Logs, epochs: Sequence[int], path: Path) -> None:
    r"""Writes a history as a table, whole or not at all.

    Args:
        history: Values by name of the log, one an epoch; None leaves its cell empty.
        epochs: The epochs; the first column, named `epoch`.
        path: The file, which is replaced.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> write_csv({"loss": [0.5, 0.4]}, [0, 1], Path("history.csv"))
        >>> Path("history.csv").read_text()
        'epoch,loss\n0,0.5\n1,0.4\n'
    """
    columns = {"epoch": epochs, **{key: v for key, v in history.items() if key != "epoch"}}
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


# --- what trains ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedBlocks:
    """The blocks of one backbone, and which of them train.

    Attributes:
        backbone: Name of the layer.
        blocks: Names of all its blocks, from the input to the top.
        trained: Names of those that are not frozen.
    """

    backbone: str
    blocks: tuple[str, ...]
    trained: frozenset[str]


def trained_blocks(model: Any) -> tuple[TrainedBlocks, ...]:
    """Which blocks train, for each backbone in a model.

    Args:
        model: A Keras model, or None. A backbone is any layer in it, at any depth, whose `blocks`
            have a `name` and are `frozen` or not.

    Returns:
        One entry a backbone, in the order in which the model holds them.

    Example:
        >>> trained_blocks(model)
        (TrainedBlocks(backbone='vgg16', blocks=('block4', 'block5'), trained=frozenset()),)
    """
    return tuple(
        TrainedBlocks(
            backbone=layer.name,
            blocks=tuple(block.name for block in layer.blocks),
            trained=frozenset(block.name for block in layer.blocks if not block.frozen),
        )
        for layer in _layers_of(model)
        if _has_blocks(layer)
    )


def _layers_of(model: Any) -> Sequence[Any]:
    # Keras' public `layers` are those of one level; only the private walk also finds a backbone
    # that is an attribute of a subclassed model's layer.
    return model._flatten_layers(include_self=False) if model is not None else ()


def _has_blocks(layer: Any) -> bool:
    blocks = getattr(layer, "blocks", None)  # other layers' `blocks` may be anything
    return (
        isinstance(blocks, Sequence)
        and len(blocks) > 0
        and all(hasattr(block, "name") and hasattr(block, "frozen") for block in blocks)
    )


def describe_change(before: Sequence[TrainedBlocks], after: Sequence[TrainedBlocks]) -> str:
    """Says in a few words which blocks were unfrozen or frozen.

    Args:
        before: What trained in one epoch.
        after: What trained in the next.

    Returns:
        Such as `"block4, block5 unfrozen"`, with the backbone's name in front if there are
        several; empty if nothing changed.

    Example:
        >>> blocks = ("block4", "block5")
        >>> describe_change(
        ...     [TrainedBlocks("vgg16", blocks, frozenset())],
        ...     [TrainedBlocks("vgg16", blocks, frozenset({"block5"}))],
        ... )
        'block5 unfrozen'
    """
    parts = []
    for old, new in zip(before, after, strict=False):
        changes = [
            f"{_abbreviated(new.blocks, names)} {what}"
            for names, what in (
                (new.trained - old.trained, "unfrozen"),
                (old.trained - new.trained, "frozen"),
            )
            if names
        ]
        if changes:
            prefix = f"{new.backbone}: " if len(after) > 1 else ""
            parts.append(prefix + ", ".join(changes))
    return "; ".join(parts)


def _abbreviated(blocks: Sequence[str], chosen: frozenset[str]) -> str:
    """Names of the chosen blocks; of more than two in a row, the first and the last."""
    runs = [list(run) for is_in, run in groupby(blocks, chosen.__contains__) if is_in]
    return ", ".join(f"{run[0]} … {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


# --- histories of finished fits ------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    history: Logs
    epochs: Sequence[int]
    marks: Sequence[Mark] = ()


def plot_history(
    histories: Any,
    path: str | Path | None = None,
    *,
    monitor: str = "val_loss",
    mode: Mode = "auto",
    validation_freq: int | Sequence[int] = 1,
) -> Figure:
    """Draws one finished fit, or several in the same panels.

    Args:
        histories: What `fit` returned, its `history`, or a `HistoryPlotter`; or a mapping from
            the names of several runs to these.
        path: Where to save the figure, ending with `.png`, `.svg` or `.pdf`. Default None: it is
            not saved.
        monitor: The log that decides which epoch is the best. Default `"val_loss"`, which means
            `"loss"` where nothing was validated.
        mode: Whether its best value is the `"min"` or the `"max"`; `"auto"` goes by its name.
            Default `"auto"`.
        validation_freq: As it was given to `fit`, because Keras' history does not tell which
            epochs were validated. Default 1.

    Returns:
        A matplotlib figure that no pyplot knows of.

    Raises:
        TypeError: If `histories` is or holds something else.
        ValueError: If there is nothing to draw, `monitor` is unknown, or the numbers of values
            and of epochs do not go together.

    Example:
        >>> history_a = model.fit(train, validation_data=valid, epochs=10)
        >>> history_b = tuned.fit(train, validation_data=valid, epochs=20)
        >>> plot_history({"feature extraction": history_a, "fine-tuning": history_b}, "both.png")
    """
    if _is_several(histories):
        runs = {name: _run_of(one, validation_freq, name) for name, one in histories.items()}
        figure = compare_figure(
            {name: run.history for name, run in runs.items()},
            epochs={name: run.epochs for name, run in runs.items()},
            monitor=monitor,
            mode=mode,
        )
    else:
        run = _run_of(histories, validation_freq, "histories")
        figure = history_figure(
            run.history, run.epochs, monitor=monitor, mode=mode, marks=run.marks
        )
    if path is not None:
        save_figure(figure, path)
    return figure


def _is_several(histories: Any) -> bool:
    """Whether these are runs by name, and not one run's values by name of the log."""
    return isinstance(histories, Mapping) and not any(
        isinstance(one, Sequence) for one in histories.values()
    )


def _run_of(one: Any, validation_freq: int | Sequence[int], name: str) -> _Run:
    """The numbers of one fit, None where its validation did not run."""
    if isinstance(one, HistoryPlotter):
        return _Run(one.history, one.epochs, one.marks)
    if isinstance(one, keras.callbacks.History):
        history, epochs = one.history, one.epoch
    elif isinstance(one, Mapping) and all(isinstance(v, Sequence) for v in one.values()):
        history, epochs = one, list(range(max(map(len, one.values()), default=0)))
    else:
        raise TypeError(
            f"{name} is of type {type(one).__name__}. Expected what fit returned, its history "
            "dict, or a HistoryPlotter; several of them as a dict by name."
        )
    return _Run(
        {key: _aligned(key, v, epochs, validation_freq) for key, v in history.items()}, epochs
    )


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
