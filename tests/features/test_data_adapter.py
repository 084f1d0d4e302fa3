"""What must not be kept, or not be taken for something else: mistakes that would be silent."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    SIZE,
    images,
    labels,
    relative_difference,
    snapshot,
    tiny_backbone,
    tiny_network,
)

from keras_transfer import BlockUnfreezer, FeatureCache, FrozenBackbone, TransferModel, image_folder
from keras_transfer.data.augmentation import DrawnViews
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.data.fit_data import FitData
from keras_transfer.features import runners
from keras_transfer.features.data_adapter import FeatureDataAdapter
from keras_transfer.features.pipelines import inspect, of_py_dataset


def rows(count=38):
    return rows_of(images(count), labels(count))


def rows_of(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y))


def shuffled():
    return rows().shuffle(38, seed=1).batch(8)


def model_of(cache, schedule=None):
    keras.utils.set_random_seed(1)
    model = TransferModel(tiny_backbone(), 2, hidden=8, dropout=0, feature_cache=cache)
    model.compile(keras.optimizers.SGD(1e-2))
    return model, [BlockUnfreezer(schedule)] if schedule else []


def weights_after(cache, make, fits=1, epochs=2, schedule=None):
    """Weights after some fits on one dataset."""
    model, callbacks = model_of(cache, schedule)
    data = make()
    for _ in range(fits):
        model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)
    return snapshot(model)


@pytest.mark.slow
@pytest.mark.parametrize("unfrozen", ["block4", "all"])
def test_blocks_that_are_frozen_again_give_the_features_of_their_new_weights(unfrozen):
    backbone, x = tiny_backbone(), images(8)
    features = FeatureDataAdapter(backbone, "auto", verbose=False)
    train = FitData(x, labels(8))
    features(train)
    backbone.unfreeze(unfrozen)
    features(train)
    for weight in backbone.block_weights("block4"):  # as training would
        weight.assign(weight + 0.5)
    backbone.freeze()
    kept, _ = next(iter(features(train).x))
    np.testing.assert_allclose(kept["after:pooling"], backbone(x), rtol=1e-4, atol=1e-6)


@pytest.fixture
def photos(tmp_path):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, pixels in enumerate(images(16)[name == "b" :: 2]):
            keras.utils.save_img(tmp_path / "photos" / name / f"{i}.png", pixels, scale=False)
    return tmp_path / "photos"


def train_of(photos):
    return image_folder(photos, image_size=SIZE, batch_size=4, verbose=0).train


# ---- one thing taken for another


@pytest.mark.slow
def test_openvino_made_for_one_preprocessing_is_not_used_for_another(monkeypatch):
    monkeypatch.setattr(runners, "WORTH_SECONDS", 0)
    cache, network = FeatureCache(verbose=False), tiny_network()
    for preprocessing in ("tf", "unit"):
        backbone = FrozenBackbone(network, preprocessing=preprocessing)
        kept = cache.array(backbone, images(64))
        np.testing.assert_allclose(kept, backbone(images(64)), rtol=1e-4, atol=1e-5)


def test_views_of_an_augmentation_with_other_weights_are_others():
    keys = set()
    for mean in (0.0, 50.0):
        layer = keras.layers.Normalization(axis=None)
        layer.adapt(images(8).astype("float32") + mean)
        augmentation = keras.Sequential([layer, keras.layers.RandomContrast(0.5)])
        augmentation.build((None, SIZE, SIZE, 3))
        keys.add(DrawnViews(augmentation, 2, 0).key(0))
        keys.add(DrawnViews(augmentation, 2, 0).key(0))
    assert len(keys) == 2


# ---- what must not be kept


def as_float(x):
    return tf.cast(x, "float32")


def changing_variable():
    factor = tf.Variable(1.0)
    return lambda x, y: (as_float(x) * factor, y)


def changing_table():
    table = tf.lookup.experimental.MutableHashTable(tf.int32, tf.float32, 1.0)
    return lambda x, y: (as_float(x) * table.lookup(0), y)


def clock():
    return lambda x, y: (as_float(x) + tf.cast(tf.timestamp() % 1, "float32"), y)


@pytest.mark.parametrize("make", [changing_variable, changing_table, clock])
def test_a_map_that_reads_what_may_change_is_found(make):
    with pytest.raises(
        NotCacheable, match=r"may give something else in each epoch.*put \.cache\(\)"
    ):
        inspect(rows().batch(8).map(make()))
    inspect(rows().batch(8).map(make()).cache())


def test_a_py_dataset_that_is_random_now_and_then_is_found():
    class Flipped(keras.utils.PyDataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            turn = index in (5, 6, 7, 8) and np.random.random() < 0.999
            return images(4, seed=np.random.randint(1000) if turn else index), labels(4)

    with pytest.raises(NotCacheable, match="gives another batch each time it is asked"):
        of_py_dataset(Flipped())


def test_what_does_not_fit_into_float16_is_not_kept_in_it(tmp_path):
    network = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Rescaling(1e4)])
    for folder in (None, tmp_path):
        cache = FeatureCache(folder, dtype="float16", verbose=False)
        with pytest.raises(NotCacheable, match=r"do not fit into float16.*leave `dtype`"):
            cache.array(FrozenBackbone(network, preprocessing="raw"), images(4))


def function(x):
    return x / 2


class WithoutConfig(keras.layers.Layer):
    """As people write layers: Keras cannot make a config of what the constructor takes."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, shape):
        return shape


