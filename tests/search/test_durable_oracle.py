import json
import math
import re
import shutil
import time
import warnings
from pathlib import Path

import pytest
import scipy.optimize
from keras_tuner import HyperParameters, Objective
from keras_tuner.engine.trial import TrialStatus

from keras_transfer.search.oracles.oracles import durable_oracle
from keras_transfer.search.state.outcome import Outcome, TrialFolder, read_all

KINDS = ("bayesian", "hyperband", "random", "grid")


@pytest.fixture(autouse=True)
def _short_optimization(monkeypatch):
    """Ends each optimization of the Gaussian process after a step: 50 of them take seconds."""
    minimize = scipy.optimize.minimize

    def two_steps(*args, **kwargs):
        return minimize(*args, **{**kwargs, "options": {"maxiter": 2, "maxfun": 20}})

    monkeypatch.setattr(scipy.optimize, "minimize", two_steps)


def space() -> HyperParameters:
    hp = HyperParameters()
    hp.Choice("pooling", ["avg", "max"])
    hp.Float("rate", 1e-4, 1e-2, sampling="log")
    with hp.conditional_scope("pooling", ["max"]):
        hp.Int("width", 1, 4)
    return hp


def oracle(kind: str, folder: Path, count: int = 8, seed: int = 0, **kwargs):
    if kind == "bayesian":
        kwargs["num_initial_points"] = count - 2
    return durable_oracle(
        kind,
        objective=Objective("val_loss", "min"),
        count=count,
        epochs=5,
        seed=seed,
        folder=folder / "trials",
        hyperparameters=space(),
        **kwargs,
    )


def score(values: dict) -> float:
    return abs(math.log10(values["rate"]) + 3) + 0.1 * values.get("width", 2)


def outcome(trial, **changes) -> Outcome:
    facts = {
        "trial": int(trial.trial_id) + 1,
        "id": trial.trial_id,
        "status": "completed",
        "score": score(trial.hyperparameters.values),
        "seconds": 1.0,
        "hyperparameters": {"rate": trial.hyperparameters.values["rate"]},
        "worker": "a",
    }
    return Outcome(**{**facts, **changes})


def end(one, trial, tuner: str = "a", **changes) -> bool:
    changes.setdefault("worker", tuner)
    outcome(trial, **changes).write(TrialFolder(one.folder, trial.trial_id).stage(tuner))
    return one.end_trial(trial, tuner)


def run(one, most: int = 100) -> int:
    """Runs trials to their end; returns how many."""
    for number in range(most):
        trial = one.create_trial("a")
        if trial.status != TrialStatus.RUNNING:
            return number
        assert end(one, trial)
    return most


