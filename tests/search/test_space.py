import dataclasses
import json

import keras_tuner
import pytest

from keras_transfer.search.space.dimension import Choices, Range, dimension
from keras_transfer.search.space.rules import RULES, SpaceError
from keras_transfer.search.space.space import Space

SEARCHED = [name for name in RULES if name != "backbone"]


def wrong(tmp_path, text: str) -> str:
    """What a file with a text is refused with, its path left out."""
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError, match=r"space\.yaml, line") as error:
        Space.read(path)
    return str(error.value).replace(f"{path}, ", "")


def values(hp: keras_tuner.HyperParameters) -> dict[str, object]:
    return {one.name: one.default for one in hp.space}


def test_every_field_has_a_rule_and_every_rule_a_field():
    assert {field.name for field in dataclasses.fields(Space)} == set(RULES)


def test_the_defaults_are_those_that_are_good_on_little_data():
    told = Space().to_dict()
    assert told["hidden"] == {"min": 32, "max": 512, "log": True, "step": 2}
    assert told["depth"] == [0, 1]
    assert told["unfreeze"] == [0.0, 0.2, 0.35, 0.6]
    assert told["batch_norm"] == "adapt"
    assert told["learning_rate"] == {"min": 1e-4, "max": 1e-2, "log": True}
    assert told["pooling"] == ["avg", "max", "levels"]
    assert "backbone" not in told


SPACES = [
    Space(),
    Space(unfreeze=0, hidden=64, pooling="max"),
    Space(hidden=[16, 8], dropout=Range(0, 0.5), weight_decay=Range(1e-9, 1, log=True)),
    Space(unfreeze=Range(0, 6, step=3), frozen_epochs=Range(2, 10), lr_decay=[0.5, 1]),
    Space(frozen_epochs=0, backbone=["vgg16", "https://tfhub.dev/google/x/5", "no", "7"]),
]


@pytest.mark.parametrize("space", SPACES)
def test_what_is_written_is_read_again_as_an_equal_space(tmp_path, space):
    space.write(tmp_path / "space.yaml")
    assert Space.read(tmp_path / "space.yaml") == space
    assert (tmp_path / "space.yaml").read_text() == f"{space}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.parametrize("space", SPACES)
def test_as_json_it_is_equal_where_spaces_are(space):
    assert json.loads(json.dumps(space.to_dict())) == space.to_dict()
    assert [one.to_dict() == space.to_dict() for one in SPACES].count(True) == 1


