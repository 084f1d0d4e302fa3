import errno

import pytest

from keras_transfer.search.averaging.winner import MODEL, keep


class Model:
    """Writes half of itself onto a disk that is full then."""

    def save(self, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_when_the_winner_is_kept_is_left_without_half_of_it(tmp_path):
    (tmp_path / MODEL).write_bytes(b"of an earlier run")
    with pytest.raises(OSError, match="No space left"):
        keep(Model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL]
    assert (tmp_path / MODEL).read_bytes() == b"of an earlier run"
