"""One process at a time: real processes of a whole search, whose trials are stand-ins."""

import contextlib
import sys
import time
from pathlib import Path

import pytest
from processes import start
from stand_in import StandIn, study, trials

from keras_transfer.search.state.lock import alone


def _search(output: Path, seconds: float) -> None:
    """What `search.py` does in a process, from the probe to what comes last."""
    from keras_transfer.cli.common import exit_status
    from keras_transfer.search import session

    stand_in = study(output, StandIn(seconds))

    def of(*args, before_writing):
        before_writing()
        return stand_in

    session.Study.of = of
    session.finish = lambda *args, **kwargs: (output / "finished").touch()
    with (output.parent / f"{seconds}.txt").open("w") as log, contextlib.redirect_stderr(log):
        code = exit_status(
            "keras-transfer search", lambda: session.run(stand_in.settings, output, 0.0)
        )
    sys.exit(code)


@pytest.mark.slow
def test_a_second_process_is_refused_before_it_touches_anything(tmp_path):
    output = tmp_path / "run"
    first = start(_search, output, 0.5)
    journal = output / "trials" / "journal.jsonl"
    until = time.monotonic() + 120
    while not (journal.exists() and "started" in journal.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    second = start(_search, output, 0.0)
    second.join()
    assert second.exitcode == 2
    assert "another process runs this search" in (tmp_path / "0.0.txt").read_text()
    first.join()
    assert first.exitcode == 0
    assert [one.status for one in trials(output).outcomes] == ["completed"] * 3
    assert (output / "finished").exists()


def test_nobody_makes_an_oracle_without_the_lock(tmp_path):
    search = trials(tmp_path)
    with pytest.raises(RuntimeError, match="within `alone"):
        search.oracle  # noqa: B018
    with alone(tmp_path):
        search.oracle  # noqa: B018
    search.run()  # the lock is free again
    assert len(search.outcomes) == 4
