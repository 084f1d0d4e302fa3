"""The command `keras-transfer`, in processes of its own."""

import contextlib
import json
import subprocess
import sys

import pytest

import keras_transfer
from keras_transfer.cli.main import VERBS, main

# Runs several command lines in one process, then says which heavy packages that has imported.
CODE = """
import contextlib, io, json, sys
from keras_transfer.cli.main import main
results = []
for arguments in json.loads(sys.argv[1]):
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    results.append((code, output.getvalue()))
print(json.dumps([results, sorted({"keras", "tensorflow", "keras_tuner"} & set(sys.modules))]))
"""


@pytest.mark.slow
def test_help_and_mistakes_do_not_wait_for_keras(tmp_path):
    (tmp_path / "space.yaml").write_text("hiden: 3\n")
    (tmp_path / "never.yaml").write_text("frozen_epochs: 12\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    (tmp_path / "history.csv").write_text("epoch,loss\n0,1.5\n")
    done = {
        (): "search heads, learning rates",
        ("--help",): "classify images by an exported model",
        ("--version",): keras_transfer.__version__,
        **{(verb, "--help"): f"keras-transfer {verb}" for verb in VERBS},
        ("search", "--show-space"): "depth: [0, 1]",
        ("plot-history", str(tmp_path / "history.csv"), "-o", str(tmp_path / "h.png")): "h.png",
    }
    mistakes = {
        ("serch",): "Did you mean 'search'?",
        ("fly",): "Expected one of search, compare",
        ("search", "--trails", "3"): "unrecognized arguments",
        ("search", "--space", str(tmp_path / "space.yaml")): "Did you mean 'hidden'?",
        ("search", "--tuner", "hyperband", "--trials", "8"): "needs 52 trials",
        ("search", "--space", str(tmp_path / "never.yaml")): "Nothing would ever be unfrozen",
        ("search", "--backbone", "vgg16,vgg16"): "Expected names, each once",
        ("search", str(tmp_path / "nowhere"), "--output", str(tmp_path / "new")): "is no folder",
        ("search", "--output", str(tmp_path / "taken")): "is there already",
        ("report", str(tmp_path / "no.keras"), str(tmp_path)): "is no file",
        ("plot-history", str(tmp_path / "no.csv"), "-o", str(tmp_path / "h.png")): "no.csv",
    }
    expected = {**done, **mistakes}
    ran = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(list(expected))], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    results, heavy = json.loads(ran.stdout)
    assert heavy == []
    for (code, output), (arguments, text) in zip(results, expected.items(), strict=True):
        assert text in output, arguments
        assert code == (2 if arguments in mistakes else 0), arguments


def test_each_verb_has_a_line_in_the_help(capsys):
    with contextlib.suppress(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.split()[:1] == [verb] for line in lines) for verb in VERBS)


def test_the_package_is_the_command():
    ran = subprocess.run(
        [sys.executable, "-m", "keras_transfer", "--version"], capture_output=True, text=True
    )
    assert ran.stdout == f"keras-transfer {keras_transfer.__version__}\n"
