"""CosineRate: the rate rises, falls to 0 by the last epoch, and that is the last that fits."""

import math
import time

import keras
import numpy as np
import pytest

from keras_transfer.search.cosine import CosineRate


class Rates(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.of_epochs: list[list[float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.of_epochs.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.of_epochs[-1].append(float(self.model.optimizer.learning_rate))


def fit(cosine: CosineRate, *others, epochs: int = 4) -> list[list[float]]:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    rates = Rates()
    x = np.ones((20, 2))
    callbacks = [cosine, rates, *others]
    model.fit(x, x[:, :1], batch_size=1, epochs=epochs, verbose=0, callbacks=callbacks)
    return rates.of_epochs


def test_the_rate_rises_for_half_an_epoch_and_falls_to_nothing():
    epochs = fit(CosineRate(0.1, 4))
    steps = np.concatenate(epochs)
    assert len(steps) == 80
    assert 0 < steps[0] < 0.02
    assert steps.argmax() in (9, 10)
    assert 0.09 < steps.max() <= 0.1
    assert np.all(np.diff(steps[11:]) < 0)
    assert steps[-1] < 1e-4
    assert steps[40] == pytest.approx(0.05, rel=0.05)


def test_earlier_epochs_keep_their_rate():
    first, second, *later = fit(CosineRate(0.1, 4, first=2))
    assert {*first, *second} == {0.5}
    assert max(later[0]) < 0.1
    assert later[-1][-1] < 1e-3


def test_it_ends_with_the_last_epoch_that_fits_at_a_rate_of_nothing():
    """Of 100 epochs of 40 ms and more, not all fit into two seconds."""

    class Slow(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            time.sleep(0.002)

    ends = time.monotonic() + 2
    cosine = CosineRate(0.1, 100, seconds_left=lambda: ends - time.monotonic())
    began = time.monotonic()
    epochs = fit(cosine, Slow(), epochs=100)
    assert time.monotonic() - began < 3
    assert 1 < len(epochs) == cosine.epochs < 100
    assert epochs[-1][-1] < 0.02


def test_without_a_limit_no_clock_is_asked(monkeypatch):
    assert fit(CosineRate(0.1, 3), epochs=3) == fit(
        CosineRate(0.1, 3, seconds_left=lambda: math.inf), epochs=3
    )
