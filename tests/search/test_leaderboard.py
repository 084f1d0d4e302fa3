"""Leaderboards, the gain over the probe, and the summary: from outcomes alone."""

import csv
import json

import pytest
from scipy.stats import ttest_1samp

from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.leaderboard import (
    best_of,
    print_leaderboard,
    ranked,
    write_leaderboard,
)
from keras_transfer.search.report.summary import summary, write_summary
from keras_transfer.search.scoring import alike, gains
from keras_transfer.search.state.outcome import Outcome

LOSS, ACCURACY = Objective("val_loss", "min"), Objective("val_accuracy", "max")


def trial(number: int, loss: float | None, *, accuracy: float = 0.9, folds=(), **kwargs) -> Outcome:
    metrics = {} if loss is None else {"val_loss": loss, "val_accuracy": accuracy, "val_auc": 0.95}
    facts = {
        "hyperparameters": {"hidden": 32 * number, "seeded": 7} if number else {"C": 0.1},
        "status": "failed" if loss is None else "completed",
        "metrics": metrics,
        "epoch": None if loss is None else 3,
        "failure": "ValueError: a, b" if loss is None else "",
        "folds": tuple(folds),
        "deviation": 0.0123 if folds else None,
        "score": loss,
        **kwargs,
    }
    return Outcome(number, f"{number:02d}", seconds=12.345, **facts)


def fold(loss: float, accuracy: float) -> dict[str, float]:
    return {"val_loss": loss, "val_accuracy": accuracy}


OUTCOMES = [
    trial(0, 0.5, accuracy=0.86),
    trial(1, None),
    trial(2, 0.4, accuracy=0.88, status="stopped"),
    trial(3, 0.3, accuracy=0.87),
    trial(4, 0.6, accuracy=0.80),
]


def written(tmp_path, outcomes=OUTCOMES, objective=LOSS) -> list[dict[str, str]]:
    write_leaderboard(tmp_path / "leaderboard.csv", outcomes, objective)
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_comes_first_and_failed_trials_last():
    assert [one.trial for one in ranked(OUTCOMES, LOSS)] == [3, 2, 4, 1]
    by_accuracy = [trial(n, loss, score=s) for n, loss, s in ((1, 0.1, 0.7), (2, 0.1, 0.9))]
    assert best_of(by_accuracy, ACCURACY).trial == 2
    assert best_of([OUTCOMES[0], OUTCOMES[1]], LOSS) is None
    assert [one.trial for one in ranked([trial(2, 0.5), trial(1, 0.5)], LOSS)] == [1, 2]


def test_the_table_has_the_probe_as_row_0_and_each_trial(tmp_path):
    rows = written(tmp_path)
    assert [row["trial"] for row in rows] == ["0", "3", "2", "4", "1"]
    assert [row["status"] for row in rows] == [
        "probe", "completed", "stopped", "completed", "failed",
    ]  # fmt: skip
    best = rows[1]
    assert (best["val_loss"], best["val_accuracy"], best["epoch"]) == ("0.3", "0.87", "3")
    assert (best["hidden"], best["C"], best["seconds"]) == ("96", "", "12.3")
    assert (best["val_auc"], best["deviation"]) == ("0.95", "")
    assert rows[0]["C"] == "0.1"
    assert (rows[-1]["val_loss"], rows[-1]["failure"]) == ("", "ValueError: a, b")
    columns = list(best)
    assert columns[:4] == ["trial", "val_loss", "val_accuracy", "epoch"]
    assert columns[4:9] == ["hidden", "seeded", "C", "seconds", "expected_seconds"]


def test_the_table_tells_the_deviation_over_folds(tmp_path):
    folds = [fold(0.3, 0.9), fold(0.4, 0.8)]
    (row,) = written(tmp_path, [trial(1, 0.35, folds=folds)])
    assert (row["deviation"], row["folds"]) == ("0.0123", "2")


def test_the_screen_shows_the_probe_and_the_best_as_far_as_there_is_room(capsys):
    many = [*OUTCOMES, *(trial(n, n / 10) for n in range(5, 30))]
    print_leaderboard(many, LOSS, rows=3)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 3 + 1 + 3 + 1 + 1
    assert lines[-1] == "26 more in leaderboard.csv."
    assert "0 (probe)" in lines[3]
    assert "0.3000" in lines[4]
    assert "stopped" in lines[5]
    assert "seeded" not in out  # it is the same in all trials


def test_the_epochs_that_hyperband_grants_are_told_where_they_differ(tmp_path, capsys):
    rounds = [trial(n, 0.5 - n / 10, epochs=epochs) for n, epochs in ((1, 3), (2, 9))]
    print_leaderboard(rounds, LOSS)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    head, best = lines[1], lines[3]
    assert best[head.index("epochs")] == "9"
    rows = written(tmp_path, [OUTCOMES[0], *rounds])
    assert [(row["trial"], row["epochs"]) for row in rows] == [("0", ""), ("2", "9"), ("1", "3")]
    same = [trial(n, 0.5, epochs=9) for n in (1, 2)]
    print_leaderboard(same, LOSS)
    assert "epochs" not in capsys.readouterr().out
    assert "epochs" not in written(tmp_path, same)[0]


