"""Losses: smoothed labels change the cross-entropy of training alone; several classes an image."""

import functools

import keras
import numpy as np
import pytest
from conftest import SIZE, dataset, images, labels, tiny_backbone

from keras_transfer import TransferModel

SHARE = 0.4
SPARSE = keras.losses.SparseCategoricalCrossentropy
DENSE = keras.losses.CategoricalCrossentropy
BINARY = keras.losses.BinaryCrossentropy


def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


def one_hot(y):
    return np.eye(3, dtype="float32")[y]


# Classes, loss, last activation, labels as given, labels as Keras' own loss takes them, that loss.
CASES = {
    "binary": (2, None, "sigmoid", labels(6), labels(6)[:, None], BINARY),
    "sparse": (3, None, "softmax", labels(6, 3), one_hot(labels(6, 3)), DENSE),
    "column": (3, None, "softmax", labels(6, 3)[:, None], one_hot(labels(6, 3)), DENSE),
    "binary logits": (
        2,
        BINARY(from_logits=True),
        None,
        labels(6),
        labels(6)[:, None],
        functools.partial(BINARY, from_logits=True),
    ),
    "sparse logits": (
        3,
        SPARSE(from_logits=True),
        None,
        labels(6, 3),
        one_hot(labels(6, 3)),
        functools.partial(DENSE, from_logits=True),
    ),
    "sum": (
        3,
        SPARSE(reduction="sum"),
        "softmax",
        labels(6, 3),
        one_hot(labels(6, 3)),
        functools.partial(DENSE, reduction="sum"),
    ),
    "in a list": (3, ["sparse_categorical_crossentropy"], "softmax", labels(6, 3), None, DENSE),
    "one-hot": (3, DENSE(), "softmax", one_hot(labels(6, 3)), None, DENSE),
    "several": (3, "binary_crossentropy", "sigmoid", one_hot(labels(6, 3)), None, BINARY),
}


def model_of(classes=3, activation="softmax", share=SHARE, **kwargs) -> TransferModel:
    keras.utils.set_random_seed(4)
    units = 1 if classes == 2 else classes
    head = keras.layers.Dense(units, activation=activation, kernel_regularizer="l2")
    model = TransferModel(tiny_backbone(), classes, head=head, label_smoothing=share, **kwargs)
    model.build((None, SIZE, SIZE, 3))
    return model


@pytest.mark.parametrize("case", CASES)
def test_smoothing_is_that_of_keras_in_training_and_none_in_validation(case):
    classes, loss, activation, y, targets, kind = CASES[case]
    targets = one_hot(labels(6, 3)) if targets is None else targets
    model = model_of(classes, activation)
    model.compile(loss=loss, loss_weights=0.5 if not isinstance(loss, list) else [0.5])
    scores, y = model(images(6)), keras.ops.convert_to_tensor(y)
    penalty = float(sum(model.losses))
    assert penalty > 0
    for weights in (None, keras.ops.convert_to_tensor([1.0, 2.0, 0.0, 1.0, 3.0, 1.0])):
        for training, share in ((True, SHARE), (False, 0.0)):
            found = model.compute_loss(None, y, scores, weights, training=training)
            expected = kind(label_smoothing=share)(targets, scores, weights)
            assert float(found) == pytest.approx(0.5 * float(expected) + penalty, rel=1e-5)


