"""Costs: what a trial takes is known before it starts, and what fits into the time is run."""

import math

import pytest
from conftest import images, tiny_backbone

from keras_transfer.search.budget.costs import Costs
from keras_transfer.search.hypermodel import TransferHyperModel
from keras_transfer.search.space.space import Space

# Seconds an image, of a backbone whose blocks take a hundredth each.
LINKS = ("preprocessing", "block1", "block2", "block3", "block4", "pooling")
FORWARD = dict.fromkeys(LINKS, 0.01)


@pytest.fixture(scope="module")
def hypermodel():
    space = Space(unfreeze=[0, 1, 3], fine_tuning_epochs=10)
    return TransferHyperModel(
        {"tiny": tiny_backbone()}, ["a", "b"], space=space, epochs=30, flips="mirror"
    )


@pytest.fixture
def costs(hypermodel):
    made = Costs(hypermodel, images(4), [(1000, 100)], epochs=30)
    made._forward["tiny"] = FORWARD
    return made


def values(costs: Costs, unfreeze: int, **more) -> dict:
    return costs.hypermodel.space.complete({"unfreeze": unfreeze, **more}, ["tiny"])


def test_each_link_is_measured(hypermodel):
    costs = Costs(hypermodel, images(4), [(1000, 100)], epochs=30)
    assert tuple(costs.forward("tiny")) == LINKS
    assert all(0 < seconds < 1 for seconds in costs.forward("tiny").values())
    assert costs.forward("tiny") is costs.forward("tiny")


def test_more_blocks_and_more_epochs_take_longer(costs):
    shallow, deep = (costs.seconds(values(costs, number)) for number in (1, 3))
    assert costs.seconds(values(costs, 0)) < shallow < deep
    few = [costs.seconds(values(costs, 3), epochs) for epochs in (1, 2, 3)]
    assert few[2] - few[1] == pytest.approx(few[1] - few[0])
    # 1000 images through block2 and up: three blocks and the pooling.
    assert few[1] - few[0] == pytest.approx(0.04 * (2.3 * 1000 + 0.6 * 100))


def test_activations_that_are_kept_cost_nothing_more(costs):
    deep, shallow = values(costs, 3), values(costs, 1)
    before = [costs.seconds(one, 1) for one in (deep, shallow)]
    costs.note(deep, 1, before[0])
    after = [costs.seconds(one, 1) for one in (deep, shallow)]
    # Two views of each training image: of all below, and of what lies above the place that is kept.
    assert before[0] - after[0] == pytest.approx(0.6 * 0.02 * 2100)
    assert before[1] - after[1] == pytest.approx(0.6 * 0.02 * 2100)


def test_what_trials_took_corrects_what_is_expected(costs):
    deep = values(costs, 3)
    expected = costs.seconds(deep)
    costs.note(deep, 10, 2 * expected)
    kept = 0.6 * 0.02 * 2100
    assert costs.seconds(deep) == pytest.approx(2 * (expected - kept))
    assert costs.seconds(values(costs, 0)) == pytest.approx(costs._usual(values(costs, 0), None))


def test_without_a_limit_a_trial_is_run_as_it_is(costs):
    planned = costs.plan(values(costs, 3), math.inf)
    assert planned.values == values(costs, 3)
    assert planned.seconds == costs.seconds(values(costs, 3))
    assert planned.share == math.inf


def test_as_much_is_unfrozen_as_fits(costs):
    deep = values(costs, 3)
    four = {number: costs.seconds(values(costs, number), 4) for number in (1, 3)}
    assert costs.plan(deep, four[3] + 1).values["unfreeze"] == 3
    assert costs.plan(deep, four[3] - 1).values == values(costs, 1)
    heads = costs.plan(deep, four[1] - 1)
    assert heads.values["unfreeze"] == 0
    assert "lr_decay" not in heads.values
    assert costs.plan(deep, 1.0) is None
    rounds = {**deep, "tuner/epochs": 3}
    assert costs.plan(rounds, four[3] - 1).values["tuner/epochs"] == 3


def test_several_that_fit_share_the_time(costs):
    deep = values(costs, 3)
    full = costs.seconds(deep)
    assert costs.plan(deep, 3.5 * full).share == pytest.approx(3.5 * full / 3)
    assert costs.plan(deep, 0.9 * full).share == pytest.approx(0.9 * full)


def test_time_is_left_to_train_the_best_again(hypermodel):
    costs = Costs(hypermodel, images(4), [(1000, 100)], epochs=30, again=1.1)
    costs._forward["tiny"] = FORWARD
    deep = values(costs, 3)
    full = costs.seconds(deep)
    assert costs.plan(deep, 3.2 * full).share == pytest.approx((3.2 - 1.1) * full / 2)
    assert costs.plan(deep, 2.0 * full).share == pytest.approx(2.0 * full / 2.1)
    # Two that are short are worth less than one that is long.
    assert costs.plan(deep, 1.2 * full).share == pytest.approx(1.2 * full)
