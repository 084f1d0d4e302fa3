import resource

import pytest

from keras_transfer.search.state.journal import Journal


def test_events_are_read_as_they_were_written(tmp_path):
    journal = Journal(tmp_path / "new" / "journal.jsonl")
    assert list(journal.read()) == []
    journal.append("created", id="0000", values={"rate": 0.1, "loss": float("nan")})
    journal.append("ended", id="0000")
    assert list(journal.read()) == [
        {"event": "created", "id": "0000", "values": {"rate": 0.1, "loss": None}},
        {"event": "ended", "id": "0000"},
    ]


@pytest.mark.parametrize("length", [1, 20, 10_000])
def test_a_torn_last_line_is_no_event_and_is_overwritten(tmp_path, length):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("created", id="0000")
    with journal.path.open("ab") as file:
        file.write(b'{"event": "ended", "text": "'[:length].ljust(length, b"x"))
    assert [event["event"] for event in journal.read()] == ["created"]
    journal.append("started", id="0000")
    assert [event["event"] for event in journal.read()] == ["created", "started"]


def test_a_damaged_line_before_the_last_one_is_named(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(3):
        journal.append("created", id=str(number))
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(lines[0] + lines[1][:9] + "\n" + lines[2])
    with pytest.raises(ValueError, match=r"journal.jsonl', line 2, is damaged: .*another folder"):
        list(journal.read())


def test_an_event_that_the_disk_has_no_room_for_leaves_the_file_as_it_was(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("created", id="0000")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append("ended", id="0000", text="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.append("interrupted", id="0000")
    assert [event["event"] for event in journal.read()] == ["created", "interrupted"]
