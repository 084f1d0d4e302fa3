import copy

import keras
import pytest
from conftest import SIZE, dataset, identical, snapshot, tiny_backbone

from keras_transfer import BlockUnfreezer, FrozenBackbone, TransferModel
from keras_transfer.training.block_unfreezer import Transition
from keras_transfer.training.schedule import phases


def compiled(backbone=None, optimizer=None, size=SIZE) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((size, size, 3)), backbone or tiny_backbone(), keras.layers.Dense(1)]
    )
    model.compile(optimizer or keras.optimizers.Adam(1e-3), "mse")
    return model


def frozen(backbone: FrozenBackbone) -> list[bool]:
    return [block.frozen for block in backbone.blocks]


class FrozenAtEachEpoch(keras.callbacks.Callback):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.seen, self.rates = backbone, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(sum(frozen(self.backbone)))
        self.rates.append(round(float(self.model.optimizer.learning_rate), 9))


@pytest.mark.slow
def test_blocks_unfreeze_at_their_epochs_and_the_learning_rate_changes_with_the_first():
    backbone = tiny_backbone()
    model = compiled(backbone)
    watch = FrozenAtEachEpoch(backbone)
    unfreezer = BlockUnfreezer({1: "block4", 3: ["block[23]"]}, learning_rate=1e-5)
    model.fit(dataset(8), epochs=4, verbose=0, callbacks=[unfreezer, watch])
    assert watch.seen == [4, 3, 3, 1]
    assert watch.rates == [1e-3, 1e-5, 1e-5, 1e-5]
    assert unfreezer.transitions == [
        Transition(1, ("block4",), 1e-5),
        Transition(3, ("block2", "block3"), 1e-5),
    ]


def test_without_a_learning_rate_that_of_the_optimizer_stays():
    model = compiled()
    model.fit(dataset(8), epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)


