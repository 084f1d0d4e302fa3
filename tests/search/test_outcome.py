import dataclasses
import json
import math

import numpy as np
import pytest

from keras_transfer.search.state.outcome import Outcome

WHOLE = Outcome(
    trial=3,
    id="0002",
    status="stopped",
    score=0.25,
    seconds=1.5,
    hyperparameters={"hidden": 64, "learning_rate": 1e-3, "pooling": "avg", "flag": True},
    deviation=0.01,
    metrics={"val_loss": 0.25, "val_accuracy": 0.9},
    epoch=4,
    seed=77,
    folds=({"val_loss": 0.24}, {"val_loss": 0.26}),
)


def test_an_outcome_is_read_as_it_was_written(tmp_path):
    assert WHOLE.write(tmp_path / "trial_0002") == tmp_path / "trial_0002" / "outcome.json"
    assert Outcome.read(tmp_path / "trial_0002") == WHOLE
    assert [path.name for path in (tmp_path / "trial_0002").iterdir()] == ["outcome.json"]


def test_a_failed_outcome_keeps_its_traceback(tmp_path):
    failed = Outcome(1, "0000", "failed", None, 0.1, {}, failure="E: no", traceback="T\nE: no")
    failed.write(tmp_path)
    assert Outcome.read(tmp_path) == failed
    assert failed.failed
    assert str(failed) == "failed: E: no"


def test_numbers_of_numpy_and_nan_are_plain_json(tmp_path):
    metrics = {"val_loss": np.float32(0.5), "val_auc": float("nan")}
    Outcome(
        1, "0000", "completed", np.float64(0.5), 1.0, {"n": np.int64(3)}, metrics=metrics
    ).write(tmp_path)
    content = json.loads((tmp_path / "outcome.json").read_text(), parse_constant=pytest.fail)
    assert content["hyperparameters"] == {"n": 3}
    again = Outcome.read(tmp_path)
    assert again.metrics["val_loss"] == 0.5
    assert math.isnan(again.metrics["val_auc"])


def test_what_it_says_of_itself_are_the_validation_metrics():
    metrics = {"loss": 0.1, "val_loss": 0.25, "val_accuracy": 0.9}
    assert (
        str(dataclasses.replace(WHOLE, metrics=metrics)) == "val_loss 0.2500, val_accuracy 0.9000"
    )
    assert str(dataclasses.replace(WHOLE, metrics={})) == "score 0.2500"


@pytest.mark.parametrize("text", ["", '{"trial": 1, "id": "00', "[1]", '{"trial": 1}', "\xff"])
def test_a_torn_outcome_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "outcome.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"outcome\.json"):
        Outcome.read(tmp_path)


def test_what_a_newer_version_adds_is_left_out(tmp_path):
    path = WHOLE.write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    assert Outcome.read(tmp_path) == WHOLE


@pytest.mark.parametrize(("status", "score"), [("failed", 0.1), ("completed", None)])
def test_only_a_failed_trial_has_no_score(status, score):
    with pytest.raises(ValueError, match="Expected a finite number, or None"):
        dataclasses.replace(WHOLE, status=status, score=score)
    with pytest.raises(ValueError, match="score=nan"):
        dataclasses.replace(WHOLE, score=math.nan)
    with pytest.raises(ValueError, match="status='done'"):
        dataclasses.replace(WHOLE, status="done")


def test_an_outcome_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    WHOLE.write(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        dataclasses.replace(WHOLE, score=0.1).write(tmp_path)
    assert Outcome.read(tmp_path) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["outcome.json"]
