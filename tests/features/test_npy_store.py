import numpy as np
import pytest

from keras_transfer.features.npy_store import ArrayWriter, FileArray, checksum

NUMBERS = np.arange(60 * 6, dtype="float32").reshape(60, 2, 3)


def write(path, numbers=NUMBERS, finish=True):
    writer = ArrayWriter(path, numbers.shape[1:], numbers.dtype)
    for start in range(0, len(numbers), 4):
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


def test_rows_are_read_in_any_order(tmp_path):
    write(tmp_path / "a.npy")
    array = FileArray(tmp_path / "a.npy")
    rows = np.array([59, 0, 7, 7])
    np.testing.assert_array_equal(array.take(rows), NUMBERS[rows])
    np.testing.assert_array_equal(array.take(slice(50, 99)), NUMBERS[50:])
    assert (len(array), array.nbytes) == (60, NUMBERS.nbytes)


def test_a_file_that_lost_its_end_raises_an_error(tmp_path):
    path = tmp_path / "a.npy"
    write(path)
    array = FileArray(path)
    with path.open("r+b") as file:
        file.truncate(500)
    with pytest.raises(OSError, match="is shorter than its rows"):
        array.take(np.array([59]))
    with pytest.raises(OSError, match="is shorter than its rows"):
        FileArray(path)


@pytest.mark.parametrize("harm", ["flip", "cut", "header"])
def test_the_checksum_of_a_damaged_file_is_another_or_cannot_be_had(tmp_path, harm):
    path = tmp_path / "a.npy"
    right = write(path).checksum
    assert checksum(path, 60) == right
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1000] ^= 1
        path.write_bytes(content)
        assert checksum(path, 60) != right
        return
    content[0] ^= harm == "header"
    path.write_bytes(content[:-1] if harm == "cut" else content)
    with pytest.raises((OSError, ValueError), match=r"shorter than its rows|no header"):
        checksum(path, 60)


@pytest.mark.parametrize("rows", [48, 20, 1])
def test_an_interrupted_file_is_continued_behind_some_of_its_rows(tmp_path, rows):
    path = tmp_path / "a.npy"
    write(path, NUMBERS[:50], finish=False)
    writer = ArrayWriter(path, (2, 3), "float32", rows=rows)
    writer.append(NUMBERS[rows:])
    writer.finish()
    np.testing.assert_array_equal(np.load(path), NUMBERS)
    assert writer.checksum == checksum(path, 60)