def asked(folder: Path) -> dict[str, dict]:
    """What was asked for, by trial."""
    found = {}
    for path in sorted((folder / "trials").glob("trial_*/trial.json")):
        trial = json.loads(path.read_text())
        found[trial["trial_id"]] = trial["hyperparameters"]["values"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_killed_anywhere_asks_for_what_an_uninterrupted_one_does(tmp_path, kind):
    count = 10 if kind == "hyperband" else 8  # into its second bracket
    assert run(oracle(kind, tmp_path / "whole", count)) == count
    expected = asked(tmp_path / "whole")
    assert len({json.dumps(values) for values in expected.values()}) == count
    for _ in range(count):  # each of them dies with a trial ended and the next one running
        one = oracle(kind, tmp_path / "killed", count)
        run(one, most=1)
        one.create_trial("a")
    run(oracle(kind, tmp_path / "killed", count))
    assert asked(tmp_path / "killed") == expected
    outcomes, torn = read_all(tmp_path / "killed" / "trials")
    assert [o.trial for o in outcomes] == list(range(1, count + 1))
    assert not torn


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_oracles_file_it_is_made_again_from_the_trials(tmp_path, kind):
    run(oracle(kind, tmp_path / "whole"))
    run(oracle(kind, tmp_path / "torn"), most=5)
    file = tmp_path / "torn" / "trials" / "oracle.json"
    file.write_text(file.read_text()[:100])
    with pytest.warns(UserWarning, match=r"oracle\.json.* is torn.*oracle\.json\.torn"):
        one = oracle(kind, tmp_path / "torn")
    run(one)
    assert asked(tmp_path / "torn") == asked(tmp_path / "whole")
    assert json.loads(file.read_text())["end_order"] == [f"{n:04d}" for n in range(8)]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_torn_trial_that_has_ended_is_not_run_again(tmp_path, kind):
    run(oracle(kind, tmp_path), most=5)
    file = tmp_path / "trials" / "trial_0002" / "trial.json"
    file.write_bytes(b"\0" * 50)
    with pytest.warns(UserWarning, match=r"trial_0002.trial\.json.*put aside as trial\.json\.torn"):
        one = oracle(kind, tmp_path)
    assert one.trials["0002"].status == TrialStatus.COMPLETED
    run(one)
    outcomes, _ = read_all(tmp_path / "trials")
    assert [o.trial for o in outcomes] == list(range(1, 9))
    with warnings.catch_warnings():  # it was written again
        warnings.simplefilter("error")
        assert len(oracle(kind, tmp_path).trials) == 8


def test_a_torn_trial_that_ran_is_asked_for_again(tmp_path):
    run(oracle("random", tmp_path / "whole"))
    one = oracle("random", tmp_path / "torn")
    run(one, most=3)
    one.create_trial("a")
    (tmp_path / "torn" / "trials" / "trial_0003" / "trial.json").write_text("{")
    with pytest.warns(UserWarning, match="trial_0003"):
        one = oracle("random", tmp_path / "torn")
    run(one)
    assert asked(tmp_path / "torn") == asked(tmp_path / "whole")


def test_a_torn_outcome_is_made_again_from_the_trial(tmp_path):
    run(oracle("random", tmp_path), most=2)
    before = Outcome.read(tmp_path / "trials" / "trial_0001")
    (tmp_path / "trials" / "trial_0001" / "outcome.json").write_text("")
    with pytest.warns(UserWarning, match=r"trial_0001.outcome\.json"):
        one = oracle("random", tmp_path)
    assert Outcome.read(tmp_path / "trials" / "trial_0001").score == before.score
    assert one.create_trial("a").trial_id == "0002"


DAMAGED = {
    "torn": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "no text": lambda file: file.write_bytes(b"\x89PNG\xff\0"),
    "an object": lambda file: file.write_text("{}"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize(
    "name", ["oracle.json", "trial_0001/trial.json", "trial_0001/outcome.json"]
)
def test_whatever_becomes_of_a_file_of_the_state_the_search_goes_on(tmp_path, name, how):
    run(oracle("random", tmp_path, count=4), most=3)
    before = read_all(tmp_path / "trials")[0]
    file = tmp_path / "trials" / name
    if how in DAMAGED:
        DAMAGED[how](file)
    else:
        value = r'": ("[^"]*"|[-0-9.]+|null|\[[^]]*\])'
        file.write_text(re.sub(value, '": {"a": []}', file.read_text()))
    with warnings.catch_warnings(record=True) as caught:
        assert run(oracle("random", tmp_path, count=4)) == 1
    outcomes, torn = read_all(tmp_path / "trials")
    assert [o.score for o in outcomes[:3]] == [o.score for o in before]
    assert (len(outcomes), torn) == (4, [])
    if how != "missing":
        (told,) = map(str, (one.message for one in caught))
        assert str(file) in told
        assert f"put aside as {file.name}.torn" in told
        assert file.with_name(f"{file.name}.torn").exists()


def test_a_file_in_the_place_of_a_trials_folder_is_put_aside(tmp_path):
    run(oracle("random", tmp_path / "whole"))
    one = oracle("random", tmp_path / "torn")
    run(one, most=3)
    shutil.rmtree(one.folder / "trial_0001")
    (one.folder / "trial_0001").touch()
    with pytest.warns(UserWarning, match=r"trial_0001' is a file"):
        run(oracle("random", tmp_path / "torn"))
    assert asked(tmp_path / "torn") == asked(tmp_path / "whole")


def test_results_that_were_complete_when_the_process_died_count(tmp_path):
    one = oracle("random", tmp_path)
    trial = one.create_trial("a")
    stage = TrialFolder(one.folder, trial.trial_id).stage("a")
    outcome(trial).write(stage)
    (stage / "member.npz").write_text("weights")
    one = oracle("random", tmp_path)
    assert one.trials[trial.trial_id].status == TrialStatus.COMPLETED
    assert (one.folder / "trial_0000" / "member.npz").read_text() == "weights"
    assert not list((one.folder / "trial_0000").glob("unfinished*"))


@pytest.mark.parametrize("kind", KINDS)
def test_seed_0_is_a_seed(tmp_path, kind):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(oracle(kind, tmp_path / name, seed=seed, count=4))
    assert asked(tmp_path / "a") == asked(tmp_path / "b")
    assert (asked(tmp_path / "a") != asked(tmp_path / "c")) == (kind != "grid")


def test_more_trials_can_be_asked_for_later(tmp_path):
    run(oracle("random", tmp_path / "whole", count=12))
    assert run(oracle("random", tmp_path / "more", count=8)) == 8
    assert run(oracle("random", tmp_path / "more", count=12)) == 4
    assert asked(tmp_path / "more") == asked(tmp_path / "whole")


def test_failed_trials_count_and_never_pad_the_best(tmp_path):
    one = oracle("bayesian", tmp_path)
    for number in range(8):
        trial = one.create_trial("a")
        failed = {"status": "failed", "score": None, "failure": "no luck"} if number % 2 else {}
        assert end(one, trial, **failed)
    assert one.create_trial("a").status == TrialStatus.STOPPED
    best = one.get_best_trials(8)
    assert len(best) == 4
    assert [t.score for t in best] == sorted(t.score for t in best)
    again = oracle("bayesian", tmp_path)
    assert [t.trial_id for t in again.get_best_trials(8)] == [t.trial_id for t in best]
    assert again.trials["0001"].status == TrialStatus.FAILED


def test_a_tuner_that_leaves_no_outcome_is_taken_at_its_word(tmp_path):
    one = oracle("random", tmp_path)
    trial = one.create_trial("tuner0")
    one.update_trial(trial.trial_id, {"val_loss": 0.5, "val_accuracy": 0.75}, step=2)
    trial.status = TrialStatus.COMPLETED
    assert one.end_trial(trial)
    found = Outcome.read(one.folder / "trial_0000")
    assert (found.score, found.epoch, found.metrics["val_accuracy"]) == (0.5, 3, 0.75)
    trial = one.create_trial("tuner0")
    trial.status, trial.message = TrialStatus.INVALID, "Traceback\nValueError: no"
    assert one.end_trial(trial)
    assert Outcome.read(one.folder / "trial_0001").failure == "ValueError: no"


def test_the_trial_of_a_dead_worker_is_given_to_another_and_its_late_report_refused(tmp_path):
    one = oracle("random", tmp_path)
    trial = one.create_trial("a")
    assert one.create_trial("b").trial_id == "0001"
    assert one.release("a") is trial
    assert one.create_trial("c") is trial
    assert not end(one, trial, "a", score=99.0)
    assert not list((one.folder / "trial_0000").glob("*a*/outcome.json"))
    assert end(one, trial, "c")
    assert not end(one, trial, "a", score=99.0)
    assert one.end_trial(trial, "c")  # its answer was lost, so it says it again
    assert Outcome.read(one.folder / "trial_0000").worker == "c"
    assert one.trials["0000"].score != 99.0
    assert one.end_order == ["0000"]


def test_a_trial_that_kills_its_workers_fails_also_where_the_chief_begins_anew(tmp_path):
    for worker in "abc":
        one = oracle("random", tmp_path)
        assert one.create_trial(worker).trial_id == "0000"
        one.release(worker)
    assert one.create_trial("d").trial_id == "0001"
    failure = Outcome.read(one.folder / "trial_0000").failure
    assert failure.startswith("3 processes died while they ran this trial.")


@pytest.mark.parametrize("full", [False, True])
def test_a_trial_that_is_given_back_has_not_died(tmp_path, monkeypatch, full):
    def no_room(descriptor):
        raise OSError(28, "No space left on device")

    for _ in range(4):
        one = oracle("random", tmp_path)
        one.release_left()
        assert one.create_trial("a").trial_id == "0000"
        with monkeypatch.context() as context:
            if full:
                context.setattr("os.fsync", no_room)
            one.give_back("a")
    assert one.create_trial("b").trial_id == "0000"


def test_a_failed_trial_whose_folder_is_removed_may_die_as_often_again(tmp_path):
    for _ in range(3):
        one = oracle("random", tmp_path)
        one.create_trial("a")
        one.release("a")
    shutil.rmtree(one.folder / "trial_0000")
    one = oracle("random", tmp_path)
    assert one.create_trial("a").trial_id == "0000"
    one.release("a")
    assert one.create_trial("a").trial_id == "0000"


def test_who_asks_while_others_run_the_last_trials_waits_to_take_over(tmp_path):
    one = oracle("random", tmp_path, count=2)
    trial = one.create_trial("a")
    end(one, one.create_trial("b"), "b")
    assert one.create_trial("b").status == TrialStatus.IDLE
    one.release("a")
    assert one.create_trial("b") is trial
    end(one, trial, "b")
    assert one.create_trial("b").status == TrialStatus.STOPPED


def test_a_grid_is_searched_by_several_at_a_time_in_its_order(tmp_path):
    run(oracle("grid", tmp_path / "one"))
    many = oracle("grid", tmp_path / "many")
    running = [many.create_trial(worker) for worker in "abcd"]
    assert all(trial.status == TrialStatus.RUNNING for trial in running)
    for worker, trial in zip("abcd", running, strict=True):
        end(many, trial, worker)
    run(many)
    assert asked(tmp_path / "many") == asked(tmp_path / "one")


def test_no_trial_begins_that_could_not_end_in_time(tmp_path):
    one = oracle("random", tmp_path, deadline=time.monotonic() + 20)
    for seconds in (5.0, 15.0, 10.0):
        end(one, one.create_trial("a"), seconds=seconds)
    assert one.create_trial("a").status == TrialStatus.RUNNING  # 10 s are the usual time
    one.release("a")
    one.deadline = time.monotonic() + 9
    assert one.create_trial("a").status == TrialStatus.STOPPED
    one = oracle("random", tmp_path, deadline=time.monotonic() + 9)
    assert one.create_trial("a").status == TrialStatus.STOPPED


def test_a_disk_that_is_full_when_a_trial_ends_is_told(tmp_path, monkeypatch):
    one = oracle("random", tmp_path)
    trial = one.create_trial("a")
    trial.status, trial.message = TrialStatus.FAILED, "OSError: No space left on device"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("os.fsync", full)
        with pytest.warns(UserWarning, match="trial 1 cannot be written .*No space left"):
            assert one.end_trial(trial, "a")
    assert one.create_trial("a").trial_id == "0001"
    assert oracle("random", tmp_path).create_trial("a").trial_id == "0000"


def test_what_was_half_written_when_the_process_died_is_removed(tmp_path):
    run(oracle("random", tmp_path), most=1)
    for folder in (tmp_path / "trials", tmp_path / "trials" / "trial_0000"):
        (folder / ".trial.json.0123").write_text("{")
    oracle("random", tmp_path)
    assert not list(tmp_path.glob("**/.trial*"))


def test_an_unknown_oracle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Unknown oracle 'best'"):
        oracle("best", tmp_path)