class Penalty(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(10.0 + 0.0 * keras.ops.sum(inputs))
        return inputs


@pytest.mark.parametrize("policy", ["mixed_float16"])
def test_a_step_counts_added_losses_in_full_and_class_weights(policy):
    keras.config.set_dtype_policy(policy)
    head = [Penalty(dtype="float32"), keras.layers.Dense(3, "softmax", dtype="float32")]
    model = TransferModel(tiny_backbone(), 3, head=keras.Sequential(head), label_smoothing=SHARE)
    model.build((None, SIZE, SIZE, 3))
    model.compile()
    y, weight = labels(6, 3), {0: 1.0, 1: 2.0, 2: 3.0}
    weights = np.asarray([weight[int(label)] for label in y])
    expected = DENSE(label_smoothing=SHARE)(one_hot(y), model(images(6)), weights) + 10
    found = model.train_on_batch(images(6), y, class_weight=weight, return_dict=True)
    assert float(found["loss"]) == pytest.approx(float(expected), rel=1e-4)
    again = model.test_on_batch(images(6), y, return_dict=True)["loss"]
    assert float(again) == pytest.approx(
        10 + float(DENSE()(one_hot(y), model(images(6)))), rel=1e-4
    )


@pytest.mark.slow
def test_smoothing_changes_no_validation_loss_of_a_fit():
    losses = []
    for share in (0.0, SHARE):
        model = model_of(share=share)
        model.compile(keras.optimizers.SGD(0.0))
        data = dataset(8, classes=3)
        losses.append(model.fit(data, validation_data=data, verbose=0).history)
    plain, smooth = losses
    assert smooth["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-5)
    assert smooth["loss"] != pytest.approx(plain["loss"], rel=1e-3)
    assert smooth["accuracy"] == plain["accuracy"]


@pytest.mark.parametrize("loss", [None, SPARSE(from_logits=True)])
def test_a_file_holds_the_loss_that_was_given(loss, tmp_path):
    model = model_of(activation="softmax" if loss is None else None)
    model.compile(loss=loss)
    model.optimizer.build(model.trainable_variables)  # loading expects its variables
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.label_smoothing == SHARE
    if loss is None:
        assert loaded.loss == model.loss == "sparse_categorical_crossentropy"
    else:
        assert type(loaded.loss) is SPARSE
        assert loaded.loss.from_logits
    found, expected = (m.test_on_batch(images(6), labels(6, 3)) for m in (loaded, model))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_smoothing_that_cannot_be_meant_is_refused():
    for wrong in (1.0, -0.1, "much"):
        with pytest.raises(ValueError, match="`label_smoothing` must be a share from 0"):
            model_of(share=wrong)
    model = model_of()
    with pytest.raises(ValueError, match=r"smooth the labels again[\s\S]*Leave it out of the loss"):
        model.compile(loss=DENSE(label_smoothing=0.1))
    model.compile(loss=squared, metrics=[])
    found = model.train_on_batch(images(6), one_hot(labels(6, 3)))  # one-hot labels can be smoothed
    assert np.isfinite(found)
    with pytest.raises(ValueError, match=r"needs one-hot labels of shape \(batch, 3\)"):
        model.fit(images(6), labels(6, 3), verbose=0)


def several() -> np.ndarray:
    """Labels of images that are of none, one or two of three classes."""
    return np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 0]] * 2, "float32")


@pytest.mark.slow
def test_an_image_of_several_classes_trains_under_a_binary_loss():
    results = []
    for cache in ("auto", None):
        model = model_of(activation="sigmoid", share=0.0, feature_cache=cache)
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
        history = model.fit(images(8), several(), epochs=2, verbose=0, shuffle=False).history
        results.append(history)
    assert set(history) == {"loss", "accuracy"}
    np.testing.assert_allclose(results[0]["loss"], results[1]["loss"], rtol=1e-5)
    scores = model.predict(images(8), verbose=0)
    accuracy = model.evaluate(images(8), several(), verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(((scores > 0.5) == several()).mean())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (labels(8, 3), r"0 or 1 for each of the 3 classes[\s\S]*shape \(8,\)"),
        (several()[:, :2], r"labels of shape \(8, 2\)"),
        (several() * 2, r"labels of values from 0 to 2"),
    ],
)
def test_labels_that_do_not_fit_a_binary_loss_over_classes_are_refused(wrong, message):
    model = model_of(activation="sigmoid", share=0.0)
    model.compile(loss=BINARY())
    with pytest.raises(ValueError, match=message):
        model.fit(images(8), wrong, verbose=0)


def test_labels_of_several_classes_get_a_hint_at_the_loss_that_takes_them():
    model = model_of(share=0.0)
    model.compile()
    with pytest.raises(ValueError, match=r"argmax[\s\S]*several classes: .*binary_crossentropy"):
        model.fit(images(8), several(), verbose=0)
    with pytest.warns(UserWarning, match="ends in softmax, whose outputs have the sum 1"):
        model.compile(loss="binary_crossentropy")


@pytest.mark.slow
def test_labels_are_checked_under_a_loss_object_as_under_its_name():
    model = model_of(share=0.0)
    model.compile(loss=SPARSE())
    with pytest.raises(ValueError, match=r"Labels must be positions .* values from 0 to 3"):
        model.fit(images(8), labels(8, 4), verbose=0)
    model.compile(loss=SPARSE(ignore_class=3))  # of which only the loss knows what it means
    model.fit(images(8), labels(8, 4), verbose=0)
