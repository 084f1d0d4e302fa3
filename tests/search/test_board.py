"""What a search shows while it runs, and what it leaves to scripts."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from keras_transfer.search import progress as board_module
from keras_transfer.search.metrics import Objective
from keras_transfer.search.progress import Board, seconds_left, seconds_text
from keras_transfer.search.state.outcome import Outcome

LOSS = Objective("val_loss", "min")


def outcome(trial: int, score: float | None = 0.5, seconds: float = 10.0, **kwargs) -> Outcome:
    status = "failed" if score is None else "completed"
    metrics = {} if score is None else {"val_loss": score, "val_accuracy": 0.9}
    facts = {"status": status, "metrics": metrics, "epoch": None if score is None else 3, **kwargs}
    name = f"{trial:04d}" if trial else "probe"
    return Outcome(trial, name, score=score, seconds=seconds, hyperparameters={"a": 1}, **facts)


FAILED = {
    "failure": "ValueError: no [luck] today",
    "traceback": 'Traceback:\n  File "a.py"\nValueError: no [luck] today',
}


def terminal(monkeypatch, width: int = 100) -> io.StringIO:
    """A terminal that remembers what was written to it."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, height=30)
    monkeypatch.setattr(board_module, "get_console", lambda: console)
    return screen


def test_each_trial_is_a_line_with_the_best_and_the_time_left(capsys):
    with Board(LOSS, count=3) as board:
        for number, score in ((1, 0.5), (2, 0.25), (3, 0.75)):
            board.on_begin(number, {"a": 1})
            board.on_end(outcome(number, score))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "trial 1 of 3: val_loss 0.5000, val_accuracy 0.9000"
        " | best: trial 1, val_loss 0.5000 | 20 s left",
        "trial 2 of 3: val_loss 0.2500, val_accuracy 0.9000"
        " | best: trial 2, val_loss 0.2500 | 10 s left",
        "trial 3 of 3: val_loss 0.7500, val_accuracy 0.9000"
        " | best: trial 2, val_loss 0.2500 | done",
    ]


def test_the_best_is_the_highest_where_more_is_better(capsys):
    with Board(Objective("val_accuracy", "max"), count=3) as board:
        board.on_end(outcome(1, 0.5))
        board.on_end(outcome(2, 0.9, deviation=0.02))
    assert "best: trial 2, val_accuracy 0.9000 ± 0.0200 | 10 s left" in capsys.readouterr().out


def test_the_first_failure_shows_its_traceback_at_once_and_later_ones_a_line(capsys):
    with Board(LOSS, count=3) as board:
        board.on_end(outcome(1, None, **FAILED))
        shown = capsys.readouterr().out
        board.on_end(outcome(2, None, **FAILED))
    assert shown.startswith(FAILED["traceback"] + "\ntrial 1 of 3: failed: ValueError: no [luck]")
    assert "no best yet" in shown
    later = capsys.readouterr().out
    assert "Traceback" not in later
    assert "trial 2 of 3: failed" in later


def test_the_probe_is_trial_0_and_not_counted(capsys):
    with Board(LOSS, count=2) as board:
        board.on_end(outcome(0, 0.1))
        assert board.ended == 0
        board.on_end(outcome(1, 0.5, status="stopped"))
    probe, first = capsys.readouterr().out.splitlines()
    assert probe.startswith("trial 0 (probe): val_loss 0.1000")
    assert "no best yet" in probe
    assert "trial 1 of 2: val_loss 0.5000, val_accuracy 0.9000 (stopped) | best: trial 1" in first


def test_a_search_that_goes_on_counts_what_there_was(capsys):
    board = Board(LOSS, count=4, outcomes=[outcome(0), outcome(1, 0.1), outcome(2, None)])
    board.on_end(outcome(3, 0.5))
    board.on_end(outcome(3, 0.5))  # told twice, as by two readers of a folder
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("| best: trial 1, val_loss 0.1000 | 10 s left")
    board.on_end(outcome(4, 0.05))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("| best: trial 4, val_loss 0.0500 | done")


