"""Cut points of a graph, and how the stretches between them become blocks with names."""

import itertools

import keras
import numpy as np
import pytest
from conftest import tiny_network
from keras import layers, ops

from keras_transfer.backbones.splitting import split, stage_of


def image(size: int | None = 16):
    return keras.Input((size, size, 3))


def conv(name: str, filters: int = 3, **kwargs) -> layers.Layer:
    return layers.Conv2D(filters, 3, padding="same", name=name, **kwargs)


def chain_of(*parts, size: int | None = 16) -> keras.Model:
    """A functional model that calls one layer after another."""
    x = inputs = image(size)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x, name="custom")


def run(chain, x):
    for block in chain.values():
        x = block(x, training=False)
    return np.asarray(x)


def assert_is_the_same_function(model: keras.Model) -> dict[str, keras.Model]:
    """Checks that the chain is the model and that its blocks share out the weights."""
    chain = split(model)
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(run(chain, x), np.asarray(model(x, training=False)))
    owned = [id(weight) for block in chain.values() for weight in block.weights]
    assert sorted(owned) == sorted(id(weight) for weight in model.weights)
    assert [block.name for block in chain.values()] == list(chain)
    return chain


def residual(x, name: str):
    y = layers.Activation("tanh", name=f"{name}_tanh")(conv(f"{name}_a")(x))
    return layers.Add(name=f"{name}_add")([x, conv(f"{name}_b")(y)])


@pytest.mark.parametrize(
    ("layer", "stage"),
    [
        ("block3_conv2", "block3"),  # VGG
        ("block14_sepconv2_bn", "block14"),  # Xception
        ("block2a_expand_conv", "block2"),  # EfficientNet
        ("conv1_relu", "stem"),  # ResNet
        ("pool1_pool", "stem"),
        ("conv4_block23_out", "conv4"),
        ("conv5_block16_concat", "conv5"),  # DenseNet
        ("pool2_conv", "conv2"),  # a transition belongs to the stage that it ends
        ("convnext_tiny_stem", "stem"),
        ("convnext_tiny_stage_2_block_8_identity", "stage_2"),
        ("convnext_tiny_downsampling_block_0", "stage_1"),
        ("mixed7", "mixed7"),  # InceptionV3
        ("mixed_5b", "mixed_5b"),  # InceptionResNetV2
        ("block35_10_mixed", "block35"),
        ("block17_20_ac", "block17"),
        ("conv_7b_ac", "conv_7b"),
        ("conv_dw_11_relu", "unit11"),  # MobileNet
        ("conv_pw_13", "unit13"),
        ("block_16_project_BN", "unit16"),  # MobileNetV2
        ("expanded_conv_project", "unit0"),
        ("expanded_conv_3_squeeze_excite_mul", "unit3"),  # MobileNetV3
        ("Conv1_relu", "stem"),
        ("Conv_1_bn", "top"),
        ("conv_1", "top"),
        ("top_activation", "top"),
        ("stem_bn", "stem"),
        ("normal_conv_1_5", "cells"),  # NASNet
        ("reduction_conv_1_4", "cells"),
        ("conv2d_57", None),  # Keras' own names say nothing
        ("dense", None),
        ("activation_3", None),
    ],
)
def test_stage_of_reads_the_names_of_published_architectures(layer, stage):
    assert stage_of(layer) == stage


def test_layers_without_stage_names_are_a_block_each_with_weightless_layers_joined():
    model = chain_of(
        conv("a"), layers.ReLU(), conv("b"), layers.MaxPooling2D(name="pool"), conv("c")
    )
    chain = assert_is_the_same_function(model)
    assert list(chain) == ["a", "b", "c"]
    assert [layer.name for layer in chain["b"].layers[1:]] == ["b", "pool"]


def test_weightless_layers_before_the_first_weights_join_the_first_block():
    """A block without weights is nothing that anyone would unfreeze."""
    chain = assert_is_the_same_function(
        chain_of(layers.Rescaling(1 / 255), layers.ReLU(), conv("a"), conv("b"))
    )
    assert {name: block.count_params() for name, block in chain.items()} == {"a": 84, "b": 84}


def test_stages_are_put_together_by_name():
    chain = assert_is_the_same_function(tiny_network_of_a_fixed_size())
    assert list(chain) == ["block1", "block2", "block3", "block4"]


def tiny_network_of_a_fixed_size() -> keras.Model:
    inputs = keras.Input((24, 24, 3))
    return keras.Model(inputs, rebuilt(tiny_network(), inputs), name="tiny")


def rebuilt(model: keras.Model, x):
    for layer in model.layers[1:]:
        x = layer(x)
    return x


def test_a_cut_never_goes_through_a_residual_connection():
    inputs = image()
    x = residual(conv("start")(inputs), "one")
    model = keras.Model(inputs, residual(x, "two"))
    assert list(assert_is_the_same_function(model)) == ["start", "one_add", "two_add"]


def test_a_model_without_a_cut_point_is_one_block_under_its_own_name():
    inputs = image()
    model = keras.Model(inputs, inputs + conv("a")(inputs) * conv("b")(inputs), name="knot")
    assert list(assert_is_the_same_function(model)) == ["knot"]


def test_a_model_without_weights_is_one_block():
    assert list(assert_is_the_same_function(chain_of(layers.Rescaling(2.0)))) == ["custom"]


def test_more_than_12_stretches_are_put_together_by_resolution():
    parts = [conv(f"z{i}", strides=2 if i in (3, 7, 11) else 1) for i in range(14)]
    chain = assert_is_the_same_function(chain_of(*parts))
    assert list(chain) == ["stage1", "stage2", "stage3", "stage4"]
    assert [len(block.layers) - 1 for block in chain.values()] == [3, 4, 4, 3]


