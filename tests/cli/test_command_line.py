"""Where the commands of tuning/ put their results, and how they end."""

import errno
import resource
from pathlib import Path

import pytest
import tensorflow as tf

from keras_transfer.cli.common import exit_status
from keras_transfer.search.engine.renewal import with_option
from keras_transfer.search.report.summary import without_paths
from keras_transfer.utils.output_folder import output_folder


@pytest.mark.parametrize("output", ["new/deep/../../one/cat/0.png", "one/../new/a/../b", "new/c/d"])
def test_a_look_at_where_results_go_leaves_nothing(tmp_path, output):
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "empty").mkdir()
    (tmp_path / "one" / "cat" / "0.png").touch()
    before = sorted(tmp_path.rglob("*"))
    given = tmp_path / output
    if output.endswith(".png"):
        with pytest.raises(OSError, match=r"cannot be written: .* Name another"):
            output_folder(given, "photos")
    else:
        assert output_folder(given, "photos") == given
    assert sorted(tmp_path.rglob("*")) == before


def test_a_look_at_where_results_go_leaves_an_empty_folder_there(tmp_path):
    (tmp_path / "mine").mkdir()
    output_folder(tmp_path / "new" / ".." / "mine", "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def _too_long(path):
    """Writes a file that is longer than the process may write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        path.write_bytes(b"0" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _by_tensorflow(path):
    """What TensorFlow and HDF5 raise holds the words of the system, and no number."""
    raise tf.errors.ResourceExhaustedError(None, None, f"{path}; No space left on device [Op:Save]")


def _chained(path):
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RuntimeError("not all was written") from error


@pytest.mark.parametrize("write", [_too_long, _by_tensorflow, _chained])
def test_a_full_disk_ends_a_command_with_a_line_and_a_code_of_its_own(tmp_path, capsys, write):
    code = exit_status("keras-transfer search", lambda: write(tmp_path / "x"), lambda: "Make room.")
    assert code == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-transfer search: error: no room is left on the disk (")
    assert line.endswith("). Make room.")


def test_memory_that_is_full_is_no_full_disk():
    def fail():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        exit_status("keras-transfer search", fail)


def test_what_people_share_holds_no_path_of_a_machine(tmp_path):
    output = tmp_path / "runs" / "x"
    facts = {
        "directory": tmp_path / "photos",
        "output": output,
        "backbone": [str(tmp_path / "module"), "vgg16"],
        "failure": f"OSError: '{output}/trials/a' is torn, as is '{Path.home()}/b'",
        "epochs": 3,
    }
    assert without_paths(facts, output) == {
        "directory": "../../photos",
        "output": ".",
        "backbone": ["../../module", "vgg16"],
        "failure": "OSError: 'trials/a' is torn, as is '~/b'",
        "epochs": 3,
    }


def test_options_are_added_before_what_stands_behind_two_dashes():
    own = ("--output", "b")
    assert with_option(["photos", "--seed", "1"], *own) == ["photos", "--seed", "1", *own]
    assert with_option(["--seed", "1", "--", "-photos"], *own) == [
        *("--seed", "1", *own, "--", "-photos")
    ]
