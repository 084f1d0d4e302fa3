"""A TF-Hub module as a native layer: its variables, its groups, in every kind of model."""

import copy
import gc
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, identical, images, labels, relative_difference, snapshot
from host_models import functional, sequential, subclassed
from hub_modules import FEATURES, GROUPS, Reusable, save_plain, save_reusable, shared
from keras import layers

from keras_transfer import BlockUnfreezer, FeatureCache, FrozenBackbone, TransferModel
from keras_transfer.backbones.hub.hub_module import HubModule


@pytest.fixture(scope="module")
def folder():
    return shared("features")


@pytest.fixture(scope="module")
def maps():
    return shared("maps")


@pytest.fixture(scope="module")
def small():
    return shared("small")


def expected(folder, pixels):
    """What TensorFlow itself makes of raw pixels."""
    return tf.saved_model.load(str(folder))(tf.cast(pixels, "float32") / 255, training=False)


def transfer(backbone):
    model = TransferModel(backbone, 2, hidden=4, dropout=0)
    model.build((None, SIZE, SIZE, 3))
    return model


def moved(backbone, before) -> set[str]:
    """The scopes of the weights that are not as they were."""
    return {
        weight.path.split("/")[1]
        for weight, old in zip(backbone.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), old)
    }


def statistics(backbone):
    return [weight.numpy() for weight in backbone.weights if "moving_" in weight.path]


class TestLayer:
    @pytest.mark.slow
    def test_raw_pixels_are_scaled_to_the_range_of_hub_modules(self, folder):
        pixels = images(3)
        features = FrozenBackbone(str(folder))(pixels)
        np.testing.assert_allclose(features, expected(folder, pixels), atol=1e-6)

    @pytest.mark.slow
    def test_the_variables_are_those_of_the_module_and_keras_sees_them(self, folder):
        backbone = FrozenBackbone(folder)
        module = Reusable()
        assert [w.path for w in backbone.weights] == [
            v.name.split(":")[0] for v in _trainable_first(module)
        ]
        assert backbone.count_params() == sum(v.shape.num_elements() for v in module.variables)
        assert len(backbone.non_trainable_weights) == 25
        backbone.weights[0].assign(backbone.weights[0] * 0)
        assert not np.allclose(backbone(images(2)), expected(folder, images(2)))

    @pytest.mark.slow
    def test_a_feature_map_is_pooled_as_any_other(self, maps):
        pixels = images(2)
        backbone = FrozenBackbone(maps, pooling=None)
        assert backbone(pixels).shape == (2, 3, 3, FEATURES)
        assert backbone.compute_output_shape((None, 48, 40, 3)) == (None, 6, 5, FEATURES)
        assert backbone.compute_output_shape((None, None, None, 3))[-1] == FEATURES
        pooled = FrozenBackbone(maps, pooling="avg")(pixels)
        np.testing.assert_allclose(pooled, np.mean(backbone(pixels), (1, 2)), atol=1e-6)

    @pytest.mark.slow
    def test_other_arguments_are_handed_to_the_module(self, folder):
        module = HubModule(folder, arguments={"batch_norm_momentum": 0.5})
        np.testing.assert_allclose(
            FrozenBackbone(module)(images(2)), expected(folder, images(2)), atol=1e-6
        )
        with pytest.raises(
            ValueError, match=r"'images', the module takes \['batch_norm_momentum'\]"
        ):
            HubModule(folder, arguments={"momentum": 0.5})
        with pytest.raises(ValueError, match="`training` is always False"):
            HubModule(folder, arguments={"training": True})

    @pytest.mark.slow
    def test_an_image_size_that_the_signature_does_not_take_is_named(self, tmp_path):
        backbone = FrozenBackbone(save_reusable(tmp_path / "fixed", size=32))
        assert backbone(images(1, 32)).shape == (1, FEATURES)
        with pytest.raises(ValueError, match=r"\(None, 32, 32, 3\). Received: \(1, 24, 24, 3\)"):
            backbone(images(1, 24))
        with pytest.raises(ValueError, match=r"takes images of shape \(None, 32, 32, 3\)"):
            FrozenBackbone(HubModule(tmp_path / "fixed"), input_shape=(24, 24, 3))

    @pytest.mark.slow
    def test_a_module_that_takes_bytes_gets_the_raw_pixels(self, tmp_path):
        backbone = FrozenBackbone(save_reusable(tmp_path / "bytes", dtype=tf.uint8))
        loaded = tf.saved_model.load(str(tmp_path / "bytes"))
        found = backbone(images(2).astype("float32") + 0.3)
        np.testing.assert_allclose(found, loaded(images(2), training=False), atol=1e-6)

    @pytest.mark.slow
    def test_pixels_for_a_module_without_preprocessing_are_checked(self, folder):
        as_they_are = FrozenBackbone(folder, preprocessing=None)
        with pytest.warns(UserWarning, match=r"Expected pixels in 0\.\.1.*scales raw 0\.\.255"):
            as_they_are.check_pixels(images(2).astype("float32"))
        with pytest.warns(UserWarning, match=r"Expected raw pixels, 0\.\.255.*image \* 255"):
            FrozenBackbone(folder).check_pixels(images(2) / 255)
        as_they_are.check_pixels(images(2) / 255)

    def test_fit_warns_of_bytes_for_a_module_that_takes_0_to_1(self, small):
        backbone = FrozenBackbone(small, preprocessing=None)
        model = TransferModel(backbone, 2, hidden=0)
        model.compile()
        data = tf.data.Dataset.from_tensor_slices((images(8), labels(8))).batch(4)
        with pytest.warns(UserWarning, match=r"Expected pixels in 0\.\.1\. Received: "):
            model.fit(data, verbose=0)

    @pytest.mark.slow
    def test_it_is_a_layer_in_plain_keras_too(self, folder, tmp_path):
        model = keras.Sequential(
            [keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 255), HubModule(folder)]
        )
        np.testing.assert_allclose(
            model.predict(images(2), verbose=0), expected(folder, images(2)), atol=1e-6
        )
        assert not model.trainable_weights
        model.layers[-1].trainable = True
        assert len(model.trainable_weights) == 15
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
        assert len(again.trainable_weights) == 15

    @pytest.mark.slow
    def test_under_mixed_precision_a_module_computes_in_float32(self, folder):
        plain = FrozenBackbone(folder)(images(2))
        keras.config.set_dtype_policy("mixed_float16")
        backbone = FrozenBackbone(folder)
        features = backbone(images(2))
        assert backbone.compute_dtype == "float16"
        assert features.dtype == "float16"
        np.testing.assert_allclose(features, plain, atol=1e-3)


