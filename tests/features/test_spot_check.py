"""Layers whose results depend on what neither their config nor their weights show."""

import json
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images, tiny_backbone

from keras_transfer import FeatureCache, Flips, FrozenBackbone, TransferModel
from keras_transfer.data.augmentation import DrawnViews
from keras_transfer.features.npy_store import checksum
from keras_transfer.features.pipelines import of_array
from keras_transfer.features.runners import alike

outside = types.SimpleNamespace(scale=1.0, function=lambda x: x, array=np.ones(4, "float32"))
STALE = "is not what the layers give now"


class Scaled(keras.layers.Layer):
    factor = 1.0

    @property
    def shift(self):
        return outside.scale - 1.0

    def call(self, x):
        return outside.function(x * outside.scale * self.factor * outside.array + self.shift)


WAYS = {
    "global": lambda patch: patch.setattr(outside, "scale", 3.0),
    "attribute": lambda patch: patch.setattr(Scaled, "factor", 3.0),
    "property": lambda patch: patch.setattr(Scaled, "shift", property(lambda self: 0.5)),
    "helper": lambda patch: patch.setattr(outside, "function", lambda x: x * x),
    "array": lambda patch: patch.setattr(outside, "array", np.full(4, 2, "float32")),
    "method": lambda patch: patch.setattr(Scaled, "call", lambda self, x: -x),
}


def backbone() -> FrozenBackbone:
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3, strides=4, name="block1_conv"),
        Scaled(),
        keras.layers.Conv2D(4, 3, name="block2_conv"),
    ]
    network = keras.Sequential([keras.Input((24, 24, 3)), *layers])
    return FrozenBackbone(network, preprocessing="unit")


def check(kept: np.ndarray, of: FrozenBackbone, pixels: np.ndarray) -> None:
    np.testing.assert_allclose(kept, of(pixels), rtol=1e-4, atol=1e-5)


# ---- in a folder


@pytest.mark.parametrize("way", WAYS)
def test_what_another_run_has_kept_is_computed_anew_when_a_layer_does_something_else(
    tmp_path, monkeypatch, capsys, way
):
    FeatureCache(tmp_path).array(backbone(), images(40))
    WAYS[way](monkeypatch)
    capsys.readouterr()
    check(FeatureCache(tmp_path).array(backbone(), images(40)), backbone(), images(40))
    (line, _) = capsys.readouterr().out.splitlines()
    assert line.endswith(f"computed anew: what {tmp_path} keeps {STALE}")
    check(FeatureCache(tmp_path).array(backbone(), images(40)), backbone(), images(40))
    assert "40 images from" in capsys.readouterr().out


def test_a_layer_that_does_something_else_to_few_images_only_is_noticed(tmp_path, monkeypatch):
    """To the last one here; the rows that are compared are spread over all."""
    FeatureCache(tmp_path).array(backbone(), images(40))
    last = backbone().activations(images(40)[-1:], after="block1")["after:block1"]

    def changed(x):
        mark = tf.reduce_all(tf.abs(x - last) < 1e-3, axis=(1, 2, 3), keepdims=True)
        return tf.where(mark, 5.0, x)

    monkeypatch.setattr(outside, "function", changed)
    check(FeatureCache(tmp_path).array(backbone(), images(40)), backbone(), images(40))


def test_activations_below_are_not_gone_on_from_when_they_are_stale(tmp_path, monkeypatch):
    of, pipeline = backbone(), of_array(images(20), 8)
    low = of.link_names[0]
    FeatureCache(tmp_path).rows(of, pipeline, low)
    monkeypatch.setattr(outside, "scale", 2.0)
    check(FeatureCache(tmp_path).array(of, images(20)), of, images(20))


def test_an_interrupted_pass_of_other_layers_starts_anew(tmp_path, monkeypatch, capsys):
    FeatureCache(tmp_path).array(backbone(), images(40))
    (manifest,) = tmp_path.glob("*/manifest.json")
    folder = manifest.parent
    content = json.loads(manifest.read_text())
    content |= {"rows": 16, "checksum": checksum(folder / "activations.npy", 16)}
    manifest.write_text(json.dumps(content))
    folder.rename(folder.with_name(f"{folder.name}.part"))
    shutil.copytree(tmp_path, tmp_path / "same")
    capsys.readouterr()
    FeatureCache(tmp_path / "same").array(backbone(), images(40))
    assert "of them from before" in capsys.readouterr().out
    monkeypatch.setattr(outside, "scale", 2.0)
    shutil.rmtree(tmp_path / "same")
    check(FeatureCache(tmp_path).array(backbone(), images(40)), backbone(), images(40))
    out = capsys.readouterr().out
    assert f"computed from the start: what was there {STALE}" in out
    assert "from before" not in out


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", "mixed_float16"])
def test_rounding_is_no_difference(tmp_path, computed, dtype):
    arguments = {"dtype": dtype} if dtype == "float16" else {}
    if not arguments:
        keras.config.set_dtype_policy(dtype)
    for _ in range(2):
        FeatureCache(tmp_path, **arguments).array(tiny_backbone(), images(40))
    assert sum(computed) == 40


