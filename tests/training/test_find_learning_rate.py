"""find_learning_rate suggests a rate that trains, and leaves model and optimizer as they were."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, identical, images, labels, snapshot, tiny_backbone
from PIL import Image

from keras_transfer import BlockUnfreezer, FeatureCache, Phase, TransferModel, find_learning_rate
from keras_transfer.training.find_learning_rate import RateFinding, _smooth, _steepest


def plain(optimizer="adam", **compiled) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            tiny_backbone(),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1, activation="sigmoid", dtype="float32"),
        ]
    )
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], **compiled)
    return model


def transfer(optimizer="adam", **kwargs) -> TransferModel:
    model = TransferModel(tiny_backbone(), hidden=6, dropout=0.5, **kwargs)
    model.compile(optimizer)
    return model


def shuffled() -> tf.data.Dataset:
    """Images whose order goes on from epoch to epoch, as a user's."""
    return dataset(16).prefetch(1)


def swept(model, *data, **kwargs):
    return find_learning_rate(model, *data, **{"lowest": 1e-5, "steps": 20, **kwargs})


def dense(optimizer="sgd", **compiled) -> keras.Model:
    """A linear model, for what does not depend on backbones."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **compiled)
    return model


X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = X @ np.ones((4, 1), "float32")


def weights_after_fit(make, *, sweep: bool, before: int = 0, callbacks=()) -> list[np.ndarray]:
    keras.utils.set_random_seed(3)
    model, data = make(), dataset(8, shuffle=False)
    if before:
        model.fit(data, epochs=before, verbose=0, callbacks=list(callbacks))
    if sweep:
        # A sweep of so few steps may find nothing, and must leave nothing either way.
        with contextlib.suppress(ValueError):
            swept(model, data, lowest=1e-3)
    model.fit(data, epochs=before + 2, initial_epoch=before, verbose=0, callbacks=list(callbacks))
    return [*snapshot(model), *(variable.numpy() for variable in model.optimizer.variables)]


def assert_same_fit(make, **kwargs) -> None:
    without = weights_after_fit(make, sweep=False, **kwargs)
    after = weights_after_fit(make, sweep=True, **kwargs)
    assert len(without) == len(after)
    assert all(np.array_equal(a, b) for a, b in zip(without, after, strict=True))


@pytest.mark.slow
def test_a_later_fit_on_the_same_batches_gives_the_same_weights():
    assert_same_fit(lambda: transfer(keras.optimizers.Adam(1e-3, use_ema=True)))


@pytest.mark.slow
def test_training_with_phases_goes_on_after_a_sweep_as_without():
    keras.config.set_dtype_policy("mixed_float16")
    assert isinstance(transfer().optimizer, keras.optimizers.LossScaleOptimizer)
    schedule = [BlockUnfreezer({1: "block4"}, learning_rate=1e-4)]
    assert_same_fit(transfer, before=2, callbacks=schedule)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.backbone = tiny_backbone()
        self.top = keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs):
        return self.top(self.backbone(inputs))


@pytest.mark.filterwarnings("ignore:`build:UserWarning")  # Keras says that weights are missing
@pytest.mark.filterwarnings("ignore:Model 'subclassed:UserWarning")
@pytest.mark.slow
def test_a_model_that_only_calls_itself_built_is_left_alike():
    def make():
        model = Subclassed()
        model.build((None, SIZE, SIZE, 3))
        model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
        return model

    assert_same_fit(make)


@pytest.mark.slow
def test_a_sweep_does_not_wait_for_a_warm_up():
    rates = []

    class Rates(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            if "dense" in variable.name:
                tf.py_function(lambda rate: rates.append(float(rate)), [learning_rate], [])
            super().update_step(gradient, variable, learning_rate)

    model = plain(Rates(1e-3))
    phase = Phase("block4", at_epoch=0, warmup=10_000)
    model.fit(dataset(8), epochs=1, verbose=0, callbacks=[BlockUnfreezer([phase])])
    before = len(rates)
    finding = swept(model, dataset(16))
    tried = rates[before:][:: len(rates[before:]) // len(finding.rates)][: len(finding.rates)]
    np.testing.assert_allclose(tried, finding.rates, rtol=1e-4)


def state(model: keras.Model) -> dict[str, object]:
    """All that the sweep promises to leave alone."""
    return {
        "variables": [v.numpy() for v in (*model.variables, *model.optimizer.variables)],
        "metrics": [v.numpy() for v in model.metrics_variables],
        "objects": [
            id(model.optimizer),
            id(getattr(model, "history", None)),
        ],
        "flags": [model.stop_training, model.steps_per_execution],
        "trainable": [layer.trainable for layer in model._flatten_layers()],
    }


def assert_same_state(before: dict, after: dict) -> None:
    new_metrics = after["metrics"][len(before["metrics"]) :]  # those that first saw a batch
    after = {**after, "metrics": after["metrics"][: len(before["metrics"])]}
    assert not any(map(np.any, new_metrics))
    for key, values in before.items():
        for a, b in zip(values, after[key], strict=True):
            assert np.array_equal(a, b), key


@pytest.mark.parametrize("interrupted", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nothing_is_left_of_a_sweep(interrupted):
    class Interrupted(keras.losses.BinaryCrossentropy):
        moved = False

        def call(self, y_true, y_pred):
            self.moved = self.moved or not identical(weights, model)
            if interrupted and self.moved:
                raise KeyboardInterrupt
            return super().call(y_true, y_pred)

    model = plain(keras.optimizers.Adam(3e-4))
    weights, loss = snapshot(model), Interrupted()
    model.compile(keras.optimizers.Adam(3e-4), loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    before = state(model)
    assert any(variable.name == "seed_generator_state" for variable in model.variables)
    with pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext():
        swept(model, images(8), labels(8))
    assert loss.moved  # or this test would promise nothing
    assert_same_state(before, state(model))
    assert float(model.optimizer.learning_rate) == pytest.approx(3e-4)


@pytest.mark.slow
def test_a_sweep_on_a_shared_cache_computes_the_features_of_the_fit():
    cache, data = FeatureCache(verbose=False), shuffled()
    model = transfer(feature_cache=cache)
    swept(model, data)
    (entry,) = cache._entries.values()
    model.fit(data, verbose=0)
    assert next(iter(cache._entries.values())) is entry
    assert len(cache._entries) == 1


@pytest.mark.slow
@pytest.mark.traced
def test_rates_rise_exponentially_and_losses_are_those_of_single_batches():
    model = dense()
    finding = swept(model, X, Y, batch_size=32, lowest=1e-5, highest=0.1, steps=60, diverged=1e9)
    assert finding.rates == pytest.approx(np.geomspace(1e-5, 0.1, 60))  # of data of two batches
    assert len(finding.losses) == len(finding.batch_losses) == 60
    assert finding.suggestion in finding.rates
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    losses = swept(model, data, lowest=1e-6, steps=40).batch_losses
    for loss, batch in zip(losses, data, strict=False):  # at rates that hardly move the weights
        assert loss == pytest.approx(model.evaluate(*batch, verbose=0), rel=1e-3)
    four = dense(steps_per_execution=4)
    four.set_weights(model.get_weights())
    assert swept(four, data, lowest=1e-6, steps=40).batch_losses == losses


@pytest.mark.traced
@pytest.mark.slow
def test_the_sweep_stops_where_the_loss_diverges():
    finding = find_learning_rate(dense(), X, Y, highest=1e6, steps=150)
    assert len(finding.rates) < 120
    assert finding.losses[-1] > 4 * min(finding.losses)
    assert 0.001 < finding.suggestion < 1  # by theory SGD diverges here at rates of about 1
    assert np.isfinite(finding.losses).all()


@pytest.mark.slow
@pytest.mark.traced
@pytest.mark.parametrize("optimizer", ["adam"])
def test_the_suggestion_trains_better_than_a_tenth_and_a_hundred_times_of_it(optimizer):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(256, 20)).astype("float32")
    y = (x @ generator.normal(size=20) + 2 * generator.normal(size=256) > 0).astype("int32")

    def model():
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(1, "sigmoid")]
        model = keras.Sequential([keras.Input((20,)), *layers])
        model.compile(optimizer, "binary_crossentropy")
        return model

    def loss_at(rate):
        trained = model()
        trained.optimizer.learning_rate = rate
        return trained.fit(x, y, epochs=5, verbose=0).history["loss"][-1]

    rate = find_learning_rate(model(), x, y).suggestion
    assert loss_at(rate) < min(loss_at(rate / 10), loss_at(rate * 100))


def test_smoothing_is_corrected_for_its_start():
    assert _smooth([2.0] * 5, 10) == pytest.approx([2.0] * 5)
    assert _smooth([1.0, 3.0], 2) == pytest.approx([1.0, (0.5 + 3.0) / 1.5])


def test_the_steepest_place_lies_in_the_fall_and_noise_is_no_fall():
    falling = [1.0] * 40 + list(np.linspace(1, 0.2, 20)) + [0.2] * 10 + [1.0] * 20
    assert 40 <= _steepest(falling, _smooth(falling, 10), 10) <= 60
    draws = [list(np.random.default_rng(seed).normal(1, 0.3, 100)) for seed in range(100)]
    taken_for_a_fall = [_steepest(noise, _smooth(noise, 10), 10) is not None for noise in draws]
    assert sum(taken_for_a_fall) <= 2
    assert _steepest([1.0] * 100, [1.0] * 100, 10) is None


@pytest.mark.slow
def test_a_sweep_that_suggests_nothing_is_an_error():
    model = dense()
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"did not fall between learning rates 1e-09 and 1e-08"):
        swept(model, X, Y, lowest=1e-9, highest=1e-8)
    with pytest.raises(ValueError, match=r"first batch.* was nan[\s\S]*Check the data"):
        swept(model, X * np.nan, Y)
    assert identical(before, model)


def test_what_cannot_be_swept_is_refused():
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.9)
    with pytest.raises(ValueError, match=r"learning rate schedule.*Compile it with a number"):
        swept(dense(keras.optimizers.Adam(schedule)), X, Y)
    with pytest.raises(ValueError, match=r"no optimizer.*compile"):
        swept(TransferModel(tiny_backbone()), shuffled())
    batches = ((X, Y) for _ in range(100))
    with pytest.raises(TypeError, match=r"generator, whose batches the sweep would use up"):
        swept(dense(), batches)


@pytest.mark.slow
def test_an_unbuilt_model_is_built_for_a_py_dataset():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return X, Y

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert 1e-5 < swept(model, Batches(), steps=40).suggestion < 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lowest": 0}, "`lowest` and `highest`"),
        ({"lowest": 1, "highest": 0.1}, "`lowest` and `highest`"),
        ({"steps": 5}, "`steps`"),
        ({"steps": 50.0}, "`steps`"),
        ({"diverged": 1}, "`diverged`"),
    ],
)
def test_impossible_numbers_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        find_learning_rate(dense(), X, Y, **wrong)


def test_a_finding_can_be_saved_as_a_picture(tmp_path):
    finding = RateFinding(1e-3, (1e-4, 1e-3, 1e-2), (1.0, 0.5, 0.4), (1.0, 0.4, 0.3))
    assert "1.0e-03" in finding.figure().texts[0].get_text()
    with Image.open(finding.save(tmp_path / "rates.png")) as picture:
        assert picture.width > 500
