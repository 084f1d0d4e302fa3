import threading
import time

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from conftest import dataset, images, labels, relative_difference, snapshot, tiny_backbone

from keras_transfer import (
    BlockUnfreezer,
    FeatureCache,
    Flips,
    FrozenBackbone,
    TransferModel,
    image_folder,
)
from keras_transfer.data.augmentation import AllFlips
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features.pipelines import of_py_dataset
from keras_transfer.features.rows import CachedBatches, CachedRows, batches, loaded
from keras_transfer.features.storage import in_memory, in_temporary_file


class Batches(keras.utils.PyDataset):
    """Five batches, the last of which is short."""

    pixels, classes = images(20), labels(20)

    def __init__(self, weights=False, **kwargs):
        super().__init__(**kwargs)
        self.weights = weights

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(4 * index, min(4 * index + 4, 18))
        batch = self.pixels[rows], self.classes[rows]
        return (*batch, np.linspace(0, 1, 20, dtype="float32")[rows]) if self.weights else batch


def small_backbone() -> FrozenBackbone:
    """Three blocks, which train in little time."""
    keras.utils.set_random_seed(7)
    x = inputs = keras.Input((None, None, 3))
    for name in ("block1", "block2", "block3"):
        x = keras.layers.Conv2D(4, 3, strides=2, activation="tanh", name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return FrozenBackbone(keras.Model(inputs, x), preprocessing="tf")


def trained(cache, *data, validation=None, augmentation=None, **fit):
    keras.utils.set_random_seed(1)
    model = TransferModel(
        small_backbone(), 2, hidden=0, dropout=0, feature_cache=cache, augmentation=augmentation
    )
    model.compile(keras.optimizers.SGD(1e-2))
    callbacks = [BlockUnfreezer({1: "block3", 2: "block2"})]
    history = model.fit(
        *data, epochs=3, verbose=0, validation_data=validation, callbacks=callbacks, **fit
    )
    return snapshot(model), history.history


def assert_same(kept, plain):
    assert relative_difference(kept[0], plain[0]) <= 1e-5
    for name in plain[1]:
        np.testing.assert_allclose(kept[1][name], plain[1][name], rtol=1e-4, err_msg=name)


# ---- law 4, for each form of data


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"shuffle": False, "validation_split": 0.2, "sample_weight": np.linspace(0, 1, 22)},
        {"class_weight": {0: 1.0, 1: 3.0}, "validation_batch_size": 5, "validation_split": 0.5},
        {"steps_per_epoch": 2, "initial_epoch": 1},
    ],
    ids=lambda more: "-".join(more),
)
@pytest.mark.slow
def test_arrays_train_as_end_to_end(more):
    data = images(22), labels(22)
    fit = {"batch_size": 8, **more}
    cache = FeatureCache(verbose=False)
    assert_same(trained(cache, *data, **fit), trained(None, *data, **fit))
    assert len(cache) > 0


@pytest.mark.slow
def test_features_of_all_levels_train_as_end_to_end_and_are_kept_while_all_is_frozen(capsys):
    def fitted(cache):
        keras.utils.set_random_seed(1)
        model = TransferModel(tiny_backbone(pooling="levels"), 2, dropout=0, feature_cache=cache)
        model.compile(keras.optimizers.SGD(1e-4))
        callbacks = [BlockUnfreezer({2: "block4"})]
        history = model.fit(images(16), labels(16), epochs=3, verbose=2, callbacks=callbacks)
        return snapshot(model), history.history

    cache = FeatureCache(verbose=False)
    assert_same(fitted(cache), fitted(None))
    assert len(cache) == 1
    assert "its features are of all levels (pooling='levels')" in capsys.readouterr().out


