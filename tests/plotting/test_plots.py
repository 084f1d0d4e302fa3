"""Tests for keras_transfer.plots: what each picture shows, and that it can be read."""

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from test_diagnosis import LOSS, VALIDATION

from keras_transfer import plotting as plots
from keras_transfer.plotting import (
    PhaseMarker,
    best_epoch,
    compare_figure,
    history_figure,
    lower_is_better,
    monitored_log,
    rate_figure,
    save_figure,
    search_figure,
)
from keras_transfer.plotting.style import RUN_LINES

METRICS = (
    "accuracy",
    "auc",
    "precision",
    "recall",
    "f1_score",
    "top_5_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "mean_squared_error",
    "true_positives",
    "head_loss",
    "cosine_similarity",
    "a_metric_with_a_name_that_is_longer_than_any_panel_can_hold_in_one_line_accuracy",
)


def run(epochs, metrics=("accuracy",), validated=True, seed=0):
    random = np.random.default_rng(seed)
    falling = np.exp(-np.arange(epochs) / (epochs / 4))
    logs = {}
    for name in ("loss", *metrics):
        logs[name] = list(0.2 + falling + random.normal(0, 0.01, epochs))
        if validated:
            logs[f"val_{name}"] = list(0.3 + falling + random.normal(0, 0.02, epochs))
    return logs


def scaled(logs, times):
    """A run with losses that many times as high."""
    return {k: [v * times for v in vs] if k.endswith("loss") else vs for k, vs in logs.items()}


def gradual(epochs, blocks):
    """A run in which blocks are unfrozen one by one, each with a learning rate of its own."""
    logs = {**run(epochs), "learning_rate": [1e-3] * epochs}
    step = epochs // (blocks + 1)
    marks = []
    for i in range(1, blocks + 1):
        name = f"block{blocks + 1 - i}"
        logs[f"learning_rate/{name}"] = [None] * (i * step) + [1e-4 / i] * (epochs - i * step)
        marks.append(PhaseMarker(i * step, f"{name} unfrozen"))
    return logs, marks


def reasoned(*epochs):
    why = "val_accuracy no better for 10 epochs"
    return [PhaseMarker(epoch, f"block{epoch} unfrozen", why) for epoch in epochs]


def trials(count, names=6):
    random = np.random.default_rng(0)
    for number in range(count):
        values = {
            "learning_rate": float(10 ** random.uniform(-5, -2)),
            "dropout": float(random.choice([0.0, 0.3, 0.5])),
            "backbone": str(random.choice(["vgg16", "efficientnet_lite0", "mobilenet_v2_large"])),
            "hidden": int(random.choice([64, 128, 256])),
            "augment": bool(random.choice([True, False])),
            "weight_decay": float(10 ** random.uniform(-6, -2)),
        }
        chosen = dict(itertools.islice(values.items(), names))
        yield {"trial": number, "score": random.uniform(0.2, 0.9), "hyperparameters": chosen}


def line(axes, key):
    (found,) = (line for line in axes.lines if line.get_label() == key)
    return list(found.get_xdata()), list(found.get_ydata())


def upright_lines(axes):
    """Places of vertical lines."""
    return [
        line.get_xdata()[0]
        for line in axes.lines
        if len(line.get_xdata()) == 2 and line.get_xdata()[0] == line.get_xdata()[1]
    ]


def rings(axes):
    return {
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_markerfacecolor() == "none" and len(line.get_xdata()) == 1
    }


def titles(figure):
    return [axes.get_title("left") for axes in figure.axes]


def all_text(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def panel(figure, title):
    return figure.axes[titles(figure).index(title)]


def drawn_texts(figure):
    """The texts that stand in the picture; an axis also holds labels outside its limits."""
    axes_ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    drawn = {id(t.label1) for axis in axes_ticks for t in axis._update_ticks()}
    ticks = {id(label) for axis in axes_ticks for label in axis.get_ticklabels(which="both")}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible()
        and text.get_text().strip()
        and (id(text) not in ticks or id(text) in drawn)
    ]


