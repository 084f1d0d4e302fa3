import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images, tiny_backbone

from keras_transfer import AveragedViews, Flips, TransferModel


def trained(classes=2, flips="flips", **kwargs):
    keras.utils.set_random_seed(2)
    augmentation = Flips(flips) if flips else None
    model = TransferModel(tiny_backbone(), classes, hidden=4, augmentation=augmentation, **kwargs)
    model.build((None, 16, 16, 3))
    return model


@pytest.fixture(scope="module")
def pixels():
    return images(6, 16)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.slow
def test_it_gives_the_mean_of_what_the_model_gives_for_each_view(pixels, classes):
    model = trained(classes)
    views = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    of_each = [model.predict(np.ascontiguousarray(view), verbose=0) for view in views]
    averaged = AveragedViews.of(model)
    assert averaged.class_names == model.class_names
    found = averaged.predict(pixels, verbose=0)
    np.testing.assert_allclose(found, np.mean(of_each, axis=0), atol=1e-6)
    turned = averaged.predict(np.ascontiguousarray(views[1]), verbose=0)
    np.testing.assert_allclose(turned, found, atol=1e-6)
    mirror = AveragedViews.of(model, Flips("mirror")).predict(pixels, verbose=0)
    np.testing.assert_allclose(mirror, np.mean(of_each[:2], axis=0), atol=1e-6)
    assert np.abs(found - of_each[0]).max() > 1e-4


@pytest.mark.slow
def test_it_is_saved_evaluated_and_exported_with_the_average_inside(pixels, tmp_path):
    averaged = AveragedViews.of(trained(flips="mirror"))
    expected = averaged.predict(pixels, verbose=0)
    averaged.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is AveragedViews
    np.testing.assert_allclose(loaded.predict(pixels, verbose=0), expected, atol=1e-6)
    data = tf.data.Dataset.from_tensor_slices((pixels, (expected[:, 0] > 0.5).astype(int)))
    assert loaded.evaluate(data.batch(3), verbose=0, return_dict=True)["accuracy"] == 1
    loaded.export(tmp_path / "served")  # raw pixels in, the mean out
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(pixels), expected, atol=1e-5)


def test_kept_activations_are_classified_as_they_come(pixels):
    model = trained()
    kept = model.backbone.activations(pixels, after="pooling")
    averaged = AveragedViews.of(model)
    np.testing.assert_array_equal(averaged(kept), model(kept))


@pytest.mark.slow
def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match=r"must be a Flips.*Received: None"):
        AveragedViews.of(trained(flips=None))
    with pytest.raises(ValueError, match="is not built, so it has nothing to average"):
        AveragedViews.of(TransferModel(tiny_backbone(), 2))
    logits = trained(head=keras.layers.Dense(1))
    with pytest.raises(ValueError, match="gives no probabilities"):
        AveragedViews.of(logits)
    with pytest.raises(RuntimeError, match="is not trained itself"):
        AveragedViews.of(trained()).fit(dataset(8))
