import json

import pytest

from keras_transfer.search.state import search_file

FIRST = {
    "images": {"train": {"a": 2}},
    "data": ["40b5801ce6c9a2f5067cf2330ee718c46489e6e3dd91b4a25bd2c524de59b7df"],
    "classes": ["a"],
    "backbones": {"one": {"weights": "dfcb1c047ef913956f57cce37344c403"}},
    "space": {"hidden": [32, 64], "depth": 1},
    "image_size": 32,
    "seed": 0,
}
IMAGES = {"a/1.png": (10, 1), "a/2.png": (20, 2), "a/3.png": (30, 3)}


def refused(folder, found=IMAGES, **changes) -> str:
    with pytest.raises(ValueError, match="holds another search: ") as error:
        search_file.begin(folder, {**FIRST, **changes}, found)
    return str(error.value).partition("another search: ")[2].partition(". Ask for")[0]


def test_the_same_search_goes_on_and_another_is_refused_with_what_differs(tmp_path):
    assert not search_file.begin(tmp_path, FIRST, IMAGES)
    assert search_file.begin(tmp_path, json.loads(json.dumps(FIRST)), IMAGES)
    assert refused(tmp_path, seed=1, folds=5) == "seed was 0 and is 1; folds was not there and is 5"
    space = {"hidden": [32, 64], "depth": [1, 2]}
    assert refused(tmp_path, space=space) == "space depth was 1 and is [1, 2]"
    backbones = {"one": {"weights": "e" * 32}}
    assert refused(tmp_path, backbones=backbones) == "backbones one weights differs"
    assert search_file.begin(tmp_path, FIRST, IMAGES)  # nothing was changed by that


def test_other_images_are_told_by_how_many_changed_came_and_went(tmp_path):
    search_file.begin(tmp_path, FIRST, IMAGES)
    others = {"a/2.png": (20, 9), "a/3.png": (30, 3), "b/1.png": (1, 1), "b/0.png": (1, 1)}
    assert refused(tmp_path, others, data=["e" * 64], images={}) == (
        "of 3 images 1 changed (first a/2.png), 2 came (first b/0.png), 1 went (first a/1.png)"
    )


@pytest.mark.parametrize("changed", [{"seed": 3}, {"image_size": 64}])
def test_what_is_done_with_the_same_images_is_no_difference_of_the_images(tmp_path, changed):
    search_file.begin(tmp_path, FIRST, IMAGES)
    (name, value), of_data = next(iter(changed.items())), {"data": ["e" * 64], "images": {}}
    assert refused(tmp_path, **changed, **of_data) == f"{name} was {FIRST[name]} and is {value}"
    others = {**IMAGES, "a/4.png": (4, 4)}
    assert "of 3 images 1 came (first a/4.png)" in refused(tmp_path, others, **changed, **of_data)


def test_a_search_of_an_earlier_version_has_no_list_of_its_images(tmp_path):
    search_file.begin(tmp_path, FIRST, IMAGES)
    (tmp_path / search_file.IMAGES).unlink()
    assert refused(tmp_path, {}, data=["e" * 64]) == "the images differ"
    assert search_file.begin(tmp_path, FIRST, IMAGES)
    assert "3 went" in refused(tmp_path, {}, data=["e" * 64])


@pytest.mark.parametrize("content", ['{"seed": ', "", "[]", "{}", '{"loss": 1}', None])
def test_a_search_goes_on_with_a_warning_where_nothing_says_what_was_asked_for(tmp_path, content):
    search_file.begin(tmp_path, FIRST, IMAGES)
    (tmp_path / "trials" / "trial_0000").mkdir(parents=True)
    if content is None:
        (tmp_path / search_file.FILE).unlink()
    else:
        (tmp_path / search_file.FILE).write_text(content)
    with pytest.warns(UserWarning, match=r"search\.json'.*not asked for the same as now, name ano"):
        assert search_file.begin(tmp_path, FIRST, IMAGES)
    assert search_file.begin(tmp_path, FIRST, IMAGES)
    assert refused(tmp_path, seed=1) == "seed was 0 and is 1"


def test_a_worker_that_sees_another_search_is_refused(tmp_path):
    search_file.begin(tmp_path, FIRST, IMAGES)
    search_file.check(tmp_path, FIRST)
    with pytest.raises(
        ValueError, match=r"sees another search .*: seed was 0 and is 1; data differ"
    ):
        search_file.check(tmp_path, {**FIRST, "seed": 1, "data": ["e" * 64]})


def test_a_search_of_an_earlier_version_cannot_be_resumed(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "oracle.json").write_text("{}")
    with pytest.raises(ValueError, match="of an earlier version, which cannot be resumed"):
        search_file.begin(tmp_path, FIRST, IMAGES)
