"""How a search with --minutes ends in time."""

import contextlib
import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from keras_transfer.search.budget.limit import OutOfTime, time_limit, uninterrupted
from keras_transfer.search.budget.plan import TimePlan
from keras_transfer.search.budget.rehearsal import Rehearsal
from keras_transfer.search.settings import Settings


def until_interrupted(seconds_left) -> bool:
    """Whether a block that would run for a minute is interrupted."""
    try:
        with time_limit(seconds_left):
            for _ in range(600):
                time.sleep(0.1)
    except OutOfTime:
        return True
    return False


def test_a_block_is_interrupted_when_its_time_is_up():
    end = time.monotonic() + 0.2
    assert until_interrupted(lambda: end - time.monotonic())
    assert until_interrupted(lambda: 0.0)
    time.sleep(0.3)  # nothing is interrupted afterwards


def test_a_limit_can_be_put_off_while_a_block_runs():
    end = [time.monotonic() + 0.1]
    passed = []
    with time_limit(lambda: end[0] - time.monotonic()):
        end[0] += 60.0
        time.sleep(0.3)
        passed.append(1)
    assert passed


@pytest.mark.slow
def test_a_limit_can_be_brought_forward_while_a_block_runs():
    left = iter([500.0] * 3)
    assert until_interrupted(lambda: next(left, 0.0))


@pytest.mark.slow
def test_what_must_not_be_left_half_done_is_finished_before_the_interruption():
    end, done = time.monotonic() + 0.05, []

    def block():
        with time_limit(lambda: end - time.monotonic()):
            with uninterrupted():
                time.sleep(0.2)
                done.append("whole")
            time.sleep(60)

    with pytest.raises(OutOfTime):
        block()
    assert done == ["whole"]


def test_code_that_catches_all_exceptions_is_interrupted_all_the_same():
    end = time.monotonic() + 0.1

    def stubborn():
        with time_limit(lambda: end - time.monotonic()):
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(0.05)

    with pytest.raises(OutOfTime):
        stubborn()


def test_a_block_within_another_has_a_limit_of_its_own_and_leaves_that_of_the_other():
    end = time.monotonic() + 0.5
    passed = []

    def outer():
        with time_limit(lambda: end - time.monotonic()):
            soon = time.monotonic() + 0.1
            passed.append(until_interrupted(lambda: soon - time.monotonic()))
            time.sleep(60)

    with pytest.raises(OutOfTime):
        outer()
    assert passed == [True]


def test_without_a_limit_and_in_other_threads_nothing_is_interrupted():
    with time_limit(lambda: math.inf):
        pass
    done = []

    def work():
        with time_limit(lambda: 0.0):
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def plan(**changes) -> TimePlan:
    costs = {"keep": 5.0, "export": 10.0, "report": 15.0, "test": 40.0, **changes}
    return TimePlan(1000.0, **costs, clock=lambda: 900.0)


def test_all_that_comes_after_the_last_trial_is_kept_time_for():
    assert plan().deadline < 1000 - (5 + 10 + 40)
    assert plan(final_fit=100.0).reserve > plan().reserve + 100
    assert plan(test=80.0).reserve > plan().reserve + 40
    assert TimePlan().deadline is None


def test_a_trial_has_some_seconds_to_stop_by_itself_before_it_is_interrupted():
    one = plan()
    assert 0 < one.deadline - one.clock() < one.left_for_trials() < one.left() - 70


def costly(**changes):
    """A search, of which the costs are known."""
    facts = {
        "plan": TimePlan(time.monotonic() + 500, startup=10.0),
        "settings": Settings(Path("runs"), flips="mirror"),
        "data": SimpleNamespace(test=object(), labels={"test": range(100)}),
        "hypermodel": SimpleNamespace(recommended=lambda: [{"unfreeze": 1}]),
        "probe": lambda: SimpleNamespace(seconds=4.0),
        "costs": SimpleNamespace(
            fits=lambda values, left: left > 50,
            prediction=lambda values: 0.01 * (1 + len(values)),
            slowdown=lambda: 1.0,
        ),
        **changes,
    }
    return SimpleNamespace(**facts)


def test_in_a_short_search_what_comes_after_the_trials_is_estimated(capsys):
    study = costly()
    rehearsal = Rehearsal(study)
    one = study.plan
    assert (one.keep, one.export, one.report) == pytest.approx((6.0, 8.0, 9.0))
    # Two views of 100 images through a trial; one through the probe.
    assert one.test == pytest.approx(2 * 100 * 0.02 + 100 * 0.01)
    rehearsal.renew([{"unfreeze": 1}] * 3)
    assert one.test == pytest.approx(2 * 100 * 0.04 + 100 * 0.01)
    assert one.export > 12
    assert "What comes after the trials will take about" in capsys.readouterr().out
    before = one.reserve
    study.costs.slowdown = lambda: 3.0
    rehearsal.renew()
    assert one.reserve == pytest.approx(3 * before)
    rehearsal.renew()
    assert one.reserve == pytest.approx(3 * before)


def test_what_takes_too_long_to_be_rehearsed_is_expected_to_take_long(capsys):
    study = costly(plan=TimePlan(time.monotonic() + 0.6))
    study.costs.prediction = lambda values: time.sleep(60)
    Rehearsal(study)
    assert 0 < study.plan.keep == study.plan.export == study.plan.test == study.plan.report < 0.2


@pytest.mark.slow
def test_what_there_is_no_time_for_is_left_out_and_said(capsys):
    one = TimePlan(time.monotonic() + 0.5)
    assert one.in_time("the export", lambda: 7) == 7
    assert one.in_time("the export", lambda: time.sleep(60), after=0.2) is None
    assert one.in_time("the test images", lambda: 7, after=60.0) is None
    assert one.skipped == ["the export", "the test images"]
    assert "no time left for the export. Give more --minutes." in capsys.readouterr().out
