import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from keras_transfer.search.renewal import GrownError, Growth

ROOT = Path(__file__).parents[2]

# A search of 30 trials that fine-tune a tiny network, as a command.
SEARCH = """
import argparse, os, sys, time
sys.path[:0] = sys.argv[1].split(os.pathsep)
from pathlib import Path

import psutil
from keras_transfer.search import Space
from keras_transfer.search.renewal import GrownError, Growth, began, begin_again
from keras_transfer.search.trials import Trials
from test_hypermodel import data, hypermodel

parser = argparse.ArgumentParser()
parser.add_argument("folders")
parser.add_argument("most", type=int)
parser.add_argument("--output", type=Path)
args = parser.parse_args()
start = began(time.monotonic())
memory = args.output / "memory.txt"


def ended(outcome):
    with memory.open("a") as file:
        print(os.getpid(), psutil.Process().memory_info().rss, outcome.trial, start, file=file)


space = Space(hidden=8, unfreeze=1, frozen_epochs=0, depth=1, pooling="avg", dropout=[0.1, 0.6])
model = hypermodel(space=space, epochs=1)
args.output.mkdir(exist_ok=True)
growth = Growth(args.most, lambda: model.cache.nbytes)
trials = Trials(
    model, "random", objective=model.objective, count=30, epochs=1, seed=0, output=args.output,
    on_end=ended, between=growth.check,
)
try:
    trials.run(*data())
except GrownError as reason:
    print(reason, flush=True)
    begin_again(start, args.output)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="one process takes the place of another")
def test_memory_does_not_grow_beyond_its_limit_over_30_trials_each_run_once(tmp_path):
    output, most = tmp_path / "run", 50 * 2**20
    folders = os.pathsep.join(str(ROOT / one) for one in ("", "tests", "tests/search"))
    command = [sys.executable, "-c", SEARCH, folders, str(most), "--output", str(output)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in (output / "memory.txt").read_text().splitlines()]
    assert [int(trial) for _, _, trial, _ in rows] == list(range(1, 31))
    assert len({(pid, start) for pid, _, _, start in rows}) == 1  # as one command from outside
    resident = [int(one) for _, one, _, _ in rows]
    renewed = [i for i in range(1, 30) if resident[i] < resident[i - 1] - most // 2]
    assert done.stdout.count("A new process goes on.") == len(renewed) >= 1
    longest = max(b - a for a, b in zip([0, *renewed], [*renewed, 30], strict=True))
    assert longest <= 20  # of 30, all of which one process would hold
    assert max(resident) - resident[0] < 2 * most


def test_growth_is_what_comes_on_top_of_the_first_trial_and_is_not_kept_on_purpose(monkeypatch):
    now, held = [10**9], [0]

    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=now[0]))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    growth = Growth(100, held=lambda: held[0])
    growth.check()
    now[0] += 100
    growth.check()
    now[0] += 1000
    held[0] = 1000
    growth.check()
    now[0] += 1
    with pytest.raises(GrownError, match="of trials that have ended"):
        growth.check()
    without = Growth(None)
    without.check()
    now[0] += 10**12
    without.check()
