"""Model files with a module inside: self-contained, and refused unless they are trusted."""

import json
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, images, relative_difference, snapshot
from hub_modules import SCOPE, archive, save_reusable, serving, shared
from keras import layers

from keras_transfer import BlockUnfreezer, FrozenBackbone, TransferModel
from keras_transfer.backbones.hub import download
from keras_transfer.backbones.hub.hub_module import HubModule
from keras_transfer.utils.keras_internals import layers_of

# keras.Variable to numpy, in TensorFlow's own __array__ under numpy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def folder():
    return shared("small")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A model whose top block has trained, and the file of it."""
    model = TransferModel(FrozenBackbone(folder), ["cat", "dog"], hidden=4, dropout=0)
    model.compile()
    model.fit(
        dataset(16, shuffle=False), epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})]
    )
    path = tmp_path_factory.mktemp("file") / "model.keras"
    model.save(path)
    return model, path


@pytest.fixture
def _nothing_is_loaded(monkeypatch):
    """Fails a test in which a SavedModel is looked up or loaded."""

    def refused(*args, **kwargs):
        raise AssertionError(f"loaded {args}")

    monkeypatch.setattr(tf.saved_model, "load", refused)
    monkeypatch.setattr(download, "folder_of", refused)


def load(path, **kwargs):
    return keras.saving.load_model(path, **kwargs)


def edited(path: Path, to: Path, change, **replaced: bytes) -> Path:
    """A copy of a model file with another config, or with other members."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            content = replaced.get(Path(name).stem, content)
            if content:
                new.writestr(name, content)
    return to


def hub_module_of(model) -> HubModule:
    (module,) = [one for one in layers_of(model) if isinstance(one, HubModule)]
    return module


class TestSelfContained:
    @pytest.mark.slow
    def test_it_answers_the_same_and_trains_on_the_same(self, trained, tmp_path):
        model, path = trained
        again = load(path, safe_mode=False)
        pixels = images(4)
        np.testing.assert_array_equal(
            again.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
        )
        assert [b.name for b in again.backbone.blocks if not b.frozen] == ["block4"]
        copy = load(path, safe_mode=False)
        again.save(tmp_path / "again.keras")
        third = load(tmp_path / "again.keras", safe_mode=False)
        for one in (copy, third):
            one.fit(dataset(16, shuffle=False), epochs=2, verbose=0)
        assert relative_difference(snapshot(third), snapshot(copy)) <= 1e-6
        before = snapshot(again.backbone)
        moved = [
            weight.path.split("/")[1]
            for weight, old in zip(third.backbone.weights, before, strict=True)
            if not np.array_equal(weight.numpy(), old)
        ]
        assert moved == ["block4"] * 3

    def test_a_loaded_module_computes_with_its_keras_variables(self, trained):
        again = load(trained[1], safe_mode=False)
        for weight in again.backbone.weights:
            weight.assign(tf.zeros(weight.shape))
        features = again.backbone(images(2))
        np.testing.assert_array_equal(features, np.zeros_like(features))

    @pytest.mark.slow
    def test_the_size_of_a_flattened_map_comes_along(self, tmp_path):
        model = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 3)),
                FrozenBackbone(shared("maps"), pooling="flatten"),
                layers.Dense(1, activation="sigmoid"),
            ]
        )
        model.save(tmp_path / "model.keras")
        again = load(tmp_path / "model.keras", safe_mode=False)
        np.testing.assert_array_equal(
            again.predict(images(2), verbose=0), model.predict(images(2), verbose=0)
        )

    def test_weights_alone_can_be_saved_and_loaded(self, trained, folder, tmp_path):
        model, _ = trained
        model.save_weights(tmp_path / "model.weights.h5")
        other = TransferModel(FrozenBackbone(folder), ["cat", "dog"], hidden=4, dropout=0)
        other.build((None, SIZE, SIZE, 3))
        other.load_weights(tmp_path / "model.weights.h5")
        pixels = images(2)
        np.testing.assert_array_equal(
            other.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
        )

    @pytest.mark.slow
    def test_a_fresh_process_loads_it_without_folder_cache_or_network(self, tmp_path):
        handle_path = f"/google/imagenet/{SCOPE}/feature_vector/5"
        with serving() as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
            server.modules[handle_path] = archive(save_reusable(tmp_path / "m"))
            model = TransferModel(server.handle_for(handle_path), 2)
        model.build((None, SIZE, SIZE, 3))
        model.save(tmp_path / "model.keras")
        np.save(tmp_path / "expected.npy", model.predict(images(4), verbose=0))
        shutil.rmtree(tmp_path / "cache")
        shutil.rmtree(tmp_path / "m")
        script = """
            import socket, sys
            def refused(*args, **kwargs):
                raise AssertionError("no network")
            socket.socket.connect = socket.create_connection = refused
            import keras, numpy
            from conftest import images
            import keras_transfer
            try:
                keras.saving.load_model(sys.argv[1])
            except ValueError as error:
                assert "safe_mode=False" in str(error)
            model = keras.saving.load_model(sys.argv[1], safe_mode=False)
            numpy.testing.assert_allclose(
                model.predict(images(4), verbose=0), numpy.load(sys.argv[2]), atol=1e-6
            )
        """
        paths = [str(tmp_path / name) for name in ("model.keras", "expected.npy")]
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *paths],
            check=True,
            cwd=Path(__file__).parents[1],
        )