def _trainable_first(module):
    is_trainable = {id(variable) for variable in module.trainable_variables}
    return sorted(module.variables, key=lambda variable: id(variable) not in is_trainable)


class TestGroups:
    def test_they_are_the_blocks_that_the_names_speak_of(self, folder):
        backbone = FrozenBackbone(folder)
        assert tuple(block.name for block in backbone.blocks) == GROUPS
        assert all(block.frozen for block in backbone.blocks)
        assert sum(block.parameters for block in backbone.blocks) == backbone.count_params()

    @pytest.mark.parametrize(
        ("which", "names"),
        [("block4", {"block4"}), (2, {"block3", "block4"}), ("all", set(GROUPS))],
    )
    def test_each_is_unfrozen_and_frozen_by_itself(self, folder, which, names):
        backbone = FrozenBackbone(folder)
        backbone.unfreeze(which)
        assert {block.name for block in backbone.blocks if not block.frozen} == names
        assert len(backbone.trainable_weights) == 3 * len(names)
        assert not [w for w in backbone.trainable_weights if "moving_" in w.path]
        backbone.freeze("block4")
        assert {b.name for b in backbone.blocks if not b.frozen} == names - {"block4"}
        backbone.trainable = False
        backbone.unfreeze("block2")
        assert {b.name for b in backbone.blocks if not b.frozen} == {"block2"}

    def test_an_unknown_group_raises_with_a_list(self, folder):
        with pytest.raises(ValueError, match=r"matches 'blok4'.*conv1, block1, block2"):
            FrozenBackbone(folder).unfreeze("blok4")

    def test_the_cut_point_of_a_module_is_the_pooling_or_none(self, folder):
        backbone = FrozenBackbone(folder)
        assert (backbone.cut_point, backbone.cut_point_without(["block4"])) == ("pooling", None)
        backbone.unfreeze("block4")
        assert backbone.cut_point is None

    def test_block_weights_of_a_frozen_group_are_those_that_would_train(self, folder):
        backbone = FrozenBackbone(folder)
        weights = backbone.block_weights("block2")
        assert [w.path.split("/")[1] for w in weights] == ["block2"] * 3
        assert not backbone.trainable_weights
        with pytest.raises(ValueError, match=r"'block2'.*is a group of variables"):
            backbone.block("block2")

    @pytest.mark.slow
    def test_fingerprints_differ_between_modules_and_ignore_tried_sizes(self, folder, maps):
        backbone = FrozenBackbone(maps)
        before = backbone.fingerprints()
        backbone.compute_output_shape((None, 64, 64, 3))
        assert backbone.fingerprints() == before
        assert FrozenBackbone(maps).fingerprints() == before
        other = FrozenBackbone(folder).fingerprints()["pooling"]
        assert other["architecture"] != before["pooling"]["architecture"]
        assert other["weights"] == before["pooling"]["weights"]
        backbone.weights[0].assign(backbone.weights[0] + 1)
        assert backbone.fingerprints()["pooling"]["weights"] != before["pooling"]["weights"]

    def test_up_to_the_module_is_a_backbone_of_its_own(self, maps):
        backbone = FrozenBackbone(maps)
        backbone.unfreeze("block4")
        lower = backbone.up_to("maps")
        np.testing.assert_allclose(
            lower(images(2)), backbone.activations(images(2), after="maps")["after:maps"]
        )
        assert [block.name for block in lower.blocks if not block.frozen] == ["block4"]


