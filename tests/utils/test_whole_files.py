"""Files are there whole or not at all, and what a spreadsheet opens computes nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_transfer.plotting.history_table import read_csv, write_csv
from keras_transfer.utils.atomic_files import recover, text_of_cell, write_rows, written_whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("case", ["folder", "folder by two renames", "files", "picture"])
def test_a_kill_leaves_the_old_or_the_new_and_the_next_writer_cleans_up(tmp_path, case):
    command = [sys.executable, Path(__file__).parents[1] / "killed_writers.py", case, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *killed, whole = map(json.loads, done.stdout.splitlines())
    assert len(killed) >= 2
    assert {line["status"] for line in killed} == {signal.SIGKILL}
    assert set(whole["found"]) == {"new"}
    found = [set(line["found"]) for line in killed]
    assert found[0] == {"old"}
    assert all(names in ({"old"}, {"new"}) for names in found)
    for line in (*killed, whole):
        assert set(line["then"]) == {"newer"}
        assert line["after"] == line["before"]


def test_what_somebody_may_still_write_is_left_alone(tmp_path):
    path = tmp_path / "history.png"
    with written_whole(path) as own:
        own.write_text("not complete")
        elsewhere = own.with_name(own.name.replace("@", "@elsewhere-"))
        elsewhere.touch()
        other = own.with_name(f".other.png.{'0' * 32}.1@x")
        other.touch()
        recover(path)
        assert own.exists()
        assert elsewhere.exists()
    assert path.read_text() == "not complete"
    long_ago = elsewhere.stat().st_mtime - 100_000
    for left in (elsewhere, other):
        os.utime(left, (long_ago, long_ago))
    recover(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == [other.name, "history.png"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_one(tmp_path, exists):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "p.csv", tmp_path / "p.csv"
    if exists:
        real.write_text("old")
    link.symlink_to(real)
    with written_whole(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert list(real.parent.iterdir()) == [real]


TEXTS = [
    "=1+1.png",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''=1",
    "it's",
    "'",
    "",
    "a=1",
]


def test_no_text_begins_a_formula_and_numbers_stay_numbers(tmp_path):
    write_rows(tmp_path / "t.csv", [TEXTS, [Path("=1"), -1, -1.5, "-1.5", float("-inf"), None]])
    with (tmp_path / "t.csv").open(newline="") as file:
        texts, values = csv.reader(file)
    assert not [text for text in texts if text[:1] in tuple("=+-@\t\r")]
    assert [text_of_cell(text) for text in texts] == TEXTS
    assert values == ["'=1", "-1", "-1.5", "-1.5", "-inf", ""]


def test_a_history_with_such_names_is_read_as_it_was_written(tmp_path):
    history = {"=loss": [-1.0, -2.5], "note": ["=1+1", None], "'=x": [1, -2]}
    write_csv(history, [0, 1], tmp_path / "history.csv")
    assert "\n0,-1.0,'=1+1,1\n" in (tmp_path / "history.csv").read_text()
    assert read_csv(tmp_path / "history.csv")[:2] == (history, [0, 1])
