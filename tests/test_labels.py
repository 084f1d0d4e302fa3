"""Labels that a model would train on without a word, and wrongly, are refused by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images, labels, tiny_backbone

from keras_transfer import TransferModel

ONE_HOT = np.eye(3)[labels(8, 3)]
BAD = {
    "minus one": (2, labels(8) * 2 - 1, "values from -1 to 1"),
    "beyond two": (2, labels(8, 3), "values from 0 to 2"),
    "beyond three": (3, labels(8, 5), "values from 0 to 4"),
    "fractions": (3, labels(8, 3) / 2, "not all whole"),
    "not a number": (2, np.where(labels(8), np.nan, 0), "values from nan"),
    "one-hot": (3, ONE_HOT, r"shape \(.*, 3\).*argmax"),
    "text": (2, np.array(["a", "b"] * 4), "type string"),
}


def compiled(classes=2, **kwargs):
    model = TransferModel(tiny_backbone(), classes, hidden=4)
    model.compile(**kwargs)
    return model


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("as_dataset", [False, True])
def test_labels_that_are_no_positions_in_the_classes_are_refused(name, as_dataset):
    classes, bad, message = BAD[name]
    model, data = compiled(classes), (images(8), bad)
    data = (tf.data.Dataset.from_tensor_slices(data).batch(4),) if as_dataset else data
    with pytest.raises(ValueError, match=message):
        model.fit(*data, verbose=0)


def test_validation_labels_are_checked_too():
    with pytest.raises(ValueError, match="values from 1 to 2"):
        compiled().fit(images(8), labels(8), validation_data=(images(8), labels(8) + 1), verbose=0)


@pytest.mark.parametrize("data", [images(8), dataset(8).map(lambda x, y: x)])
def test_missing_labels_are_told(data):
    with pytest.raises(ValueError, match="no labels"):
        compiled().fit(data, verbose=0)


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "float32"])
@pytest.mark.parametrize("column", [False, True])
def test_positions_of_any_type_and_smoothed_ones_are_taken(kind, column):
    y = labels(8).astype(kind)
    y = y * 0.9 + 0.05 if kind == "float32" else y
    compiled().fit(images(8), y[:, None] if column else y, verbose=0)


def test_another_loss_takes_what_it_takes():
    compiled(3, loss="categorical_crossentropy").fit(images(8), ONE_HOT, verbose=0)


def test_a_head_without_probabilities_needs_a_loss_of_its_own():
    model = TransferModel(tiny_backbone(), 2, head=keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="no activation"):
        model.compile()
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))


@pytest.mark.parametrize("shape", [(24, 24, 3), (2, 24, 24, 1), (24, 24)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"batches of images of shape \(None, None, None, 3\)"):
        tiny_backbone()(np.zeros(shape, "uint8"))
