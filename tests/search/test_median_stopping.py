import copy
import math
from types import SimpleNamespace

import keras
import pytest
from conftest import dataset, tiny_backbone

from keras_transfer import TransferModel
from keras_transfer.search.callbacks import MedianStopping
from keras_transfer.search.metrics import objective

LOSS, ACCURACY = objective("loss"), objective("accuracy")


def run(stopping: MedianStopping, curve) -> int:
    """Epochs that a trial with a curve runs."""
    model = SimpleNamespace(stop_training=False)
    stopping._model = model
    stopping.on_train_begin()
    for epoch, value in enumerate(curve):
        stopping.on_epoch_end(epoch, {stopping.objective.name: value})
        if model.stop_training:
            return epoch + 1
    return len(curve)


def test_a_trial_whose_best_is_worse_than_the_median_of_running_averages_is_stopped():
    others = [[0.9, 0.5], [0.8, 0.4], [0.7, 0.3]]  # their means at epoch 1: 0.7, 0.6, 0.5
    stopping = MedianStopping(LOSS, lambda: others, min_trials=3)
    assert run(stopping, [0.95, 0.61]) == 2
    assert stopping.stopped_epoch == 1
    assert stopping.median == pytest.approx(0.6)
    assert run(stopping, [0.95, 0.59]) == 2
    assert stopping.stopped_epoch == -1


def test_the_best_so_far_counts_not_the_last():
    stopping = MedianStopping(LOSS, lambda: [[0.5] * 4] * 5)
    assert run(stopping, [0.9, 0.4, 0.9, 0.9]) == 4
    assert run(stopping, [0.4, 0.9, 0.9, 0.9]) == 4
    assert run(stopping, [0.9, 0.9, 0.4, 0.4]) == 2


def test_more_is_better_where_the_objective_says_so():
    stopping = MedianStopping(ACCURACY, lambda: [[0.8] * 4] * 5)
    assert run(stopping, [0.7, 0.79, 0.9]) == 2
    assert run(stopping, [0.7, 0.8, 0.7]) == 3  # equal is not worse


def test_nothing_is_stopped_before_enough_trials_have_come_so_far():
    curves = [[0.1] * 4] * 4
    stopping = MedianStopping(LOSS, lambda: curves)
    assert run(stopping, [0.9] * 3) == 3
    curves.append([0.1, 0.1])  # the fifth has ended after two epochs
    assert run(stopping, [0.9] * 4) == 2
    assert run(MedianStopping(LOSS, lambda: curves, warmup_epochs=2), [0.9] * 4) == 4


def test_nothing_is_stopped_while_it_warms_up():
    curves = [[0.1] * 9] * 5
    for epochs in (0, 1, 4):
        stopping = MedianStopping(LOSS, lambda: curves, warmup_epochs=epochs)
        assert run(stopping, [0.9] * 9) == epochs + 1


def test_values_that_are_no_numbers_are_the_worst_and_count_in_no_average():
    nan, curves = math.nan, [[0.5, math.nan, 0.5]] * 5
    stopping = MedianStopping(LOSS, lambda: [*curves, [math.nan] * 3])
    assert run(stopping, [nan, nan, nan]) == 2
    assert run(stopping, [nan, 0.5, 0.5]) == 3
    assert stopping.median == 0.5


def test_what_the_others_came_to_is_asked_anew_for_each_trial_also_in_copies():
    curves = []
    stopping = copy.deepcopy(MedianStopping(LOSS, lambda: curves, min_trials=1))
    assert run(stopping, [0.9] * 3) == 3
    curves.append([0.1] * 3)
    assert run(stopping, [0.9] * 3) == 2


def test_numbers_out_of_range_and_objectives_that_are_not_logged_are_refused():
    with pytest.raises(ValueError, match="`min_trials` must be a whole number from 1"):
        MedianStopping(LOSS, list, min_trials=0)
    with pytest.raises(ValueError, match="`warmup_epochs` must be a whole number from 0"):
        MedianStopping(LOSS, list, warmup_epochs=-1)
    stopping = MedianStopping(LOSS, list)
    stopping.on_train_begin()
    with pytest.raises(ValueError, match=r"'val_loss' is not logged[.] Logged are: accuracy, loss"):
        stopping.on_epoch_end(0, {"loss": 1.0, "accuracy": 1.0})


@pytest.mark.slow
def test_it_ends_a_fit():
    model = TransferModel(tiny_backbone(), 2)
    model.compile(keras.optimizers.SGD(0.0))
    stopping = MedianStopping(LOSS, lambda: [[0.01] * 9] * 5)
    history = model.fit(
        dataset(16), validation_data=dataset(16), epochs=9, callbacks=[stopping], verbose=0
    )
    assert len(history.epoch) == 2
