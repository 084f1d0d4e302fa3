"""KerasTuner's oracles: their suggestions follow from the seed and earlier trials alone."""

import pytest
from stand_in import StandIn, trials

from keras_transfer.search.metrics import Objective

KINDS = ["random", "bayesian", "grid", "hyperband"]


class Grid(StandIn):
    """Five values and three more under a condition: a grid of eight."""

    def build(self, hp):
        hp.Choice("pooling", ["avg", "max"])
        hp.Float("rate", 1e-4, 1e-2, sampling="log", step=10)
        with hp.conditional_scope("pooling", ["max"]):
            hp.Choice("width", [1, 2])
        return super().build(hp)


def a_search(output, kind, **changes):
    hypermodel = Grid() if kind == "grid" else StandIn()
    arguments = {"oracle_name": kind, "count": 8, "epochs": 9, **changes}
    return trials(output, hypermodel, **arguments)


def facts(search):
    return [(o.trial, o.status, o.score, o.hyperparameters, o.epochs) for o in search.outcomes]


@pytest.mark.filterwarnings("ignore:The process died while it ran trial:UserWarning")
@pytest.mark.filterwarnings("ignore:The weights of trial .* are lost:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_search_killed_after_any_event_gives_what_an_uninterrupted_one_does(tmp_path, kind):
    whole = a_search(tmp_path / "whole", kind)
    whole.run()
    assert len(whole.outcomes) == 8
    lines = whole.journal.path.read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines), 7):  # each kind of event comes to be the last
        output = tmp_path / str(count)
        (output / "trials").mkdir(parents=True)
        (output / "trials" / "journal.jsonl").write_bytes(b"".join(lines[:count]))
        for outcome in whole.outcomes:
            folder = output / "trials" / whole.folder(outcome).name
            folder.mkdir()
            for file in whole.folder(outcome).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        resumed = a_search(output, kind)
        resumed.run()
        assert facts(resumed) == facts(whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_the_seed_decides_and_0_is_a_seed(tmp_path, kind):
    def values(name, seed):
        search = a_search(tmp_path / name, kind, count=4, seed=seed)
        search.run()
        return [outcome.hyperparameters for outcome in search.outcomes]

    assert values("a", 0) == values("b", 0)
    if kind != "grid":
        assert values("c", 1) != values("d", 0)


@pytest.mark.slow
def test_more_trials_can_be_asked_for_later(tmp_path):
    a_search(tmp_path / "a", "random", count=3).run()
    more = a_search(tmp_path / "a", "random", count=5)
    more.run()
    a_search(tmp_path / "b", "random", count=5).run()
    assert facts(more) == facts(a_search(tmp_path / "b", "random", count=5))


def test_failed_trials_count_and_all_may_fail(tmp_path):
    search = a_search(tmp_path, "bayesian", objective=Objective("val_auc", "max"), count=5)
    search.run()  # the stand-in logs no AUC
    assert [outcome.status for outcome in search.outcomes] == ["failed"] * 5


@pytest.mark.slow
def test_no_trial_begins_that_could_not_end_in_time(tmp_path):
    search = a_search(tmp_path, "random", count=3)
    search.run()
    late = a_search(tmp_path, "random", count=9)
    late.deadline = 0.0
    late.run()
    assert len(late.outcomes) == 3


def test_an_unknown_oracle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Unknown oracle 'anneal'"):
        a_search(tmp_path, "anneal").run()
