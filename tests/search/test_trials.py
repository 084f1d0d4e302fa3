import errno
import math
import signal
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, tiny_backbone
from processes import start
from stand_in import OBJECTIVE, StandIn, ends_soon, later, run_and_die, trials

from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.budget.costs import Planned
from keras_transfer.search.budget.limit import OutOfTime, time_limit
from keras_transfer.search.callbacks import MedianStopping, StopAtEpochEnd
from keras_transfer.search.report.curves import numbered
from keras_transfer.search.state.journal import Journal
from keras_transfer.search.state.lock import alone
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.search.trial_runner import seed_of
from keras_transfer.search.trials import FOLDER, JOURNAL

DAMAGED = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "torn": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00" * 50),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


def facts(search) -> list[tuple]:
    """All that must not depend on when a search was killed."""
    return [(o.trial, o.status, o.score, o.hyperparameters, o.seed) for o in search.outcomes]


def test_the_results_of_a_trial_lie_in_its_folder(tmp_path, capsys):
    search = trials(tmp_path, count=2)
    search.run("train", "valid", class_weight={0: 1.0})
    assert search.hypermodel.built[0]["class_weight"] == {0: 1.0}
    folder = tmp_path / "trials" / "trial_0001"
    names = {path.name for path in folder.iterdir()}
    assert names == {"history.csv", "member.npz"}
    again = trials(tmp_path, count=2)  # which has run nothing itself
    assert again.outcomes == search.outcomes
    outcome = again.outcomes[1]
    history, epochs = again.history(outcome)
    assert outcome.score == min(history["val_loss"])
    assert outcome.epochs == again.epochs
    assert outcome.epoch == epochs[history["val_loss"].index(outcome.score)] + 1
    assert outcome.metrics["val_accuracy"] == 1 - outcome.score / 2
    assert outcome.hyperparameters["pooling"] in ("avg", "max")
    assert (folder / "member.npz").read_text() == str(outcome.hyperparameters["rate"])
    assert again.curves()[1] == history["val_loss"]
    assert "trial 2 of 2: val_loss" in capsys.readouterr().out


@pytest.mark.slow
def test_the_seed_of_each_execution_follows_from_seed_trial_and_fold(tmp_path):
    trials(tmp_path / "a").run()
    search = trials(tmp_path / "a")
    assert [o.seed for o in search.outcomes] == [seed_of(0, n, 0) for n in range(1, 5)]
    folds = [("t1", "v1"), ("t2", "v2"), ("t3", "v3")]
    cross = trials(tmp_path / "b", folds=folds)
    cross.run()
    # The first fold of a trial begins as the trial without folds did.
    assert [o.folds[0]["val_loss"] for o in cross.outcomes] == [o.score for o in search.outcomes]
    drawn = {seed_of(s, t, e) for s in range(3) for t in range(9) for e in range(5)}
    assert len(drawn) == 3 * 9 * 5


def test_folds_are_averaged(tmp_path):
    search = trials(tmp_path, count=1, folds=[("t1", "v1"), ("t2", "v2"), ("t3", "v3")])
    search.run()
    assert [b["args"] for b in search.hypermodel.built] == [("t1",), ("t2",), ("t3",)]
    assert [b["validation_data"] for b in search.hypermodel.built] == ["v1", "v2", "v3"]
    (outcome,) = search.outcomes
    scores = [fold["val_loss"] for fold in outcome.folds]
    assert outcome.score == pytest.approx(sum(scores) / 3)
    variance = sum((score - outcome.score) ** 2 for score in scores) / 2
    assert outcome.deviation == pytest.approx(math.sqrt(variance))
    names = {path.name for path in search.folder(outcome).iterdir()}
    assert {"history.csv", "history-2.csv", "history-3.csv", "member-3.npz"} <= names
    assert numbered("history.csv", 1) == "history-2.csv"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no luck"), "RuntimeError: no luck"),
        (MemoryError(), "MemoryError"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), "OOM"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_trial_that_fails_is_counted_and_the_search_goes_on(tmp_path, capsys, error, told):
    hypermodel = StandIn()

    def fail(number: int) -> None:
        if number in (2, 3):
            raise error

    hypermodel.before_fit = fail
    search = trials(tmp_path, hypermodel)
    search.run()
    assert [o.status for o in search.outcomes] == ["completed", "failed", "failed", "completed"]
    assert told in search.failures[0].failure
    assert "before_fit" in search.failures[0].traceback
    assert not search.ranked[-1].metrics
    out = capsys.readouterr().out
    assert out.count("Traceback") == 1
    assert out.index("Traceback") < out.index("trial 2 of 4: failed")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        tf.errors.ResourceExhaustedError(None, None, "kept/x; No space left on device [Op:SaveV2]"),
    ],
)
@pytest.mark.slow
def test_a_full_disk_ends_the_search_and_the_same_trial_is_the_next(
    tmp_path, monkeypatch, capsys, error
):
    trials(tmp_path / "whole").run()

    def full(self, path) -> None:
        path.write_text("half of it")
        raise error

    search = trials(tmp_path / "full")
    with monkeypatch.context() as context:
        context.setattr("stand_in.StandInMember.write", full)
        with pytest.raises(type(error)):
            search.run()
    assert not search.outcomes
    again = trials(tmp_path / "full")
    again.run()
    assert facts(again) == facts(trials(tmp_path / "whole"))