@pytest.mark.usefixtures("_nothing_is_loaded")
class TestSafeMode:
    def test_a_file_with_a_module_is_refused_with_the_line_that_trusts_it(self, trained):
        with pytest.raises(ValueError, match=r"nothing was loaded.*load_model\(path, safe_mode=F"):
            load(trained[1])

    @pytest.mark.parametrize("safe_mode", [True, False])
    def test_a_config_that_names_a_place_is_refused(self, safe_mode, trained, folder, tmp_path):
        def source(config):
            config["config"]["backbone"]["config"]["source"] = str(folder)

        def backbone(config):
            config["config"]["backbone"] = "http://127.0.0.1:9/evil/1"

        def handle(config):
            source = config["config"]["backbone"]["config"]["source"]["config"]
            source["layers"][1]["config"]["handle"] = str(folder)

        for change in (source, backbone, handle):
            path = edited(trained[1], tmp_path / "evil.keras", change)
            with pytest.raises(ValueError, match=r"Nothing was loaded.*tampered with"):
                load(path, safe_mode=safe_mode)

    def test_so_is_the_config_of_a_module_alone(self, folder):
        with pytest.raises(ValueError, match=r"names no place to load from.*Nothing was loaded"):
            HubModule.from_config({"handle": str(folder)})
        with pytest.raises(ValueError, match=r"brings its network along"):
            FrozenBackbone.from_config(
                {"source": str(folder), "preprocessing": None, "unfrozen": []}
            )

    def test_a_module_of_another_process_is_refused_outside_of_files_too(self, trained):
        config = trained[0].backbone.get_config()["source"]["config"]["layers"][1]["config"]
        config = json.loads(json.dumps(config))
        config["specification"]["graph"] = "of somebody else"
        with pytest.raises(ValueError, match="Keras' safe mode refuses it"):
            HubModule.from_config(config)

    def test_a_class_that_calls_the_constructor_is_stopped_there(self, folder, tmp_path):
        @keras.saving.register_keras_serializable(package="test_hub_model_file")
        class Loads(layers.Layer):
            def __init__(self, place, **kwargs):
                super().__init__(**kwargs)
                self.place = place
                self.backbone = FrozenBackbone(place) if place.startswith("/") else None

            def call(self, inputs):
                return inputs

        model = keras.Sequential([keras.Input((2,)), Loads("nowhere")])
        model.save(tmp_path / "model.keras")

        def change(config):
            (layer,) = [one for one in config["config"]["layers"] if one["class_name"] == "Loads"]
            layer["config"]["place"] = str(folder)

        path = edited(tmp_path / "model.keras", tmp_path / "evil.keras", change)
        # Keras wraps what a constructor raises.
        with pytest.raises(
            (TypeError, ValueError), match=r"asks for the module .*nothing was load"
        ):
            load(path)


def test_a_lambda_beside_a_module_is_refused(trained):
    backbone = trained[0].backbone
    config = backbone.get_config()
    evil = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x)])
    config["preprocessing"] = keras.saving.serialize_keras_object(evil)
    with pytest.raises(ValueError, match="`Lambda`"):
        FrozenBackbone.from_config(config)


class TestDamaged:
    @pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
    def test_another_graph_in_the_place_of_the_modules_is_not_run(self, trained, tmp_path):
        class Evil(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)])
            def __call__(self, images):
                tf.io.write_file(str(tmp_path / "written"), "evil")
                return tf.reduce_mean(images, [1, 2])

        tf.saved_model.save(Evil(), str(tmp_path / "evil"))
        content = (tmp_path / "evil" / "saved_model.pb").read_bytes()
        path = edited(trained[1], tmp_path / "e.keras", lambda config: None, saved_model=content)
        with pytest.raises(ValueError, match="is not the one that the file's config names"):
            load(path, safe_mode=False)
        assert not (tmp_path / "written").exists()

    def test_a_file_without_the_graph_is_named(self, trained, tmp_path):
        path = edited(trained[1], tmp_path / "e.keras", lambda config: None, saved_model=b"")
        model = load(path, safe_mode=False)  # of a file without assets, Keras asks for none
        with pytest.raises(ValueError, match=r"or from a file that lacks it. Load the whole"):
            model.predict(images(1), verbose=0)
        with pytest.raises(OSError, match="The file lacks the graph of module"):
            hub_module_of(model).load_assets(None)

    def test_calling_a_model_made_of_a_config_alone_raises(self, trained):
        config = trained[0].backbone.get_config()
        with keras.src.saving.serialization_lib.SafeModeScope(False):
            backbone = FrozenBackbone.from_config(config)
        with pytest.raises(ValueError, match="was made from a config alone"):
            backbone(images(1))
