"""Tests for HistoryPlotter and plot_history: scripted logs, and small fits."""

import copy
import csv
import importlib
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import matplotlib.figure
import numpy as np
import pytest
from conftest import dataset
from test_phases import Given, kept, plain

from keras_transfer import BlockUnfreezer, Phase
from keras_transfer.plotting import PhaseMarker, phase_marks
from keras_transfer.plotting.history_table import read_csv
from keras_transfer.plotting.plot_history import plot_history
from keras_transfer.training import history_plotter
from keras_transfer.training.history_plotter import HistoryPlotter

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")
# The module, which the package hides behind the function of the same name.
plot_history_module = importlib.import_module("keras_transfer.cli.plot_history")
PNG = b"\x89PNG"


def compiled(*layers, run_eagerly=True):
    """A tiny model; eager, because tracing would take longer than its whole fit."""
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"], run_eagerly=run_eagerly)
    return model


def fit(plotter, *others, model=None, epochs=3, **kwargs):
    kwargs.setdefault("validation_data", (X, Y))
    return (model or compiled()).fit(
        X, Y, epochs=epochs, callbacks=[*others, plotter], verbose=0, **kwargs
    )


def script(plotter, *epochs, end=True):
    """Drives the hooks as a fit does, with these logs."""
    plotter.on_train_begin()
    for epoch, logs in enumerate(epochs):
        plotter.on_epoch_begin(epoch)
        plotter.on_epoch_end(epoch, logs)
    if end:
        plotter.on_train_end()
    return plotter


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, and the times of all drawings."""

    class Clock:
        now = 1000.0
        drawn = ()
        cost = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()

    def draw(figure, path):
        clock.drawn += (clock.now,)
        clock.now += clock.cost

    monkeypatch.setattr(history_plotter, "time", clock)
    monkeypatch.setattr(history_plotter, "save_figure", draw)
    return clock


@pytest.mark.slow
def test_a_fit_leaves_a_picture_and_a_table_of_its_history(tmp_path):
    plotter = HistoryPlotter(tmp_path / "out" / "history.png")
    history = fit(plotter)
    assert plotter.history == history.history
    assert plotter.epochs == history.epoch
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "history.csv",
        "history.png",
    ]
    assert (tmp_path / "out" / "history.png").read_bytes().startswith(PNG)
    header, *rows = table(tmp_path / "out" / "history.csv")
    assert header == ["epoch", *history.history]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for column, key in enumerate(history.history, start=1):
        assert [float(row[column]) for row in rows] == history.history[key]


@pytest.mark.slow
def test_without_a_path_nothing_is_written_and_the_figure_can_be_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plotter = HistoryPlotter()
    fit(plotter)
    assert list(tmp_path.iterdir()) == []
    figure = plotter.figure()
    assert isinstance(figure, matplotlib.figure.Figure)
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert drawn["val_loss"] == plotter.history["val_loss"]


def test_no_figure_is_open_in_pyplot_after_a_fit(tmp_path):
    import matplotlib.pyplot as plt

    script(HistoryPlotter(tmp_path / "history.png"), {"loss": 0.5})
    assert plt.get_fignums() == []


def test_it_draws_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "tkagg")
    script(HistoryPlotter(tmp_path / "history.png"), {"loss": 0.5})
    assert (tmp_path / "history.png").exists()


def test_before_the_first_epoch_there_is_no_figure():
    with pytest.raises(ValueError, match="draw after the first epoch"):
        HistoryPlotter().figure()


def test_columns_grow_with_new_logs_and_missing_values_stay_empty(tmp_path):
    script(
        HistoryPlotter(tmp_path / "h.png"),
        {"loss": 0.5},
        {"loss": math.nan, "val_loss": 0.25},
        {"val_loss": math.inf, "note": 'a, "b"'},
    )
    assert table(tmp_path / "h.csv") == [
        ["epoch", "loss", "val_loss", "note"],
        ["0", "0.5", "", ""],
        ["1", "nan", "0.25", ""],
        ["2", "", "inf", 'a, "b"'],
    ]


def test_the_table_is_complete_after_every_epoch(tmp_path):
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    for epoch in range(3):
        plotter.on_epoch_end(epoch, {"loss": 0.5})
        assert len(table(tmp_path / "h.csv")) == epoch + 2


def test_values_of_numpy_become_plain_numbers():
    plotter = script(
        HistoryPlotter(),
        {
            "loss": np.float32(0.5),
            "hits": np.int64(3),
            "f1": np.array([0.25, 0.5]),
            "phase": "head",
        },
    )
    assert plotter.history == {"loss": [0.5], "hits": [3], "f1": [[0.25, 0.5]], "phase": ["head"]}
    assert [type(values[0]) for values in plotter.history.values()] == [float, int, list, str]


def test_validation_in_some_epochs_is_none_in_the_others():
    plotter = HistoryPlotter()
    fit(plotter, epochs=4, validation_freq=2)
    values = plotter.history["val_loss"]
    assert [value is None for value in values] == [True, False, True, False]


@pytest.mark.slow
def test_a_second_fit_starts_anew(tmp_path):
    plotter = script(HistoryPlotter(tmp_path / "h.png"), *3 * [{"loss": 0.5}])
    script(plotter, *2 * [{"loss": 0.4}])
    assert plotter.history == {"loss": [0.4, 0.4]}
    assert len(table(tmp_path / "h.csv")) == 3


def test_a_resumed_fit_keeps_its_epochs(tmp_path):
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    for epoch in (5, 6):
        plotter.on_epoch_end(epoch, {"loss": 0.5})
    assert plotter.epochs == [5, 6]
    assert [row[0] for row in table(tmp_path / "h.csv")] == ["epoch", "5", "6"]


@pytest.mark.parametrize("same", [True, False], ids=["the same object", "from the table"])
@pytest.mark.slow
def test_a_fit_that_goes_on_continues_the_curve(tmp_path, same):
    plotter = HistoryPlotter(tmp_path / "h.png")
    first = script(plotter, {"loss": 0.9, "phase": 0}, {"loss": 0.8, "phase": 1}, {"loss": 0.7})
    marks = [PhaseMarker(1, "block5")] if same else [PhaseMarker(1, "phase 1")]
    first.marks = marks
    again = first if same else HistoryPlotter(tmp_path / "h.png")
    again.on_train_begin()
    for epoch, loss in ((2, 0.6), (3, 0.5)):  # it was interrupted in the third epoch
        again.on_epoch_end(epoch, {"loss": loss, "extra": 1})
    assert again.epochs == [0, 1, 2, 3]
    assert again.history["loss"] == [0.9, 0.8, 0.6, 0.5]
    assert again.history["extra"] == [None, None, 1, 1]
    assert again.marks == marks
    assert [row[0] for row in table(tmp_path / "h.csv")] == ["epoch", "0", "1", "2", "3"]


@pytest.mark.parametrize("same", [True, False], ids=["the same object", "from the table"])
@pytest.mark.slow
def test_a_run_that_goes_on_behind_a_gap_keeps_the_epochs_before_it(tmp_path, same):
    plotter = script(
        HistoryPlotter(tmp_path / "h.png"), *({"loss": 0.9 - e / 20} for e in range(8))
    )
    before = table(tmp_path / "h.csv")
    again = plotter if same else HistoryPlotter(tmp_path / "h.png")
    again.on_train_begin()
    for epoch in (10, 11):
        again.on_epoch_end(epoch, {"loss": 0.5})
    assert again.epochs == [*range(8), 10, 11]
    assert table(tmp_path / "h.csv") == [*before, ["10", "0.5"], ["11", "0.5"]]
    assert list(again.figure().axes[0].lines[0].get_xdata()) == [*range(1, 9), 11, 12]


def test_a_table_that_begins_later_is_not_continued(tmp_path):
    (tmp_path / "h.csv").write_text("epoch,loss\n7,0.5\n8,0.4\n")
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    plotter.on_epoch_end(5, {"loss": 0.5})
    assert plotter.epochs == [5]


@pytest.mark.parametrize("foreign", ["file,label\na.png,cat\n", "a file\n", "epoch;loss\n0;1\n"])
def test_a_table_of_somebody_else_is_an_error_before_the_first_batch_and_stays(tmp_path, foreign):
    (tmp_path / "train.csv").write_text(foreign)
    plotter = HistoryPlotter(tmp_path / "train.png")
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"train\.csv' is no history.* Move that file, or give"
        ):
            fit(plotter, initial_epoch=3, epochs=4)
    assert (tmp_path / "train.csv").read_text() == foreign
    assert not (tmp_path / "train.png").exists()


def test_the_diagnosis_can_be_had(tmp_path):
    plotter = script(HistoryPlotter(), *({"loss": 0.5} for _ in range(8)))
    assert (plotter.diagnosis.kind, str(plotter.diagnosis)) == (
        "plateau",
        "plateau: training loss no longer falls",
    )


def test_the_history_is_a_data_frame_where_pandas_is_there():
    pandas = pytest.importorskip("pandas")
    plotter = script(HistoryPlotter(), {"loss": 0.9}, {"loss": 0.8, "extra": 1.0})
    frame = plotter.frame()
    assert frame.index.name == "epoch"
    assert frame["loss"].tolist() == [0.9, 0.8]
    assert pandas.isna(frame["extra"][0])


def test_the_constructor_stores_its_arguments_unchanged():
    plotter = HistoryPlotter("a.png", monitor="fluffiness", mode="max")
    assert (plotter.path, plotter.monitor, plotter.mode) == ("a.png", "fluffiness", "max")


@pytest.mark.slow
def test_it_can_be_copied_before_and_after_a_fit(tmp_path):
    plotter = copy.deepcopy(HistoryPlotter(tmp_path / "h.png"))
    fit(plotter)
    sharing = pickle.loads(pickle.dumps(plotter))
    assert sharing.history == plotter.history
    assert sharing.history is not plotter.history
    assert sharing.model is None
    fit(sharing, epochs=1)
    assert (len(sharing.epochs), len(plotter.epochs)) == (1, 3)


def test_it_can_be_copied_in_the_middle_of_a_fit():
    class Copier(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.append(copy.deepcopy(plotter))

    plotter, copies = HistoryPlotter(), []
    fit(plotter, Copier())
    assert [len(sharing.epochs) for sharing in copies] == [0, 1, 2]
    assert len(plotter.epochs) == 3


def test_an_unsupported_suffix_is_an_error_at_construction(tmp_path):
    with pytest.raises(ValueError, match=r"\.jpg'\. Expected one of \.png, \.svg, \.pdf"):
        HistoryPlotter(tmp_path / "h.jpg")


def test_a_folder_that_is_a_file_is_an_error_before_the_first_batch(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        HistoryPlotter(tmp_path / "file" / "h.png").on_train_begin()


def test_a_table_that_is_a_folder_is_an_error_before_the_first_batch(tmp_path):
    (tmp_path / "h.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"h\.csv' is a folder\. Expected the name of"):
        HistoryPlotter(tmp_path / "h.png").on_train_begin()


def test_an_unknown_monitor_is_an_error_after_the_first_epoch():
    plotter = HistoryPlotter(monitor="val_auc")
    with pytest.raises(ValueError, match=r"monitor='val_auc'.*'val_accuracy'"):
        fit(plotter, epochs=5)
    assert plotter.epochs == [0]


def test_a_monitor_that_does_not_tell_what_is_better_is_an_error_at_construction():
    with pytest.raises(ValueError, match="mode='max'"):
        HistoryPlotter(monitor="val_fluffiness")


def test_without_validation_data_the_default_monitor_is_the_training_loss():
    plotter = HistoryPlotter()
    fit(plotter, validation_data=None)
    texts = [text.get_text() for text in plotter.figure().texts]
    best = f"best epoch 3 of 3: loss {plotter.history['loss'][-1]:.4f}"
    assert texts == [f"{best} · too short to say: 3 of 5 epochs"]


@pytest.mark.slow
def test_a_validated_metric_of_a_callback_does_not_end_a_training_without_validation_data(tmp_path):
    class AddsF1(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_f1"] = 0.5

    plotter = HistoryPlotter(tmp_path / "h.png")
    fit(plotter, AddsF1(), validation_data=None, batch_size=16)
    assert plotter.figure().texts[0].get_text().startswith("best epoch 3 of 3: loss ")
    assert plot_history_module.main([str(tmp_path / "h.csv"), "-o", str(tmp_path / "g.png")]) == 0
    with pytest.raises(ValueError, match="monitor='val_auc' is not among the logs"):
        fit(HistoryPlotter(monitor="val_auc"), AddsF1(), validation_data=None)


def test_a_monitor_of_a_later_validation_is_waited_for_with_a_warning():
    plotter = HistoryPlotter(monitor="val_accuracy")
    with pytest.warns(UserWarning, match="monitor='val_accuracy' was not logged in epoch 1"):
        fit(plotter, epochs=2, validation_freq=2)
    assert plotter.figure().texts[0].get_text().startswith("best epoch 2 of 2: val_accuracy")


def test_short_epochs_are_drawn_once_a_second_and_at_the_end(clock, tmp_path):
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    for epoch in range(25):
        plotter.on_epoch_end(epoch, {"loss": 0.5})
        assert len(table(tmp_path / "h.csv")) == epoch + 2
        clock.now += 0.1
    assert [round(time - 1000, 1) for time in clock.drawn] == [0, 1, 2]
    plotter.on_train_end()
    assert len(clock.drawn) == 4


def test_long_epochs_are_all_drawn_and_the_end_draws_nothing_twice(clock, tmp_path):
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    for epoch in range(3):
        plotter.on_epoch_end(epoch, {"loss": 0.5})
        clock.now += 1.0
    plotter.on_train_end()
    assert len(clock.drawn) == 3


@pytest.mark.slow
def test_slow_drawings_take_at_most_a_fifth_of_the_time(clock, tmp_path):
    clock.cost = 1.0
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    for epoch in range(30):
        plotter.on_epoch_end(epoch, {"loss": 0.5})
        clock.now += 1.0
    assert len(clock.drawn) * clock.cost <= (clock.now - 1000) / 5 + 1


def test_a_failing_first_drawing_ends_the_training(tmp_path, monkeypatch):
    def fail(figure, path):
        raise OSError("disk full")

    monkeypatch.setattr(history_plotter, "save_figure", fail)
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    with pytest.raises(OSError, match="disk full"):
        plotter.on_epoch_end(0, {"loss": 0.5})


def test_a_later_failure_to_draw_is_a_warning_and_the_old_picture_stays(tmp_path, monkeypatch):
    plotter = HistoryPlotter(tmp_path / "h.png")
    plotter.on_train_begin()
    plotter.on_epoch_end(0, {"loss": 0.5})
    old = (tmp_path / "h.png").read_bytes()

    def fail_midway(figure, file, **kwargs):
        file.write_bytes(b"half a pic")
        raise OSError("disk full")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail_midway)

    def finish():
        plotter.on_epoch_end(1, {"loss": 0.4})
        plotter.on_train_end()

    with pytest.warns(UserWarning, match="disk full.*training goes on"):
        finish()
    assert (tmp_path / "h.png").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.csv", "h.png"]
    assert len(table(tmp_path / "h.csv")) == 3


def test_a_folder_that_is_removed_is_made_again_with_the_next_epoch(tmp_path):
    plotter = script(HistoryPlotter(tmp_path / "out" / "h.png"), {"loss": 0.5}, end=False)
    shutil.rmtree(tmp_path / "out")
    plotter.on_epoch_end(1, {"loss": 0.4})
    plotter.on_train_end()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["h.csv", "h.png"]
    assert len(table(tmp_path / "out" / "h.csv")) == 3


def test_failing_drawings_are_not_tried_again_after_each_short_epoch(clock, tmp_path, monkeypatch):
    plotter = script(HistoryPlotter(tmp_path / "h.png"), {"loss": 0.5}, end=False)
    tries = []

    def fail(figure, path):
        tries.append(clock.now)
        raise OSError("disk full")

    monkeypatch.setattr(history_plotter, "save_figure", fail)
    with warnings.catch_warnings(action="ignore"):
        for epoch in range(1, 25):
            clock.now += 0.1
            plotter.on_epoch_end(epoch, {"loss": 0.4})
    assert len(tries) == 2


def test_a_table_that_fails_midway_leaves_the_old_one(tmp_path):
    class Unprintable:
        def __str__(self):
            raise OSError("cannot be written")

    plotter = script(HistoryPlotter(tmp_path / "h.png"), {"loss": 0.5}, end=False)
    with pytest.warns(UserWarning, match="cannot be written"):
        plotter.on_epoch_end(1, {"loss": 0.4, "bad": Unprintable()})
    assert table(tmp_path / "h.csv") == [["epoch", "loss"], ["0", "0.5"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.csv", "h.png"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [kept])
def test_the_marks_say_why_a_block_unfreezer_unfroze(tmp_path, make):
    phases = [Phase("block4", at_epoch=1), Phase("block3", patience=2)]
    unfreezer = Given(phases, values=[0.5, 0.5, 0.6, 0.6, 0.6])
    plotter = HistoryPlotter(tmp_path / "h.png")
    data = dataset(8, shuffle=False)
    history = make().fit(data, epochs=5, callbacks=[plotter, unfreezer], verbose=0)
    assert plotter.marks == [
        PhaseMarker(1, "block4 unfrozen", "as scheduled"),
        PhaseMarker(4, "block3 unfrozen", "val_loss no better for 2 epochs"),
    ]
    header, *rows = table(tmp_path / "h.csv")
    assert header[-2:] == ["change", "reason"]
    assert [row[-2:] for row in rows if row[-2]] == [
        ["block4 unfrozen", "as scheduled"],
        ["block3 unfrozen", "val_loss no better for 2 epochs"],
    ]
    from_table = [text.get_text() for text in plot_history(tmp_path / "h.csv").axes[0].texts]
    assert from_table == [
        "block4 unfrozen: as scheduled",
        "block3 unfrozen: val_loss no better for 2 epochs ▸",
    ]
    # Keras' own history holds the rates, and so the blocks, but no reason.
    without = [text.get_text() for text in plot_history(history).axes[0].texts]
    assert without == ["block4 unfrozen", "block3 unfrozen ▸"]


@pytest.mark.slow
def test_a_run_that_resumes_where_blocks_are_unfrozen_marks_them(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def run(*others):
        """As a process of its own does: nothing is shared but the files."""
        plotter = HistoryPlotter(tmp_path / "h.png")
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        callbacks = [backup, BlockUnfreezer({2: "block4"}), plotter, *others]
        plain().fit(dataset(8, shuffle=False), epochs=4, callbacks=callbacks, verbose=0)
        return plotter

    with pytest.raises(KeyboardInterrupt):
        run(Crash())
    resumed = run()
    assert resumed.history["phase"] == [0, 0, 1, 1]
    assert resumed.marks == [PhaseMarker(2, "block4 unfrozen", "as scheduled")]
    assert read_csv(tmp_path / "h.csv")[2] == resumed.marks


def test_marks_are_drawn_between_epochs_and_belong_to_one_fit():
    phases = [
        {"loss": 0.9, "phase": 0, "learning_rate/block5": 0.0},
        {"loss": 0.8, "phase": 1, "learning_rate/block5": 1e-4},
    ]
    plotter = script(HistoryPlotter(), *phases, phases[1])
    assert plotter.marks == [PhaseMarker(1, "block5 unfrozen")]
    lines = [line for line in plotter.figure().axes[0].lines if line.get_zorder() == 1]
    assert [line.get_xdata()[0] for line in lines] == [1.5]
    assert [text.get_text() for text in plot_history(plotter).axes[0].texts] == ["block5 unfrozen"]
    assert script(plotter, phases[1], phases[1]).marks == []


def test_logs_that_are_called_as_the_columns_of_marks_come_first(tmp_path):
    plotter = script(HistoryPlotter(tmp_path / "h.png"), {"loss": 0.9, "reason": 1.0}, end=False)
    plotter.marks = [PhaseMarker(0, "block5 unfrozen", "why not")]
    plotter.on_epoch_end(1, {"loss": 0.8, "reason": 2.0})
    history, _, marks = read_csv(tmp_path / "h.csv")
    assert (history, marks) == ({"loss": [0.9, 0.8], "reason": [1, 2]}, [])


@pytest.mark.parametrize(
    ("rates", "label"),
    [
        ({"block4": [0, 0.1], "block5": [0.1, 0.1]}, "block4 unfrozen"),
        ({"block4": [0, 0.1], "block5": [0.1, 0]}, "block4 unfrozen, block5 frozen"),
        ({f"block{i}": [0, 0.1] for i in range(1, 5)}, "block1 … block4 unfrozen"),
        ({}, "phase 1"),
    ],
)
def test_a_phase_is_told_from_the_logs_of_an_unfreezer(rates, label):
    logs = {"phase": [0, 1], **{f"learning_rate/{name}": rate for name, rate in rates.items()}}
    assert phase_marks(logs, [7, 8]) == [PhaseMarker(8, label)]


def drawn_values(figure, key):
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for axes in figure.axes
        for line in axes.lines
        if line.get_label() == key
    ]


@pytest.mark.slow
def test_plot_history_draws_what_fit_returned(tmp_path):
    history = fit(HistoryPlotter())
    for one in (history, history.history):
        figure = plot_history(one, tmp_path / "h.png")
        assert drawn_values(figure, "val_loss") == [([1, 2, 3], history.history["val_loss"])]
    assert (tmp_path / "h.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_plot_history_compares_named_fits():
    plotter = HistoryPlotter()
    first = fit(HistoryPlotter(), epochs=2)
    second = fit(plotter, epochs=5, initial_epoch=2)
    figure = plot_history({"feature extraction": first, "fine-tuning": plotter})
    assert drawn_values(figure, "val_loss") == [
        ([1, 2], first.history["val_loss"]),
        ([3, 4, 5], second.history["val_loss"]),
    ]
    names = [text.get_text().split("  ")[0] for text in figure.legends[0].get_texts()]
    assert names[:2] == ["feature extraction", "fine-tuning"]


@pytest.mark.parametrize(("freq", "epochs"), [(2, [2, 4]), ([1, 4], [1, 4])])
@pytest.mark.slow
def test_plot_history_places_validation_at_its_epochs(freq, epochs):
    history = fit(HistoryPlotter(), epochs=5, validation_freq=freq)
    figure = plot_history(history, validation_freq=freq)
    assert drawn_values(figure, "val_loss") == [(epochs, history.history["val_loss"])]


def test_plot_history_draws_a_dictionary_that_json_has_written(tmp_path):
    history = {"loss": [0.9, 0.8, 0.7, math.nan], "val_loss": [0.95, 0.9]}
    (tmp_path / "h.json").write_text(json.dumps(history))
    figure = plot_history(tmp_path / "h.json", validation_freq=2)
    assert drawn_values(figure, "val_loss") == drawn_values(
        plot_history(history, validation_freq=2), "val_loss"
    )


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "{}", '{"a": {"loss": [1]}}', '{"loss": 1}', '{"loss": ["1"]}', "\xff"]
)
def test_a_json_file_that_is_no_history_is_refused(tmp_path, text):
    (tmp_path / "h.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"h\.json' is no history \(.* Expected what json\.dump"):
        plot_history(tmp_path / "h.json")


def test_plot_history_does_not_guess_which_epochs_were_validated():
    with pytest.raises(ValueError, match=r"'val_loss' has 1 values for 3 epochs.*validation_freq"):
        plot_history({"loss": [3, 2, 1], "val_loss": [1]})


def test_plot_history_draws_a_history_of_arrays():
    arrays = {"loss": np.array([3, 2, 1.0]), "val_loss": np.float32([3, 2, 1])}
    assert drawn_values(plot_history(arrays), "val_loss") == [([1, 2, 3], [3.0, 2.0, 1.0])]
    both = plot_history({"one": arrays, "two": {"loss": [0.5]}})
    assert [3.0, 2.0, 1.0] in [list(line.get_ydata()) for line in both.axes[0].lines]
    with pytest.raises(TypeError, match="Expected what fit returned"):
        plot_history({"loss": np.ones((3, 2))})


def test_a_run_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"names runs .* Give each run a name"):
        plot_history({"one": {"loss": [0.5]}, " ": {"loss": [0.4]}})


def test_letters_that_the_font_lacks_are_told_once(tmp_path):
    runs = {"\u65e5\u672c\u8a9e": {"loss": [0.5]}, "two\nlines": {"loss": [0.4]}}
    with pytest.warns(UserWarning, match="^Letters of '\u65e5\u672c\u8a9e' are not") as told:
        plot_history(runs, tmp_path / "h.svg")
    assert len(told) == 1


@pytest.mark.parametrize("wrong", [3, {"a": {"loss": [1]}, "b": [1]}, {"a": 3}])
def test_plot_history_says_what_it_expected(wrong):
    with pytest.raises(TypeError, match="Expected what fit returned"):
        plot_history(wrong)


def test_an_empty_history_is_refused_by_its_name():
    never_fitted = keras.callbacks.History()
    with pytest.raises(ValueError, match=r"^There is nothing to draw.*draw after the first epoch"):
        plot_history(never_fitted)
    with pytest.raises(ValueError, match=r"^Run 'second': There is nothing to draw"):
        plot_history({"first": {"loss": [1.0]}, "second": never_fitted})
    with pytest.raises(ValueError, match="histories is empty"):
        plot_history({})


def test_names_of_compared_runs_that_are_no_text_are_shown_as_text():
    run = {"loss": [2.0, 1.0], "val_loss": [2.0, 1.5]}
    figure = plot_history({1: run, None: run})
    names = [text.get_text().split("  ")[0] for text in figure.legends[0].get_texts()]
    assert names[:2] == ["1", "None"]
    with pytest.raises(ValueError, match="names runs 1, '1', of which one is blank or some read"):
        plot_history({1: run, "1": run})


def test_plot_history_draws_tables(tmp_path):
    path = tmp_path / "h.csv"
    script(HistoryPlotter(tmp_path / "h.png"), {"loss": 0.9}, {"loss": 0.8, "val_loss": 0.7})
    figure = plot_history(path)
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.9, 0.8]
    both = plot_history({"one": str(path), "two": {"loss": [0.5]}})
    names = [text.get_text().split()[0] for text in both.legends[0].get_texts()]
    assert {"one", "two"} <= set(names)
    path.write_text("epoch,loss\n0,0.5\n1,0.4,0.3\n")
    with pytest.raises(ValueError, match=r"h.csv' is no history \(a row longer"):
        plot_history(path)


def test_a_column_of_text_is_not_drawn_with_a_warning_that_names_it(tmp_path):
    (tmp_path / "h.csv").write_text("epoch,loss,val_loss\n0,0.5,0.4\n1,hello,0.3\n")
    with pytest.warns(UserWarning, match=r"h.csv': the column 'loss' is not drawn.*'hello'"):
        figure = plot_history(tmp_path / "h.csv")
    assert drawn_values(figure, "val_loss") == [([1, 2], [0.4, 0.3])]


def test_keras_own_table_can_be_drawn(tmp_path):
    fit(keras.callbacks.CSVLogger(tmp_path / "log.csv"), epochs=2)
    figure = plot_history(tmp_path / "log.csv")
    assert len(figure.axes[0].lines[0].get_ydata()) == 2


@pytest.fixture
def tables(tmp_path):
    """Tables of the same name in two folders, and one of another name."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        script(HistoryPlotter(tmp_path / folder / "h.png"), {"loss": 0.9}, {"loss": 0.8})
    (tmp_path / "a" / "h.csv").replace(tmp_path / "first.csv")
    script(HistoryPlotter(tmp_path / "a" / "h.png"), {"loss": 0.5})
    return tmp_path


