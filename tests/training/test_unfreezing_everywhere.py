"""Unfreezing under every optimizer, precision, callback and way to run a model."""

import csv

import keras
import numpy as np
import pytest
from conftest import OPTIMIZERS, SIZE, dataset, identical, images, labels, snapshot, tiny_backbone

from keras_transfer import BlockUnfreezer, Phase, TransferModel

OPTIONS = {
    "clipnorm": {"clipnorm": 1.0},
    "weight_decay": {"weight_decay": 1e-3},
    "use_ema": {"use_ema": True},
    "accumulation": {"gradient_accumulation_steps": 2},
}


def sequential(backbone, optimizer, **kwargs):
    layers = [keras.Input((SIZE, SIZE, 3)), backbone, keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile(optimizer, "binary_crossentropy", **kwargs)
    return model


def functional(backbone, optimizer, **kwargs):
    inputs = keras.Input((SIZE, SIZE, 3))
    inner = keras.Model(inputs, backbone(inputs))
    outputs = keras.layers.Dense(1, activation="sigmoid")(inner(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, "binary_crossentropy", **kwargs)
    return model


class Subclassed(keras.Model):
    def __init__(self, backbone):
        super().__init__()
        self.parts = {"features": backbone}
        self.top = keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs):
        return self.top(self.parts["features"](inputs))


def subclassed(backbone, optimizer, **kwargs):
    model = Subclassed(backbone)
    model.compile(optimizer, "binary_crossentropy", **kwargs)
    return model


def kept(backbone, optimizer, **kwargs):
    model = TransferModel(backbone, 2, hidden=4, dropout=0)
    model.compile(optimizer, **kwargs)
    return model


KINDS = {f.__name__: f for f in (sequential, functional, subclassed, kept)}


def fit(model, *callbacks, epochs=2, **kwargs):
    data = dataset(16, shuffle=False)
    return model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs).history


def of_block(backbone, name):
    return next(layer for layer in backbone._chain if layer.name == name)


class AcrossTransition(keras.callbacks.Callback):
    """Compares what trained before with what it was, at the begin of the first epoch after."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.values = [(v, v.numpy().copy()) for v in self.inner().variables]

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.kept = all(np.array_equal(v.numpy(), value) for v, value in self.values)

    def inner(self):
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer).group("rest")


PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.slow
def test_laws_1_to_3_hold_for_each_optimizer(name):
    number = list(OPTIMIZERS).index(name)
    keras.config.set_dtype_policy(PRECISIONS[number % 3])
    kind = list(KINDS.values())[number % 4]
    check_laws(kind, OPTIMIZERS[name]())


@pytest.mark.parametrize(("kind", "options"), list(zip(KINDS, OPTIONS, strict=True)))
@pytest.mark.slow
def test_laws_1_to_3_hold_for_each_kind_of_model_and_option(kind, options):
    name = "adamw" if options == "weight_decay" else "adam"
    check_laws(KINDS[kind], OPTIMIZERS[name](**OPTIONS[options]))


def check_laws(kind, optimizer):
    backbone, across = tiny_backbone(), AcrossTransition()
    model = kind(backbone, optimizer)
    frozen, late = snapshot(of_block(backbone, "block3")), snapshot(of_block(backbone, "block4"))
    statistics = [w for w in backbone.weights if "moving_" in w.path]
    before = [w.numpy().copy() for w in statistics]
    history = fit(model, across, BlockUnfreezer({1: "block4"}))
    assert np.isfinite(history["loss"]).all()
    assert identical(frozen, of_block(backbone, "block3"))
    assert not identical(late, of_block(backbone, "block4"))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, statistics, strict=True))
    assert across.kept
    blockwise = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    batches = optimizer.gradient_accumulation_steps or 1  # for a step
    assert int(blockwise.group("rest").iterations) * batches == 4
    assert int(blockwise.group("block4").iterations) * batches == 2


@pytest.mark.traced
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("sequential", {"jit_compile": True}),
        ("kept", {"steps_per_execution": 2}),
    ],
    ids=["jit", "several steps"],
)
def test_it_gives_the_same_weights_however_the_model_is_run(kind, how):
    results = []
    for options in ({}, how):
        keras.utils.set_random_seed(2)
        model = KINDS[kind](tiny_backbone(), keras.optimizers.Adam(1e-3), **options)
        fit(model, BlockUnfreezer({1: "block4"}, lr_decay=0.5), class_weight={0: 1.0, 1: 2.0})
        results.append(snapshot(model))
    for plain, other in zip(*results, strict=True):
        np.testing.assert_allclose(plain, other, rtol=2e-4, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reverse"), [("sequential", True), ("kept", False)])
def test_the_callbacks_that_people_use_work_in_any_order(kind, reverse, tmp_path):
    model = KINDS[kind](tiny_backbone(), keras.optimizers.Adam(1e-3))
    model.build((None, SIZE, SIZE, 3)) if not model.built else None
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        keras.callbacks.TensorBoard(tmp_path / "board"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.EarlyStopping("val_loss", patience=50),
        BlockUnfreezer([Phase("block4", at_epoch=1), Phase("block3", at_epoch=2)], lr_decay=0.5),
    ]
    valid = dataset(8, shuffle=False)
    history = fit(
        model, *(callbacks[::-1] if reverse else callbacks), epochs=3, validation_data=valid
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["0", "1", "2"]
    assert float(rows[2]["learning_rate/block3"]) == pytest.approx(
        history["learning_rate"][2] / 4,
        rel=0.6,  # ReduceLROnPlateau may come between
    )
    assert keras.saving.load_model(tmp_path / "best.keras").optimizer.phase >= 0
    assert list((tmp_path / "board").rglob("events*"))


def test_what_weight_decay_leaves_out_is_left_out_of_late_blocks_too():
    optimizer = keras.optimizers.AdamW(1e-9, weight_decay=1e5)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    backbone = tiny_backbone()
    block = of_block(backbone, "block4")
    before = {w.path: w.numpy().copy() for w in block.weights}
    fit(sequential(backbone, optimizer), BlockUnfreezer({1: "block4"}))
    moved = {w.name: not np.allclose(before[w.path], w.numpy(), atol=1e-7) for w in block.weights}
    assert moved["kernel"]
    assert not any(moved[name] for name in ("bias", "gamma", "beta"))


@pytest.mark.parametrize("kind", ["kept"])
@pytest.mark.slow
def test_the_scale_of_the_loss_is_saved_with_an_unfrozen_model(kind, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = KINDS[kind](tiny_backbone(), keras.optimizers.Adam(1e-3))
    fit(model, BlockUnfreezer({1: "block4"}), epochs=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.step_counter) == int(model.optimizer.step_counter) == 6


def test_a_schedule_of_rates_stays_under_the_scales_of_blocks():
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1e-2, 1e-3])
    model = sequential(tiny_backbone(), keras.optimizers.SGD(rates))
    history = fit(model, BlockUnfreezer({1: "block4"}, lr_decay=0.1))
    np.testing.assert_allclose(history["learning_rate/block4"], [0, 1e-4], rtol=1e-5)


@pytest.mark.slow
def test_arrays_and_labels_of_any_shape_go_through_phases():
    model = kept(tiny_backbone(), keras.optimizers.Adam(1e-3))
    callbacks = [BlockUnfreezer({1: "block4"})]
    history = model.fit(
        images(16), labels(16)[:, None], epochs=2, batch_size=8, verbose=0, callbacks=callbacks
    )
    assert history.history["phase"] == [0, 1]
