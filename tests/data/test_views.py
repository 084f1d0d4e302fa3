import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images, labels, snapshot, tiny_backbone

from keras_transfer import FeatureCache, Flips, TransferModel
from keras_transfer.data.augmentation import DrawnViews, seed_states
from keras_transfer.features import entry


def augmentation():
    return keras.Sequential(
        [
            keras.layers.RandomRotation(0.2, fill_mode="reflect"),
            keras.layers.RandomContrast(0.5, value_range=(0, 255)),
        ]
    )


def test_a_view_follows_from_seed_number_and_row():
    def view(seed, index, row):
        return np.asarray(DrawnViews(augmentation(), 4, seed).view(images(6), index, row))

    first = view(0, 0, 0)
    np.testing.assert_array_equal(first, view(0, 0, 0))
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 6)):
        assert not np.array_equal(first, view(*other))
    assert not np.allclose(first, images(6))


def test_an_augmentation_that_no_seed_reaches_is_told():
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + tf.random.normal(tf.shape(x))

    views = DrawnViews(Noise(name="noise"), 2, 0)
    with pytest.warns(UserWarning, match="'noise' draws from something else than a keras.random.S"):
        views.view(images(6), 0, 0)
    views.view(images(6), 0, 6)  # once is enough


def test_images_of_a_batch_are_not_all_turned_alike():
    pixels = np.repeat(images(1), 4, axis=0)
    seen = np.asarray(DrawnViews(augmentation(), 1, 0).view(pixels, 0, 0))
    assert not np.allclose(seen[0], seen[1])


def test_the_random_state_of_the_layers_is_left_as_it_was():
    layer = augmentation()
    layer(images(2), training=True)
    before = [np.array(state) for state in seed_states(layer)]
    assert len(before) >= 2
    DrawnViews(layer, 2, 0).view(images(2), 1, 0)
    for state, value in zip(seed_states(layer), before, strict=True):
        np.testing.assert_array_equal(state, value)


@pytest.mark.slow
def test_the_key_of_a_users_augmentation_stays_when_it_is_built(computed):
    class Tint(keras.layers.Layer):
        def build(self, shape):
            self.tint = self.add_weight(shape=(shape[-1],), initializer="ones", trainable=False)

        def call(self, x, training=False):
            return x * self.tint if training else x

        def get_config(self):
            return {**super().get_config(), "built": self.built}

    cache, layer = FeatureCache(views=2, verbose=False), Tint()
    for _ in range(2):
        model = TransferModel(tiny_backbone(), 2, augmentation=layer, feature_cache=cache)
        model.compile()
        model.fit(images(16), labels(16), verbose=0)
    assert sum(computed) == 2 * 16


def test_keras_still_has_the_name_of_the_state_of_its_generators():
    layer = keras.layers.RandomFlip()
    layer.build((None, 4, 4, 3))
    (state,) = seed_states(layer)
    assert state.shape == (2,)


@pytest.mark.slow
def test_training_sees_the_views_and_each_epoch_draws_among_them():
    seen: list[np.ndarray] = []

    class Head(keras.layers.Layer):
        def call(self, features):
            tf.py_function(lambda x: seen.append(x.numpy()), [features], [])
            return features[:, :1]

    backbone, layer = tiny_backbone(), augmentation()
    cache = FeatureCache(views=3, seed=5, verbose=False)
    head = Head(dtype="float32")
    model = TransferModel(backbone, 2, head=head, augmentation=layer, feature_cache=cache)
    model.compile("sgd", "mse", metrics=[], run_eagerly=True)
    data = tf.data.Dataset.from_tensor_slices((images(16), labels(16))).batch(8)
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(data, epochs=4, verbose=0)
    epochs = np.concatenate(seen).reshape(4, 16, -1)
    drawn = DrawnViews(layer, 3, 5)
    views = [
        np.concatenate([backbone(drawn.view(images(16)[s : s + 8], v, s)) for s in (0, 8)])
        for v in range(3)
    ]
    distance = np.array([[np.abs(epoch - view).max(-1) for view in views] for epoch in epochs])
    assert distance.min(axis=1).max() < 1e-5
    which = distance.argmin(axis=1)
    assert set(which.ravel()) == {0, 1, 2}
    assert (which[0] != which[1]).any()
    assert len(cache) == 3


@pytest.mark.parametrize("data", ["dataset", "arrays", "files"])
@pytest.mark.slow
def test_the_same_seed_trains_the_same(data):
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        limit = 0 if data == "files" else None
        cache = FeatureCache(views=2, memory_limit=limit, verbose=False)
        model = TransferModel(tiny_backbone(), 2, augmentation=augmentation(), feature_cache=cache)
        model.compile()
        given = (images(16), labels(16)) if data == "arrays" else (dataset(16),)
        model.fit(*given, epochs=3, verbose=0)
        weights.append(snapshot(model))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_views_augmentation_means_the_plain_path_and_a_line_says_so(capsys):
    model = TransferModel(tiny_backbone(), 2, augmentation=augmentation())
    model.compile()
    model.fit(dataset(8), verbose=2)
    out = capsys.readouterr().out
    assert "under augmentation each epoch sees other images" in out
    assert "FeatureCache(views=8) would keep 8 views" in out


@pytest.mark.filterwarnings("ignore:.*interrupted")
@pytest.mark.slow
def test_views_are_kept_between_runs_and_an_interrupted_one_goes_on_with_the_same(
    tmp_path, monkeypatch, computed
):
    monkeypatch.setattr(entry, "CHUNK", 160)
    backbone, pixels = tiny_backbone(), images(40)

    def rows(folder):
        from keras_transfer.features.pipelines import of_array

        cache = FeatureCache(folder, views=2, verbose=False)
        views = DrawnViews(augmentation(), 2, 0)
        return cache.rows(backbone, of_array(pixels, 8), "pooling", views=views, view=1)

    expected = rows(None).read(0, 40)
    view, calls = DrawnViews.view, []

    def interrupted(self, images, index, row):
        calls.append(row)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return view(self, images, index, row)

    monkeypatch.setattr(DrawnViews, "view", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path)
    computed.clear()
    for _ in range(2):
        np.testing.assert_allclose(rows(tmp_path).read(0, 40), expected, rtol=1e-5, atol=1e-6)
        assert sum(computed) == 24  # from row 16 on


@pytest.mark.parametrize("after", ["block3", "pooling"])
@pytest.mark.slow
def test_activations_of_one_view_are_those_of_the_turned_images(after):
    backbone, pixels, cache = tiny_backbone(), images(8), FeatureCache(verbose=False)
    data = dataset(8, shuffle=False)
    turned = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    for number, view in enumerate(turned):
        kept = cache.dataset(backbone, data, after=after, flips=Flips("flips"), view=number)
        expected = backbone.activations(np.ascontiguousarray(view), after=after)
        found = np.concatenate([x[f"after:{after}"] for x, _ in kept])
        np.testing.assert_allclose(found, expected[f"after:{after}"], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"view=4\. Expected 0 to 3"):
        cache.dataset(backbone, data, flips=Flips("flips"), view=4)
    with pytest.raises(ValueError, match=r"view=1\. Expected 0 to 0"):
        cache.dataset(backbone, data, view=1)
