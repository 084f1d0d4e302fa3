from types import SimpleNamespace

import keras
import keras_tuner
import pytest

from keras_transfer.search.callbacks import BestEpoch
from keras_transfer.search.metrics import objective


def run(values, **kwargs):
    """The callback after epochs with these validation losses, and how many of them ran."""
    weight = keras.Variable(0.0)
    callback = BestEpoch(objective("loss"), lambda: [weight], **kwargs)
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    epochs = 0
    for epoch, value in enumerate(values):
        weight.assign(epoch)
        callback.on_epoch_end(epoch, {"val_loss": value})
        epochs += 1
        if callback.model.stop_training:
            break
    callback.on_train_end()
    return callback, float(weight), epochs


def test_the_weights_of_the_best_epoch_are_put_back():
    callback, weight, epochs = run([0.5, 0.3, 0.4, float("nan"), 0.35])
    assert (callback.epoch, weight, epochs) == (1, 1.0, 5)
    assert callback.logs == {"val_loss": 0.3}


def test_a_training_that_stands_still_ends_after_its_patience():
    assert run([0.5, 0.3, 0.4, 0.4, 0.4, 0.2], patience=3)[2] == 5
    assert run([0.5, 0.4, 0.4, 0.3, 0.4, 0.4], patience=3)[2] == 6


def test_the_last_epoch_is_kept_where_that_is_asked_for():
    callback, weight, epochs = run([0.5, 0.3, 0.4, float("nan")], keep="last")
    assert (callback.epoch, weight, epochs) == (2, 2.0, 4)
    assert callback.logs == {"val_loss": 0.4}


def test_a_training_that_never_has_a_number_fails():
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="no finite number in any epoch"):
        run([float("nan"), float("inf")])


def test_an_objective_that_is_not_logged_is_named():
    callback = BestEpoch(objective("auc"), list)
    callback.set_model(SimpleNamespace(stop_training=False))
    with pytest.raises(keras_tuner.errors.FatalValueError, match="'val_auc' is not logged"):
        callback.on_epoch_end(0, {"val_loss": 1.0})
