"""How much hyperparameters mattered, and that nothing is said where nobody can tell."""

import math

import numpy as np
import pytest

from keras_transfer.search.report.importance import LEAST_R2, LEAST_TRIALS, importance


def search(count: int, *, of_rate: float = 1.0, noise: float = 0.02, seed: int = 0):
    """Trials whose score follows from the learning rate and the pooling, and from nothing else."""
    random = np.random.default_rng(seed)
    for number in range(1, count + 1):
        values = {
            "learning_rate": float(10 ** random.uniform(-4, -2)),
            "pooling": str(random.choice(["avg", "max"])),
            "hidden": int(random.choice([64, 128, 256])),
            "dropout": float(random.uniform(0, 0.7)),
            "seeded": 7,
        }
        if values["hidden"] > 64:
            values["decay"] = float(random.uniform(0.3, 1))
        score = of_rate * abs(math.log10(values["learning_rate"]) + 3)
        score += 0.4 * of_rate * (values["pooling"] == "max") + random.normal(0, noise)
        yield {"trial": number, "score": score, "hyperparameters": values}


@pytest.fixture(scope="module")
def found():
    return importance(list(search(60)))


def test_what_matters_comes_before_what_does_not(found):
    values = {name: one.value for name, one in found.of.items()}
    assert sorted(values, key=values.get)[-2:] == ["pooling", "learning_rate"]
    assert values["learning_rate"] > 0.3
    assert all(abs(values[name]) < 0.05 for name in ("hidden", "dropout", "decay"))
    assert all(one.low < one.value < one.high for one in found.of.values())
    assert (found.trials, found.reason) == (60, "")
    assert 0.5 < found.r2 <= 1


def test_what_never_varied_has_no_importance(found):
    assert "seeded" not in found.of


def test_the_same_trials_give_the_same_numbers(found):
    assert importance(list(search(60))) == found


def test_one_trial_that_diverged_changes_little(found):
    trials = list(search(60))
    trials[7] = {**trials[7], "score": 1e9}
    assert importance(trials).r2 == pytest.approx(found.r2, abs=0.15)


def test_more_and_less_are_as_important(found):
    turned = [{**trial, "score": -trial["score"]} for trial in search(60)]
    assert importance(turned).r2 == pytest.approx(found.r2, abs=0.02)


def test_a_hyperparameter_that_only_some_trials_have_is_measured():
    trials = list(search(40, of_rate=0))
    for trial in trials:
        trial["score"] += "decay" in trial["hyperparameters"]
    values = {name: one.value for name, one in importance(trials).of.items()}
    assert max(values, key=values.get) in ("decay", "hidden")  # one follows from the other


def test_too_few_trials_do_not_tell():
    trials = list(search(LEAST_TRIALS - 1))
    trials += [{"trial": 99, "score": None, "hyperparameters": {"dropout": 0.1}}] * 5
    found = importance(trials)
    assert found.of == {}
    assert found.reason == "Too few trials to tell: 9 with a score, 10 at least are needed."
    assert math.isnan(found.r2)


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_tell(seed):
    found = importance(list(search(20, of_rate=0, seed=seed)))
    assert found.of == {}
    assert found.r2 < LEAST_R2
    assert found.reason.startswith("Too few trials to tell: from 20 trials a random forest")


def test_trials_that_are_all_the_same_do_not_tell():
    same = [{"trial": i, "score": 0.5, "hyperparameters": {"a": i}} for i in range(12)]
    assert importance(same).reason == "Nothing differed between the trials."
    bare = [{"trial": i, "score": i, "hyperparameters": {}} for i in range(12)]
    assert importance(bare).reason == "Nothing differed between the trials."
