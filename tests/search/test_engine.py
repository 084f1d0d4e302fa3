"""Trials on Ray: equal to those of one process, whatever dies."""

import functools
import os
import sys
import threading
import time

import pytest
from stand_in import StandIn, runner, trials

from keras_transfer.search.engine.on_ray import OnRay

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of files and sockets that it leaves open
]
COUNT = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The trials of one process."""
    search = trials(tmp_path_factory.mktemp("whole"), count=COUNT)
    search.run()
    return facts(search)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Lets Ray's processes import the stand-in."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def facts(search):
    return [(o.trial, o.status, o.score, dict(o.hyperparameters)) for o in search.outcomes]


def test_killed_workers_cost_nothing_but_a_trial_that_kills_three_has_failed(tmp_path, whole):
    notes = tmp_path / "notes"
    notes.mkdir()
    rates = [values["rate"] for *_, values in whole]
    make = functools.partial(runner, notes, 0.01, {rates[1]: 2, rates[4]: 3})
    search = trials(tmp_path / "run", count=COUNT, engine=OnRay(make, workers=3))
    search.run()
    expected = [(*one[:1], "failed", None, one[3]) if one[0] == 5 else one for one in whole]
    assert facts(search) == expected
    assert "3 processes died while they ran this trial" in search.failures[0].failure
    begun = [float(path.name.split("-")[0]) for path in notes.iterdir()]
    assert {rate: begun.count(rate) for rate in rates} == {
        **dict.fromkeys(rates, 1),
        rates[1]: 3,
        rates[4]: 3,
    }


def test_a_node_that_is_lost_costs_nothing(tmp_path, whole):
    from ray.cluster_utils import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    engine = OnRay(functools.partial(runner, notes, 0.3, {}), workers=2, address=cluster.address)

    def kill() -> None:
        while len(list(notes.iterdir())) < 3:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        search = trials(tmp_path / "run", count=COUNT, engine=engine)
        search.run()
    finally:
        cluster.shutdown()
    killer.join(1)
    assert facts(search) == whole


def test_a_search_that_was_begun_in_one_process_goes_on_on_ray(tmp_path, whole):
    trials(tmp_path / "run", StandIn(), count=3).run()
    make = functools.partial(runner, tmp_path, 0.0, {})
    search = trials(tmp_path / "run", count=COUNT, engine=OnRay(make, workers=2))
    search.run()
    assert facts(search) == whole


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs the package 'ray'.*keras-transfer\[cluster\]"):
        OnRay(lambda: None, workers=2)
