import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images, labels, tiny_backbone

from keras_transfer import FeatureCache, Flips, TransferModel
from keras_transfer.data.augmentation import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_views_are_so_many_different_images(kind):
    flips, pixels = Flips(kind), images(1, 8)
    views = {np.asarray(flips.view(pixels, index)).tobytes() for index in range(flips.views)}
    assert len(views) == KINDS[kind]


def test_the_eight_views_are_the_flips_and_quarter_turns():
    pixels = images(1, 8)
    views = {np.asarray(Flips("dihedral").view(pixels, index)).tobytes() for index in range(8)}
    turned = [np.rot90(pixels, k, axes=(1, 2)) for k in range(4)]
    expected = {a.tobytes() for a in itertools.chain(turned, (t[:, :, ::-1] for t in turned))}
    assert views == expected


def test_training_draws_a_view_for_each_image_and_prediction_none():
    flips, pixels = Flips("mirror", seed=1), images(64, 8)
    drawn = np.asarray(flips(pixels, training=True))
    mirrored = pixels[:, :, ::-1]
    same = (drawn == pixels).all(axis=(1, 2, 3))
    assert ((drawn == mirrored).all(axis=(1, 2, 3)) | same).all()
    assert 16 < same.sum() < 48
    assert np.array_equal(flips(pixels), pixels)


@pytest.mark.slow
def test_kept_views_are_drawn_anew_in_each_epoch_and_belong_to_their_images():
    backbone, pixels = tiny_backbone(), images(32)
    data = tf.data.Dataset.from_tensor_slices((pixels, np.arange(32))).batch(8)
    seen: list[np.ndarray] = []

    class Head(keras.layers.Layer):
        def call(self, features):
            tf.py_function(lambda x: seen.append(x.numpy()), [features], [])
            return features[:, :1]

    model = TransferModel(
        backbone,
        2,
        head=Head(dtype="float32"),
        augmentation=Flips("mirror"),
    )
    model.compile("sgd", "mse", metrics=[], run_eagerly=True)
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(data, epochs=2, verbose=0)
    epochs = np.concatenate(seen).reshape(2, 32, -1)
    views = [backbone(pixels).numpy(), backbone(np.ascontiguousarray(pixels[:, :, ::-1])).numpy()]
    distance = np.array([[np.abs(epoch - view).max(-1) for view in views] for epoch in epochs])
    assert distance.min(axis=1).max() < 1e-5
    which = distance.argmin(axis=1)
    assert 0 < which[0].sum() < 32
    assert (which[0] != which[1]).any()


@pytest.mark.slow
def test_the_backbone_runs_once_for_each_view_over_several_fits():
    cache, backbone = FeatureCache(), tiny_backbone()
    data = dataset(16)
    for _ in range(2):
        model = TransferModel(backbone, 2, augmentation=Flips("flips"), feature_cache=cache)
        model.compile()
        model.fit(data, epochs=2, verbose=0)
    assert len(cache) == 4


@pytest.mark.slow
def test_the_same_seed_draws_the_same_views():
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = TransferModel(tiny_backbone(), 2, augmentation=Flips())
        model.compile()
        losses.append(model.fit(dataset(16), epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_views_of_arrays_are_kept_too():
    cache = FeatureCache()
    model = TransferModel(tiny_backbone(), 2, augmentation=Flips("flips"), feature_cache=cache)
    model.compile()
    model.fit(images(8), labels(8), verbose=2)
    assert len(cache) == 4


def test_quarter_turns_of_oblong_images_and_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=r"must be square\. Received: images of 4 x 6"):
        Flips("dihedral")(np.zeros((1, 4, 6, 3)), training=True)
    with pytest.raises(ValueError, match=r"Unknown kind 'turns'\. Expected one of 'mirror'"):
        Flips("turns")


@pytest.mark.slow
def test_it_is_saved_with_the_model(tmp_path):
    model = TransferModel(tiny_backbone(), 2, augmentation=Flips("flips", seed=5))
    model.build((None, 8, 8, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.augmentation.kind, loaded.augmentation.seed) == ("flips", 5)
