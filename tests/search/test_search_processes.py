"""Searches in processes of their own: scripts, workers, and a time that is up."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_modules import save_reusable
from photos import QUICK, photos
from small_lite import small_lite

from keras_transfer import TransferModel
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def _no_export(monkeypatch):
    monkeypatch.setattr(TransferModel, "export", lambda *args, **kwargs: None)


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python with arguments, and shows what it printed if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=500,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done


def leaderboard(output: Path) -> list[dict[str, str]]:
    with (output / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    times = ("seconds", "expected_seconds")
    return [{name: row[name] for name in row if name not in times} for row in rows]


@pytest.mark.traced  # as in the other process
@pytest.mark.usefixtures("_no_export")
def test_folds_a_metric_balance_and_a_final_fit_give_the_same_in_every_process(
    folder, tmp_path, monkeypatch
):
    space = tmp_path / "space.yaml"
    space.write_text("pooling: avg\nunfreeze: 0\nhidden: 8\ndepth: 1\n")
    arguments = [folder, "--folds", "2", "--metric", "f1", "--seed", "0", "--space", space]
    arguments += ["--balance", "--final-fit", "--flips", "mirror", *QUICK, "--epochs", "2"]
    arguments += ["--trials", "1", "--average", "1", "--output"]
    alone, here = tmp_path / "alone", tmp_path / "here"
    done = process(ROOT / "tests" / "small_lite.py", *arguments, alone, "--json")
    assert "trial 1 of 1: val_" in done.stderr
    assert "activations after" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["objective"] == {"name": "val_f1", "mode": "max"}
    assert len(summary["best"]["folds"]) == len(summary["probe"]["folds"]) == 2
    assert summary["best"]["deviation"] is not None
    count = sum(sum(summary["images"][split].values()) for split in ("train", "valid"))
    assert summary["trained_again"] == count
    assert f"trained again on {count} images, gets" in (alone / "report.html").read_text()

    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)
    assert search.main([*map(str, arguments), str(here)]) == 0
    assert without_times(leaderboard(here)) == without_times(leaderboard(alone))
    assert json.loads((here / "summary.json").read_text())["test"] == summary["test"]


@pytest.mark.traced  # as in the workers
@pytest.mark.usefixtures("_no_export")
def test_two_workers_give_the_results_of_one_process(folder, tmp_path, capsys):
    space, module = tmp_path / "space.yaml", save_reusable(tmp_path / "module")
    space.write_text("pooling: avg\nunfreeze: 0\nhidden: 8\ndepth: 1\n")
    arguments = [folder, "--tuner", "random", "--average", "1", "--json", *QUICK, "--trials", "4"]
    arguments += ["--backbone", module, "--space", space, "--cache", tmp_path / "cache"]
    for name, workers in (("alone", "1"), ("both", "2")):
        own = ["--workers", workers, "--output", tmp_path / name]
        assert search.main([*map(str, arguments), *map(str, own)]) == 0
        assert json.loads(capsys.readouterr().out)["trials"] == 4
    rows = without_times(leaderboard(tmp_path / "both"))
    assert rows == without_times(leaderboard(tmp_path / "alone"))
    # Of training, validation and test images once each, whichever process asks for them.
    assert len([*(tmp_path / "cache").rglob("manifest.json")]) == 3


# A first run has one trial. In a second one, another trial and the export take far too long.
OUT_OF_TIME = """
import os, sys, time
from pathlib import Path
from small_lite import small_lite
from keras_transfer import TransferModel
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search
from keras_transfer.search.hypermodel import TransferHyperModel
from keras_transfer.search.study import Study

efficientnet_lite.EfficientNetLite0 = small_lite
TransferModel.export = lambda self, path, **kwargs: Path(path).mkdir(parents=True)
assert search.main([*sys.argv[1:], "--trials", "1"]) == 0
TransferHyperModel.fit = TransferModel.export = lambda *args, **kwargs: time.sleep(600)
made = Study.of.__func__


def quickly(*args, **kwargs):
    study = made(*args, **kwargs)
    study.plan.startup = 2.0
    return study


Study.of = classmethod(quickly)
os.environ["KERAS_TRANSFER_BEGAN"] = repr(time.monotonic() - 30)  # half a minute is over
print("now with a limit")
sys.exit(search.main([*sys.argv[1:], "--minutes", "1"]))
"""


def test_a_search_that_is_out_of_time_ends_in_time_with_the_trials_that_have_ended(
    folder, tmp_path
):
    output, space = tmp_path / "run", tmp_path / "space.yaml"
    space.write_text("pooling: avg\nunfreeze: 0\nhidden: 8\ndepth: 1\n")
    done = process("-c", OUT_OF_TIME, folder, *QUICK, "--space", space, "--output", output)
    printed = done.stdout.partition("now with a limit")[2]
    assert "What comes after the trials will take about" in printed
    assert "The time is up. What was running is left out." in printed
    assert f"{output / 'export' / '1'} is that of an earlier run, and of another model." in printed
    minutes = float(re.search(r"^(.*) minutes\. Look at", printed, re.MULTILINE)[1])
    assert minutes < 1.3  # of 1, on a machine that may be busy
    summary = json.loads((output / "summary.json").read_text())
    assert summary["trials"] == 1
    assert summary["no_time_for"][:2] == ["the export", "the test images"]
    assert (summary["test"], summary["looks"]) == (None, 1)