def test_12_stretches_stay_as_they_are():
    chain = split(chain_of(*[conv(f"z{i}") for i in range(12)]))
    assert list(chain) == [f"z{i}" for i in range(12)]


def test_14_stretches_of_one_resolution_are_one_block():
    chain = assert_is_the_same_function(chain_of(*[conv(f"z{i}") for i in range(14)]))
    assert list(chain) == ["custom"]


def test_stem_and_top_stay_apart_when_units_are_put_together():
    parts = [conv("stem_conv"), *[conv(f"block_{i}_conv") for i in range(14)], conv("top_conv")]
    assert list(assert_is_the_same_function(chain_of(*parts))) == ["stem", "stage1", "top"]


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
def test_pooling_by_keras_ops_opens_a_stage_too(pool):
    """Of an operation, `strides=None` means the size of the window."""
    parts = []
    for i in range(14):
        parts += [lambda x: pool(x, 2)] * (i in (5, 10)) + [conv(f"z{i}")]
    chain = assert_is_the_same_function(chain_of(*parts))
    assert list(chain) == ["stage1", "stage2", "stage3"]


def test_a_stage_that_comes_back_gets_a_name_of_its_own():
    parts = [conv("block1_a"), conv("block2_a"), conv("block1_b"), conv("block2_b")]
    chain = assert_is_the_same_function(chain_of(*parts))
    assert list(chain) == ["block1", "block2", "block1_2", "block2_2"]


def test_a_layer_that_is_called_twice_is_in_one_block():
    shared = conv("shared")
    model = chain_of(conv("first"), shared, conv("between"), shared, conv("last"))
    chain = assert_is_the_same_function(model)
    assert len(chain) == 3
    assert [block.count_params() for block in chain.values()] == [84, 168, 84]


def test_a_layer_without_weights_may_be_called_twice():
    act = layers.ReLU(name="act")
    assert_is_the_same_function(chain_of(conv("a"), act, conv("b"), act, conv("c"), act))


def test_a_branch_that_leads_nowhere_is_left_out():
    x = conv("a")(inputs := image())
    conv("dead")(x)
    model = keras.Model(inputs, conv("b")(x))
    assert list(assert_is_the_same_function(model)) == ["a", "b"]


def test_a_nested_model_is_taken_as_one_layer():
    inner = chain_of(conv("x"), conv("y"))
    chain = assert_is_the_same_function(chain_of(conv("a"), inner, conv("b")))
    assert list(chain) == ["a", "custom", "b"]


def test_a_chain_of_blocks_is_split_into_the_same_blocks_again():
    names = ["stem", "conv2", "block35", "stage_1", "stage3", "mixed_5b", "cells", "top"]
    inner = [keras.Sequential([conv(f"{name}_inside")], name=name) for name in names]
    assert list(assert_is_the_same_function(chain_of(*inner))) == names


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_are_split_into_the_same_function(seed):
    """Whatever the wiring: branches, joins, a tensor read late, layers with and without weights."""
    random = np.random.default_rng(seed)
    names = (
        f"block{random.integers(1, 5)}_{i}" if seed % 2 else f"n{i}" for i in itertools.count()
    )
    x = inputs = keras.Input((6,))
    tensors = [x]
    for _ in range(random.integers(3, 20)):
        kind = random.choice(["dense", "tanh", "branch", "far"])
        if kind == "dense":
            x = layers.Dense(6, name=next(names))(x)
        elif kind == "tanh":
            x = layers.Activation("tanh", name=next(names))(x)
        elif kind == "branch":
            x = layers.Add(name=next(names))([x, layers.Dense(6, name=next(names))(x)])
        else:
            x = x * tensors[random.integers(max(0, len(tensors) - 4), len(tensors))]
        tensors.append(x)
    assert_is_the_same_function(keras.Model(inputs, layers.Dense(6, name="end")(x), name="random"))


def test_the_model_stays_whole_and_can_be_split_again():
    model = tiny_network_of_a_fixed_size()
    config, x = model.get_config(), np.ones((1, 24, 24, 3), "float32")
    before = np.asarray(model(x))
    first, second = split(model), split(model)
    assert list(first) == list(second)
    np.testing.assert_array_equal(run(second, x), before)
    np.testing.assert_array_equal(np.asarray(model(x)), before)
    assert model.get_config() == config


def test_blocks_share_the_layers_of_the_model():
    model = tiny_network()
    chain = split(model)
    assert chain["block2"].get_layer("block2_conv") is model.get_layer("block2_conv")
    chain["block2"].trainable = False
    assert not model.get_layer("block2_conv").trainable
    assert model.get_layer("block3_conv").trainable


def test_an_image_size_that_is_open_stays_open():
    chain = split(chain_of(conv("a", 4, strides=2), conv("b", 5), size=None))
    assert [block.output_shape for block in chain.values()] == [
        (None, None, None, c) for c in (4, 5)
    ]


def test_several_inputs_are_refused():
    model = keras.Model([one := image(), two := image()], one + two, name="pair")
    with pytest.raises(
        ValueError, match=r"one input and one output.*'pair' with 2 inputs and 1 out"
    ):
        split(model)


def test_several_outputs_are_refused():
    model = keras.Model(inputs := image(), [conv("a")(inputs), conv("b")(inputs)], name="fork")
    with pytest.raises(ValueError, match=r"'fork' with 1 inputs and 2 outputs.*keras\.Model\("):
        split(model)
