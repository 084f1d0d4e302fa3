"""What a search says before it imports Keras, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

TUNING = Path(__file__).parents[1] / "tuning"

CODE = """
import contextlib, io, json, sys
import search
told = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = search.main(arguments)
    told.append((code, said.getvalue()))
print(json.dumps([told, sorted({"keras", "tensorflow", "keras_tuner"} & set(sys.modules))]))
assert not [name for name in sys.modules if name.startswith("keras_transfer")]
"""


def test_no_argument_that_is_wrong_waits_for_keras(tmp_path):
    (tmp_path / "space.yaml").write_text("hiden: 3\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    cases = {
        ("--space", str(tmp_path / "space.yaml")): "Did you mean 'hidden'?",
        ("--show-space",): "depth: [1, 2]",
        ("--tuner", "hyperband", "--trials", "8"): "needs 52 trials",
        ("--epochs", "1"): "Nothing would ever be unfrozen",
        ("--backbone", "vgg16,vgg16"): "Expected names, each once",
        (str(tmp_path / "nowhere"), "--output", str(tmp_path / "new")): "is no folder",
        ("--output", str(tmp_path / "taken")): "is there already",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(list(cases))],
        capture_output=True,
        text=True,
        cwd=TUNING,
    )
    assert done.returncode == 0, done.stderr
    told, heavy = json.loads(done.stdout)
    assert heavy == []
    for (code, said), (arguments, expected) in zip(told, cases.items(), strict=True):
        assert expected in said
        assert code == (0 if arguments == ("--show-space",) else 2)


def test_a_package_that_is_imported_already_stays():
    import keras_transfer

    with without_keras():
        assert sys.modules["keras_transfer"] is keras_transfer
    assert sys.modules["keras_transfer"] is keras_transfer
