"""A search whose memory has grown goes on in a new process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A search of trials of which each leaves 60 MB behind, as a command.
SEARCH = """
import argparse, os, time
from pathlib import Path

from stand_in import StandIn, trials
from keras_transfer.search.engine.renewal import GrownError, Growth, began, begin_again

parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path)
output = parser.parse_args().output
start, left = began(time.monotonic()), []
output.mkdir(exist_ok=True)


def leave(number):
    left.append(bytearray(os.urandom(1024)) * 60_000)
    with (output / "fits.txt").open("a") as file:
        print(os.getpid(), start, len(left), file=file)


hypermodel = StandIn()
hypermodel.before_fit = leave
search = trials(output, hypermodel, count=5, between=Growth(100 * 2**20).check)
try:
    search.run()
except GrownError as reason:
    print(reason, flush=True)
    begin_again(start, output)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="one process takes the place of another")
def test_a_search_whose_memory_grows_goes_on_in_a_new_process_with_each_trial_once(tmp_path):
    output = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, "--output", str(output)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A new process goes on.") == 1
    rows = [line.split() for line in (output / "fits.txt").read_text().splitlines()]
    assert len({(pid, start) for pid, start, _ in rows}) == 1  # as one command from outside
    # The first trial is what later ones are compared with; the third is 120 MB above it.
    assert [int(fits) for _, _, fits in rows] == [1, 2, 3, 1, 2]