def test_where_all_trials_are_shown_there_are_no_more(capsys):
    print_leaderboard(OUTCOMES, LOSS, rows=4)
    assert "more in" not in capsys.readouterr().out


def test_hyperparameters_are_broken_where_there_is_no_room_on_the_screen(capsys):
    values = [{f"hyperparameter_number_{i}": n * i for i in range(1, 12)} for n in (1, 2)]
    print_leaderboard([trial(n, 0.1, hyperparameters=values[n - 1]) for n in (1, 2)], LOSS)
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 200
    assert "hyperparameter_number_1 " in table
    assert "hyperparameter_number_11 " in " ".join(table.split())


def test_the_gain_over_the_probe_is_the_mean_difference_of_the_folds_with_its_t_interval():
    ours = [fold(0.30, 0.90), fold(0.35, 0.88), fold(0.31, 0.91)]
    theirs = [fold(0.40, 0.86), fold(0.41, 0.87), fold(0.42, 0.85)]
    loss, accuracy = gains(
        trial(1, 0.32, accuracy=0.8967, folds=ours),
        trial(0, 0.41, accuracy=0.86, folds=theirs),
        LOSS,
    )
    interval = ttest_1samp([0.10, 0.06, 0.11], 0).confidence_interval(0.95)
    assert (loss.metric, loss.value) == ("val_loss", pytest.approx(0.09))
    assert (loss.low, loss.high) == pytest.approx(tuple(interval))
    assert (accuracy.metric, accuracy.value) == ("val_accuracy", pytest.approx(0.0367))
    assert "3 folds" in accuracy.how


def test_without_folds_accuracy_has_the_interval_of_its_images_and_the_loss_none():
    winner, probe = trial(1, 0.3, accuracy=56 / 70), trial(0, 0.5, accuracy=48 / 80)
    loss, accuracy = gains(winner, probe, LOSS, images=100)
    assert (loss.low, loss.high) == (None, None)
    assert "no interval" in loss.how
    assert accuracy.low < accuracy.value < accuracy.high
    (accuracy,) = gains(winner, probe, ACCURACY)  # of nobody knows how many images
    assert accuracy.low is None


def test_the_interval_of_two_shares_is_newcombes():
    # Newcombe 1998, table II, (b): 9/10 against 3/10, method 10 gives 0.1705 to 0.8090.
    winner, probe = trial(1, 0.3, accuracy=0.9), trial(0, 0.5, accuracy=0.3)
    (accuracy,) = gains(winner, probe, ACCURACY, images=10)
    assert (accuracy.low, accuracy.high) == pytest.approx((0.1705, 0.8090), abs=1e-4)


def test_the_summary_tells_what_was_found(tmp_path):
    facts = {"seed": 0, "backbone": "efficientnet_lite0"}
    content = summary(OUTCOMES, LOSS, facts, images=100)
    write_summary(tmp_path / "summary.json", content)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["seed"] == 0
    assert found["best"]["trial"] == 3
    assert found["probe"]["metrics"]["val_accuracy"] == 0.86
    assert [gain["metric"] for gain in found["gain_over_probe"]] == ["val_loss", "val_accuracy"]
    assert found["gain_over_probe"][0]["value"] == pytest.approx(0.2)
    assert (found["trials"], found["failed_trials"], found["stopped_trials"]) == (4, 1, 1)
    assert {"keras", "tensorflow", "keras-tuner", "python"} <= set(found["versions"])


def test_a_summary_of_failures_has_no_best():
    content = summary([OUTCOMES[1]], LOSS, {})
    assert (content["best"], content["probe"], content["gain_over_probe"]) == (None, None, [])


def test_how_many_trials_cannot_be_told_from_the_best():
    objective = Objective("val_loss", "min")

    def outcome(number: int, accuracy: float, folds: tuple = ()) -> Outcome:
        metrics = {"val_loss": 1 - accuracy, "val_accuracy": accuracy}
        return Outcome(
            number, f"{number:04}", "completed", 1 - accuracy, 1.0, {}, metrics=metrics, folds=folds
        )

    best, others = outcome(1, 0.90), [outcome(2, 0.89), outcome(3, 0.88), outcome(4, 0.7)]
    assert alike(best, others, objective, 300).startswith("2 of 3 others cannot be told from")
    assert alike(best, others, objective, 30_000).startswith("0 of 3 others")
    assert alike(best, others, objective) == ""
    assert alike(best, [], objective, 300) == ""
