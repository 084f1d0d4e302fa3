"""HistoryPlotter: the history of a fit as a picture and a table, complete after every epoch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.plotting.annotations import PhaseMarker, phase_marks
from keras_transfer.plotting.curves import Mode, lower_is_better, monitored_log
from keras_transfer.plotting.diagnosis import Diagnosis, diagnose
from keras_transfer.plotting.figure_files import check_suffix, figure_path, save_figure
from keras_transfer.plotting.history import history_figure
from keras_transfer.plotting.history_table import read_csv, write_csv
from keras_transfer.plotting.live_view import Live, live_view
from keras_transfer.utils.atomic_files import check_no_folder
from keras_transfer.utils.keras_internals import calling_list
from keras_transfer.utils.supported_keras import check_keras_3

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAUSE = 1.0  # seconds, at least, from one drawing to the next
_SHARE = 4  # training gets at least this many times as long as drawing


class HistoryPlotter(keras.callbacks.Callback):
    """Draws the history of a fit after every epoch, and writes it as a table.

    The picture shows training and validation in one panel for the loss and each metric, the best
    epoch, the learning rates, where a `BlockUnfreezer` unfroze blocks, where overfitting starts,
    and a diagnosis. Beside it a CSV file of the same name holds the numbers: a row an epoch
    (counted from 0, as in Keras' `CSVLogger`), a column a log, empty where nothing was logged, and
    what was unfrozen and why in the columns `change` and `reason`. Both files are replaced in one
    step, so that readers never see half a file.

    The table is complete after every epoch. Where epochs are short, the picture is drawn at most
    once a second and in at most a fifth of the time, and always when the training ends. Once the
    first drawing succeeded, no failure to write ends the training: it is a warning.

    A fit that begins behind the first epoch (`initial_epoch`, `BackupAndRestore`) continues the
    curve of this object's last fit, or else that of the table beside `path`. Missing epochs are a
    gap. A fit that begins with the first epoch replaces the table.

    List it after callbacks that add logs, such as `ReduceLROnPlateau`, to include these.

    Args:
        path: The picture, ending with `.png`, `.svg` or `.pdf`. Default None: nothing is written,
            `figure()` draws.
        live: Whether to show the picture while it changes: below a notebook's cell, or in a window
            of matplotlib. `"auto"` where one of these is there; True to insist on it. Default
            `"auto"`.
        monitor: The log that decides which epoch is the best. Default `"val_loss"`, which means
            `"loss"` in a run that has no such log.
        mode: Whether its best value is the `"min"` or the `"max"`; `"auto"` goes by its name.
            Default `"auto"`.

    Attributes:
        history: Values by name of the log, one an epoch; None where nothing was logged.
        epochs: The epochs, counted from 0.
        marks: The epochs in which a `BlockUnfreezer` unfroze or froze blocks, and why.

    Raises:
        ValueError: If `monitor` does not tell what is better and `mode` does not either, or `path`
            has no supported suffix; when the training begins, if the file where the table goes is
            no history, and would be lost; after the first epoch, if `monitor` is not logged.
        RuntimeError: When the training begins, if `live=True` has neither notebook nor window.
        OSError: When the training begins, if `path` or the table beside it cannot be a
            file.

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
        live: Live = "auto",
        monitor: str = "val_loss",
        mode: Mode = "auto",
    ) -> None:
        super().__init__()
        lower_is_better(monitor, mode)
        if path is not None:
            check_suffix(path)
        live_view(False if live is True else live)  # refuses what is neither of the three
        self.path = path
        self.live = live
        self.monitor = monitor
        self.mode = mode
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the model: a copy belongs to no fit, and must not copy all weights."""
        return {**self.__dict__, "_model": None, "_view": None}

    def _begin(self) -> None:
        self._view: Any = None
        self.history: dict[str, list[Any]] = {}
        self.epochs: list[int] = []
        self.marks: list[PhaseMarker] = []
        self._drawn_epochs = 0
        self._next_drawing = 0.0

    def set_model(self, model: keras.Model) -> None:
        """Refuses a model of Keras 2, whose `fit` takes callbacks of Keras 2 only."""
        check_keras_3(model=model)
        super().set_model(model)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts anew, and refuses paths that cannot be written or hold another table."""
        self._earlier = (self.history, self.epochs, self.marks)
        self._begin()
        self._view = live_view(self.live)
        if self.path is None:
            return
        table = figure_path(self.path).with_suffix(".csv")
        check_no_folder(table)
        if table.exists():
            try:
                earlier = read_csv(table)
            except ValueError as error:
                raise ValueError(
                    "HistoryPlotter writes its table beside the picture, and would replace another "
                    f"file: {error} Move that file, or give the picture another name."
                ) from error
            if not self._earlier[1]:
                self._earlier = earlier

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Collects the epoch's logs and writes the files."""
        first = not self.epochs
        if first:
            self._go_on_from(epoch)
        self._collect_logs(epoch, logs or {})
        self._collect_mark(epoch)
        if first:
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

    @property
    def diagnosis(self) -> Diagnosis:
        """What the losses say so far; `str` of it is one sentence.

        Example:
            >>> print(plotter.diagnosis)
            overfitting since epoch 9
        """
        return diagnose(self.history, self.epochs)

    def frame(self) -> Any:
        """Returns the history as a `pandas.DataFrame`: a row an epoch, counted from 0.

        Raises:
            ImportError: If pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame(self.history, index=pd.Index(self.epochs, name="epoch"))

    def _go_on_from(self, epoch: int) -> None:
        """Takes over the epochs before this one from an earlier fit."""
        history, epochs, marks = self._earlier
        rows = [row for row, earlier in enumerate(epochs) if earlier < epoch]
        self.history = {key: [values[row] for row in rows] for key, values in history.items()}
        self.epochs = [epochs[row] for row in rows]
        self.marks = [mark for mark in marks if mark.epoch < epoch]

    def _collect_logs(self, epoch: int, logs: Mapping[str, Any]) -> None:
        for key in logs:
            self.history.setdefault(key, [None] * len(self.epochs))
        for key, values in self.history.items():
            values.append(_plain(logs.get(key)))
        self.epochs.append(epoch)

    def _collect_mark(self, epoch: int) -> None:
        """Notes which blocks were unfrozen, from the logs of a `BlockUnfreezer`."""
        rows = {key: values[-2:] for key, values in self.history.items()}
        for mark in phase_marks(rows, self.epochs[-2:]):
            self.marks.append(replace(mark, reason=self._reason(epoch)))

    def _reason(self, epoch: int) -> str:
        """Returns why a `BlockUnfreezer` unfroze blocks in an epoch; empty if none did."""
        callbacks = calling_list(self)
        for callback in callbacks.callbacks if callbacks is not None else ():
            for transition in getattr(callback, "transitions", ()):
                if transition.epoch == epoch:
                    return transition.reason
        return ""

    def _check_monitor(self) -> None:
        if monitored_log(self.monitor, list(self.history)) is None:
            warnings.warn(
                f"HistoryPlotter cannot tell the best epoch yet: monitor={self.monitor!r} was not "
                f"logged in epoch {self.epochs[-1] + 1}. It can with the first validation "
                "(validation_freq of fit); without validation_data, monitor one of "
                f"{sorted(self.history)}.",
                stacklevel=2,
            )

    def _write_or_warn(self, drawing: bool) -> None:
        try:
            self._write(drawing)
        except Exception as error:  # a failed picture must not end hours of training
            warnings.warn(
                f"HistoryPlotter could not write {str(self.path)!r} or the table beside it: "
                f"{error!r}. The training goes on, and the next epoch tries again.",
                stacklevel=2,
            )

    def _write(self, drawing: bool) -> None:
        if self.path is not None:
            # `figure_path` makes the folder again if it was removed during training.
            table = figure_path(self.path).with_suffix(".csv")
            write_csv(self.history, self.epochs, table, self.marks)
        if drawing and not (self.path is None and self._view is None):
            began = time.monotonic()
            # Set before drawing, so that a failure is not repeated after each short epoch.
            self._next_drawing = began + _PAUSE
            figure = self.figure()
            if self.path is not None:
                save_figure(figure, self.path)
            if self._view is not None:
                self._view.show(figure)
            self._drawn_epochs = len(self.epochs)
            ended = time.monotonic()
            self._next_drawing = ended + max(_PAUSE, _SHARE * (ended - began))


def _plain(value: Any) -> Any:
    """Returns numbers of NumPy and tensors as Python's, arrays as lists, else the value itself."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    try:
        return np.asarray(value).tolist()
    except Exception:  # any object that another callback logs
        return value