def assert_readable(figure):
    """Every text lies inside the figure, none touches another."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in drawn_texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, f"{one!r} lies over {other!r}"


def assert_filled(figure):
    """No panel is empty or collapsed."""
    for axes in figure.axes:
        assert axes.lines
        assert axes.bbox.width > 100
        assert axes.bbox.height > 100


LONG_GRADUAL, LONG_MARKS = gradual(1000, 9)
HISTORIES = {
    "one epoch": lambda: history_figure(run(1), [0]),
    "five epochs": lambda: history_figure(
        run(5), range(5), marks=[PhaseMarker(2, "block5 unfrozen")]
    ),
    "a thousand epochs": lambda: history_figure(LONG_GRADUAL, range(1000), marks=LONG_MARKS),
    "twelve metrics": lambda: history_figure(
        {**run(30, METRICS), "learning_rate": [1e-3] * 30, "learning_rate/head": [1e-4] * 30},
        range(30),
        marks=[PhaseMarker(10, "block5 unfrozen"), PhaseMarker(20, "block4 unfrozen")],
    ),
    "loss only": lambda: history_figure(run(12, (), validated=False), range(12)),
    "rates only": lambda: history_figure({"learning_rate": [1e-3, 1e-4], "loss": [1, 2]}, [0, 1]),
    "equal rates": lambda: history_figure(
        {"loss": [1.0], **{f"learning_rate/block{i}": [1e-3] for i in range(9)}}, [0]
    ),
    "mark in the last epoch": lambda: history_figure(
        run(10), range(10), marks=[PhaseMarker(9, "block1 … block9 unfrozen")]
    ),
    "more marks than fit": lambda: history_figure(
        run(60),
        range(60),
        marks=[PhaseMarker(2 * i, f"efficientnet_lite0: block{i} unfrozen") for i in range(1, 29)],
    ),
    "reasons of unfreezing": lambda: history_figure(
        {**run(40), "learning_rate": [1e-3] * 40}, range(40), marks=reasoned(10, 18, 37)
    ),
    "more reasons than rows": lambda: history_figure(
        run(40), range(40), marks=reasoned(5, 12, 19, 26)
    ),
    "more reasons than fit": lambda: history_figure(
        run(40),
        range(40),
        marks=[replace(m, reason=f"{m.reason} {m.epoch}") for m in reasoned(*range(5, 11))],
    ),
    "a label wider than its panel": lambda: history_figure(
        run(9, METRICS[:3]),
        range(9),
        marks=[PhaseMarker(4, "a backbone's long name: block4 unfrozen" * 3)],
    ),
    "not finite": lambda: history_figure(
        {"loss": [1.0, math.nan, math.inf], "val_loss": [math.nan] * 3}, range(3)
    ),
    "a long name in the title": lambda: history_figure(
        {**run(3, (), False), "a" * 90 + "_accuracy": [0.1, 0.2, 0.3]},
        range(3),
        monitor="a" * 90 + "_accuracy",
    ),
    "dollars and underscores": lambda: history_figure(
        {"$x_1$_loss": [1.0, 0.5]}, [0, 1], monitor="$x_1$_loss"
    ),
}
COMPARISONS = {
    "two runs": lambda: compare_figure({"feature extraction": run(20), "fine-tuning": run(30)}),
    "one run": lambda: compare_figure({"only": run(3)}),
    "many runs": lambda: compare_figure(
        {f"a run with a rather long name, number {i}": run(5 + i) for i in range(12)}
    ),
    "one after the other": lambda: compare_figure(
        {
            "a": {**run(5), "learning_rate": [1e-3] * 5},
            "b": {**run(9), "learning_rate": [1e-5] * 9},
        },
        epochs={"a": range(5), "b": range(5, 14)},
    ),
    "one run far above the others": lambda: compare_figure({"a": run(9), "b": scaled(run(9), 300)}),
    "one run out of sight": lambda: compare_figure({"a": run(9), "b": scaled(run(9), 1e30)}),
    "one run ten times as high": lambda: compare_figure({"a": run(9), "b": scaled(run(9), 10)}),
    "a name wider than the figure": lambda: compare_figure({"x" * 300: run(4), "y": run(4)}),
}
SEARCHES = {
    "one trial": lambda: search_figure(list(trials(1))),
    "one hyperparameter": lambda: search_figure(list(trials(9, 1))),
    "three hyperparameters": lambda: search_figure(list(trials(30, 3))),
    "six hyperparameters": lambda: search_figure(list(trials(50))),
    "failed trials": lambda: search_figure(
        [*trials(5), {"trial": 5, "score": None, "hyperparameters": {"learning_rate": 1e-3}}]
    ),
    "no score at all": lambda: search_figure(
        [{"trial": 0, "score": math.nan, "hyperparameters": {"a": 1}}]
    ),
    "many categories": lambda: search_figure(
        [
            {"trial": i, "score": i, "hyperparameters": {"backbone": f"a_backbone_number_{i}"}}
            for i in range(12)
        ]
    ),
}  # fmt: skip


RATES = [10 ** (i / 10) for i in range(-50, 1)]
SWEEPS = {
    "a sweep": lambda: rate_figure(RATES, [2 - i / 40 for i in range(51)], [1.0] * 51, RATES[30]),
    "diverging": lambda: rate_figure(
        RATES, [*(2 - i / 40 for i in range(49)), 50.0, 1e9], [1.0] * 49 + [1e3, 1e20], RATES[48]
    ),
    "a narrow range": lambda: rate_figure([1e-3, 2e-3], [0.7, 0.7], [0.7, 0.7], 1e-3),
}


@pytest.mark.parametrize("case", SWEEPS)
def test_texts_of_a_sweep_neither_overlap_nor_leave_the_figure(case):
    figure = SWEEPS[case]()
    assert_readable(figure)
    assert_filled(figure)


def test_a_sweep_shows_where_the_loss_falls_and_not_how_high_it_diverges():
    assert SWEEPS["diverging"]().axes[0].get_ylim()[1] < 3
    assert SWEEPS["diverging"]().texts[0].get_text() == "suggested learning rate 6.3e-01"


@pytest.mark.parametrize("case", HISTORIES)
@pytest.mark.slow
def test_texts_of_a_history_neither_overlap_nor_leave_the_figure(case):
    figure = HISTORIES[case]()
    assert_readable(figure)
    assert_filled(figure)


@pytest.mark.parametrize("case", COMPARISONS)
def test_texts_of_a_comparison_neither_overlap_nor_leave_the_figure(case):
    figure = COMPARISONS[case]()
    assert_readable(figure)
    assert_filled(figure)


@pytest.mark.parametrize("case", SEARCHES)
@pytest.mark.slow
def test_texts_of_a_search_neither_overlap_nor_leave_the_figure(case):
    figure = SEARCHES[case]()
    assert_readable(figure)
    assert_filled(figure)


def test_the_check_for_overlaps_sees_one():
    figure = history_figure(run(5), range(5))
    figure.text(0.02, 0.98, "in the title's place", va="top")
    with pytest.raises(AssertionError, match="lies over"):
        assert_readable(figure)


@pytest.mark.parametrize("epochs", [1, 5, 1000])
def test_drawn_numbers_are_the_history_at_epochs_counted_from_1(epochs):
    history = run(epochs)
    figure = history_figure(history, range(epochs))
    for key, values in history.items():
        axes = panel(figure, key.removeprefix("val_"))
        assert line(axes, key) == (list(range(1, epochs + 1)), values)
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
        assert axes.get_xlim() == (0.5, epochs + 0.5)


def test_training_and_validation_share_a_panel_and_differ_in_colour_and_dashes():
    figure = history_figure(run(5), range(5))
    assert titles(figure) == ["loss", "accuracy"]
    training, validation = figure.axes[0].lines[:2]
    assert training.get_color() != validation.get_color()
    assert training.get_linestyle() == "-"
    assert validation.get_linestyle() == "--"


def test_a_few_points_are_shown_each_and_many_as_a_line():
    few = history_figure(run(5), range(5)).axes[0].lines[0]
    many = history_figure(run(100), range(100)).axes[0].lines[0]
    assert (few.get_marker(), many.get_marker()) == ("o", "")


def test_the_loss_comes_first_and_learning_rates_last():
    logs = {"learning_rate": [1e-3], "accuracy": [0.5], "val_loss": [0.7], "loss": [0.6]}
    assert titles(history_figure(logs, [0])) == ["loss", "accuracy", "learning rate"]


def test_a_fit_that_resumes_is_drawn_at_its_epochs():
    figure = history_figure({"loss": [0.5, 0.4]}, [20, 21])
    assert line(figure.axes[0], "loss") == ([21, 22], [0.5, 0.4])
    assert "best epoch 22 of 22: loss 0.4000 · too short to say: 2 of 5 epochs" in all_text(figure)


def test_the_best_epoch_is_named_and_ringed_in_every_panel():
    history = {
        "loss": [0.9, 0.5, 0.1],
        "val_loss": [0.9, 0.32634, 0.7],
        "val_accuracy": [0.1, 0.875, 0.99],
    }
    figure = history_figure(history, range(3))
    assert any(text.startswith("best epoch 2 of 3: val_loss 0.3263 ·") for text in all_text(figure))
    assert rings(panel(figure, "loss")) == {(2, 0.32634)}
    assert rings(panel(figure, "accuracy")) == {(2, 0.875)}
    assert panel(figure, "accuracy").get_title("right") == "○ 0.8750"


def test_a_panel_without_a_finite_value_in_the_best_epoch_has_no_ring():
    history = {"val_loss": [0.5, 0.9], "val_auc": [math.nan, 0.5], "val_late": [None, 0.5]}
    figure = history_figure(history, range(2))
    for title in ("auc", "late"):
        assert rings(panel(figure, title)) == set()
        assert panel(figure, title).get_title("right") == ""


def test_names_are_shown_as_they_are_and_not_as_mathematics():
    figure = history_figure({"loss": [0.5], "$x_1$": [0.5]}, [0])
    assert not any(text.get_parse_math() for text in drawn_texts(figure))


def test_the_title_tells_and_a_line_marks_where_overfitting_starts():
    logs = {"loss": LOSS, "val_loss": VALIDATION}
    figure = plots.history_figure(logs, range(16))
    assert "best epoch 8 of 16: val_loss 0.3263 · overfitting since epoch 9" in all_text(figure)
    assert "overfitting" in all_text(figure)
    (line,) = [line for line in figure.axes[0].lines if line.get_xdata()[0] == 8.5]
    assert list(line.get_xdata()) == [8.5, 8.5]


def test_the_gap_between_training_and_validation_is_shaded():
    logs = {"loss": [0.5, 0.4, 0.3], "val_loss": [0.6, None, 0.8], "accuracy": [0.1, 0.2, 0.3]}
    loss, accuracy = plots.history_figure(logs, range(3)).axes
    (gap,) = loss.collections
    corners = {tuple(corner) for corner in gap.get_paths()[0].vertices.round(6).tolist()}
    assert corners == {(1, 0.5), (1, 0.6), (3, 0.3), (3, 0.8)}
    assert not accuracy.collections


def test_the_best_accuracy_is_the_highest():
    history = {"loss": [0.9, 0.5], "val_accuracy": [0.9, 0.8]}
    figure = history_figure(history, range(2), monitor="val_accuracy")
    assert any(
        text.startswith("best epoch 1 of 2: val_accuracy 0.9000 ·") for text in all_text(figure)
    )


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("loss", True),
        ("val_loss", True),
        ("accuracy_loss", True),
        ("val_mean_absolute_error", True),
        ("rmse", True),
        ("sparse_categorical_crossentropy", True),
        ("false_positives", True),
        ("val_accuracy", False),
        ("acc", False),
        ("val_auc_1", False),
        ("f1_score", False),
        ("mean_io_u", False),
        ("cosine_similarity", False),
        ("precision_at_recall", False),
    ],
)
def test_the_name_tells_whether_lower_is_better(name, lower):
    assert lower_is_better(name) is lower


def test_mode_overrules_the_name():
    assert lower_is_better("val_auc", "min")
    assert not lower_is_better("val_loss", "max")
    assert best_epoch({"fluffiness": [1, 3, 2]}, range(3), "fluffiness", "max").epoch == 1


def test_a_name_that_tells_nothing_is_an_error_with_the_next_step():
    with pytest.raises(ValueError, match=r"'fluffiness' does not tell.*mode='min'"):
        lower_is_better("fluffiness")
    with pytest.raises(ValueError, match="mode='best' is unknown"):
        lower_is_better("loss", "best")


def test_the_first_of_equally_good_epochs_is_the_best():
    assert best_epoch({"val_auc": [0.1, 0.9, 0.9]}, range(3), "val_auc").epoch == 1


def test_values_that_are_not_finite_are_never_the_best():
    best = best_epoch({"loss": [math.nan, 0.5, -math.inf, None]}, range(4))
    assert (best.epoch, best.value) == (1, 0.5)
    assert best_epoch({"loss": [math.nan]}, [0]) is None


def test_without_validation_the_default_monitor_is_the_training_loss():
    assert monitored_log("val_loss", ["loss", "accuracy"]) == "loss"
    assert monitored_log("val_loss", ["loss", "val_loss"]) == "val_loss"
    assert monitored_log("val_loss", ["loss", "val_f1"]) == "loss"


def test_the_default_monitor_is_no_error_where_no_loss_is_logged():
    assert monitored_log("val_loss", ["val_f1"]) is None
    figure = history_figure({"val_f1": [0.5]}, [0])
    assert any(text.startswith("no finite val_loss in 1 epoch ·") for text in all_text(figure))


def test_a_monitor_that_the_first_validation_will_bring_is_waited_for():
    assert monitored_log("val_accuracy", ["loss", "accuracy"]) is None
    figure = history_figure(
        {"loss": [0.5], "accuracy": [0.5]}, [0], monitor="val_accuracy"
    )  # fmt: skip
    assert any(text.startswith("no finite val_accuracy in 1 epoch ·") for text in all_text(figure))


@pytest.mark.parametrize("logged", [["loss", "val_loss", "accuracy"], ["loss"]])
def test_an_unknown_monitor_is_an_error_that_lists_the_logs(logged):
    with pytest.raises(ValueError, match=r"monitor='val_accuracy'.*'loss'"):
        monitored_log("val_accuracy", logged)


def test_marks_stand_between_the_epochs_in_every_panel():
    marks = [PhaseMarker(3, "block4 unfrozen"), PhaseMarker(1, "block5 unfrozen")]
    figure = history_figure(run(5), range(5), marks=marks)
    for axes in figure.axes:
        assert upright_lines(axes) == [1.5, 3.5]
        labels = [text.get_text() for text in axes.texts]
        assert labels == ["block5 unfrozen", "block4 unfrozen"]


def test_labels_of_marks_stand_above_the_curves():
    figure = history_figure(run(30), range(30), marks=[PhaseMarker(10, "block5 unfrozen")])
    axes = figure.axes[0]
    label = axes.texts[0].get_window_extent(figure.canvas.get_renderer())
    highest = max(max(line.get_ydata()) for line in axes.lines[:2])
    assert axes.transData.transform((0, highest))[1] <= label.y0


def test_reasons_are_drawn_where_there_is_room_and_left_out_before_labels_are():
    marks = [PhaseMarker(3, "block5 unfrozen", "as scheduled"), PhaseMarker(5, "block4 unfrozen")]
    labels = [t.get_text() for t in history_figure(run(9), range(9), marks=marks).axes[0].texts]
    assert labels == ["block5 unfrozen: as scheduled", "block4 unfrozen"]
    full = [text.get_text() for text in HISTORIES["more reasons than fit"]().axes[0].texts]
    assert full
    assert not any("no better" in text for text in full)


def test_reasons_stand_in_the_first_panel_alone_which_leaves_room_in_the_others():
    first, *others = HISTORIES["reasons of unfreezing"]().axes
    assert "no better for 10 epochs" in first.texts[-1].get_text()
    assert [[text.get_text().strip(" ▸") for text in axes.texts] for axes in others] == [
        ["block10 unfrozen", "block18 unfrozen", "block37 unfrozen"]
    ] * 2


def test_labels_that_do_not_fit_are_counted():
    figure = HISTORIES["more marks than fit"]()
    labels = [text.get_text() for text in figure.axes[0].texts]
    counted = sum(int(text.split("(+")[1].rstrip(") ▸")) for text in labels if "(+" in text)
    assert len(labels) + counted == 28
    assert len(upright_lines(figure.axes[0])) == 28


def test_values_that_are_not_finite_leave_a_gap_and_a_cross():
    figure = history_figure({"loss": [0.9, math.nan, 0.5, math.inf]}, range(4))
    axes = figure.axes[0]
    drawn = line(axes, "loss")[1]
    assert drawn[0::2] == [0.9, 0.5]
    assert all(math.isnan(value) for value in drawn[1::2])
    (crosses,) = (line for line in axes.lines if line.get_marker() == "x")
    assert list(crosses.get_xdata()) == [2, 4]
    assert "not finite" in all_text(figure)
    assert "not finite" not in all_text(history_figure({"loss": [0.9]}, [0]))


def test_epochs_without_validation_are_bridged():
    history = {"loss": [0.9, 0.8, 0.7, 0.6], "val_loss": [None, 0.8, None, 0.7]}
    figure = history_figure(history, range(4))
    assert line(figure.axes[0], "val_loss") == ([2, 4], [0.8, 0.7])
    assert "not finite" not in all_text(figure)


def test_learning_rates_have_a_logarithmic_panel_and_names():
    logs, marks = gradual(30, 2)
    axes = panel(history_figure(logs, range(30), marks=marks), "learning rate")
    assert axes.get_yscale() == "log"
    assert line(axes, "learning_rate/block1") == (list(range(21, 31)), [5e-5] * 10)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["base", "block2", "block1"]  # from the highest to the lowest


def test_each_of_many_learning_rates_has_a_line_of_its_own():
    logs, _ = gradual(30, 14)
    axes = panel(history_figure(logs, range(30)), "learning rate")
    assert len({(line.get_color(), str(line._dash_pattern)) for line in axes.lines}) == 15


def test_one_learning_rate_needs_no_name():
    figure = history_figure({"loss": [1.0], "learning_rate": [1e-3]}, [0])
    assert panel(figure, "learning rate").get_legend() is None


def test_a_learning_rate_of_zero_does_not_break_the_logarithmic_panel():
    figure = history_figure({"loss": [1.0] * 3, "learning_rate": [0.0, 1e-3, 1e-4]}, range(3))
    assert figure.axes[1].get_ylim()[0] > 1e-5
    zero = history_figure({"loss": [1.0], "learning_rate": [0.0]}, [0])
    assert zero.axes[1].get_yscale() == "linear"


def test_where_nothing_is_finite_there_is_no_scale():
    logs = {"loss": [math.nan] * 3, "val_loss": [math.inf] * 3, "accuracy": [0.5, 0.6, 0.7]}
    for figure in (history_figure(logs, range(3)), compare_figure({"a": logs, "b": logs})):
        assert [len(axes.get_yticks()) > 0 for axes in figure.axes] == [False, True]
    assert_readable(figure)


def test_what_is_no_number_is_not_drawn():
    history = {
        "loss": [0.5, 0.4],
        "epoch": [0, 1],
        "f1_per_class": [[0.1, 0.2], [0.3, 0.4]],
        "comment": ["a", "b"],
    }
    assert titles(history_figure(history, range(2))) == ["loss"]


def test_numbers_of_numpy_are_drawn():
    history = {"loss": [np.float32(0.5), np.float64(0.25)], "hits": [np.int64(1), np.int64(2)]}
    figure = history_figure(history, range(2))
    assert line(panel(figure, "loss"), "loss")[1] == [0.5, 0.25]
    assert line(panel(figure, "hits"), "hits")[1] == [1, 2]


def test_nothing_to_draw_is_an_error_that_says_what_came():
    with pytest.raises(ValueError, match=r"nothing to draw.*'phase'"):
        history_figure({"phase": ["head"]}, [0])
    with pytest.raises(ValueError, match="after the first epoch"):
        history_figure({}, [])


def test_a_log_with_too_few_values_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="'val_loss' has 1 values for 2 epochs"):
        history_figure({"loss": [1, 2], "val_loss": [1]}, range(2))


def test_a_run_keeps_its_colour_in_every_panel_and_runs_may_differ_in_length():
    histories = {"short": run(3), "long": run(7)}
    figure = compare_figure(histories)
    colors = {}
    for axes in figure.axes:
        for name, logs in histories.items():
            (found,) = (
                drawn
                for drawn in axes.lines
                if list(drawn.get_ydata()) == logs[axes.get_title("left")]
            )
            colors.setdefault(name, set()).add(found.get_color())
            assert list(found.get_xdata()) == list(range(1, len(logs["loss"]) + 1))
    assert [len(own) for own in colors.values()] == [1, 1]
    assert colors["short"] != colors["long"]


def test_of_a_compared_run_validation_is_the_thicker_line():
    training, validation = compare_figure({"a": run(3)}).axes[0].lines[:2]
    assert training.get_linewidth() < validation.get_linewidth()


def test_a_comparison_names_the_best_run_and_each_best_epoch():
    histories = {
        "a": {"val_loss": [0.5, 0.4, 0.6]},
        "b": {"val_loss": [0.3, 0.35]},
        "c": {"loss": [9]},
    }
    texts = all_text(compare_figure(histories))
    assert "best val_loss 0.3000 at epoch 1: b" in texts
    assert "a  ○ 0.4000 at epoch 2" in texts
    assert "c" in texts
    assert "best epoch by val_loss" in texts


def test_of_a_compared_run_the_epoch_that_was_kept_is_ringed_in_the_place_of_the_best():
    histories = {"a": {"val_loss": [0.5, 0.4, 0.6]}, "b": {"val_loss": [0.3, 0.35]}}
    figure = compare_figure(histories, kept={"a": 2, "b": 0})
    assert rings(figure.axes[0]) == {(3, 0.6), (1, 0.3)}
    texts = all_text(figure)
    assert "a  ○ 0.6000 at epoch 3" in texts
    assert "epoch whose weights were kept" in texts


def test_a_title_may_be_given():
    assert "cats" in all_text(compare_figure({"a": run(3)}, title="cats"))
    assert history_figure(run(3), range(3), title="cats").texts[0].get_text() == "cats"


def test_compared_runs_are_told_apart_or_refused():
    assert len({tuple(line.values()) for line in RUN_LINES}) == 24
    for one, other in itertools.pairwise(RUN_LINES):  # also where their curves are the same
        assert one["color"] != other["color"]
        assert one["linestyle"] != other["linestyle"]
    with pytest.raises(ValueError, match=r"25 runs\. Expected at most 24"):
        compare_figure({str(i): run(1) for i in range(25)})
    with pytest.raises(ValueError, match="no run to draw: histories is empty"):
        compare_figure({})


@pytest.mark.parametrize("times", [20, 1e6])
def test_a_run_far_above_the_others_leaves_the_panel_which_says_so(times):
    calm, high = run(9), scaled(run(9, seed=1), times)
    saved = {"loss": [5e5, *calm["loss"]], "val_loss": [3e5, *calm["val_loss"]]}
    axes, accuracy = compare_figure({"a": calm, "saved": saved, "high": high}).axes
    bottom, top = axes.get_ylim()
    good = calm["loss"] + calm["val_loss"]
    assert bottom < min(good) < max(good) < top < 1.2 * max(good)
    assert axes.get_title("right") == f"values above {max(good):.4f} are outside"
    assert accuracy.get_title("right") == ""
    alone = compare_figure({"high": high}).axes[0]
    assert alone.get_ylim()[1] > max(high["loss"])  # there is nothing else to see


def test_runs_of_about_the_same_height_have_a_linear_axis():
    figure = compare_figure({"a": run(9), "b": scaled(run(9), 4), "lost": {"loss": [math.nan]}})
    assert figure.axes[0].get_yscale() == "linear"
    assert compare_figure({"a": {"loss": [0.0]}, "b": {"loss": [5.0]}}).axes[0].lines


def test_runs_with_the_same_curve_show_through_each_other():
    histories = {str(i): run(5) for i in range(12)}
    lines = compare_figure(histories).axes[1].lines[1::2]
    by_height = sorted(lines, key=lambda line: line.get_zorder())
    gaps = [tuple(line._dash_pattern[1] or (1, 0)) for line in by_height]
    inked = [sum(gap[::2]) / sum(gap) for gap in gaps]
    assert inked == sorted(inked, reverse=True)
    assert len(set(gaps)) == 6


def test_a_search_shows_scores_the_running_best_and_the_best_trial():
    scores = [0.5, 0.7, 0.3, 0.4]
    figure = search_figure(
        [{"trial": i, "score": s, "hyperparameters": {"x": i}} for i, s in enumerate(scores)]
    )
    running, points = figure.axes[0].lines[:2]
    assert list(running.get_ydata()) == [0.5, 0.5, 0.3, 0.3]
    assert list(points.get_ydata()) == scores
    assert rings(figure.axes[0]) == {(2, 0.3)}
    assert rings(figure.axes[1]) == {(2, 0.3)}
    assert "best of 4 trials: trial 2, val_loss 0.3000" in all_text(figure)


def test_a_search_for_the_highest_score_finds_it():
    found = search_figure(list(trials(20)), score_name="val_accuracy")
    best = max(trials(20), key=lambda trial: trial["score"])
    assert (best["trial"], best["score"]) in rings(found.axes[0])


def test_hyperparameters_have_the_axis_that_suits_them():
    figure = search_figure(list(trials(40, 5)))
    assert panel(figure, "learning_rate").get_xscale() == "log"
    assert panel(figure, "dropout").get_xscale() == "linear"
    labels = [label.get_text() for label in panel(figure, "augment").get_xticklabels()]
    assert sorted(labels) == ["False", "True"]


def test_hyperparameters_that_never_varied_are_left_out():
    figure = search_figure(
        [{"trial": i, "score": i, "hyperparameters": {"a": 1, "b": i}} for i in range(3)]
    )
    assert titles(figure) == ["trials", "b"]


def test_a_conditional_hyperparameter_is_drawn_where_it_was_set():
    figure = search_figure(
        [
            {"trial": 0, "score": 0.5, "hyperparameters": {"a": 1}},
            {"trial": 1, "score": 0.3, "hyperparameters": {"a": 2, "b": 5}},
            {"trial": 2, "score": 0.4, "hyperparameters": {"a": 2, "b": 6}},
        ]
    )
    assert list(panel(figure, "b").lines[0].get_xdata()) == [5, 6]


def test_a_search_without_trials_is_an_error():
    with pytest.raises(ValueError, match="trials is empty"):
        search_figure([])


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".svg", ".pdf"])
def test_the_suffix_says_the_format_and_folders_are_made(tmp_path, suffix):
    path = tmp_path / "a" / "b" / f"history{suffix}"
    assert save_figure(history_figure(run(3), range(3)), path) == path
    content = path.read_bytes()
    if suffix == ".svg":
        assert ElementTree.fromstring(content).tag.endswith("svg")
    else:
        assert content.startswith(b"%PDF" if suffix == ".pdf" else b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_the_picture_has_the_size_of_the_figure(tmp_path):
    path = save_figure(history_figure(run(3), range(3)), tmp_path / "history.png")
    with Image.open(path) as image:
        assert image.size == (1200, 480)


@pytest.mark.parametrize("name", ["history.jpg", "history", "history.png.txt"])
def test_an_unsupported_suffix_is_an_error_that_lists_the_supported(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        save_figure(history_figure(run(3), range(3)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(NotADirectoryError, match="is, or lies under, a file"):
        plots.figure_path(tmp_path / "file" / "history.png")
    with pytest.raises(NotADirectoryError, match="is, or lies under, a file"):
        plots.figure_path(tmp_path / "file" / "deeper" / "history.png")
    with pytest.raises(IsADirectoryError, match=r"folder\.png' is a folder"):
        plots.figure_path(tmp_path / "folder.png")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_picture_that_fails_midway_leaves_the_old_one_and_no_debris(tmp_path, monkeypatch, error):
    path = tmp_path / "history.png"
    path.write_bytes(b"the old picture")

    def fail_midway(figure, file, **kwargs):
        Path(file).write_bytes(b"half a pic")
        raise error

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail_midway)
    with pytest.raises(type(error)):
        save_figure(history_figure(run(3), range(3)), path)
    assert path.read_bytes() == b"the old picture"
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_reads_the_old_picture_can_finish(tmp_path):
    path = tmp_path / "history.png"
    path.write_bytes(b"the old picture")
    with path.open("rb") as reader:
        save_figure(history_figure(run(3), range(3)), path)
        assert reader.read() == b"the old picture"


def test_the_users_own_matplotlib_settings_neither_change_the_picture_nor_are_changed(tmp_path):
    plain = save_figure(history_figure(run(3), range(3)), tmp_path / "plain.png")
    settings = {"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 10}
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        styled = save_figure(history_figure(run(3), range(3)), tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    assert plain.read_bytes() == styled.read_bytes()


def run_python(code):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_plots_import_nothing_heavy_and_draw_without_pyplot_or_display():
    code = (
        "import sys; from keras_transfer import plotting as plots\n"
        "print({'matplotlib', 'keras', 'tensorflow'} & set(sys.modules))\n"
        "plots.history_figure({'loss': [1, 2]}, [0, 1]).canvas.draw()\n"
        "print({'matplotlib.pyplot', 'keras', 'tensorflow'} & set(sys.modules))\n"
    )
    assert run_python(code) == "set()\nset()\n"


@pytest.mark.slow
def test_the_package_is_imported_where_matplotlib_cannot_be():
    # Not "does not import it": keras 3.15 itself imports matplotlib.pyplot wherever it can.
    code = "import sys; sys.modules['matplotlib'] = None; import keras_transfer"
    assert run_python(code) == ""


@pytest.mark.slow
def test_no_figure_is_open_in_pyplot_afterwards():
    import matplotlib.pyplot as plt

    history_figure(run(3), range(3))
    compare_figure({"a": run(3)})
    search_figure(list(trials(3)))
    assert plt.get_fignums() == []
