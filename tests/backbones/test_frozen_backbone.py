"""FrozenBackbone as a Keras layer: frozen, unfrozen, trained, nested, saved, cut in the middle."""

import inspect
import sys
import warnings

import keras
import numpy as np
import pytest
from conftest import SIZE, identical, images, labels, snapshot, tiny_backbone, tiny_network
from host_models import functional, sequential, subclassed
from keras import layers

from keras_transfer import FrozenBackbone, TransferModel
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.backbones.blocks import Block
from keras_transfer.utils.keras_internals import layers_of

# keras.Variable to numpy, in TensorFlow's own __array__ under numpy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

NAMES = ("block1", "block2", "block3", "block4")


@keras.saving.register_keras_serializable(package="test_frozen_backbone")
class SubclassedNetwork(keras.Model):
    """A backbone without a graph; its `call` takes no `training`, as many do not."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3)
        self.norm = layers.BatchNormalization()

    def call(self, inputs):
        return self.norm(self.conv(inputs))


def nested(backbone):
    """The backbone lies three models deep."""
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone])
    inputs = keras.Input((SIZE, SIZE, 3))
    middle = keras.Model(inputs, layers.Activation("tanh")(inner(inputs)))
    return keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), middle, layers.Dense(1, activation="sigmoid")]
    )


HOSTS = [sequential, functional, subclassed, nested]


def compiled(model):
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return model


def statistics(backbone) -> list[np.ndarray]:
    return [weight.numpy().copy() for weight in backbone.weights if "moving_" in weight.path]


def tokens_network() -> keras.Sequential:
    """Gives `(batch, tokens, channels)`, as vision transformers do."""
    return small_network(layers.Conv2D(5, 6, strides=6, name="patches"), layers.Reshape((-1, 5)))


def small_network(*parts, name: str = "small") -> keras.Sequential:
    parts = parts or (layers.Conv2D(4, 3, name="a"), layers.Conv2D(5, 3, name="b"))
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *parts], name=name)


class TestBlocks:
    def test_blocks_have_name_parameters_shape_and_state(self):
        backbone = tiny_backbone()
        backbone.unfreeze("block4")
        assert backbone.blocks[0] == Block(
            "block1", 4 * 27 + 4 + 4 * 4, (None, None, None, 4), True
        )
        assert [block.name for block in backbone.blocks] == list(NAMES)
        assert [block.frozen for block in backbone.blocks] == [True, True, True, False]
        assert sum(block.parameters for block in backbone.blocks) == backbone.count_params()

    def test_all_are_frozen_at_the_start(self):
        backbone = tiny_backbone()
        assert all(block.frozen for block in backbone.blocks)
        assert backbone.trainable_weights == []

    @pytest.mark.parametrize(
        ("which", "chosen"),
        [
            ("block3", ["block3"]),
            ("block[12]", ["block1", "block2"]),
            ("*4", ["block4"]),
            (["block4", "block1"], ["block1", "block4"]),
            (("block?",), NAMES),
            (["block4", "*3"], ["block3", "block4"]),
            (1, ["block4"]),
            (3, ["block2", "block3", "block4"]),
            (4, NAMES),
            ("all", NAMES),
        ],
    )
    def test_unfreeze_by_name_glob_list_number_and_all(self, which, chosen):
        backbone = tiny_backbone()
        backbone.unfreeze(which)
        assert [block.name for block in backbone.blocks if not block.frozen] == list(chosen)
        trainable = {
            weight.path.split("/")[-2].split("_")[0] for weight in backbone.trainable_weights
        }
        assert trainable == set(chosen)
        assert len(backbone.trainable_weights) == 4 * len(chosen)  # kernel, bias, gamma, beta
        assert backbone.select(which) == tuple(chosen)

    @pytest.mark.parametrize(
        "which",
        ["block9", "conv*", "BLOCK1", "", [], ["block1", "nope"], 0, -1, 5, True, None, 1.5, [2]],
    )
    @pytest.mark.parametrize("method", ["unfreeze", "freeze"])
    def test_a_pattern_without_match_raises_with_a_list_of_blocks(self, method, which):
        backbone = tiny_backbone()
        backbone.unfreeze("block2")
        with pytest.raises(
            ValueError, match=r"No block of .* matches.*block1, block2, block3, block4"
        ):
            getattr(backbone, method)(which)
        assert [block.frozen for block in backbone.blocks] == [True, False, True, True]

    def test_unfreeze_adds_and_freeze_takes_away(self):
        backbone = tiny_backbone()
        backbone.unfreeze("block4")
        backbone.unfreeze("block2")
        backbone.unfreeze("block2")
        backbone.freeze("block4")
        assert [block.name for block in backbone.blocks if not block.frozen] == ["block2"]
        backbone.unfreeze("all")
        backbone.freeze()
        assert backbone.trainable_weights == []

    def test_unfreeze_works_after_the_layer_was_set_untrainable_the_keras_way(self):
        backbone = tiny_backbone()
        backbone.trainable = False
        backbone.unfreeze("block4")
        assert [block.frozen for block in backbone.blocks] == [True, True, True, False]
        assert len(backbone.trainable_weights) == 4

    def test_cut_point_is_the_last_link_before_the_first_that_trains(self):
        backbone = tiny_backbone()
        assert backbone.cut_point == "pooling"
        assert backbone.cut_point_without({"block4", "block2"}) == "block1"
        backbone.unfreeze("block3")
        assert backbone.cut_point == "block2"
        backbone.unfreeze("block1")
        assert backbone.cut_point is None

    def test_block_weights_are_those_that_would_train(self):
        backbone = tiny_backbone()
        weights = backbone.block_weights("block2")
        assert [weight.name for weight in weights] == ["kernel", "bias", "gamma", "beta"]
        assert backbone.trainable_weights == []

    def test_fingerprints_depend_on_earlier_links_only(self):
        backbone = tiny_backbone()
        before = backbone.fingerprints()
        assert len({prints["weights"] for prints in before.values()}) == 4  # pooling has none
        weight = backbone.block_weights("block3")[0]
        weight.assign(weight + 1e-6)
        after = backbone.fingerprints()
        assert [after[link] == before[link] for link in before] == [True, True, *[False] * 3]

    def test_a_block_called_like_a_link_of_ours_is_not_mixed_up(self):
        network = small_network(
            layers.Conv2D(4, 3, name="preprocessing"),
            layers.Conv2D(5, 3, name="pooling"),
            layers.Conv2D(6, 3, name="last"),
        )
        backbone = FrozenBackbone(network, preprocessing=None)
        assert len(set(backbone.link_names)) == 4
        expected = np.asarray(network(images(2).astype("float32"))).mean(axis=(1, 2))
        np.testing.assert_allclose(backbone(images(2)), expected, rtol=1e-5)
        kept = backbone.activations(images(2), after="preprocessing")
        assert kept["after:preprocessing"].shape[-1] == 4
        np.testing.assert_array_equal(backbone(kept), backbone(images(2)))


class TestPooling:
    @pytest.mark.parametrize(
        ("pooling", "layer"),
        [
            ("avg", layers.GlobalAveragePooling2D),
            ("max", layers.GlobalMaxPooling2D),
            ("flatten", layers.Flatten),
            (None, layers.Identity),
        ],
    )
    def test_pooling_equals_the_keras_layer(self, pooling, layer):
        network = tiny_network()
        backbone = FrozenBackbone(network, preprocessing="tf", pooling=pooling)
        expected = layer()(network(images(4) / np.float32(127.5) - 1))
        np.testing.assert_allclose(backbone(images(4)), expected, atol=1e-6)
        shape = backbone.compute_output_shape((None, SIZE, SIZE, 3))
        assert shape[1:] == tuple(expected.shape[1:])

    def test_a_vector_is_not_pooled(self):
        network = small_network(layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(7))
        assert FrozenBackbone(network, preprocessing="unit")(images(2)).shape == (2, 7)

    def test_levels_are_averages_and_maxima_of_all_blocks(self):
        backbone = tiny_backbone(pooling="levels")
        x, expected = backbone.preprocessing(images(4)), []
        for block in backbone.blocks:
            x = backbone.block(block.name)(x)
            expected += [np.mean(x, (1, 2)), np.max(x, (1, 2))]
        expected = np.concatenate(expected, axis=1)
        np.testing.assert_allclose(backbone(images(4)), expected, atol=1e-6)
        assert backbone.compute_output_shape((None, SIZE, SIZE, 3)) == (None, expected.shape[1])

    def test_levels_can_be_cached_only_while_all_blocks_are_frozen(self):
        backbone = tiny_backbone(pooling="levels")
        assert (backbone.cut_point, backbone.link_names) == ("pooling", ("pooling",))
        kept = backbone.activations(images(4), after="pooling")
        np.testing.assert_array_equal(backbone(kept), backbone(images(4)))
        with pytest.raises(ValueError, match=r"no link 'block1'\. Expected one of \['pooling'\]"):
            backbone.activations(images(4), after="block1")
        levels = [backbone.preprocessing(images(4))]
        for name in backbone.model_names:
            levels.append(backbone.block(name)(levels[-1], training=False))
        np.testing.assert_allclose(backbone.pool(levels[1:]), backbone(images(4)), atol=1e-6)
        backbone.unfreeze(1)
        assert backbone.cut_point is None

    @pytest.mark.slow
    def test_levels_come_back_from_a_file(self, tmp_path):
        model = TransferModel(tiny_backbone(pooling="levels"), 2, hidden=4)
        model(images(4))
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(again(images(4)), model(images(4)))

    @pytest.mark.parametrize(
        ("pooling", "expected"),
        [
            ("avg", lambda x: np.mean(x, 1)),
            ("max", lambda x: np.max(x, 1)),
            ("levels", lambda x: np.concatenate([np.mean(x, 1), np.max(x, 1)], axis=1)),
            ("flatten", lambda x: np.reshape(x, (2, -1))),
            (None, np.asarray),
        ],
    )
    def test_tokens_of_a_vision_transformer_are_pooled(self, pooling, expected):
        network = tokens_network()
        backbone = FrozenBackbone(network, preprocessing="unit", pooling=pooling)
        tokens = network(images(2) / np.float32(255))
        np.testing.assert_allclose(backbone(images(2)), expected(tokens), atol=1e-6)

    @pytest.mark.slow
    def test_tokens_train_under_the_default_head(self):
        model = TransferModel(FrozenBackbone(tokens_network(), preprocessing="unit"), 3, hidden=4)
        model.compile()
        model.fit(images(6), labels(6, 3), verbose=0)
        assert model.predict(images(6), verbose=0).shape == (6, 3)

    @pytest.mark.parametrize("network", [tiny_network, lambda: tokens_network()])
    def test_a_head_under_features_that_are_not_pooled_is_refused(self, network):
        backbone = FrozenBackbone(network(), preprocessing="unit", pooling=None)
        model = TransferModel(backbone, 3)
        with pytest.raises(ValueError, match=r"Expected \(batch, 3\).*pooling='avg'"):
            model.build((None, SIZE, SIZE, 3))

    def test_an_output_of_another_rank_is_refused(self):
        network = small_network(layers.Reshape((SIZE, SIZE, 3, 1)))
        with pytest.raises(ValueError, match=r"'avg' takes.*shape \(None, 24, 24, 3, 1\).*None"):
            FrozenBackbone(network, preprocessing="unit")

    @pytest.mark.parametrize("pooling", ["mean", "AVG", 2])
    def test_an_unknown_one_is_refused(self, pooling):
        with pytest.raises(
            ValueError, match=f"Unknown pooling {pooling!r}.*'avg', 'max', 'flatten'"
        ):
            tiny_backbone(pooling=pooling)


@pytest.fixture
def convnext(monkeypatch) -> keras.Model:
    """ConvNeXtTiny with random weights, of a few channels."""
    module = sys.modules[keras.applications.ConvNeXtTiny.__module__]
    few = {"tiny": {"depths": [1] * 4, "projection_dims": [4, 5, 6, 7], "default_size": 288}}
    monkeypatch.setattr(module, "MODEL_CONFIGS", few)
    keras.utils.set_random_seed(0)
    network = keras.applications.ConvNeXtTiny(include_top=False, weights=None)
    for weight in network.weights:  # which begin as 0, 1 and 1e-6, in the norms above all
        weight.assign(keras.random.normal(weight.shape))
    return network


class TestNormBehindThePooling:
    """ConvNeXt normalizes what was pooled."""

    @pytest.mark.parametrize("pooling", ["avg", "max", None])
    @pytest.mark.slow
    def test_each_pooling_equals_the_applications_own(self, convnext, pooling):
        own = keras.applications.ConvNeXtTiny(include_top=False, weights=None, pooling=pooling)
        own.set_weights(convnext.get_weights())
        backbone = FrozenBackbone(convnext, pooling=pooling)
        np.testing.assert_allclose(backbone(pixels(96)), own(pixels(96)), rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_other_poolings_take_the_normalized_map(self, convnext):
        expected = convnext(pixels(96))
        flat = FrozenBackbone(convnext, pooling="flatten")(pixels(96))
        np.testing.assert_allclose(flat, np.reshape(expected, (2, -1)), atol=1e-5)
        levels = FrozenBackbone(convnext, pooling="levels")(pixels(96))
        last = np.concatenate([np.mean(expected, (1, 2)), np.max(expected, (1, 2))], axis=1)
        np.testing.assert_allclose(levels[:, -14:], last, rtol=1e-4, atol=1e-5)

    def test_its_weights_are_those_of_the_last_block(self, convnext):
        backbone = FrozenBackbone(convnext)
        last = backbone.blocks[-1]
        assert (last.name, last.output_shape[-1]) == ("stage_3", 7)
        assert sum(block.parameters for block in backbone.blocks) == convnext.count_params()
        assert backbone.trainable_weights == []
        backbone.unfreeze("stage_3")
        assert backbone.cut_point == "stage_2"
        assert backbone.trainable_weights == backbone.block_weights("stage_3")
        assert set(map(id, convnext.layers[-1].weights)) <= set(map(id, backbone.trainable_weights))
        backbone.freeze()
        assert backbone.trainable_weights == []

    @pytest.mark.slow
    def test_it_comes_back_from_a_file(self, convnext, tmp_path):
        model = TransferModel(FrozenBackbone(convnext), 2, hidden=4)
        model.backbone.unfreeze(1)
        for weight in model.backbone.trainable_weights:
            weight.assign(weight + 0.1)
        model(pixels(32))
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(again(pixels(96)), model(pixels(96)))
        assert again.backbone.blocks == model.backbone.blocks
        again.backbone.freeze()
        model.backbone.freeze()
        expected = model.backbone.share_blocks(pooling="max")(pixels(96))
        np.testing.assert_array_equal(
            again.backbone.share_blocks(pooling="max")(pixels(96)), expected
        )

    @pytest.mark.slow
    def test_a_copied_last_block_has_its_own_normalization(self, convnext):
        backbone = FrozenBackbone(convnext)
        before, features = snapshot(backbone), backbone(pixels(96))
        sharing = backbone.share_blocks("stage_3", pooling="max")
        assert len(sharing.weights) == len(backbone.weights)
        sharing.unfreeze("stage_3")
        for weight in sharing.block_weights("stage_3"):
            weight.assign(weight + 1.0)
        assert identical(before, backbone)
        np.testing.assert_array_equal(backbone(pixels(96)), features)

    @pytest.mark.slow
    def test_poolings_share_the_map_of_the_last_block(self, convnext):
        for pooling in ("avg", "max"):
            sharing = FrozenBackbone(convnext).share_blocks(pooling=pooling)
            shared = sharing.up_to("stage_3")(pixels(96))
            np.testing.assert_allclose(
                sharing.pool(shared), sharing(pixels(96)), rtol=1e-4, atol=1e-5
            )


def pixels(size: int) -> np.ndarray:
    return images(2, size=size)


class TestPreprocessing:
    def test_auto_of_an_unknown_model_raises_with_the_choices(self):
        advice = (
            r"'auto'.*model 'tiny'.*preprocessing='unit' for 0..1.*'caffe'.*Keras layer, or None"
        )
        with pytest.raises(ValueError, match=advice):
            FrozenBackbone(tiny_network())

    def test_a_layer_of_the_users_own_is_part_of_the_chain(self):
        network = tiny_network()
        backbone = FrozenBackbone(network, preprocessing=layers.Rescaling(1 / 50, -2), pooling=None)
        expected = network(images(2).astype("float32") / 50 - 2)
        np.testing.assert_allclose(backbone(images(2)), expected, atol=1e-6)

    def test_none_passes_pixels_to_the_network_unchanged(self):
        network = tiny_network()
        backbone = FrozenBackbone(network, preprocessing=None, pooling=None)
        scaled = images(2).astype("float32") / 255
        np.testing.assert_array_equal(backbone(scaled), network(scaled))

    @pytest.mark.parametrize("host", HOSTS)
    def test_uint8_and_float32_pixels_give_the_same(self, host):
        model = host(tiny_backbone())
        as_float = model(images(4).astype("float32"))
        np.testing.assert_allclose(model(images(4)), as_float, rtol=1e-6)
        assert np.ptp(as_float) > 0

    def test_check_pixels_warns_of_0_to_1_only(self):
        backbone = tiny_backbone()
        with pytest.warns(UserWarning, match=r"Expected raw pixels, 0..255. Received: 0..0\.\d+"):
            backbone.check_pixels(images(2).astype("float32") / 255)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backbone.check_pixels(images(2))
            backbone.check_pixels(images(2).astype("float32"))
            without = FrozenBackbone(tiny_network(), preprocessing=None)
            without.check_pixels(images(2).astype("float32") / 255)


class TestActivations:
    @pytest.mark.parametrize("after", [*NAMES, "pooling"])
    def test_cached_activations_of_any_link_lead_to_the_same_features(self, after):
        backbone = tiny_backbone()
        kept = backbone.activations(images(4), after=after)
        assert list(kept) == [f"after:{after}"]
        np.testing.assert_array_equal(backbone(kept), backbone(images(4)))

    @pytest.mark.parametrize("first", NAMES)
    def test_cached_activations_can_be_computed_further(self, first):
        backbone = tiny_backbone()
        kept = backbone.activations(images(4), after=first)
        further = backbone.activations(kept, after="block4")
        direct = backbone.activations(images(4), after="block4")
        np.testing.assert_array_equal(further["after:block4"], direct["after:block4"])

    @pytest.mark.parametrize("after", NAMES)
    def test_shape_is_computed_from_the_link_that_the_input_enters_at(self, after):
        backbone = tiny_backbone()
        kept = backbone.activations(images(4), after=after)
        shape = {key: tuple(value.shape) for key, value in kept.items()}
        assert backbone.compute_output_shape(shape) == (4, 10)

    def test_a_functional_model_takes_cached_activations(self):
        backbone = tiny_backbone()
        kept = backbone.activations(images(4), after="block2")
        shape = kept["after:block2"].shape[1:]
        inputs = {"after:block2": keras.Input(shape, name="after:block2")}
        model = keras.Model(inputs, backbone(inputs))
        expected = backbone(images(4))
        np.testing.assert_allclose(model.predict(kept, verbose=0), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("after", [*NAMES, "pooling"])
    def test_up_to_is_a_backbone_that_computes_the_activations(self, after):
        backbone = tiny_backbone()
        lower = backbone.up_to(after)
        expected = backbone.activations(images(4), after=after)[f"after:{after}"]
        np.testing.assert_array_equal(lower(images(4)), expected)
        assert lower.blocks == backbone.blocks[: len(lower.blocks)]
        assert {id(w) for w in lower.weights} <= {id(w) for w in backbone.weights}

    def test_up_to_leaves_blocks_unfrozen_that_were(self):
        backbone = tiny_backbone()
        backbone.unfreeze(["block1", "block4"])
        backbone.up_to("block2")
        assert [block.frozen for block in backbone.blocks] == [False, True, True, False]

    def test_block_is_a_model_that_takes_the_chain_one_link_further(self):
        backbone = tiny_backbone()
        before = backbone.activations(images(4), after="block2")["after:block2"]
        after = backbone.activations(images(4), after="block3")["after:block3"]
        block = backbone.block("block3")
        np.testing.assert_array_equal(block(before, training=False), after)

    def test_pool_takes_the_last_feature_map_to_the_features(self):
        backbone = tiny_backbone(pooling="max")
        kept = backbone.activations(images(4), after="block4")["after:block4"]
        np.testing.assert_array_equal(backbone.pool(kept), backbone(images(4)))

    def test_going_back_is_refused(self):
        backbone = tiny_backbone()
        kept = backbone.activations(images(1), after="block3")
        with pytest.raises(ValueError, match=r"\['after:block3'\] lie beyond 'block1'"):
            backbone.activations(kept, after="block1")

    def test_a_link_that_is_not_there_is_named_with_those_that_are(self):
        backbone = tiny_backbone()
        with pytest.raises(ValueError, match=r"no link 'block9'.*'block1'.*'pooling'"):
            backbone.activations(images(1), after="block9")
        with pytest.raises(ValueError, match=r"no link 'block9'.*'block1'.*'pooling'"):
            backbone({"after:block9": images(1)})

    @pytest.mark.parametrize("keys", [["image"], ["after:block1", "after:block2"]])
    def test_other_dicts_are_refused(self, keys):
        with pytest.raises(ValueError, match="the one key 'after:<block>'"):
            tiny_backbone().call(dict.fromkeys(keys, images(1)))


class TestInferenceMode:
    def test_statistics_stay_bit_by_bit_though_all_blocks_train(self):
        backbone = tiny_backbone()
        backbone.unfreeze("all")
        before, weights = statistics(backbone), snapshot(backbone)
        assert len(before) == 8
        compiled(sequential(backbone)).fit(images(), labels(), epochs=2, verbose=0)
        for old, new in zip(before, statistics(backbone), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not identical(weights, backbone)

    @pytest.mark.slow
    @pytest.mark.parametrize("host", [functional, subclassed, nested])
    def test_statistics_stay_in_every_kind_of_model(self, host):
        backbone = tiny_backbone()
        backbone.unfreeze("all")
        before, weights = statistics(backbone), snapshot(backbone)
        compiled(host(backbone)).fit(images(), labels(), epochs=2, verbose=0)
        for old, new in zip(before, statistics(backbone), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not identical(weights, backbone)

    def test_blocks_that_are_frozen_stay_bit_by_bit_while_others_train(self):
        backbone = tiny_backbone()
        backbone.unfreeze("block3")
        before = [snapshot(block) for block in backbone._chain]
        compiled(sequential(backbone)).fit(images(), labels(), verbose=0)
        same = [identical(old, block) for old, block in zip(before, backbone._chain, strict=True)]
        assert same == [True, True, False, True]

    def test_training_true_changes_nothing(self):
        """Neither Dropout nor BatchNormalization hears of it."""
        backbone = tiny_backbone()
        backbone.unfreeze("all")
        model = sequential(backbone)
        np.testing.assert_array_equal(
            model(images(4), training=True), model(images(4), training=False)
        )

    def test_a_source_that_was_built_in_training_mode_runs_in_inference_mode_all_the_same(self):
        inputs = keras.Input((SIZE, SIZE, 3))
        x = layers.Conv2D(4, 3, name="a")(inputs)
        x = layers.BatchNormalization(name="b")(x, training=True)
        network = keras.Model(inputs, layers.Dropout(0.5)(x, training=True))
        backbone = FrozenBackbone(network, preprocessing="unit")
        backbone.unfreeze("all")
        before = statistics(backbone)
        np.testing.assert_array_equal(backbone(images(4)), backbone(images(4)))
        compiled(sequential(backbone)).fit(images(), labels(), verbose=0)
        assert len(before) == 2
        for old, new in zip(before, statistics(backbone), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_a_subclassed_source_keeps_its_statistics(self):
        backbone = FrozenBackbone(SubclassedNetwork(), preprocessing="unit")
        backbone.unfreeze("all")
        before, weights = statistics(backbone), snapshot(backbone)
        compiled(sequential(backbone)).fit(images(), labels(), verbose=0)
        assert len(before) == 2
        for old, new in zip(before, statistics(backbone), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not identical(weights, backbone)


class TestSources:
    def test_a_functional_model(self):
        network = tiny_network()
        backbone = FrozenBackbone(network, preprocessing="tf", pooling=None)
        expected = network(images(4) / np.float32(127.5) - 1)
        np.testing.assert_allclose(backbone(images(4)), expected, atol=1e-6)

    def test_a_sequential_model(self):
        network = small_network()
        backbone = FrozenBackbone(network, preprocessing=None, pooling=None)
        assert [block.name for block in backbone.blocks] == ["a", "b"]
        np.testing.assert_array_equal(backbone(images(2)), network(images(2).astype("float32")))

    def test_a_sequential_model_that_is_not_built_yet(self):
        network = keras.Sequential([layers.Conv2D(4, 3), layers.ReLU(), layers.Conv2D(5, 3)])
        backbone = FrozenBackbone(
            network, input_shape=(SIZE, SIZE, 3), preprocessing=None, pooling=None
        )
        np.testing.assert_array_equal(backbone(images(2)), network(images(2).astype("float32")))

    @pytest.mark.parametrize("built", [False, True])
    def test_a_subclassed_model_is_one_block(self, built):
        network = SubclassedNetwork(name="mine")
        if built:
            network(images(1).astype("float32"))
        backbone = FrozenBackbone(network, preprocessing=None, pooling=None)
        assert [block.name for block in backbone.blocks] == ["mine"]
        assert backbone.blocks[0].parameters == network.count_params() == 128
        np.testing.assert_array_equal(backbone(images(2)), network(images(2).astype("float32")))

    def test_a_model_with_two_inputs_is_refused(self):
        one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
        with pytest.raises(ValueError, match=r"one input and one output.*2 inputs"):
            FrozenBackbone(keras.Model([one, two], one + two), preprocessing=None)

    def test_one_of_several_named_outputs_must_be_chosen(self):
        class Subclassed(SubclassedNetwork):
            def call(self, inputs):
                x = super().call(inputs)
                return {"map": x, "pooled": keras.ops.mean(x, (1, 2))}

        image = keras.Input((SIZE, SIZE, 3))
        functional = keras.Model(image, Subclassed()(image))
        with pytest.raises(ValueError, match=r"one output.*model\.output\['map'\]"):
            FrozenBackbone(functional, preprocessing="unit")
        with pytest.raises(ValueError, match=r"one output.*model\(image\)\['map'\]"):
            FrozenBackbone(Subclassed(), preprocessing="unit", input_shape=(SIZE, SIZE, 3))
        one = keras.Model(functional.inputs[0], functional.output["map"])
        assert FrozenBackbone(one, preprocessing="unit")(images(2)).shape == (2, 4)

    @pytest.mark.slow
    def test_one_model_serves_two_backbones_and_stays_what_it_was(self, tmp_path):
        network = tiny_network()
        expected = np.asarray(network(images(2).astype("float32")))
        one = FrozenBackbone(network, preprocessing=None, pooling=None)
        two = FrozenBackbone(network, preprocessing=None, pooling="max")
        assert one.blocks == two.blocks
        np.testing.assert_array_equal(one(images(2)), expected)
        np.testing.assert_allclose(two(images(2)), expected.max(axis=(1, 2)), rtol=1e-6)
        inputs = keras.Input((SIZE, SIZE, 3))
        elsewhere = keras.Model(inputs, layers.Flatten()(network(inputs)))
        found = elsewhere(images(2).astype("float32"))
        np.testing.assert_array_equal(found, expected.reshape(2, -1))
        for i, model in enumerate((sequential(one), sequential(two), elsewhere, network)):
            model.save(path := tmp_path / f"{i}.keras")
            loaded = keras.saving.load_model(path)
            raw = images(2).astype("float32")
            np.testing.assert_allclose(loaded(raw), model(raw), rtol=1e-6)

    def test_two_backbones_that_share_a_model_share_its_blocks(self):
        network = tiny_network()
        one, two = (FrozenBackbone(network, preprocessing="tf") for _ in range(2))
        one.unfreeze("block4")
        assert {id(w) for w in one.weights} == {id(w) for w in two.weights}
        assert len(two.trainable_weights) == 4


def trained(host, *, unfrozen=("block3",), **kwargs):
    backbone = tiny_backbone(name="the_backbone", **kwargs)
    backbone.unfreeze(list(unfrozen))
    model = compiled(host(backbone))
    model.fit(images(), labels(), verbose=0)
    return model


def backbone_in(model) -> FrozenBackbone:
    (found,) = (layer for layer in layers_of(model) if isinstance(layer, FrozenBackbone))
    return found


@pytest.fixture
def without_applications(monkeypatch):
    """Makes every constructor and every download fail."""

    def fail(*_, **__):
        pytest.fail("A file with the architecture inside needs no constructor and no download.")

    for name, _ in inspect.getmembers(keras.applications, inspect.isfunction):
        monkeypatch.setattr(keras.applications, name, fail)
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", fail)
    monkeypatch.setattr(keras.utils, "get_file", fail)
    monkeypatch.setattr("socket.socket.connect", fail)


class TestModelFile:
    @pytest.mark.slow
    @pytest.mark.parametrize("host", HOSTS)
    def test_it_brings_weights_architecture_and_unfrozen_blocks_along(self, host, tmp_path):
        model = trained(host, unfrozen=("block1", "block3"))
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        expected = model.predict(images(8), verbose=0)
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(loaded.predict(images(8), verbose=0), expected, rtol=1e-6)
        assert backbone_in(loaded).blocks == backbone_in(model).blocks
        assert len(loaded.trainable_weights) == len(model.trainable_weights) == 10
        for old, new in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
            np.testing.assert_array_equal(old, new)
        loaded.fit(images(), labels(), verbose=0)

    @pytest.mark.parametrize("unfrozen", [(), ("block4",), NAMES])
    def test_blocks_come_back_frozen_or_not_as_they_were(self, unfrozen, tmp_path):
        backbone = tiny_backbone()
        if unfrozen:
            backbone.unfreeze(unfrozen)
        sequential(backbone).save(tmp_path / "model.keras")
        loaded = backbone_in(keras.saving.load_model(tmp_path / "model.keras"))
        assert [block.name for block in loaded.blocks if not block.frozen] == list(unfrozen)
        assert len(loaded.trainable_weights) == 4 * len(unfrozen)

    @pytest.mark.slow
    def test_it_survives_a_second_round(self, tmp_path):
        model = sequential(tiny_backbone())
        expected = model(images(4))
        for i in range(2):
            model.save(tmp_path / f"{i}.keras")
            model = keras.saving.load_model(tmp_path / f"{i}.keras")
        np.testing.assert_array_equal(model(images(4)), expected)

    @pytest.mark.parametrize(
        "preprocessing", ["caffe", None, layers.Rescaling(1 / 9, 2, name="block2")]
    )
    @pytest.mark.parametrize("pooling", ["max", None])
    def test_it_brings_preprocessing_and_pooling_along(self, preprocessing, pooling, tmp_path):
        backbone = FrozenBackbone(tiny_network(), preprocessing=preprocessing, pooling=pooling)
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone])
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(images(4)), model(images(4)))

    @pytest.mark.parametrize("make", [small_network, SubclassedNetwork])
    def test_it_brings_any_registered_source_along(self, make, tmp_path):
        model = sequential(FrozenBackbone(make(), preprocessing="unit"))
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(images(4)), model(images(4)))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["mobilenetv3small", "convnexttiny"])
    def test_loading_calls_no_constructor_and_no_network(self, name, tmp_path, request):
        backbone = FrozenBackbone(name, weights=None)
        backbone.unfreeze(2)
        model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), backbone])
        pixels = images(2, size=32)
        expected = model(pixels)
        model.save(tmp_path / "model.keras")
        request.getfixturevalue("without_applications")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(loaded(pixels), expected, rtol=1e-6)
        assert np.ptp(expected) > 0
        assert backbone_in(loaded).blocks == backbone.blocks

    def test_keras_can_clone_a_model_around_it(self):
        model = sequential(tiny_backbone())
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        np.testing.assert_array_equal(clone(images(4)), model(images(4)))
        assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}


@pytest.mark.slow
def test_a_published_architecture_trains_with_its_statistics_fixed():
    backbone = FrozenBackbone("mobilenet", weights=None)
    backbone.unfreeze("all")
    before, weights = statistics(backbone), snapshot(backbone)
    model = keras.Sequential([keras.Input((32, 32, 3)), backbone, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.fit(images(8, size=32), labels(8), epochs=2, verbose=0)
    assert len(before) == 54
    for old, new in zip(before, statistics(backbone), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not identical(weights, backbone)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 5e-3), ("mixed_bfloat16", 5e-2)]
)
class TestMixedPrecision:
    def test_features_are_close_to_those_of_float32(self, policy, tolerance):
        exact = tiny_backbone()
        keras.config.set_dtype_policy(policy)
        backbone = tiny_backbone()
        backbone.set_weights(exact.get_weights())
        found, expected = backbone(images(4)), np.asarray(exact(images(4)))
        assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
        assert all(weight.dtype == "float32" for weight in backbone.weights)
        found = np.asarray(keras.ops.cast(found, "float32"))
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
        assert not np.array_equal(found, expected)

    def test_pixels_reach_the_preprocessing_unrounded(self, policy, tolerance):
        keras.config.set_dtype_policy(policy)
        network = small_network(layers.Activation("linear", name="nothing"))
        backbone = FrozenBackbone(network, preprocessing="caffe", pooling=None)
        resized = images(4).astype("float32") * 0.97  # not whole numbers any more
        found = np.asarray(keras.ops.cast(backbone(resized), "float32"))
        exact = resized[..., ::-1] - np.float32([103.939, 116.779, 123.68])
        digits = {"mixed_float16": 11, "mixed_bfloat16": 8}[policy]
        assert (np.abs(found - exact) <= np.abs(exact) * 2.0**-digits + 1e-4).all()

    @pytest.mark.slow
    def test_training_and_the_model_file_work(self, policy, tolerance, tmp_path):
        keras.config.set_dtype_policy(policy)
        model = trained(sequential)
        model.save(tmp_path / "model.keras")
        expected = model.predict(images(4), verbose=0).astype("float32")
        keras.config.set_dtype_policy("float32")
        # Keras itself saves the optimizer with loss scaling, and makes it without one here.
        loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        found = loaded.predict(images(4), verbose=0).astype("float32")
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found, expected, rtol=tolerance)