@pytest.mark.slow
def test_the_command_draws_tables_where_neither_keras_nor_tensorflow_can_be_imported(tables):
    for name in ("keras", "tensorflow"):
        (tables / "blocked" / name).mkdir(parents=True)
        (tables / "blocked" / name / "__init__.py").write_text("raise ImportError('blocked')")
    (tables / "c.json").write_text(json.dumps({"loss": [0.7, 0.6, 0.5]}))
    paths = (tables / "blocked", Path(plot_history_module.__file__).parents[2])
    command = [sys.executable, "-m", "keras_transfer", "plot-history"]
    done = subprocess.run(
        [*command, "first.csv", "tuned=a/h.csv", "c.json", "--output", "new/both.png"],
        cwd=tables,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "new/both.png\n", "")
    assert (tables / "new" / "both.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_the_command_names_runs_by_what_tells_their_tables_apart(tables, monkeypatch):
    monkeypatch.chdir(tables)
    named = plot_history_module.named_tables
    assert list(named(["first.csv", "a/h.csv"])) == ["first", "h"]
    assert list(named(["a/h.csv", "b/h.csv"])) == ["a/h", "b/h"]
    assert list(named(["x=a/h.csv", "b/h.csv"])) == ["x", "b/h"]
    (tables / "rate=1.csv").touch()  # a file is what it is called
    assert list(named(["rate=1.csv", "y=rate=1.csv"])) == ["rate=1", "y"]
    with pytest.raises(ValueError, match="Two tables are called 'x'"):
        named(["x=a/h.csv", "x=b/h.csv"])


@pytest.mark.slow
def test_the_command_says_what_the_user_can_put_right(tables, monkeypatch, capsys):
    monkeypatch.chdir(tables)
    for arguments, said in (
        (["first.csv", "-o", "h.jpg"], "ends with '.jpg'. Expected one of .png, .svg, .pdf"),
        (["nowhere.csv", "-o", "h.png"], "No such file or directory: 'nowhere.csv'"),
        (["first.csv", "-o", "h.png", "--monitor", "val_auc"], "Logged are ['loss']"),
    ):
        assert plot_history_module.main(arguments) == 2
        assert said in capsys.readouterr().err
    with (tables / "first.csv").open("a") as file:
        file.write("0,0.7\n")
    with warnings.catch_warnings(action="always"):
        assert plot_history_module.main(["first.csv", "-o", "deep/er/h.svg"]) == 0
    said = "keras-transfer plot-history: warning: 'first.csv': epoch 0 is there again; "
    assert capsys.readouterr().err.startswith(said)
    assert (tables / "deep" / "er" / "h.svg").exists()
