"""Parallel coordinates and importance: what they show, and that they can be read."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from test_plots import all_text, assert_filled, assert_readable, line, trials

from keras_transfer.plotting import importance_figure, parallel_figure, search_figure
from keras_transfer.plotting.parallel_axes import NOT_SET, hyperparameter_axis, score_axis
from keras_transfer.plotting.style import VERMILLION
from keras_transfer.utils.confidence_intervals import Estimate

LONG = "a_hyperparameter_with_a_name_that_is_longer_than_any_slot"


def searched(count: int, *, seed: int = 0, failed: bool = True):
    """Twelve hyperparameters, three of them not always set."""
    random = np.random.default_rng(seed)
    for number in range(1, count + 1):
        values = {
            "backbone": str(random.choice(["efficientnet_lite0", "mobilenet_v2"])),
            "pooling": str(random.choice(["avg", "max"])),
            "hidden": int(random.choice([32, 64, 128, 256, 512])),
            "depth": int(random.integers(1, 3)),
            "dropout": float(random.choice([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])),
            "learning_rate": float(10 ** random.uniform(-4, -2)),
            "weight_decay": float(10 ** random.uniform(-6, -2)),
            "label_smoothing": float(random.choice([0.0, 0.05, 0.1])),
            "unfreeze": int(random.integers(0, 4)),
        }
        if values["unfreeze"]:
            values["fine_tuning_learning_rate"] = float(10 ** random.uniform(-4.5, -3))
            values["lr_decay"] = float(random.uniform(0.3, 1))
            values["frozen_epochs"] = int(random.integers(1, 20))
        score = float(random.uniform(0.3, 0.5)) if random.random() > 0.02 else 8.0
        score = math.nan if failed and random.random() < 0.1 else score
        yield {"trial": number, "score": score, "hyperparameters": values}


def small(values, scores=None):
    return [
        {"trial": i, "score": (scores or values)[i], "hyperparameters": {"a": value}}
        for i, value in enumerate(values)
    ]


PARALLELS = {
    "one trial": lambda: parallel_figure(list(trials(1))),
    "one hyperparameter": lambda: parallel_figure(list(trials(9, 1))),
    "six hyperparameters": lambda: parallel_figure(list(trials(50))),
    "twelve hyperparameters, 5 trials": lambda: parallel_figure(list(searched(5, failed=False))),
    "twelve hyperparameters, 500 trials": lambda: parallel_figure(list(searched(500))),
    "more than twelve": lambda: parallel_figure(
        [
            {"trial": i, "score": i, "hyperparameters": {f"{LONG}_{n}": i * n for n in range(15)}}
            for i in range(4)
        ]
    ),
    "many long categories": lambda: parallel_figure(
        small([f"a_backbone_with_a_long_name_number_{i}" for i in range(40)], list(range(40)))
    ),
    "equal scores": lambda: parallel_figure(small([1, 2, 3], [0.5, 0.5, 0.5])),
    "a long score": lambda: parallel_figure(
        small([1, 2, 3]), score_name="val_a_metric_with_a_long_name_accuracy"
    ),
}


@pytest.mark.parametrize("case", PARALLELS)
@pytest.mark.slow
def test_texts_of_parallel_coordinates_neither_overlap_nor_leave_the_figure(case):
    figure = PARALLELS[case]()
    assert_readable(figure)
    assert_filled(figure)
    assert plt.get_fignums() == []


def test_each_trial_is_a_line_at_the_places_of_its_values():
    figure = parallel_figure(small([1e-5, 1e-1, 1e-3, 1e-3], [0.4, 0.2, 0.3, None]))
    axes = figure.axes[0]
    assert line(axes, "trial 0") == ([0, 1], [0.0, 0.0])
    assert line(axes, "trial 1") == ([0, 1], [1.0, 1.0])
    for drawn, expected in zip(line(axes, "trial 2")[1], [1 / 2, 1 / 2], strict=True):
        assert drawn == pytest.approx(expected)
    assert "trial 3" not in {one.get_label() for one in axes.lines}  # it has no score
    title = "best of 4 trials: trial 1, val_loss 0.2000 · 1 trial without a score left out"
    assert title in all_text(figure)


def test_the_best_trial_is_thick_and_over_all_others():
    figure = parallel_figure(list(searched(500)))
    drawn = {t.get_label(): t for t in figure.axes[0].lines if t.get_label().startswith("trial")}
    scores = {f"trial {t['trial']}": t["score"] for t in searched(500)}
    best = min(drawn, key=scores.get)
    assert drawn[best].get_color() == VERMILLION
    others = [one for name, one in drawn.items() if name != best]
    assert all(one.get_zorder() < drawn[best].get_zorder() for one in others)
    assert max(one.get_linewidth() for one in others) < drawn[best].get_linewidth() / 2


@pytest.mark.parametrize("mode", ["min", "max"])
def test_of_equal_scores_the_earlier_trial_is_the_best_in_every_picture(mode):
    numbers = (4, 2, 7, 5)
    equal = [{"trial": n, "score": 0.5, "hyperparameters": {"a": n}} for n in numbers]
    for draw in (parallel_figure, search_figure):
        (title,) = [text for text in all_text(draw(equal, mode=mode)) if "best of 4" in text]
        assert "trial 2" in title, draw


def test_the_highest_is_the_best_where_more_is_better():
    figure = parallel_figure(small([1, 2, 3]), score_name="val_accuracy")
    (best,) = [one for one in figure.axes[0].lines if one.get_color() == VERMILLION]
    assert best.get_label() == "trial 2"
    assert list(best.get_ydata()) == [1.0, 1.0]  # the best score is at the top


def test_the_better_a_score_the_darker_its_line():
    figure = parallel_figure(small([1, 2, 3, 4, 5]))
    drawn = {one.get_label(): one for one in figure.axes[0].lines}
    levels = [
        sum(int(to_hex(drawn[f"trial {i}"].get_color())[k : k + 2], 16) for k in (1, 3, 5))
        for i in (1, 2, 3, 4)
    ]
    assert levels == sorted(levels)
    assert len(set(levels)) == 4


def test_axes_suit_their_values():
    def ticks(values, name="a"):
        of = [{"hyperparameters": {name: value}} for value in values]
        return [text for _, text in hyperparameter_axis(name, of).ticks]

    assert ticks([32, 512, 64, 128]) == ["32", "64", "128", "512"]
    assert ticks([1e-4, 3e-3, 1e-2], "learning_rate") == ["1e-4", "3e-3", "0.01"]
    assert ticks([10 ** (-4 + i / 10) for i in range(22)]) == ["1e-4", "2e-4", "5e-4", "1e-3",
                                                             "2e-3", "5e-3", "0.01"]  # fmt: skip
    assert ticks([0.0, 0.35, 0.7]) == ["0", "0.35", "0.7"]
    assert ticks([True, False]) == ["True", "False"]
    assert hyperparameter_axis("a", small(["avg", "max", "avg"], [1, 2, 3])).places == (0, 1, 0)
    assert ticks([1, 2]) == ["1", "2"]
    assert ticks(["max", 3]) == ["max", "3"]


def test_a_hyperparameter_that_a_trial_did_not_have_is_under_its_axis():
    trials = [
        {"trial": 1, "score": 0.5, "hyperparameters": {"a": 1}},
        {"trial": 2, "score": 0.3, "hyperparameters": {"a": 2, "b": 5}},
        {"trial": 3, "score": 0.4, "hyperparameters": {"a": 2, "b": 6}},
    ]
    assert hyperparameter_axis("b", trials).places == (NOT_SET, 0.0, 1.0)
    figure = parallel_figure(trials)
    assert line(figure.axes[0], "trial 1")[1][1] == NOT_SET
    assert "not set" in all_text(figure)


def test_scores_far_worse_than_the_others_stand_together_at_the_bottom():
    axis = score_axis("val_loss", [0.2, 0.3, 0.3, 9.0, 99.0], lower_is_better=True)
    assert axis.places == pytest.approx((1, 0.8, 0.8, 0, 0))
    assert axis.ticks[0] == (0.0, "≥ 0.7")
    axis = score_axis("val_auc", [0.9, 0.8, 0.8, 0.1], lower_is_better=False)
    assert axis.ticks[0] == (0.0, "≤ 0.4")


def test_an_ordinary_bad_trial_stands_in_its_place():
    for scores in ([0.9, 0.8, 0.7], [0.963, 0.926, 0.833]):
        axis = score_axis("val_auc", scores, lower_is_better=False)
        assert "≤" not in "".join(text for _, text in axis.ticks)
        figure = search_figure(small([1, 2, 3], scores), score_name="val_auc")
        assert "outside" not in figure.axes[0].get_title("right")


def test_nothing_to_draw_is_an_error_with_the_next_step():
    with pytest.raises(ValueError, match=r"holds 1 trials, 0 of them with a finite score.*first"):
        parallel_figure(small([None]))
    with pytest.raises(ValueError, match="importances is empty"):
        importance_figure({})


def test_a_search_lets_trials_that_diverged_lie_outside():
    figure = search_figure(small([1, 2, 3, 4], [0.3, 0.2, 0.3, 99.0]))
    assert figure.axes[0].get_ylim()[1] < 0.8
    assert figure.axes[0].get_title("right") == "values above 0.7000 are outside"
    assert_readable(figure)
    figure = search_figure(small([1, 2, 3, 4], [0.8, 0.9, 0.8, 0.1]), score_name="val_auc")
    assert figure.axes[0].get_ylim()[0] > 0.3
    assert figure.axes[0].get_title("right").startswith("values below")


IMPORTANCES = {
    "one": lambda: {"learning_rate": Estimate(0.6, 0.5, 0.7)},
    "twelve": lambda: {
        f"hyperparameter_{i}": Estimate(v, v - 0.05, v + 0.05)
        for i, v in enumerate(np.linspace(-0.1, 0.9, 12))
    },
    "long names": lambda: {LONG * 3: Estimate(0.1, 0.0, 0.2), "$x_1$": Estimate(0.0, 0.0, 0.0)},
    "nothing above 0": lambda: {"a": Estimate(-0.02, -0.03, -0.01), "b": Estimate(0, 0, 0)},
}


@pytest.mark.parametrize("case", IMPORTANCES)
def test_texts_of_importances_neither_overlap_nor_leave_the_figure(case):
    figure = importance_figure(IMPORTANCES[case](), title="importance from 30 trials")
    assert_readable(figure)
    assert_filled(figure)


def test_bars_are_the_importances_the_largest_at_the_top():
    figure = importance_figure(
        {"a": Estimate(0.1, 0.05, 0.15), "b": Estimate(0.6, 0.5, 0.7), "c": Estimate(0, -0.1, 0.1)}
    )
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.6, 0.1, 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a", "c"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    spans = [tuple(path.vertices[:, 0]) for path in axes.collections[0].get_paths()]
    assert spans == [(0.5, 0.7), (0.05, 0.15), (-0.1, 0.1)]
    assert "0.60" in all_text(figure)
