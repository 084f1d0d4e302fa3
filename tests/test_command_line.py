"""Where the commands of tuning/ put their results."""

from types import SimpleNamespace

import pytest
from command_line import output_folder, with_options


@pytest.mark.parametrize("output", ["new/deep/../../one/cat/0.png", "one/../new/a/../b", "new/c/d"])
def test_a_look_at_where_results_go_leaves_nothing(tmp_path, output):
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "empty").mkdir()
    (tmp_path / "one" / "cat" / "0.png").touch()
    before = sorted(tmp_path.rglob("*"))
    args = SimpleNamespace(directory=None, output=tmp_path / output)
    if output.endswith(".png"):
        with pytest.raises(OSError, match=r"cannot be written: .* Name another"):
            output_folder(args)
    else:
        assert output_folder(args) == args.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_look_at_where_results_go_leaves_an_empty_folder_there(tmp_path):
    (tmp_path / "mine").mkdir()
    output_folder(SimpleNamespace(directory=None, output=tmp_path / "new" / ".." / "mine"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_options_are_added_before_what_stands_behind_two_dashes():
    own = ("--output", "b")
    assert with_options(["photos", "--seed", "1"], *own) == ["photos", "--seed", "1", *own]
    assert with_options(["--seed", "1", "--", "-photos"], *own) == [
        *("--seed", "1", *own, "--", "-photos")
    ]
