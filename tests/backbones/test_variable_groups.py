"""Groups of variables, found from the names that published modules give them."""

import pytest

from keras_transfer.backbones.hub.variable_groups import variable_groups


def groups(*names: str, frozen: tuple[str, ...] = (), sizes=None) -> list[str] | None:
    """The names of the groups of variables of one size, first to last."""
    found = variable_groups(
        names, sizes or [1] * len(names), [name not in frozen for name in names]
    )
    return None if found is None else list(dict.fromkeys(found))


def of(scope: str, *layers: str) -> list[str]:
    return [f"{scope}{layer}/weights:0" for layer in layers]


def test_resnet_v1_of_slim():
    blocks = [
        f"block{b}/unit_{u}/bottleneck_v1/conv{c}"
        for b in (1, 2, 3, 4)
        for u in (1, 2)
        for c in (1, 2)
    ]
    found = groups(*of("resnet_v1_152/", "conv1", *blocks))
    assert found == ["conv1", "block1", "block2", "block3", "block4"]


def test_a_classifier_beside_the_network_does_not_hide_its_blocks():
    names = [*of("net/", "conv1/a", "block1/a", "block2/a"), "head/dense/kernel:0"]
    assert groups(*names, sizes=[90, 90, 90, 1]) == ["conv1", "block1", "block2", "dense"]


def test_scopes_of_keras_layers_are_joined_to_the_stages_of_published_networks():
    layers = ["stem_conv", "stem_bn"]
    layers += [f"block{n}{letter}_expand_conv" for n in range(1, 8) for letter in "ab"]
    assert groups(*of("", *layers, "top_conv", "top_bn")) == [
        "stem", *(f"block{n}" for n in range(1, 8)), "top"
    ]  # fmt: skip


def test_many_scopes_without_a_stage_become_at_most_twelve():
    found = groups(*of("net/", *(f"conv2d_{i}" for i in range(40))))
    assert found == [f"stage{i}" for i in range(1, 11)]


def test_mobilenet_v2_of_slim():
    layers = [
        "Conv",
        "expanded_conv",
        *(f"expanded_conv_{i}/project" for i in range(1, 17)),
        "Conv_1",
    ]
    found = groups(*of("MobilenetV2/", *layers))
    assert 4 <= len(found) <= 12


def test_statistics_go_with_their_layer_and_the_rest_with_its_neighbour():
    names = ["m/step", "m/a/w", "m/a/moving_mean", "m/scale", "m/b/w"]
    found = variable_groups(names, [1] * 5, [False, True, False, True, True])
    assert found == ("a", "a", "a", "a", "b")


def test_a_scope_that_comes_back_under_another_gets_a_number():
    names = ["a/x/conv/w", "a/x/other/w", "a/y/conv/w", "b/w"]
    found = groups(*names, sizes=[9, 9, 9, 1])
    assert found == ["x", "y", "b"]
    names = ["a/conv/w", "a/other/w", "conv/w"]
    assert groups(*names, sizes=[9, 9, 1]) == ["conv", "other", "conv_2"]


@pytest.mark.parametrize(
    "names",
    [["kernel:0", "bias:0"], ["net/dense/kernel", "net/dense/bias"], ["Variable:0"], []],
    ids=str,
)
def test_names_with_one_scope_make_no_groups(names):
    assert groups(*names) is None


def test_each_group_can_train():
    names = ["a/w", "b/mean", "c/w"]
    assert variable_groups(names, [1] * 3, [True, False, True]) == ("a", "a", "c")
    assert variable_groups(names, [1] * 3, [False] * 3) is None