class TestTraining:
    @pytest.mark.parametrize("host", [functional, transfer])
    @pytest.mark.slow
    def test_blocks_move_when_they_are_due_and_statistics_never(self, small, host):
        backbone = FrozenBackbone(small)
        model = host(backbone)
        model.compile("adam", "binary_crossentropy")
        before, moments = snapshot(backbone), statistics(backbone)
        seen = []
        watch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(moved(backbone, before))
        )
        model.fit(
            dataset(16), epochs=3, verbose=0, callbacks=[watch, BlockUnfreezer({1: "block4", 2: 2})]
        )
        assert seen == [set(), {"block4"}, {"block3", "block4"}]
        for old, new in zip(moments, statistics(backbone), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.slow
    def test_frozen_epochs_run_on_cached_activations_and_equal_plain_ones(self, small, capsys):
        weights = []
        for cache in (FeatureCache(), None):
            keras.utils.set_random_seed(1)
            model = TransferModel(
                FrozenBackbone(small), 2, hidden=4, dropout=0, feature_cache=cache
            )
            model.compile(keras.optimizers.Adam(1e-3))
            unfreezer = BlockUnfreezer({2: "block4"})
            model.fit(dataset(24, shuffle=False), epochs=4, verbose=2, callbacks=[unfreezer])
            weights.append(snapshot(model))
            assert cache is None or len(cache) == 1
        assert relative_difference(*weights) <= 1e-5
        said = capsys.readouterr().out
        assert "activations after pooling: 24 images" in said
        assert "part of its module trains, and a module cannot be cut" in said

    def test_regularization_losses_are_those_of_trainable_blocks(self, small):
        backbone = FrozenBackbone(small)
        model = sequential(backbone)
        pixels = tf.constant(images(2), tf.float32)
        for which in ((), ("block4",), ("block3", "block4")):
            backbone.freeze()
            for name in which:
                backbone.unfreeze(name)
            model(pixels)
            kernels = [w for w in backbone.trainable_weights if w.path.endswith("/weights")]
            expected = sum(1e-2 * float(tf.reduce_sum(kernel**2)) for kernel in kernels)
            assert len(model.losses) == len(which)
            assert float(sum(model.losses)) == pytest.approx(expected)

    @pytest.mark.slow
    # Keras, of an optimizer that is not built yet when the best model's weights are loaded.
    @pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
    def test_keras_tuner_searches_heads_above_it(self, small, tmp_path):
        keras_tuner = pytest.importorskip("keras_tuner")

        def build(hp):
            model = TransferModel(
                FrozenBackbone(small), 2, hidden=hp.Choice("hidden", [2, 4]), dropout=0
            )
            model.build((None, SIZE, SIZE, 3))
            model.compile()
            return model

        tuner = keras_tuner.RandomSearch(build, "loss", max_trials=2, directory=tmp_path, seed=0)
        tuner.search(images(8), labels(8), epochs=1, verbose=0)
        best = tuner.get_best_models()[0]
        assert best.predict(images(2), verbose=0).shape == (2, 1)


MIRRORED = """
    import os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    from conftest import dataset, images, snapshot
    sys.path.append("backbones")
    from test_hub_module import statistics, transfer
    from keras_transfer import BlockUnfreezer, FrozenBackbone

    folder, saved = sys.argv[1:]

    def trained(strategy, host):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            backbone = FrozenBackbone(folder)
            model = host(backbone)
            model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
        moments, data = statistics(backbone), dataset(16, shuffle=False)
        model.fit(data, epochs=3, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
        for old, new in zip(moments, statistics(backbone), strict=True):
            np.testing.assert_array_equal(old, new)
        model.save(saved)
        with strategy.scope():
            again = keras.saving.load_model(saved, safe_mode=False)
        again.fit(data, epochs=1, verbose=0)
        return snapshot(again)

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    two, one = trained(strategy, transfer), trained(tf.distribute.get_strategy(), transfer)
    for a, b in zip(two, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
"""


@pytest.mark.slow
def test_two_devices_train_as_one(small, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MIRRORED), small, tmp_path / "model.keras"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class TestPlainSavedModels:
    def test_the_only_signature_is_called_and_preprocessing_is_required(self, tmp_path):
        folder = save_plain(tmp_path / "plain")
        with pytest.raises(ValueError, match="nothing is known of the pixels that model 'plain'"):
            FrozenBackbone(folder)
        backbone = FrozenBackbone(folder, preprocessing="tf")
        loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
        pixels = images(2)
        features = loaded(tf.cast(pixels, "float32") / 127.5 - 1)["features"]
        np.testing.assert_allclose(backbone(pixels), features, atol=1e-5)
        assert [block.name for block in backbone.blocks] == ["low", "high"]

    def test_one_of_several_outputs_must_be_chosen(self, tmp_path):
        folder = save_plain(tmp_path / "plain", outputs=2)
        with pytest.raises(ValueError, match=r"gives several tensors.*'features'.*'logits'"):
            HubModule(folder)
        module = HubModule(folder, output="logits")
        backbone = FrozenBackbone(module, preprocessing="unit")
        assert backbone(images(2)).shape == (2, 5)
        assert [block.name for block in backbone.blocks] == ["low", "high"]
        with pytest.raises(ValueError, match=r"output='scores'.*gives several tensors"):
            HubModule(folder, output="scores")
        with pytest.raises(ValueError, match=r"signature='other'.*'serving_default'"):
            HubModule(folder, signature="other")

    @pytest.mark.slow
    def test_an_export_of_keras_is_a_source(self, tmp_path):
        network = keras.Sequential(
            [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3), layers.Conv2D(5, 3)]
        )
        network.export(tmp_path / "exported", verbose=False)
        backbone = FrozenBackbone(tmp_path / "exported", preprocessing="unit", pooling=None)
        np.testing.assert_allclose(backbone(images(2)), network(images(2) / 255), atol=1e-5)
        backbone.unfreeze("all")
        assert len(backbone.trainable_weights) == 4

    def test_two_inputs_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"has 2 inputs: \['images', 'mask'\]"):
            HubModule(save_plain(tmp_path / "two", inputs=2))