@pytest.mark.slow
def test_a_py_dataset_trains_as_end_to_end():
    data = Batches(weights=True, workers=2)
    cache = FeatureCache(verbose=False)
    fit = {"shuffle": True, "validation": Batches(weights=True)}
    assert_same(trained(cache, data, **fit), trained(None, data, **fit))
    assert len(cache) > 0


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "fit",
    [
        {"steps_per_epoch": 2, "class_weight": {0: 1.0, 1: 3.0}},
        {"validation": dataset(16, shuffle=False), "validation_freq": 2, "initial_epoch": 1},
        {"validation": dataset(16, shuffle=False), "validation_steps": 1},
    ],
    ids=lambda fit: "-".join(fit),
)
@pytest.mark.slow
def test_datasets_train_as_end_to_end_whatever_the_arguments_of_fit(fit):
    made = []
    for cache in ("auto", None):
        keras.utils.set_random_seed(1)  # a shuffle takes it in when it is made
        made.append(trained(cache, dataset(22), **fit))
    assert_same(*made)


@pytest.mark.slow
def test_from_files_it_trains_bit_for_bit_as_from_memory():
    results = []
    for limit in (None, 0):
        cache = FeatureCache(memory_limit=limit, verbose=False)
        data = images(22), labels(22)
        results.append(trained(cache, *data, augmentation=Flips("flips")))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_batches_of_a_py_dataset_are_the_same_from_files():
    backbone, found = small_backbone(), []
    for limit in (None, 0):
        keras.utils.set_random_seed(1)
        cache, views = FeatureCache(memory_limit=limit, verbose=False), AllFlips(Flips("flips"))
        pipeline = of_py_dataset(Batches())
        rows = [cache.rows(backbone, pipeline, "block2", views=views, view=n) for n in range(4)]
        given = CachedBatches(rows, "block2")
        found.append(np.concatenate([given[number][0]["after:block2"] for number in range(5)]))
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_half_the_space_trains_nearly_the_same():
    cache = FeatureCache(dtype="float16", verbose=False)
    kept = cache.rows(tiny_backbone(), of_py_dataset(Batches()), "block4")
    assert kept.activations.dtype == "float16"
    assert kept.read(0, 5).dtype == "float32"
    given, _ = cache.dataset(tiny_backbone(), dataset(8), after="block4").element_spec
    assert given["after:block4"].dtype == "float32"
    half, _ = trained(cache, images(18), labels(18), shuffle=False)
    whole, _ = trained(None, images(18), labels(18), shuffle=False)
    assert 1e-7 < relative_difference(half, whole) < 1e-2


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("folder", [False, True])
def test_half_precision_is_kept_exactly(policy, folder, tmp_path):
    keras.config.set_dtype_policy(policy)
    backbone = tiny_backbone()
    expected = backbone.activations(images(16), after="block2")["after:block2"]
    cache = FeatureCache(tmp_path if folder else None, verbose=False)
    for _ in range(2):
        kept = cache.array(backbone, images(16), after="block2")
        assert kept.dtype.name == policy.removeprefix("mixed_")
        np.testing.assert_array_equal(kept.astype("float32"), np.asarray(expected, "float32"))
        cache = FeatureCache(tmp_path if folder else None, verbose=False)


@pytest.mark.slow
def test_a_mapped_image_folder_trains_as_end_to_end(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(8):
            keras.utils.save_img(tmp_path / name / f"{i}.png", images(1, seed=i)[0])
    made = []
    for cache in ("auto", None):
        keras.utils.set_random_seed(1)
        data = image_folder(tmp_path, image_size=24, batch_size=4, verbose=0)
        made.append(trained(cache, data.train.map(lambda x, y: (tf.cast(x, "float32"), y))))
    assert_same(*made)


def test_a_py_dataset_that_came_to_give_something_else_is_computed_again(computed):
    data, cache, backbone = Batches(), FeatureCache(verbose=False), small_backbone()
    for kind in (Batches, Batches, type("Brighter", (Batches,), {"__getitem__": brighter})):
        data.__class__ = kind
        cached = cache.rows(backbone, of_py_dataset(data), "pooling")
        pixels = np.concatenate([data[number][0] for number in range(5)])
        np.testing.assert_allclose(cached.read(0, 18), backbone(pixels), rtol=1e-4, atol=1e-5)
    assert sum(computed) == 2 * 18


def brighter(self, index):
    x, y = Batches.__getitem__(self, index)
    return x // 2 + 100, y


# ---- what cannot be kept


class Reshuffled(Batches):
    def on_epoch_end(self):
        pass


class Random(Batches):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.random.default_rng().integers(0, 2, x.shape, "uint8"), y


class Endless(Batches):
    num_batches = None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Reshuffled, "the on_epoch_end of the Reshuffled may change what it gives"),
        (Random, "the Random gives another batch each time it is asked"),
        (Endless, "the number of batches of the Endless is infinite"),
    ],
)
def test_a_py_dataset_that_may_change_trains_end_to_end_and_a_line_says_why(kind, reason, capsys):
    with pytest.raises(NotCacheable, match=reason):
        of_py_dataset(kind())
    model = TransferModel(tiny_backbone(), 2)
    model.compile()
    model.fit(kind(), steps_per_epoch=2, verbose=2)
    assert f"Training end to end, with nothing kept: {reason}" in capsys.readouterr().out