@pytest.mark.traced
@pytest.mark.slow
def test_the_train_step_of_a_plain_model_is_traced_once_a_phase(monkeypatch):
    step, traced = keras.Model.train_step, []
    monkeypatch.setattr(
        keras.Model, "train_step", lambda self, data: (traced.append(1), step(self, data))[1]
    )
    compiled().fit(dataset(24), epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
    assert len(traced) == 2


@pytest.mark.slow
def test_each_transition_is_told_once(capsys):
    model = compiled()
    callbacks = [BlockUnfreezer({1: "block4"}, learning_rate=1e-5)]
    model.fit(dataset(8), epochs=3, verbose=2, callbacks=callbacks)
    line = "Epoch 2: block4 unfrozen (as scheduled); 761 parameters train at learning rate 1e-05."
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.parametrize("make", [compiled, lambda b: transfer_model(b)])
@pytest.mark.slow
def test_a_second_fit_begins_frozen_again_with_the_compiled_learning_rate(make):
    backbone = tiny_backbone()
    model = make(backbone)
    watch, unfreezer = FrozenAtEachEpoch(backbone), BlockUnfreezer({1: 1}, learning_rate=1e-4)
    for _ in range(2):
        model.fit(dataset(8), epochs=2, verbose=0, callbacks=[watch, unfreezer])
    assert watch.seen == [4, 3, 4, 3]
    assert watch.rates == [1e-3, 1e-4, 1e-3, 1e-4]
    assert [t.blocks or t.frozen for t in unfreezer.transitions] == [("block4",)] * 2


def transfer_model(backbone):
    model = TransferModel(backbone, 2, hidden=4)
    model.compile()
    return model


def test_the_state_follows_from_the_epoch_so_initial_epoch_works():
    backbone = tiny_backbone()
    model = compiled(backbone)
    watch = FrozenAtEachEpoch(backbone)
    unfreezer = BlockUnfreezer({1: "block4", 2: "block3"}, learning_rate=1e-5)
    model.fit(dataset(8), initial_epoch=2, epochs=3, verbose=0, callbacks=[unfreezer, watch])
    assert watch.seen == [2]
    assert watch.rates == [1e-5]


def test_a_backbone_deep_inside_other_models_is_found():
    backbone = tiny_backbone()
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone])

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = {"features": inner, "head": keras.layers.Dense(1)}

        def call(self, inputs):
            return self.parts["head"](self.parts["features"](inputs))

    model = Outer()
    model.compile("adam", "mse")
    before = snapshot(backbone)
    model.fit(dataset(8), epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
    assert frozen(backbone) == [True, True, True, False]
    assert not identical(before, backbone)


def test_it_can_be_deep_copied_before_a_fit_as_kerastuner_does():
    unfreezer = copy.deepcopy(BlockUnfreezer({1: "block4"}))
    backbone = tiny_backbone()
    compiled(backbone).fit(dataset(8), epochs=2, verbose=0, callbacks=[unfreezer])
    assert frozen(backbone)[-1] is False


@pytest.mark.slow
def test_a_saved_model_keeps_flags_slots_and_learning_rate(tmp_path):
    model = compiled()
    callbacks = [BlockUnfreezer({1: ["block3", "block4"]}, learning_rate=1e-4)]
    model.fit(dataset(8), epochs=2, verbose=0, callbacks=callbacks)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert frozen(loaded.layers[0]) == [True, True, False, False]
    assert float(loaded.optimizer.learning_rate) == pytest.approx(1e-4)
    assert loaded.optimizer.phase == 1
    for group in ("rest", "block3", "block4"):
        ours, theirs = model.optimizer.group(group), loaded.optimizer.group(group)
        assert int(theirs.iterations) == int(ours.iterations) > 0
        for a, b in zip(ours.variables, theirs.variables, strict=True):
            assert (a.numpy() == b.numpy()).all()


@pytest.mark.slow
def test_training_goes_on_from_a_saved_model_as_if_it_had_not_been_saved(tmp_path):
    callbacks = [BlockUnfreezer({1: "block4"}, learning_rate=1e-3)]
    data = dataset(16, shuffle=False)
    model = compiled()
    model.fit(data, epochs=2, verbose=0, callbacks=callbacks)
    model.save(tmp_path / "model.keras")
    model.fit(data, initial_epoch=2, epochs=4, verbose=0, callbacks=callbacks)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(data, initial_epoch=2, epochs=4, verbose=0, callbacks=callbacks)
    assert identical(snapshot(model), loaded)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({1: "block9"}, "No block of backbone .* matches 'block9'.*block1, block2"),
        ({1: 7}, "matches 7"),
    ],
)
def test_an_unknown_block_is_an_error_before_the_first_batch(schedule, message):
    with pytest.raises(ValueError, match=message):
        compiled().fit(dataset(8), verbose=0, callbacks=[BlockUnfreezer(schedule)])


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        ({}, ValueError, "schedule is empty"),
        ({-1: "block4"}, ValueError, "whole numbers from 0 on. Received: -1"),
        ({"5": "block4"}, ValueError, "Received: '5'"),
        (20, TypeError, "must be a dict"),
    ],
)
def test_an_impossible_schedule_is_refused_at_construction(schedule, error, message):
    with pytest.raises(error, match=message):
        BlockUnfreezer(schedule)


@pytest.mark.parametrize("rate", [0, -1e-4, float("nan"), float("inf"), "1e-4"])
def test_a_learning_rate_must_be_a_positive_number(rate):
    with pytest.raises(ValueError, match=r"must be a positive number\. Received: "):
        BlockUnfreezer({1: "block4"}, learning_rate=rate)


def test_a_model_without_a_backbone_is_refused():
    plain = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten()])
    plain.compile("adam", "mse")
    with pytest.raises(ValueError, match="holds no backbone"):
        plain.fit(dataset(8), verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])


def test_a_learning_rate_schedule_cannot_be_overruled():
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.9)
    with pytest.raises(ValueError, match="compiled with a learning rate schedule"):
        compiled(optimizer=keras.optimizers.Adam(schedule)).fit(
            dataset(8), verbose=0, callbacks=[BlockUnfreezer({1: "block4"}, learning_rate=1e-5)]
        )


def test_phases_come_in_the_order_of_their_epochs():
    assert [phase.at_epoch for phase in phases({20: "a", 3: "b"})] == [3, 20]


def test_keras_still_notes_the_trainable_flags_where_we_correct_them(recwarn):
    """`retrace` writes a private note of `compile`; without it, evaluate would warn."""
    model = compiled()
    model.fit(dataset(8), epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
    assert hasattr(model, "_compiled_trainable_state")
    model.evaluate(dataset(8), verbose=0)
    assert not [w for w in recwarn if "trainable" in str(w.message)]


@pytest.mark.slow
def test_a_schedule_that_begins_after_the_last_epoch_is_a_warning():
    with pytest.warns(UserWarning, match="the schedule begins at epoch 5, counted from 0"):
        compiled().fit(dataset(8), epochs=2, verbose=0, callbacks=[BlockUnfreezer({5: "block4"})])
