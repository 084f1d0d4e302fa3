"""Searches with three layers as the backbone, from the command line and from Python."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from photos import QUICK, page_text, photos
from small_lite import small_lite

from keras_transfer import TransferModel
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search
from keras_transfer.search import Search, Space, demo_data
from keras_transfer.search.hypermodel import TransferHyperModel

pytestmark = pytest.mark.slow
SPACE = {"pooling": "avg", "unfreeze": 0, "hidden": 8, "depth": 1}


@pytest.fixture
def small(monkeypatch):
    """Puts a few layers in the place of EfficientNet-Lite0."""
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)


@pytest.fixture
def no_export(monkeypatch):
    """Leaves out the export, which takes seconds."""
    monkeypatch.setattr(TransferModel, "export", lambda *args, **kwargs: None)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A search that has ended: its folder, images, arguments and standard output."""
    root = tmp_path_factory.mktemp("search")
    (root / "space.yaml").write_text("\n".join(f"{key}: {SPACE[key]}" for key in SPACE))
    arguments = [str(photos(root / "photos")), *QUICK, "--space", str(root / "space.yaml")]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)
        tf.config.run_functions_eagerly(True)
        assert search.main([*arguments, "--output", str(root / "run")]) == 0
    return SimpleNamespace(
        output=root / "run",
        photos=root / "photos",
        arguments=arguments,
        printed=printed.getvalue(),
    )


@pytest.fixture
def run(ended, tmp_path, small, no_export):
    """A copy of the ended search, in a folder of its own."""
    output = shutil.copytree(ended.output, tmp_path / "run")
    return SimpleNamespace(output=output, photos=ended.photos, arguments=ended.arguments)


def summary(output: Path) -> dict:
    return json.loads((output / "summary.json").read_text())