def test_time_left_is_the_median_of_the_trials_over_the_workers_or_until_the_deadline():
    assert seconds_left([10, 12, 500], 6, workers=2) == 36
    assert seconds_left([10], 6, until_deadline=5.0) == 5
    assert seconds_left([10], 6, until_deadline=-5.0) == 0
    assert seconds_left([], 6, until_deadline=5.0) == 5
    assert seconds_left([], 6) is None
    assert seconds_left([10], 0, until_deadline=99.0) == 0
    board = Board(LOSS, count=9, deadline=100.0, clock=lambda: 93.0)
    board.on_end(outcome(1))
    assert board.seconds_left == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (400, "6 min 40 s"), (1799, "29 min"),
     (8000, "2 h 13 min")],
)  # fmt: skip
def test_a_length_of_time_is_said_as_people_do(seconds, text):
    assert seconds_text(seconds) == text


def test_a_terminal_has_a_live_line_that_is_gone_in_the_end(monkeypatch):
    screen = terminal(monkeypatch)
    with Board(LOSS, count=20) as board:
        board.on_begin(1, {"hidden": 64, "learning_rate": 0.00123456})
        assert board.now() == "trial 1 of 20 | no best yet | hidden 64, learning_rate 0.00123"
        assert "trial 1 of 20 | no best yet" in screen.getvalue()
        board.on_end(outcome(1, 0.5))
        board.on_begin(2, {"hidden": 128})
        written = screen.getvalue()
        assert "trial 1 of 20: val_loss 0.5000, val_accuracy 0.9000\n" in written
        assert "trial 2 of 20 | best: trial 1, val_loss 0.5000 | 3 min 10 s left" in written
        board.on_begin(3, {"hidden": 32})
        assert board.now().startswith("trial 1 of 20 done, 2 running")
    assert screen.getvalue().endswith("\x1b[2K")  # the live line is wiped


def test_the_live_line_stays_one_line_in_a_narrow_window(monkeypatch):
    screen = terminal(monkeypatch, width=60)
    with Board(LOSS, count=20) as board:
        screen.truncate(0)
        screen.seek(0)
        board.on_begin(1, {f"hyperparameter_{i}": 0.123 for i in range(12)})
        assert screen.getvalue().count("\n") == 0
        assert "…" in screen.getvalue()


def test_a_progress_bar_within_a_trial_stands_beside_the_live_line(monkeypatch):
    from rich.progress import Progress

    terminal(monkeypatch)
    with Board(LOSS, count=2) as board:
        board.on_begin(1, {})
        with Progress(console=board_module.get_console()) as inner:  # older versions of rich raise
            inner.add_task("activations", total=3)
        board.on_end(outcome(1))


CODE = """
import os, subprocess, sys
from keras_transfer.cli.common import only_json
with only_json() as say:
    print("by Python")
    os.write(1, b"by a library in C\\n")
    subprocess.run(["echo", "by a child"])
    say('{"best": "Größe"}\\n')
print("afterwards")
"""


def test_scripts_get_one_json_object_whoever_prints():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        check=True,
    )
    first, *rest = done.stdout.decode().splitlines()
    assert json.loads(first) == {"best": "Größe"}
    assert rest == ["afterwards"]
    assert all(f"by {who}" in done.stderr.decode() for who in ("Python", "a library", "a child"))


def test_only_json_speaks_to_a_replaced_standard_output_too(capsys):
    from keras_transfer.cli.common import only_json

    with only_json() as say:
        print("not for scripts")
        say("{}")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("{}", "not for scripts\n")


def test_beside_json_a_line_a_trial_goes_to_standard_error(capsys):
    from keras_transfer.cli.common import only_json

    with only_json() as say, Board(LOSS, count=2) as board:
        board.on_begin(1, {})
        board.on_end(outcome(1))
        say("{}")
    captured = capsys.readouterr()
    assert captured.out == "{}"
    assert captured.err.startswith("trial 1 of 2: val_loss 0.5000")
