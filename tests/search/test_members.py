from dataclasses import dataclass

import numpy as np
import pytest

from keras_transfer.search.averaging.members import to_average, without_heads
from keras_transfer.search.metrics import OBJECTIVES, chance
from keras_transfer.search.state.outcome import Outcome


@dataclass(frozen=True)
class OfTrial:
    """What of a Member decides on what it goes with."""

    backbone: str = "one"
    pooling: str = "avg"
    origin: str = ""
    image_shape: tuple = (8, 8, 3)
    classes: tuple = ("a", "b")


def trial(number: int, score: float, member: OfTrial | None = None, **hyperparameters):
    hyperparameters = {"rate": number, **hyperparameters}
    outcome = Outcome(number, f"{number:04d}", "completed", score, 1.0, hyperparameters)
    return outcome, [member or OfTrial()]


def numbers(*trials, metric: str = "loss", chance: float = 0.7, most: int = 5):
    found = to_average(iter(trials), OBJECTIVES[metric], chance=chance, most=most)
    return [o.trial for o, _ in found.trials], [o.trial for o in found.too_bad]


def test_trials_that_have_diverged_or_are_near_chance_are_left_out_and_named():
    assert numbers(trial(3, 0.2), trial(1, 0.3), trial(2, 0.6), trial(4, 6.1)) == ([3, 1], [2, 4])
    higher = [trial(2, 0.94), trial(1, 0.86), trial(3, 0.42)]
    assert numbers(*higher, metric="auc", chance=0.5) == ([2, 1], [3])


def test_where_the_best_is_no_better_than_chance_it_is_alone():
    assert numbers(trial(1, 0.9), trial(2, 1.0)) == ([1], [2])


def test_the_earlier_rounds_of_a_trial_are_left_out():
    rounds = [
        trial(9, 0.2, rate=1, **{"tuner/epochs": 9, "tuner/trial_id": "0003"}),
        trial(4, 0.21, rate=1, **{"tuner/epochs": 3}),
        trial(5, 0.22, rate=2, **{"tuner/epochs": 3}),
    ]
    assert numbers(*rounds) == ([9, 5], [])


def test_no_more_trials_are_read_than_are_averaged():
    def ranked():
        yield trial(1, 0.2)
        yield trial(2, 0.2)
        raise AssertionError("read on")

    found = to_average(ranked(), OBJECTIVES["loss"], chance=0.7, most=2)
    assert len(found.trials) == 2
    assert to_average(iter([]), OBJECTIVES["loss"], chance=0.7, most=2).trials == ()


def test_chance_is_what_the_frequencies_of_the_classes_give():
    labels = [0] * 6 + [1] * 2
    expected = -np.mean(np.log(np.where(np.asarray(labels) == 1, 0.25, 0.75)))
    assert chance("loss", labels) == pytest.approx(expected)
    assert (chance("accuracy", labels), chance("auc", labels)) == (0.75, 0.5)
    assert chance("f1", labels) == pytest.approx((2 * 6 / (6 + 8)) / 2)  # all taken for the first


def accuracy(number: int, value: float, unfreeze: float = 0) -> Outcome:
    metrics = {"val_accuracy": value}
    values = {"unfreeze": unfreeze}
    return Outcome(number, f"{number:04}", "completed", 1.0, 1.0, values, metrics=metrics)


def test_heads_alone_are_averaged_only_where_they_are_better_than_chance_would_give():
    probe, head, tuned = accuracy(0, 0.90), accuracy(1, 0.91), accuracy(2, 0.89, 0.6)
    assert without_heads([probe, head, tuned], 300) == ([tuned], [probe, head])
    assert without_heads([probe, head, tuned], 30_000) == ([probe, head, tuned], [])
    assert without_heads([probe, head], 300) == ([probe, head], [])
    assert without_heads([tuned], 300) == ([tuned], [])
    failed = Outcome(3, "0003", "failed", None, 1.0, {"unfreeze": 1})
    assert without_heads([probe, failed], 300) == ([probe], [])