def test_a_loss_that_is_no_number_is_a_failed_trial(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stand_in.random.random", lambda: math.nan)
    search = trials(tmp_path, count=1)
    search.run()
    assert search.best is None
    assert "val_loss is nan in the best epoch" in search.outcomes[0].failure


@pytest.mark.slow
def test_an_interrupt_leaves_what_has_ended_and_its_trial_is_the_next(tmp_path, capsys):
    trials(tmp_path / "whole").run()
    hypermodel = StandIn()

    def interrupt(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    hypermodel.before_fit = interrupt
    search = trials(tmp_path / "cut", hypermodel)
    with pytest.raises(KeyboardInterrupt):
        search.run()
    assert [o.trial for o in search.outcomes] == [1, 2]
    again = trials(tmp_path / "cut")
    again.run()
    assert len(again.hypermodel.built) == 2
    assert facts(again) == facts(trials(tmp_path / "whole"))


@pytest.mark.slow
def test_a_trial_that_time_runs_out_in_is_neither_dead_nor_failed_but_the_next(tmp_path):
    trials(tmp_path / "whole").run()
    left, hypermodel = [60.0], StandIn()

    def hang(number: int) -> None:
        if number == 2:
            left[0] = 0.0
            time.sleep(60)

    hypermodel.before_fit = hang
    search = trials(tmp_path / "cut", hypermodel)
    with pytest.raises(OutOfTime), time_limit(lambda: left[0]):
        search.run()
    assert [o.trial for o in search.outcomes] == [1]
    again = trials(tmp_path / "cut")
    again.run()  # which would warn of a death
    assert len(again.hypermodel.built) == 3
    assert facts(again) == facts(trials(tmp_path / "whole"))


@pytest.mark.slow
def test_a_running_trial_ends_with_the_time_and_keeps_its_best(tmp_path):
    search = trials(tmp_path, StandIn(seconds=0.05), epochs=1000, deadline=later())
    ends_soon(search.hypermodel, search)
    search.run()
    assert time.monotonic() - search.deadline < 20  # of 50 s, on a busy machine
    (outcome,) = search.outcomes
    assert outcome.status == "stopped"
    assert outcome.score == min(search.history(outcome)[0]["val_loss"])


@pytest.mark.slow
def test_a_fold_that_there_was_no_time_for_is_left_out(tmp_path):
    folds = [("t", "v")] * 5
    search = trials(tmp_path, StandIn(0.05), epochs=1000, folds=folds, deadline=later())
    ends_soon(search.hypermodel, search)
    search.run()
    assert len(search.outcomes[0].folds) == 1


def test_time_and_a_loss_that_is_no_number_end_a_real_training():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    x = tf.ones((4, 1))
    history = model.fit(x, x, epochs=5, callbacks=[StopAtEpochEnd(lambda: 0.0)], verbose=0)
    assert history.epoch == [0]
    history = model.fit(
        x, x * math.nan, epochs=5, callbacks=[StopAtEpochEnd(lambda: math.inf)], verbose=0
    )
    assert history.epoch == [0]


def test_the_best_is_the_lowest_or_the_highest_as_the_objective_says(tmp_path):
    from keras_transfer.search.metrics import Objective

    search = trials(tmp_path, objective=Objective("val_accuracy", "max"))
    search.run()
    scores = [outcome.score for outcome in search.ranked]
    assert scores == sorted(scores, reverse=True)
    assert search.best == search.ranked[0]


def test_callbacks_get_the_begin_and_the_end_of_each_trial(tmp_path):
    calls = []
    trials(tmp_path, count=2, on_begin=calls.append, on_end=calls.append).run()
    assert [call.trial for call in calls] == [1, 1, 2, 2]
    assert calls[0].hyperparameters == calls[1].hyperparameters
    assert isinstance(calls[1], Outcome)


@pytest.mark.slow
def test_hyperband_goes_on_from_what_an_earlier_round_has_trained(tmp_path):
    from keras_transfer.search.hypermodel import TransferHyperModel
    from keras_transfer.search.metrics import objective
    from keras_transfer.search.space.space import Space
    from keras_transfer.search.trials import Trials

    hypermodel = TransferHyperModel(
        {"tiny": tiny_backbone()}, ("a", "b"), space=Space(unfreeze=1), epochs=3
    )
    begun, fit = [], hypermodel.fit

    def watched(hp, model, *args, **kwargs):
        if kwargs["initial_epoch"]:
            begun.append([weight.numpy() for weight in model.head.weights])
        fit(hp, model, *args, **kwargs)

    hypermodel.fit = watched
    search = Trials(
        hypermodel,
        "hyperband",
        objective=objective("loss"),
        count=4,
        epochs=3,
        seed=0,
        output=tmp_path,
    )
    data = dataset(8)
    search.run(data, data)
    assert not search.failures
    created = [event for event in search.journal.read() if event["event"] == "created"]
    later = created[3]["values"]
    past = next(o for o in search.outcomes if o.id == later["tuner/trial_id"])
    assert search.outcomes[3].epochs == later["tuner/epochs"] > past.epochs
    for weight, value in zip(begun[0], search.member(past).head_weights, strict=True):
        assert (weight == value).all()
    assert search.history(search.outcomes[3])[1][0] == later["tuner/initial_epoch"]


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize(
    ("name", "how"),
    [
        *[("history.csv", how) for how in ("torn", "missing", "no text", "another table")],
        *[("member.npz", how) for how in ("torn", "missing", "empty", "a folder")],
    ],
)
@pytest.mark.slow
def test_a_search_goes_on_although_a_file_of_a_trial_is_damaged(tmp_path, name, how):
    search = trials(tmp_path, count=3)
    search.run()
    curves, file = search.curves(), search.folder(search.outcomes[1]) / name
    (file.parent / "member.npz").unlink()
    Member("one", "", None, (8, 8, 3), ("a", "b"), {}, (np.ones(2),), {}).write(
        file.parent / "member.npz"
    )
    if how in DAMAGED:
        DAMAGED[how](file)
    else:
        file.write_text("file,label\na,b\n")
    with warnings.catch_warnings(record=True) as caught:
        assert (search.history(search.outcomes[1]) is None) == (name == "history.csv")
        assert (search.member(search.outcomes[1]) is None) == (name == "member.npz")
    assert len(caught) == (how != "missing")
    assert all(f"put aside as {name}.torn" in str(one.message) for one in caught)
    if name == "history.csv":
        assert search.curves() == [curves[0], curves[2]]
    rule = MedianStopping(OBJECTIVE, search.curves, min_trials=1)
    later = trials(tmp_path, count=5, callbacks=lambda request, fold: [rule])
    later.run()
    assert [one.failed for one in later.outcomes] == [False] * 5


@pytest.mark.filterwarnings("always")
def test_a_later_round_of_hyperband_begins_anew_where_the_weights_of_the_earlier_are_lost(tmp_path):
    search = trials(tmp_path, oracle_name="hyperband")  # a stand-in's member.npz holds no weights
    with pytest.warns(UserWarning, match=r"are lost: the trial that goes on from there begins"):
        search.run()
    assert [one.status for one in search.outcomes] == ["completed"] * 4
    assert [search.history(one)[1][0] for one in search.outcomes] == [0] * 4
    assert search.outcomes[3].epochs == 3


def test_a_table_of_other_logs_is_no_curve(tmp_path):
    search = trials(tmp_path, count=1)
    search.run()
    file = search.folder(search.outcomes[0]) / "history.csv"
    file.write_text("epoch,val_loss\n0,\n1,a\n2,nan\n3,0.5\n")
    ((first, second, third, last),) = search.curves()
    assert all(map(math.isnan, (first, second, third)))
    assert last == 0.5
    file.write_text("epoch,auc\n0,0.5\n")
    assert search.curves() == [[]]


def _kills(output, number: int, times: int) -> list[int]:
    """The exit codes of a search whose second trial kills the process, begun again and again."""
    trials(output / "whole").run()
    (output / "kills.txt").write_text(
        str(trials(output / "whole").outcomes[1].hyperparameters["rate"])
    )
    codes = []
    for _ in range(times):
        process = start(run_and_die, output, number)
        process.join()
        codes.append(process.exitcode)
    return codes


@pytest.mark.slow
def test_a_trial_that_kills_its_process_three_times_has_failed_and_the_search_goes_on(tmp_path):
    assert _kills(tmp_path, signal.SIGKILL, 4) == [-signal.SIGKILL] * 3 + [0]
    found = trials(tmp_path).outcomes
    assert [one.status for one in found] == ["completed", "failed", "completed", "completed"]
    assert found[1].failure.startswith("3 processes died while they ran this trial")


@pytest.mark.slow
def test_a_process_that_is_asked_to_end_is_no_death_of_its_trial(tmp_path):
    assert _kills(tmp_path, signal.SIGTERM, 4) == [143] * 4
    search = trials(tmp_path)
    search.run()
    assert facts(search) == facts(trials(tmp_path / "whole"))


def _run(output) -> None:
    trials(output, StandIn(seconds=0.02), count=6).run()


@pytest.mark.slow
def test_a_search_that_is_killed_at_any_moment_gives_what_an_uninterrupted_one_does(tmp_path):
    trials(tmp_path / "whole", count=6).run()
    output, ended = tmp_path / "killed", 0
    for attempt in range(7):
        process = start(_run, output)
        while process.exitcode is None and len(trials(output).outcomes) == ended:
            time.sleep(0.01)
        time.sleep(0.017 * attempt)  # after a trial has ended, at any moment of the next
        process.kill()
        process.join()
        ended = len(trials(output).outcomes)
        if process.exitcode == 0:
            break
    assert attempt >= 2
    assert process.exitcode == 0
    killed = trials(tmp_path / "killed", count=6)
    assert facts(killed) == facts(trials(tmp_path / "whole", count=6))
    for outcome in killed.outcomes:
        names = {path.name for path in killed.folder(outcome).iterdir()}
        assert names == {"history.csv", "member.npz"}


def test_each_fold_is_compared_with_the_same_fold_of_other_trials(tmp_path):
    asked = []

    def callbacks(request, fold):
        asked.append((fold, request.others[fold]))
        return []

    folds = [("t1", "v1"), ("t2", "v2")]
    search = trials(tmp_path, count=2, folds=folds, callbacks=callbacks)
    search.run()
    first = search.outcomes[0]
    of_first = [search.history(first, fold)[0]["val_loss"] for fold in range(2)]
    assert of_first[0] != of_first[1]
    assert asked == [(0, []), (1, []), (0, [of_first[0]]), (1, [of_first[1]])]


@pytest.mark.slow
def test_an_epoch_that_takes_too_long_is_cut_short_with_time_for_its_validation():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    x = tf.ones((64, 1))
    left = iter([100.0] * 3 + [0.0] * 100)
    batches = []
    history = model.fit(
        x,
        x,
        batch_size=4,
        epochs=5,
        validation_data=(x, x),
        callbacks=[
            StopAtEpochEnd(lambda: next(left)),
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: batches.append(batch)
            ),
        ],
        verbose=0,
    )
    assert history.epoch == [0]
    assert len(batches) == 4
    assert math.isfinite(history.history["val_loss"][0])


def test_a_trial_is_run_as_it_is_planned_and_none_that_has_no_time(tmp_path):
    asked = []

    def plan(values, left):
        asked.append(left)
        return Planned({**values, "rate": 0.005}, 7.0) if len(asked) < 3 else None

    hypermodel, begun = StandIn(), []
    search = trials(tmp_path, hypermodel, count=5, plan=plan, on_begin=begun.append)
    with alone(tmp_path):
        search.run()
    assert [one.trial for one in search.outcomes] == [1, 2]
    assert [one.expected for one in search.outcomes] == [7.0, 7.0] == [b.expected for b in begun]
    assert {one.hyperparameters["rate"] for one in search.outcomes} == {0.005}
    assert {one["rate"] for one in hypermodel.built} == {0.005}
    assert asked == [math.inf] * 3
    # The one that had no time is created again by the next run, as if nothing had been.
    events = [event["event"] for event in Journal(tmp_path / FOLDER / JOURNAL).read()]
    assert events == ["created", "started", "ended"] * 2
    again = trials(tmp_path, count=3)
    with alone(tmp_path):
        again.run()
    assert [one.trial for one in again.outcomes] == [1, 2, 3]


def test_the_first_trials_are_those_that_are_recommended(tmp_path):
    class Recommending(StandIn):
        def recommended(self):
            first = {"pooling": "max", "rate": 0.002, "width": 3}
            return [first, {"pooling": "avg", "rate": 0.003}]

    for number, oracle_name in enumerate(("random", "bayesian")):
        output = tmp_path / str(number)
        search = trials(output, Recommending(), oracle_name=oracle_name, count=3)
        with alone(output):
            search.run()
        first, second, third = (one.hyperparameters for one in search.outcomes)
        assert first == {"pooling": "max", "rate": 0.002, "width": 3}
        assert second == {"pooling": "avg", "rate": 0.003}
        assert third["rate"] not in (0.002, 0.003)