def test_a_file_says_only_what_is_not_the_default(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("depth: 1\nlearning_rate: {min: 1e-4, max: 1, log: true}\n")
    expected = Space(depth=1, learning_rate=Range(1e-4, 1.0, log=True))
    assert Space.read(path) == expected
    assert Space.read(path).dropout == Space().dropout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("depth: 1\nhiden: 3\n", "line 2: unknown hyperparameter 'hiden'. Did you mean 'hidden'?"),
        ("lr: 1e-3", "Did you mean 'learning_rate'?"),
        ("dropout: {min: 0.9, max: 0.2}", "line 1: `dropout`: min=0.9 is above max=0.2"),
        ("dropout: {min: 0.2, max: 0.2}", "min and max are both 0.2. For one value write"),
        ("\n\ndepth: []", "line 3: `depth`: the list is empty"),
        ("hidden: [32,\n 3.5]", "line 1: `hidden`: expected a whole number from 1 to 65536"),
        ("hidden: [32, 64, 32]", "32 is there twice"),
        ("hidden: many", "Received: 'many'"),
        ("hidden: [[32]]", "Received: [32]"),
        ("hidden: true", "Received: True"),
        ("hidden: 012", "Received: '012'"),
        ("hidden:", "Received: None"),
        ("hidden: {min: 32}", "missing 1 required positional argument: 'max'"),
        ("hidden: {min: 32, max: 64, stop: 2}", "unknown part of a range 'stop'. Did you mean"),
        ("hidden: {min: 32, max: 64, step: 1.5}", "step must be a whole number"),
        ("hidden: {min: 32, max: 64, step: 0}", "step must be above 0"),
        ("hidden: {min: 32, max: 64, step: 64}", "leads from min=32 beyond max=64 at once"),
        ("hidden: {min: 32, max: 64, log: true, step: 1}", "step must be a factor above 1"),
        ("hidden: {min: 32, max: 64, log: 1}", "log must be true or false"),
        ("weight_decay: {min: 0, max: 0.1, log: true}", "log needs numbers above 0"),
        ("learning_rate: 0", "expected a number above 0 and up to 10. Received: 0"),
        ("dropout: 1.0", "expected a number from 0 up to, not including, 1"),
        ("dropout: .inf", "expected a number from 0"),
        ("pooling: avgg", "expected avg, max or levels. Received: 'avgg'"),
        ("pooling: {min: 1, max: 2}", "expected avg, max or levels, or a list of these"),
        ("frozen_epochs: [2, 0.5]", "not both together"),
        ("frozen_epochs: {min: 0.5, max: 3}", "a share of them such as 0.5"),
        ("depth: 1\ndropout: 0.1\ndepth: 2", "line 3: 'depth' is there already"),
        ("- depth", "line 1: expected a mapping of hyperparameters"),
        ("", "line 1: the file is empty"),
        ("depth: !!python/object:os.system 1", "tag:yaml.org,2002:python/object"),
        ("depth: &a 1\ndropout: *a", "line 2: this is not YAML: aliases are refused"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, told):
    assert told in wrong(tmp_path, text)


def test_one_error_does_not_hide_another(tmp_path):
    told = wrong(tmp_path, "hiden: 3\ndropout: 2\nhidden: {min: 9, max: 3}\n").split("\n")
    assert [line.partition(":")[0] for line in told] == ["line 1", "line 2", "line 3"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.yaml"):
        Space.read(tmp_path / "nowhere.yaml")


def test_values_in_python_are_checked_as_those_in_files():
    with pytest.raises(SpaceError, match=r"`hidden`: expected a whole.*\n`depth`: min=2 is above"):
        Space(hidden=0, depth=Range(2, 1))
    with pytest.raises(SpaceError, match="`depth`: Expected a value, a list"):
        Space(depth=None)
    with pytest.raises(SpaceError, match=r"`dropout`: expected a number.*'0.5'"):
        Space(dropout="0.5")


def test_a_trial_has_all_hyperparameters_and_no_more():
    hp = keras_tuner.HyperParameters()
    chosen = Space().declare(hp, ["one"])
    assert {one.name for one in hp.space} == set(SEARCHED)
    assert {name: chosen[name] for name in SEARCHED} == hp.values
    assert chosen["backbone"] == "one"
    usual = {"hidden": 128, "dropout": 0.3, "learning_rate": 1e-3, "weight_decay": 0.0}
    assert usual.items() <= values(hp).items()


def test_what_belongs_to_fine_tuning_is_there_only_where_blocks_are_unfrozen():
    names = ("fine_tuning_learning_rate", "lr_decay", "frozen_epochs")
    for unfreeze, there in ((0, False), (2, True)):
        hp = keras_tuner.HyperParameters()
        hp.values["unfreeze"] = unfreeze
        chosen = Space(unfreeze=Range(0, 2)).declare(hp, ["one"])
        assert all((name in hp) is there for name in names)
        assert all((chosen[name] is not None) is there for name in names)
    hp = keras_tuner.HyperParameters()
    assert not set(names) & set(Space(unfreeze=0).declare(hp, ["one"]))
    assert not set(names) & {one.name for one in hp.space}


@pytest.mark.parametrize("unfreeze", [2, Range(0, 2)])
def test_nothing_is_unfrozen_where_features_of_all_levels_are_pooled(unfreeze):
    space = Space(pooling=["max", "levels"], unfreeze=unfreeze)
    for pooling, there in (("max", True), ("levels", False)):
        hp = keras_tuner.HyperParameters()
        hp.values.update({"pooling": pooling, **({"unfreeze": 2} if there else {})})
        chosen = space.declare(hp, ["one"])
        assert chosen["unfreeze"] == (2 if there else 0)
        assert (chosen.get("lr_decay") is not None) is there
        assert ("unfreeze" in hp) is there
    alone = Space(pooling="levels").declare(keras_tuner.HyperParameters(), ["one"])
    assert (alone["pooling"], alone["unfreeze"]) == ("levels", 0)
    with pytest.raises(SpaceError, match="`pooling: levels` needs frozen blocks"):
        Space(pooling="levels", unfreeze=[1, 2]).check_epochs(9)


def test_fixed_values_are_noted_with_each_trial():
    hp = keras_tuner.HyperParameters()
    Space(pooling="avg", hidden=64, unfreeze=2, lr_decay=0.5).declare(hp, ["one"])
    assert (hp.get("hidden"), hp.get("unfreeze"), hp.get("lr_decay")) == (64, 2, 0.5)
    assert not any(one.conditions for one in hp.space)  # it is unfrozen in any case


def test_several_backbones_are_a_choice_and_others_than_there_are_are_refused():
    hp = keras_tuner.HyperParameters()
    assert Space().declare(hp, ["one", "two"])["backbone"] == "one"
    assert hp.space[0].values == ["one", "two"]
    assert Space(backbone="two").declare(keras_tuner.HyperParameters(), ["one", "two"])
    with pytest.raises(SpaceError, match=r"unknown backbone 'tow'. Did you mean 'two'"):
        Space(backbone=["one", "tow"]).backbones(["one", "two"])


def test_the_default_of_a_trial_lies_in_the_range_it_was_given():
    space = Space(
        hidden=Range(150, 900, log=True, step=2),
        dropout=[0.6, 0.4],
        learning_rate=Range(1e-6, 1e-5),
        unfreeze=[3, 5],
    )
    hp = keras_tuner.HyperParameters()
    space.declare(hp, ["one"])
    found = values(hp)
    assert (found["hidden"], found["dropout"], found["learning_rate"]) == (150, 0.6, 1e-5)
    assert found["unfreeze"] == 3


@pytest.mark.parametrize("kind", ["RandomSearch", "GridSearch", "BayesianOptimization"])
def test_tuners_stay_within_the_space(tmp_path, kind):
    hp, space, seen = keras_tuner.HyperParameters(), Space(), []
    space.declare(hp, ["one"])

    class Quick(getattr(keras_tuner, kind)):
        def run_trial(self, trial, **kwargs):
            seen.append(trial.hyperparameters.values)
            return space.declare(trial.hyperparameters, ["one"])["dropout"]

    Quick(max_trials=12, hyperparameters=hp, seed=1, directory=tmp_path).search(verbose=0)
    assert len(seen) == 12
    for chosen in seen:
        assert all(RULES[name].allows(value) for name, value in chosen.items()), chosen
        assert chosen["hidden"] in (32, 64, 128, 256, 512)
        assert ("lr_decay" in chosen) == (chosen.get("unfreeze", 0) > 0)
        assert ("unfreeze" in chosen) == (chosen["pooling"] != "levels")


def test_fine_tuning_begins_at_an_epoch_or_after_a_share_of_them():
    space = Space()
    assert [space.first_unfrozen(share, 10) for share in (0.0, 0.04, 0.5, 0.99)] == [1, 1, 5, 10]
    assert [space.first_unfrozen(epochs, 10) for epochs in (0, 3, 12)] == [0, 3, 12]


def test_a_space_that_could_never_unfreeze_what_it_says_is_refused():
    Space(frozen_epochs=[2, 9]).check_epochs(3)
    Space(frozen_epochs=9, unfreeze=0).check_epochs(3)
    with pytest.raises(SpaceError, match="Nothing would ever be unfrozen: `frozen_epochs` is 3"):
        Space(frozen_epochs=3).check_epochs(3)
    with pytest.raises(SpaceError, match="Give more epochs"):
        Space(frozen_epochs=0.5).check_epochs(1)
    with pytest.raises(SpaceError, match="a trial that fine-tunes has 4 epochs"):
        Space(frozen_epochs=5, fine_tuning_epochs=4).check_epochs(30)


def test_blocks_are_unfrozen_by_number_or_by_share():
    assert Space(unfreeze=[0, 0.5, 1.0]).unfreeze.values == (0.0, 0.5, 1.0)
    assert Space(unfreeze=[0, 2]).unfreeze.values == (0, 2)
    with pytest.raises(SpaceError, match="whole numbers, or shares, not both together"):
        Space(unfreeze=[2, 0.5])
    with pytest.raises(SpaceError, match=r"`unfreeze`: expected .* a share .*Received: 1\.5"):
        Space(unfreeze=1.5)
    with pytest.raises(SpaceError, match="a range of whole numbers, or a list of shares"):
        Space(unfreeze=Range(0.0, 0.5))


def test_it_begins_with_what_usually_does_well_the_deepest_first():
    first, other, *shallow = Space().recommended(["lite"])
    assert first["unfreeze"] == other["unfreeze"] == 0.6
    assert [one["unfreeze"] for one in shallow] == [0.35, 0.2]
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {"label_smoothing", "fine_tuning_learning_rate"}
    assert "backbone" not in first
    assert Space().recommended(["a", "b"])[0]["backbone"] == "a"
    assert Space(unfreeze=0).recommended(["lite"]) == []
    (only,) = Space(unfreeze=1, label_smoothing=0.0, fine_tuning_learning_rate=0.1).recommended("a")
    assert only["unfreeze"] == 1
    ranged = Space(unfreeze=Range(0, 5)).recommended(["lite"])
    assert [one["pooling"] for one in ranged] == ["avg"]
    assert [one["unfreeze"] for one in Space(unfreeze=[0, 1.0, 0.6]).recommended("a")] == [
        *(0.6, 0.6, 1.0)
    ]


def test_whole_numbers_of_a_range_above_one():
    assert Range(0, 5).above(0) == [1, 2, 3, 4, 5]
    assert Range(0, 5, step=2).above(0) == [2, 4]
    assert Range(1, 9, log=True, step=2).above(1) == [2, 4, 8]
    assert Choices((4, 0, 2)).above(0) == [4, 2]
    assert dimension({"min": 0, "max": 3}) == Range(0, 3)