class WithBrokenConfig(WithoutConfig):
    def get_config(self):
        return {"name": self.name, "function": self.function.undefined}


class WithStrangeConfig(WithoutConfig):
    def get_config(self):
        return {(1, 2): self.function}


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (WithoutConfig, "backbone"),
        (WithBrokenConfig, "backbone"),
        (WithStrangeConfig, "backbone"),
        (WithoutConfig, "preprocessing"),
        (WithoutConfig, "augmentation"),
    ],
)
@pytest.mark.slow
def test_a_layer_without_a_config_trains_and_a_line_says_why_nothing_is_kept(kind, where, capsys):
    layer, cache = kind(function), FeatureCache(views=2)
    backbone = tiny_backbone()
    if where == "backbone":
        network = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layer, tiny_network()])
        backbone = FrozenBackbone(network, preprocessing="tf")
    if where == "preprocessing":
        backbone = FrozenBackbone(tiny_network(), preprocessing=layer)
    augmentation = layer if where == "augmentation" else None
    model = TransferModel(backbone, 2, hidden=4, augmentation=augmentation, feature_cache=cache)
    model.compile()
    model.fit(images(16), labels(16), verbose=2)
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if line.startswith("Training end to end"))
    assert f"nothing kept: layer '{layer.name}' of class {kind.__name__} has no config" in line


@pytest.mark.parametrize("array", [True, False])
def test_labels_that_are_no_classes_are_refused_before_much_is_computed(array, computed):
    wrong = labels(48) + 4
    data = (images(48), wrong) if array else (rows_of(images(48), wrong).batch(8),)
    model, _ = model_of("auto")
    with pytest.raises(ValueError, match="Received: values from 4 to 5"):
        model.fit(*data, verbose=0)
    assert not computed


# ---- the order, from fit to fit and from phase to phase


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.slow
def test_the_order_of_a_shuffled_dataset_goes_on_from_fit_to_fit(shared):
    cache = FeatureCache(verbose=False) if shared else "auto"
    kept = weights_after(cache, shuffled, fits=2, epochs=1)
    plain = weights_after(None, shuffled, fits=2, epochs=1)
    assert relative_difference(kept, plain) <= 1e-5


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.slow
def test_the_order_of_a_folder_goes_on_from_fit_to_fit_in_a_cache_of_each(photos, mapped):
    def train():
        data = train_of(photos)
        return data.map(lambda x, y: (x, y)) if mapped else data

    one, other = (weights_after(cache, train, fits=2, epochs=1) for cache in ("auto", None))
    assert relative_difference(one, other) <= 1e-5


@pytest.mark.slow
def test_the_order_of_a_folder_goes_on_where_nothing_is_frozen_any_more(photos):
    first, second = (
        weights_after(cache, lambda: train_of(photos), epochs=3, schedule={1: "block4", 2: "all"})
        for cache in ("auto", None)
    )
    assert relative_difference(first, second) <= 1e-5


@pytest.mark.parametrize("cache", ["auto", None])
@pytest.mark.slow
def test_with_steps_each_phase_begins_a_new_pass(cache):
    """In the order of the rows, so that the end of the data is never reached."""
    seen: list[np.ndarray] = []

    class Seen(keras.metrics.Metric):
        def update_state(self, y_true, y_pred, sample_weight=None):
            seen.append(np.ravel(y_true))

        def result(self):
            return 0.0

    model, callbacks = model_of(cache, {1: "block4"})
    model.compile("sgd", metrics=[Seen()])
    x = np.repeat(images(1), 12, axis=0)
    data = tf.data.Dataset.from_tensor_slices((x, np.linspace(0, 1, 12))).batch(4)
    model.fit(data, epochs=2, steps_per_epoch=1, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(seen[0], np.linspace(0, 1, 12)[:4], atol=1e-6)
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.slow
def test_a_look_at_the_images_of_a_folder_takes_an_order_of_both(photos):
    def looked_at():
        data = train_of(photos)
        next(iter(data))
        return data

    kept, plain = (weights_after(cache, looked_at) for cache in ("auto", None))
    assert relative_difference(kept, plain) <= 1e-5


# ---- messages


def test_one_image_is_told_to_be_no_batch():
    with pytest.raises(ValueError, match=r"takes batches of images.*One image becomes a batch by"):
        FeatureCache(verbose=False).array(tiny_backbone(), images(1)[0])


def test_rows_without_a_batch_are_told():
    with pytest.raises(NotCacheable, match="it is not batched, or not where one can see it"):
        FeatureCache(verbose=False).dataset(tiny_backbone(), rows())