def _saved(module: tf.Module, folder, *specs, **arguments):
    module.__call__.get_concrete_function(*specs, **arguments)
    tf.saved_model.save(module, str(folder))
    return folder


IMAGES = tf.TensorSpec((None, None, None, 3), tf.float32)


@pytest.mark.parametrize(("pooled", "shape"), [(True, (None, 3)), (False, (None, 12, 12, 3))])
def test_an_output_of_unknown_shape_is_found_by_trying(pooled, shape, tmp_path):
    class Unknown(tf.Module):
        @tf.function
        def __call__(self, images):
            x = tf.reduce_mean(images, [1, 2]) if pooled else images[:, ::2, ::2]
            hidden = tf.reshape(x, tf.cast(tf.cast(tf.shape(x), tf.float32), tf.int32))
            return tf.reshape(hidden, tf.random.shuffle(tf.shape(x)[None])[0])

    backbone = FrozenBackbone(_saved(Unknown(), tmp_path / "m", IMAGES), pooling=None)
    assert backbone.compute_output_shape((None, SIZE, SIZE, 3)) == shape
    assert backbone(images(2)).shape == (2, *shape[1:])


class TestRefused:
    def test_a_module_for_text(self, tmp_path):
        class Text(tf.Module):
            @tf.function
            def __call__(self, text):
                return tf.strings.length(text)

        folder = _saved(Text(), tmp_path / "m", tf.TensorSpec((None,), tf.string))
        with pytest.raises(
            ValueError, match=r"takes string of shape .* Expected a batch of images"
        ):
            FrozenBackbone(folder)

    def test_a_module_with_two_inputs(self, tmp_path):
        class Two(tf.Module):
            @tf.function
            def __call__(self, images, mask):
                return tf.reduce_mean(images * mask, [1, 2])

        folder = _saved(Two(), tmp_path / "m", IMAGES, IMAGES)
        with pytest.raises(ValueError, match=r"'images', .* \['mask'\] must be given"):
            FrozenBackbone(folder)

    def test_a_module_whose_statistics_move_in_inference(self, tmp_path):
        class Moving(tf.Module):
            def __init__(self):
                super().__init__()
                self.mean = tf.Variable(tf.zeros(3), trainable=False, name="moving_mean")

            @tf.function
            def __call__(self, images):
                self.mean.assign_add(tf.ones(3))
                return tf.reduce_mean(images, [1, 2]) - self.mean

        with pytest.raises(ValueError, match="changes its own variables in inference mode"):
            FrozenBackbone(_saved(Moving(), tmp_path / "m", IMAGES))

    def test_a_module_saved_for_training_only(self, tmp_path):
        class Training(tf.Module):
            @tf.function
            def __call__(self, images, training=False):
                return tf.reduce_mean(images, [1, 2])

        folder = _saved(Training(), tmp_path / "m", IMAGES, training=True)
        with pytest.raises(ValueError, match="saved for training=True only"):
            FrozenBackbone(folder)

    def test_a_module_that_gives_neither_features_nor_a_map(self, tmp_path):
        class Tokens(tf.Module):
            @tf.function
            def __call__(self, images):
                return tf.reduce_mean(images, 1)

        with pytest.raises(ValueError, match=r"gives a tensor of shape .*Expected features"):
            FrozenBackbone(_saved(Tokens(), tmp_path / "m", IMAGES))

    def test_a_fixed_batch_size(self, tmp_path):
        class One(tf.Module):
            @tf.function
            def __call__(self, images):
                return tf.reduce_mean(images, [1, 2])

        folder = _saved(One(), tmp_path / "m", tf.TensorSpec((1, 8, 8, 3), tf.float32))
        with pytest.raises(ValueError, match="batches of exactly 1 images"):
            FrozenBackbone(folder)

    def test_a_saved_model_without_a_way_in(self, tmp_path):
        tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
        with pytest.raises(ValueError, match="cannot be called"):
            FrozenBackbone(tmp_path / "m")

    def test_a_module_of_tensorflow_1(self, tmp_path):
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            given = v1.placeholder(tf.float32, (None, 8, 8, 3))
            v1.get_variable("w", (3,))
            session.run(v1.global_variables_initializer())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                v1.saved_model.simple_save(
                    session, str(tmp_path / "m"), {"images": given}, {"default": given * 2}
                )
        with pytest.raises(ValueError, match="TF1 Hub format, or a SavedModel of TensorFlow 1"):
            FrozenBackbone(tmp_path / "m")


class TestCopies:
    @pytest.mark.slow
    def test_keras_clones_a_model_around_it(self, small):
        model = sequential(FrozenBackbone(small))
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        pixels = images(2)
        np.testing.assert_array_equal(
            clone.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
        )
        clone.layers[0].unfreeze("all")
        assert not model.trainable_weights[2:]

    @pytest.mark.parametrize("host", [subclassed, transfer])
    @pytest.mark.slow
    def test_a_deep_copy_is_another_model_that_answers_the_same(self, small, host):
        model = host(FrozenBackbone(small))
        copied = copy.deepcopy(model)
        pixels = images(2)
        np.testing.assert_array_equal(
            copied.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
        )
        before = snapshot(model)
        copied.set_weights([weight + 1 for weight in copied.get_weights()])
        assert identical(before, model)


@pytest.mark.slow
def test_a_module_can_be_cloned_when_another_of_the_same_graph_is_gone(small):
    first, second = HubModule(small), HubModule(small)
    del second
    gc.collect()
    clone = HubModule.from_config(first.get_config())
    clone.set_weights(first.get_weights())
    np.testing.assert_array_equal(clone(images(2) / 255), first(images(2) / 255))
