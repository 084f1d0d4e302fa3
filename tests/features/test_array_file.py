import numpy as np
import pytest

from keras_transfer.features import npy_store
from keras_transfer.features.npy_store import ArrayWriter, FileArray, is_whole

NUMBERS = np.arange(60 * 6, dtype="float32").reshape(60, 2, 3)
ROW = 6 * 4


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    monkeypatch.setattr(npy_store, "_STRETCH", 10 * ROW)


def write(path, numbers=NUMBERS, stretches=(), finish=True):
    writer = ArrayWriter(path, numbers.shape[1:], numbers.dtype, stretches)
    for start in range(writer.rows, len(numbers), 4):
        writer.append(numbers[start : start + 4])
    if finish:
        writer.finish()
    writer.close()
    return writer


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_numpy_reads_what_is_written(tmp_path, dtype):
    path = tmp_path / "a.npy"
    write(path, NUMBERS.astype(dtype))
    for mode in (None, "r"):
        np.testing.assert_array_equal(np.load(path, mmap_mode=mode), NUMBERS.astype(dtype))


@pytest.mark.parametrize("positioned", [True, False])
def test_rows_are_read_in_any_order(tmp_path, monkeypatch, positioned):
    monkeypatch.setattr(npy_store, "_POSITIONED", positioned and npy_store._POSITIONED)
    write(tmp_path / "a.npy")
    array = FileArray(tmp_path / "a.npy")
    rows = np.array([59, 0, 7, 7])
    np.testing.assert_array_equal(array.take(rows), NUMBERS[rows])
    np.testing.assert_array_equal(array.take(slice(50, 99)), NUMBERS[50:])
    assert (len(array), array.nbytes) == (60, NUMBERS.nbytes)


def test_a_file_that_lost_its_end_is_an_error_and_no_rubbish(tmp_path):
    write(tmp_path / "a.npy")
    array = FileArray(tmp_path / "a.npy")
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(500)
    with pytest.raises(OSError, match="is shorter than it was"):
        array.take(np.array([59]))


def test_each_stretch_has_a_checksum_of_its_own(tmp_path):
    writer = write(tmp_path / "a.npy")
    assert [rows for rows, _ in writer.stretches] == [12] * 5
    assert len({checksum for _, checksum in writer.stretches}) == 5
    assert is_whole(tmp_path / "a.npy", writer.stretches)


@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "header", "gone"])
def test_a_damaged_file_is_not_whole(tmp_path, harm):
    path = tmp_path / "a.npy"
    writer = write(path)
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1000] ^= 1
    elif harm == "cut":
        content = content[:-1]
    elif harm == "longer":
        content += b"x"
    elif harm == "header":
        content[0] ^= 1
    path.write_bytes(content)
    if harm == "gone":
        path.unlink()
    assert not is_whole(path, writer.stretches)


@pytest.mark.parametrize(("at", "left"), [(None, 48), (128, 0), (128 + 30 * ROW, 24)])
def test_writing_goes_on_behind_the_last_whole_stretch(tmp_path, at, left):
    path = tmp_path / "a.npy"
    stretches = write(path, NUMBERS[:50], finish=False).stretches
    if at is not None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
    again = ArrayWriter(path, (2, 3), "float32", stretches)
    assert again.rows == left
    again.append(NUMBERS[left:])
    again.finish()
    np.testing.assert_array_equal(np.load(path), NUMBERS)
    assert is_whole(path, again.stretches)


def test_a_file_of_another_shape_or_type_is_begun_anew(tmp_path):
    path = tmp_path / "a.npy"
    stretches = write(path, finish=False).stretches
    for shape, dtype in (((3, 2), "float32"), ((2, 3), "float16")):
        writer = ArrayWriter(path, shape, dtype, stretches)
        assert writer.rows == 0
        writer.close()