@pytest.mark.slow
def test_images_of_different_sizes_train_end_to_end_and_a_line_says_why(capsys):
    class Growing(Batches):
        def __getitem__(self, index):
            return images(4, 24 + 8 * index), labels(4)

    model = TransferModel(tiny_backbone(pooling="avg"), 2)
    model.backbone.unfreeze("block4")
    model.compile()
    model.fit(Growing(), verbose=2)
    out = capsys.readouterr().out
    assert (
        "images give activations after block3 of different shapes, (3, 3, 8) and (4, 4, 8)" in out
    )


@pytest.mark.slow
def test_batches_that_grow_are_kept_whole():
    class Growing(Batches):
        def __getitem__(self, index):
            return images(index + 1, seed=index), labels(index + 1)

    kept = FeatureCache(verbose=False).rows(tiny_backbone(), of_py_dataset(Growing()), "pooling")
    assert len(kept) == 15
    backbone = tiny_backbone()
    expected = np.concatenate([backbone(images(i + 1, seed=i)) for i in range(5)])
    np.testing.assert_allclose(kept.read(0, 15), expected, rtol=1e-5, atol=1e-6)


# ---- order, and where it lies


def test_what_is_too_much_for_the_memory_goes_into_a_file(monkeypatch, capsys):
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    backbone = tiny_backbone()
    kept = FeatureCache().dataset(backbone, dataset(64, shuffle=False))
    assert "64 images, " in (out := capsys.readouterr().out)
    assert "2.6 kB in a temporary file" in out
    actual = np.concatenate([x["after:pooling"] for x, _ in kept])
    np.testing.assert_allclose(actual, backbone(images(64)), rtol=1e-5, atol=1e-6)


# ---- memory


class PeakMemory(threading.Thread):
    """The most resident memory while a block runs, above what there was before it."""

    def __enter__(self):
        self.before = self.most = psutil.Process().memory_info().rss
        self.running = True
        self.start()
        return self

    def run(self):
        while self.running:
            self.most = max(self.most, psutil.Process().memory_info().rss)
            time.sleep(0.001)

    def __exit__(self, *_):
        self.running = False
        self.join()

    @property
    def growth(self) -> int:
        return self.most - self.before


@pytest.mark.parametrize("source", ["batches", "file"])
@pytest.mark.slow
def test_what_is_kept_in_ram_takes_that_memory_once(tmp_path, source):
    count, width = 4096, 8192  # 128 MB
    batch = np.ones((64, width), "float32")
    if source == "file":
        file = in_temporary_file((batch for _ in range(count // 64)), tmp_path)
    with PeakMemory() as peak:
        if source == "file":
            kept = loaded(file)
        else:
            kept = in_memory((batch for _ in range(count // 64)), count)
        rows = CachedRows(kept, "float32", (np.arange(count),))
        data = batches([rows], "pooling", tf.data.Dataset.range(count).batch(32))
        x, _ = next(iter(data))
    assert x["after:pooling"].shape == (32, width)
    assert peak.growth < 1.5 * kept.nbytes
