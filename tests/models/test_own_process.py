"""Two devices, and processes that set no seed: one child process for all checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    script, folder = TESTS / "models" / "own_process.py", tmp_path_factory.mktemp("child")
    command = [sys.executable, str(script), str(folder)]
    environment = {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        "unseeded_sweep",
        "two_replicas_train_as_one",
        "two_devices_do_what_one_does",
        "sweep_under_op_determinism",
    ],
)
def test_it_holds_in_a_process_of_its_own(child, check):
    assert f"passed: {check}\n" in child.stdout, child.stderr[-3000:]
