"""Labels that a model would train on without a word, and wrongly, are refused by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, images, labels, tiny_backbone

from keras_transfer import FrozenBackbone, TransferModel

ONE_HOT = np.eye(3)[labels(8, 3)]
BAD = {
    "minus one": (2, labels(8) * 2 - 1, "values from -1 to 1"),
    "beyond two": (2, labels(8, 3), "values from 0 to 2"),
    "beyond three": (3, labels(8, 5), "values from 0 to [34]"),
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


Y, Y3, W = labels(12), labels(12, 3), np.linspace(0.5, 2, 12)
FORMS = {
    "one class": (2, Y, {"class_weight": {0: 3.0}}),
    "numpy keys": (3, Y3, {"class_weight": {np.int64(2): np.float32(3), np.int64(0): 2}}),
    "bool column": (2, Y.astype(bool)[:, None], {"class_weight": {1: 3.0}}),
    "one-hot": (3, np.eye(3)[Y3], {"class_weight": {1: 3.0}}),
    "tensor, validation": (
        2,
        tf.constant(Y, "float32"),
        {"class_weight": {0: 3.0, 1: 0.5}, "validation_data": (images(4, 8), labels(4))},
    ),
    "split": (2, Y, {"class_weight": {0: 3.0}, "validation_split": 0.25}),
    "sample weights": (2, Y, {"sample_weight": W[:, None], "validation_split": 0.25}),
    "list of one": (2, [Y], {"sample_weight": W}),
    "bool weights": (3, np.eye(3)[Y3], {"sample_weight": W > 1}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.slow
def test_labels_and_weights_mean_on_kept_arrays_what_they_mean_to_keras(name):
    classes, y, options = FORMS[name]
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3)])
    backbone = FrozenBackbone(network, preprocessing="tf")
    head = keras.layers.Dense(1, "sigmoid") if classes == 2 else keras.layers.Dense(3, "softmax")
    loss = "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"
    loss = "categorical_crossentropy" if np.shape(y)[-1] == 3 else loss
    model = TransferModel(backbone, classes, head=head)
    plain = keras.Sequential([keras.Input((8, 8, 3)), backbone, head])
    model.build((None, 8, 8, 3))
    before, found = head.get_weights(), []
    for one in (plain, model):
        head.set_weights(before)
        one.compile("sgd", loss, metrics=[])
        fit = one.fit(images(12, 8), y, batch_size=4, shuffle=False, verbose=0, **options)
        found.append({key: values[-1] for key, values in fit.history.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.slow
def test_class_weights_of_a_dataset_need_not_be_of_all_classes():
    data = tf.data.Dataset.from_tensor_slices((images(12, 8), Y)).batch(12)
    losses = []
    for weights in ({0: 3.0}, {0: 3.0, 1: 1.0}):
        keras.utils.set_random_seed(0)
        history = compiled().fit(data, class_weight=weights, verbose=0).history
        losses += history["loss"]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "weights", ["balanced", [1.0, 2.0], {"0": 1.0}, {0: "much"}, {0.5: 1}, {2: 1}]
)
def test_class_weights_that_are_no_dict_of_positions_are_refused(weights):
    with pytest.raises(ValueError, match=r"`class_weight` must be a dict.*positions are 0 for '0'"):
        compiled().fit(images(8), labels(8), class_weight=weights, verbose=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kind": labels(8)}, r"a dict with the keys 'kind'.*labels\['kind'\]"),
        (labels(8).tolist(), r"a list.*numpy\.array"),
        (1, r"a int"),
    ],
)
def test_labels_that_are_no_array_are_refused(bad, message):
    model = compiled()
    with pytest.raises(ValueError, match=message):
        model.fit(images(8), bad, verbose=0)
    if isinstance(bad, dict):
        data = tf.data.Dataset.from_tensor_slices((images(8), bad)).batch(4)
        with pytest.raises(ValueError, match=message):
            model.fit(data, verbose=0)


def test_a_split_that_is_not_there_is_told():
    model = compiled()
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=r"Received: None\. If it is a split.*test_split"):
            call(None, verbose=0)


def unknown_rank(count=8):
    """Images and labels as tf.data has them behind Python code that says no shapes."""
    data = tf.data.Dataset.from_tensor_slices((images(count), labels(count))).batch(4)
    return data.map(_unchanged)


@tf.autograph.experimental.do_not_convert
def _unchanged(x, y):
    return tf.py_function(lambda *parts: parts, (x, y), (tf.uint8, tf.int32))


@pytest.mark.parametrize("cached", [False, True])
def test_a_dataset_of_unknown_rank_trains_or_is_told_to_say_its_shape(cached):
    data, model = unknown_rank(), compiled()
    if cached:
        model.fit(data.cache(), verbose=0)
        return
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=r"unknown rank.*tf\.ensure_shape"):
            call(data, verbose=0)


def test_validation_labels_are_checked_too():
    with pytest.raises(ValueError, match="values from 1 to 2"):
        compiled().fit(images(8), labels(8), validation_data=(images(8), labels(8) + 1), verbose=0)


@pytest.mark.parametrize("data", [images(8), dataset(8).map(lambda x, y: x)])
def test_missing_labels_are_told(data):
    with pytest.raises(ValueError, match="no labels"):
        compiled().fit(data, verbose=0)


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "float32"])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.slow
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