# ---- in RAM


@pytest.mark.parametrize("way", ["global", "method"])
def test_a_cache_in_ram_notices_at_the_next_call(monkeypatch, computed, capsys, way):
    cache, of = FeatureCache(), backbone()
    data = tf.data.Dataset.from_tensor_slices((images(40), np.arange(40))).shuffle(40).batch(8)

    def check_all() -> None:
        check(cache.array(of, images(24)), of, images(24))
        for x, y in cache.dataset(of, data):
            check(x["after:pooling"], of, images(40)[y])

    check_all()
    check_all()
    assert sum(computed) == 64
    assert STALE not in capsys.readouterr().out
    WAYS[way](monkeypatch)
    check_all()
    assert sum(computed) == 2 * 64
    assert f"computed anew: what was kept {STALE}" in capsys.readouterr().out


def test_what_was_traced_for_one_fit_is_not_used_for_the_next_when_a_layer_has_changed(
    monkeypatch,
):
    of = backbone()
    for scale in (1.0, 3.0):
        monkeypatch.setattr(outside, "scale", scale)
        check(FeatureCache().array(of, images(20)), of, images(20))


@pytest.mark.traced
@pytest.mark.slow
def test_a_fit_looks_once_at_what_the_fit_before_has_kept(monkeypatch, computed):
    cache, of, data, valid = FeatureCache(verbose=False), backbone(), dataset(16), dataset(16)
    run, seen = FrozenBackbone.activations, []
    monkeypatch.setattr(
        FrozenBackbone,
        "activations",
        lambda *args, **kw: (tf.executing_eagerly() and seen.append(1), run(*args, **kw))[1],
    )
    for looks in (1, 1 + 2):  # at the function that was traced for `data`; at both that are kept
        model = TransferModel(of, 2, hidden=4, feature_cache=cache)
        model.compile()
        model.fit(data, validation_data=valid, epochs=2, verbose=0)
        assert len(seen) == looks
    assert sum(computed) == 2 * 16


def test_views_made_in_any_order_are_none_of_that(computed):
    cache, of, flips = FeatureCache(verbose=False), tiny_backbone(), Flips("flips")
    data = dataset(16, shuffle=False)
    cache.dataset(of, data, flips=flips, view=3)
    for _ in range(2):
        cache.dataset(of, data)
        cache.dataset(of, data, flips=flips, view=3)
    assert sum(computed) == 2 * 16


# ---- augmentation


class Brighter(keras.layers.Layer):
    def call(self, x, training=False):
        return x * outside.scale if training else x


@pytest.mark.parametrize("folder", [True, False])
def test_kept_views_of_an_augmentation_that_does_something_else_are_made_anew(
    tmp_path, monkeypatch, computed, folder
):
    of, pipeline = tiny_backbone(), of_array(images(20), 8)
    cache = FeatureCache(tmp_path if folder else None, views=2, verbose=False)

    def views() -> np.ndarray:
        drawn = DrawnViews(keras.Sequential([Brighter(), keras.layers.RandomFlip(seed=1)]), 2, 0)
        again = FeatureCache(tmp_path, views=2, verbose=False) if folder else cache
        return again.rows(of, pipeline, "pooling", views=drawn, view=1).read(0, 20)

    kept = views()
    np.testing.assert_array_equal(views(), kept)
    assert sum(computed) == 20
    monkeypatch.setattr(outside, "scale", 0.5)
    assert not np.allclose(views(), kept, atol=1e-3)
    assert sum(computed) == 40


@pytest.mark.filterwarnings("ignore:The augmentation .* draws from something else")
def test_views_that_no_seed_decides_are_not_drawn_again(tmp_path, computed):
    class Unseeded(keras.layers.Layer):
        def call(self, x, training=False):
            return x * np.random.default_rng().uniform()

    for _ in range(2):
        drawn = DrawnViews(Unseeded(name="unseeded"), 2, 0)
        cache = FeatureCache(tmp_path, views=2, verbose=False)
        cache.rows(tiny_backbone(), of_array(images(20), 8), "pooling", views=drawn)
    assert sum(computed) == 20


# ---- what counts as a difference


def test_rounding_is_told_from_a_change():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, 3, 3, 8)).astype("float32") * np.logspace(-2, 2, 8, dtype="f4")
    assert alike(x, x + 1e-5 * generator.uniform(-1, 1, x.shape).astype("f4") * np.abs(x).max())
    assert alike(x.astype("float16"), x)
    half = x.astype("float16")
    assert alike(half, half * np.float16(1 + 2**-10))
    assert not alike(x, x * np.float32(1.001))
    one_channel = x.copy()
    one_channel[..., 3] *= 1.05  # of a size of 0.5 among others of 100
    assert not alike(x, one_channel)
    one_row = x.copy()
    one_row[2] = 0
    assert not alike(one_row, x)
    assert not alike(x, x[:, :2])
    undefined = x.copy()
    undefined[0, 0, 0, 0], undefined[1, 1, 1, 1] = np.nan, np.inf
    assert alike(undefined, undefined)
    assert not alike(undefined, x)
    assert not alike(x, undefined)
