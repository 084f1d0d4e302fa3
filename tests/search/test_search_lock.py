"""One process at a time runs a search."""

import pytest
from photos import photos
from processes import start, until
from small_lite import small_lite
from stand_in import StandIn, trials

from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import search
from keras_transfer.search.state.lock import alone


def run_when_allowed(output):
    """Runs trials, the first of which waits for a file."""
    hypermodel = StandIn()
    hypermodel.before_fit = lambda number: until((output / "go").exists, seconds=300)
    trials(output, hypermodel, count=3).run()


@pytest.mark.slow
def test_a_second_process_is_refused_before_it_touches_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)
    folder, output = photos(tmp_path / "photos", classes=2), tmp_path / "run"
    first = start(run_when_allowed, output)
    journal = output / "trials" / "journal.jsonl"
    until(lambda: journal.exists() and "started" in journal.read_text())
    before = journal.read_bytes()
    assert search.main([str(folder), "--image-size", "32", "--output", str(output)]) == 2
    assert "another process runs this search" in capsys.readouterr().err
    assert journal.read_bytes() == before
    (output / "go").touch()
    first.join()
    assert first.exitcode == 0
    assert [outcome.status for outcome in trials(output).outcomes] == ["completed"] * 3


@pytest.mark.slow
def test_an_oracle_needs_the_lock(tmp_path):
    search = trials(tmp_path)
    with pytest.raises(RuntimeError, match="within `alone"):
        search.oracle  # noqa: B018
    with alone(tmp_path):
        search.oracle  # noqa: B018
    search.run()  # the lock is free again
    assert len(search.outcomes) == 4