def leaderboard(output: Path) -> list[dict[str, str]]:
    with (output / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_search_leaves_all_its_results(ended):
    output, printed = ended.output, ended.printed
    expected = [
        "report.html",
        "search.json",
        "leaderboard.csv",
        "search.png",
        "history.png",
        "best.keras",
        "export/1",
        "summary.json",
    ]
    assert all((output / name).exists() for name in expected)
    assert not [path for path in output.iterdir() if "unfinished" in path.name]
    assert not (output / "activations").exists()
    assert "trial 0 (probe): val_loss" in printed
    assert "trial 2 of 2: val_loss" in printed
    assert "left" in printed
    assert "Going on" not in printed

    rows = leaderboard(output)
    assert rows[0]["status"] == "probe"
    losses = [float(row["val_loss"]) for row in rows[1:]]
    assert losses == sorted(losses)
    assert {"hidden", "dropout", "learning_rate", "weight_decay"} <= set(rows[0])

    facts = summary(output)
    best = min(rows, key=lambda row: float(row["val_loss"]))  # the probe may be
    assert facts["best"]["trial"] == int(best["trial"])
    assert facts["test"]["images"] == sum(facts["images"]["test"].values())
    assert facts["test"]["low"] <= facts["test"]["accuracy"] <= facts["test"]["high"]
    assert facts["directory"] == os.path.relpath(ended.photos, output)
    shared = [output / name for name in ("summary.json", "leaderboard.csv", "report.html")]
    assert not [path.name for path in shared if str(output.parent) in path.read_text()]


def test_best_keras_and_the_export_are_one_model_of_raw_pixels(ended):
    model = keras.saving.load_model(ended.output / "best.keras")
    assert model.class_names == ("class0", "class1", "class2")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    served = tf.saved_model.load(ended.output / "export" / "1").signatures["serving_default"]
    (scores,) = served(tf.constant(pixels)).values()
    np.testing.assert_allclose(scores, model.predict(pixels, verbose=0), atol=1e-5)


def test_python_and_the_command_resume_each_other_and_another_search_is_refused(
    run, monkeypatch, capsys
):
    member = run.output / "trials" / "trial_0000" / "member.npz"
    written = member.stat().st_mtime_ns
    settings = {"epochs": 3, "image_size": 32, "batch_size": 8, "output": run.output}
    result = Search(run.photos, Space(**SPACE), trials=3, **settings).run()
    assert "Going on" in capsys.readouterr().out
    assert sorted(trial.trial for trial in result.trials) == [1, 2, 3]
    assert result.best == result.trials[0] or result.best.trial == 0
    assert result.report.exists()
    assert 0 <= result.test["accuracy"] <= 1
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    assert result.model.predict(images, verbose=0).shape == (2, 3)

    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(TransferHyperModel, "fit", interrupted)
    arguments = [*run.arguments, "--output", str(run.output), "--trials", "4"]
    assert search.main(arguments) == 0
    captured = capsys.readouterr()
    assert "Going on" in captured.out
    assert "Interrupted after 3 trials" in captured.err
    assert member.stat().st_mtime_ns == written
    facts = summary(run.output)
    assert (facts["trials"], facts["interrupted"], facts["test"]["looks"]) == (3, True, 3)

    assert search.main([*arguments, "--seed", "1"]) == 2
    assert "seed was 0 and is 1" in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_a_search_whose_best_trial_is_damaged_names_the_trial_of_best_keras(run, capsys):
    first = int(leaderboard(run.output)[1]["trial"])
    other, trials = 3 - first, run.output / "trials"
    (trials / "trial_probe" / "member.npz").unlink()
    folder = trials / f"trial_{first - 1:04}"
    for damaged in (folder / "member.npz", folder / "history.csv", run.output / "summary.json"):
        damaged.write_bytes(damaged.read_bytes()[:20])
    assert search.main([*run.arguments, "--output", str(run.output), "--average", "1"]) == 0
    captured = capsys.readouterr()
    facts = summary(run.output)
    assert (facts["average_of"], set(facts["lost"])) == ([other], {0, first})
    assert facts["best"]["trial"] == other
    assert facts["test"]["looks"] == 2
    assert f"Best: trial {other}, " in captured.out
    assert (
        f"Not in best.keras (weights damaged or missing): the probe and trial {first}."
        in captured.out
    )
    assert f"Test, used 2 times, as this search was resumed after a first use (trial {other}):" in (
        captured.out
    )
    assert f"The weights of trial {first} are damaged or missing" in captured.err
    page = page_text(run.output)
    assert re.search(rf"On \d+ test images trial {other} gets", page)
    assert f"Trial {other} on the" in page
    assert f"trial {first} gets" not in page
    assert f"The test images were used 2 times, now for trial {other}." in page
    assert [int(row["trial"]) for row in leaderboard(run.output)] == [0, first, other]


def test_a_disk_that_is_full_at_the_end_leaves_the_trials(run, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "export/1; No space left on device")

    monkeypatch.setattr(TransferModel, "export", full)
    (run.output / "leaderboard.csv").unlink()
    assert search.main([*run.arguments, "--output", str(run.output)]) == 5
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "No space left on device" in line
    assert f"kept in {run.output}. Make room, and the same command with --output" in line
    assert (run.output / "trials" / "journal.jsonl").exists()
    assert (run.output / "leaderboard.csv").exists()


@pytest.mark.filterwarnings("always:--tuner grid")
@pytest.mark.usefixtures("small")
def test_when_all_trials_fail_the_last_line_is_the_reason(ended, tmp_path, monkeypatch, capsys):
    def fit(self, *args, **kwargs):
        raise RuntimeError("no luck today")

    monkeypatch.setattr(TransferHyperModel, "fit", fit)
    arguments = [*ended.arguments, "--tuner", "grid", "--output", str(tmp_path / "run")]
    assert search.main(arguments) == 1
    captured = capsys.readouterr()
    assert re.search(r"keep their first value in 2 trials of up to [\d,]+\.", captured.err)
    assert captured.out.count("Traceback") == 1
    assert captured.err.strip().endswith("all trials failed: RuntimeError: no luck today")


@pytest.mark.usefixtures("small", "no_export")
def test_hyperband_fine_tunes_and_the_backbone_runs_once_for_all_trials(ended, tmp_path, capsys):
    (tmp_path / "space.yaml").write_text("pooling: avg\nunfreeze: [0, 1]\nhidden: 8\ndepth: 1\n")
    options = ["--tuner", "hyperband", "--trials", "4", "--cache", str(tmp_path / "cache")]
    options += ["--space", str(tmp_path / "space.yaml"), "--output", str(tmp_path / "run")]
    options += ["--average", "1"]
    assert search.main([str(ended.photos), *QUICK, *options]) == 0
    facts = summary(tmp_path / "run")
    assert (facts["trials"], facts["failed_trials"]) == (4, 0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "activations after" in line]
    # Training and validation images through all levels, then the test images; trials say nothing.
    images = [int(re.search(r": (\d+) images", line)[1]) for line in lines]
    assert images == [24, 6, 6]


@pytest.mark.usefixtures("no_export", "small")
def test_the_demo_runs_without_arguments_on_the_split_that_it_states(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = demo_data.elpv_folder()
    counts = {path.name: len([*path.iterdir()]) for path in folder.glob("test/*")}
    assert counts == {"defective": 205, "functional": 451}
    assert len([*folder.rglob("*.png")]) == 2624
    assert [path.name for path in folder.parent.iterdir()] == ["elpv"]
    for label in folder.glob("*/*"):  # the command finds the folder, and a few images are enough
        for path in sorted(label.iterdir())[10:]:
            path.unlink()
    quick = [*QUICK, "--trials", "1", "--epochs", "1", "--unfreeze", "0", "--average", "1"]
    assert search.main(["--output", str(tmp_path / "run"), *quick]) == 0
    facts = summary(tmp_path / "run")
    assert facts["images"]["test"] == {"defective": 10, "functional": 10}
    assert facts["flips"] == "flips"
    assert "SVM 82.44%, fine-tuned VGG19 88.42%" in capsys.readouterr().out
