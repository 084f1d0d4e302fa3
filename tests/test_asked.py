import json

import asked
import pytest


def test_the_same_search_goes_on_and_another_is_refused_with_what_differs(tmp_path):
    first = {"seed": 0, "space": {"hidden": [32, 64]}, "data": ["abc"]}
    assert not asked.begin(tmp_path, first)
    assert asked.begin(tmp_path, json.loads(json.dumps(first)))
    with pytest.raises(
        ValueError, match=r"seed was 0 and is 1.*folds was not there and is 5"
    ) as told:
        asked.begin(tmp_path, {**first, "seed": 1, "folds": 5})
    assert "data" not in str(told.value)
    assert asked.begin(tmp_path, first)  # nothing was changed by that


def test_a_torn_file_is_named(tmp_path):
    (tmp_path / asked.FILE).write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"search\.json' is torn"):
        asked.begin(tmp_path, {"seed": 0})
