"""What a schedule of phases promises, beyond blocks at given epochs."""

import copy
import math
import warnings

import keras
import numpy as np
import pytest
from conftest import SIZE, dataset, identical, snapshot, tiny_backbone, tiny_network

from keras_transfer import BlockUnfreezer, FrozenBackbone, Phase, TransferModel

ADAM = keras.optimizers.Adam


def plain(backbone=None, optimizer=None, **kwargs) -> keras.Model:
    layers = [keras.Input((SIZE, SIZE, 3)), backbone or tiny_backbone(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer or ADAM(1e-3), "mse", **kwargs)
    return model


def kept(backbone=None, optimizer=None) -> keras.Model:
    model = TransferModel(backbone or tiny_backbone(), 2, hidden=4, dropout=0)
    model.compile(optimizer or ADAM(1e-3))
    model.build((None, SIZE, SIZE, 3))
    return model


MODELS = [plain, kept]


class Given(BlockUnfreezer):
    """Sees given values of the metric in the place of measured ones."""

    def __init__(self, *args, values, **kwargs):
        super().__init__(*args, **kwargs)
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs[self.monitor] = self.values[epoch]
        super().on_epoch_end(epoch, logs)


def fit(model, *callbacks, epochs, **kwargs):
    data = dataset(8, shuffle=False)
    return model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.slow
def test_a_phase_begins_when_the_metric_has_not_improved_for_so_many_epochs(make):
    values = [0.5, 0.4, 0.45, 0.41, 0.3, 0.35, 0.36]
    unfreezer = Given([Phase("block4", patience=2), Phase("block3", patience=2)], values=values)
    history = fit(make(), unfreezer, epochs=7).history
    assert history["phase"] == [0, 0, 0, 0, 1, 1, 1]
    first, *rest = unfreezer.transitions
    assert (first.epoch, first.blocks, rest) == (4, ("block4",), [])
    assert first.reason == "val_loss no better for 2 epochs"
    assert len(history["loss"]) == 7


@pytest.mark.slow
def test_whichever_comes_first_begins_the_phase():
    schedule = [Phase("block4", at_epoch=3, patience=1), Phase("block3", at_epoch=5, patience=9)]
    unfreezer = Given(schedule, values=[0.5, 0.6, 0.1, 0.1, 0.1, 0.1])
    fit(plain(), unfreezer, epochs=6)
    assert [(t.epoch, t.reason) for t in unfreezer.transitions] == [
        (2, "val_loss no better for 1 epoch"),
        (5, "as scheduled"),
    ]


@pytest.mark.slow
def test_gradual_unfreezes_one_block_after_the_other_from_the_top():
    unfreezer = Given("gradual", values=[1.0] * 8)
    fit(kept(), unfreezer, epochs=8)
    assert (
        [(t.epoch, t.blocks) for t in unfreezer.transitions]
        == [
            (4, ("block4",)),  # one epoch sets the mark, three do no better
            (8, ("block3",)),
        ][:1]
    )
    assert unfreezer.is_due(8)


def test_a_schedule_may_stand_in_a_file(tmp_path):
    file = tmp_path / "schedule.yaml"
    file.write_text(
        "phases:\n"
        "  - {which: block4, at_epoch: 1, learning_rate: 1e-4}\n"
        "  - {which: block3, at_epoch: 2, lr_decay: 0.5, optimizer: {name: sgd, momentum: 0.9}}\n"
    )
    model = plain()
    history = fit(model, BlockUnfreezer(file), epochs=3).history
    assert history["phase"] == [0, 1, 2]
    assert type(model.optimizer.group("rest")).__name__ == "SGD"
    with pytest.raises(FileNotFoundError, match="block5"):
        BlockUnfreezer("block5")


def test_rates_decay_from_block_to_block_and_are_in_the_history():
    unfreezer = BlockUnfreezer({1: ["block3", "block4"]}, learning_rate=1e-2, lr_decay=0.5)
    model = plain()
    history = fit(model, unfreezer, epochs=2).history
    np.testing.assert_allclose(history["learning_rate"], [1e-3, 1e-2], rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate/block4"], [0, 5e-3], rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate/block3"], [0, 2.5e-3], rtol=1e-6)
    trained = sum(np.prod(w.shape) for w in model.trainable_weights)
    assert history["trainable_parameters"][1] == trained > history["trainable_parameters"][0]


def test_decayed_rates_are_the_steps_that_blocks_take():
    model = plain(optimizer=keras.optimizers.SGD(1e-3))
    fit(model, BlockUnfreezer({0: ["block3", "block4"]}, lr_decay=0.1), epochs=1)
    rates = {g: float(model.optimizer.group(g).learning_rate) for g in ("rest", "block4", "block3")}
    np.testing.assert_allclose(list(rates.values()), [1e-3, 1e-4, 1e-5], rtol=1e-6)


@pytest.mark.slow
def test_a_warm_up_raises_the_rate_step_by_step():
    class Rates(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_begin(self, batch, logs=None):
            self.seen.append(float(self.model.optimizer.group("block4").learning_rate))

    model, rates = plain(), Rates()
    fit(model, BlockUnfreezer([Phase("block4", at_epoch=1, warmup=3)]), rates, epochs=5)
    expected = 1e-3 * np.array([1, 1 / 3, 2 / 3, 1, 1])
    np.testing.assert_allclose(rates.seen, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [kept])
@pytest.mark.slow
def test_another_optimizer_takes_over_all_that_trains(make):
    phase = Phase("block4", at_epoch=1, optimizer=keras.optimizers.RMSprop(1e-4))
    model = make()
    history = fit(model, BlockUnfreezer([phase]), epochs=3).history
    optimizer = model.optimizer
    assert [type(optimizer.group(g)).__name__ for g in ("rest", "block4")] == ["RMSprop"] * 2
    assert [int(optimizer.group("rest", kind).iterations) for kind in (0, 1)] == [1, 2]
    np.testing.assert_allclose(history["learning_rate"], [1e-3, 1e-4, 1e-4], rtol=1e-6)


@pytest.mark.slow
def test_another_optimizer_steps_as_a_fresh_one():
    """What two Keras fits do by hand: Adam on the head, then RMSprop on head and top block."""
    schedule = [Phase("block4", at_epoch=2, optimizer=keras.optimizers.RMSprop(1e-3))]
    keras.utils.set_random_seed(1)
    ours = plain()
    fit(ours, BlockUnfreezer(schedule), epochs=4)

    keras.utils.set_random_seed(1)
    backbone = tiny_backbone()
    by_hand = plain(backbone)
    fit(by_hand, epochs=2)
    backbone.unfreeze("block4")
    by_hand.compile(keras.optimizers.RMSprop(1e-3), "mse")
    fit(by_hand, epochs=2)
    for a, b in zip(ours.weights, by_hand.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.slow
def test_restore_best_goes_on_from_the_best_epoch_of_the_phase_before(make):
    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                variables = [*self.model.weights, *self.model.optimizer.group("rest").variables]
                self.values = [(variable, variable.numpy().copy()) for variable in variables]
            if epoch == 3:
                self.moved = not self.as_they_were()

        def as_they_were(self):
            return all(np.array_equal(variable.numpy(), value) for variable, value in self.values)

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                self.same = self.as_they_were()

    keep = Keep()
    schedule = [Phase("block4", at_epoch=4, restore_best=True)]
    unfreezer = Given(schedule, values=[0.5, 0.4, 0.6, 0.7, 0.8])
    fit(make(), keep, unfreezer, epochs=5)
    assert keep.moved
    assert keep.same


@pytest.mark.slow
def test_a_saved_model_brings_the_best_of_its_phase_along(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 2

    def go_on(model, *callbacks, initial_epoch=3):
        schedule = [Phase("block4", at_epoch=4, restore_best=True, lr_decay=0.5)]
        unfreezer = Given(schedule, values=[0.5, 0.4, 0.6, 0.7, 0.8])
        fit(model, unfreezer, *callbacks, epochs=5, initial_epoch=initial_epoch)
        return model

    model = go_on(plain(), Stop(), initial_epoch=0)
    model.save(tmp_path / "model.keras")
    loaded = go_on(keras.saving.load_model(tmp_path / "model.keras"))
    assert identical(snapshot(go_on(model)), loaded)


def test_blocks_may_be_frozen_again():
    backbone = tiny_backbone()
    schedule = [Phase("block4", at_epoch=1), Phase("block3", at_epoch=2, freeze="block4")]
    unfreezer = BlockUnfreezer(schedule)
    fit(plain(backbone), unfreezer, epochs=3)
    assert [block.name for block in backbone.blocks if not block.frozen] == ["block3"]
    assert (unfreezer.transitions[1].blocks, unfreezer.transitions[1].frozen) == (
        ("block3",),
        ("block4",),
    )


def two_backbones(join=keras.layers.add) -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 3))
    both = [
        FrozenBackbone(tiny_network(), preprocessing="tf", name=name) for name in ("left", "right")
    ]
    outputs = keras.layers.Dense(1)(join([backbone(inputs) for backbone in both]))
    model = keras.Model(inputs, outputs)
    model.compile(ADAM(1e-3), "mse")
    return model


@pytest.mark.slow
def test_two_backbones_are_addressed_by_the_names_of_their_layers(tmp_path):
    model = two_backbones()
    left, right = model.get_layer("left"), model.get_layer("right")
    before = snapshot(left)
    schedule = {1: "right/block4", 2: ["left/1", "right/block3"]}
    history = fit(model, BlockUnfreezer(schedule), epochs=2).history
    assert identical(before, left)
    assert [b.name for b in right.blocks if not b.frozen] == ["block4"]
    assert history["learning_rate/right/block4"][0] == 0 < history["learning_rate/right/block4"][1]
    fit(model, BlockUnfreezer(schedule), epochs=3, initial_epoch=2)
    assert not identical(before, left)
    model.save_weights(tmp_path / "saved.weights.h5")
    model.load_weights(tmp_path / "saved.weights.h5")


@pytest.mark.parametrize("which", ["block4", 1, "middle/block4"])
def test_of_two_backbones_one_has_to_be_named(which):
    with pytest.raises(ValueError, match=r"'left', 'right'.*such as 'left/1'"):
        fit(two_backbones(), BlockUnfreezer({1: which}), epochs=2)


@pytest.mark.parametrize(("make", "first"), [(plain, True), (kept, False)])
@pytest.mark.slow
def test_early_stopping_ends_the_fit_only_in_the_last_phase(make, first):
    values = [0.1, 0.5, 0.5, 0.5, 0.5, 0.4, 0.6, 0.7, 0.7]
    stopper = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    unfreezer = Given({4: "block4"}, values=values)
    callbacks = [stopper, unfreezer] if first else [unfreezer, stopper]
    history = fit(make(), *callbacks, epochs=9).history
    assert len(history["loss"]) == 8  # epoch 5 is the best of the phase; 6 and 7 are the patience
    assert stopper.best_epoch == 5


def test_early_stopping_ends_the_fit_in_any_phase_if_told():
    stopper = keras.callbacks.EarlyStopping("val_loss", patience=2)
    unfreezer = Given({4: "block4"}, values=[0.1] + [0.5] * 6, early_stopping="any")
    history = fit(plain(), unfreezer, stopper, epochs=6).history
    assert len(history["loss"]) == 3


class StopAt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 2


@pytest.mark.parametrize("make", [kept])
@pytest.mark.slow
def test_another_callback_that_stops_is_obeyed_also_where_a_phase_is_due(make):
    unfreezer = Given([Phase("block4", patience=2)], values=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert len(fit(make(), StopAt(), unfreezer, epochs=5).history["loss"]) == 3


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(("make", "backup_first"), [(plain, True), (kept, False)])
def test_a_run_with_every_kind_of_phase_resumes_bit_for_bit(make, backup_first, tmp_path):
    """Killed before, between and after transitions that depend on a metric."""
    values = [0.5, 0.4, 0.6, 0.7, 0.5, 0.6, 0.7, 0.8]

    def run(folder, *callbacks):
        keras.utils.set_random_seed(1)
        model = make()
        unfreezer = Given(
            [
                Phase("block4", patience=2, warmup=3, lr_decay=0.5, restore_best=True),
                Phase("block3", patience=2, optimizer=keras.optimizers.RMSprop(1e-4)),
            ],
            values=values,
        )
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, delete_checkpoint=False)
        order = [backup, unfreezer] if backup_first else [unfreezer, backup]
        return model, fit(model, *callbacks, *order, epochs=8).history

    for epoch in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run("interrupted", Interrupt(epoch))
    (resumed, rest), (whole, history) = run("interrupted"), run("whole")
    assert rest == history
    assert whole.optimizer.phase == 2
    assert identical(snapshot(whole), resumed)
    for ours, theirs in zip(resumed.optimizer.variables, whole.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.slow
def test_a_changed_schedule_is_refused_with_what_differs(tmp_path):
    model = plain()
    fit(model, BlockUnfreezer({1: "block4"}), epochs=2)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    changed = BlockUnfreezer({1: "block4", 3: "block3"})
    with pytest.raises(
        ValueError, match=r"another schedule: in phase 2 it had None, this one has \{"
    ):
        fit(loaded, changed, epochs=4, initial_epoch=2)
    other = plain()
    fit(other, BlockUnfreezer({1: "block3"}), epochs=2)
    with pytest.raises(ValueError, match=r"in phase 1 it had .*'block4'\]}, this one"):
        other.load_weights(tmp_path / "model.weights.h5")


def test_hyperbands_initial_epoch_begins_in_the_phase_of_that_epoch():
    unfreezer = copy.deepcopy(BlockUnfreezer([Phase("block4", at_epoch=1, learning_rate=1e-5)]))
    model = plain()
    history = fit(model, unfreezer, epochs=4, initial_epoch=3).history
    assert history["phase"] == [1]
    np.testing.assert_allclose(history["learning_rate"], [1e-5], rtol=1e-6)


@pytest.mark.parametrize("reduce_first", [True, False])
def test_callbacks_that_set_the_rate_move_all_blocks_and_keep_the_decay(reduce_first):
    model = plain()
    reduce = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=1, min_delta=0)
    unfreezer = Given({0: "block4"}, lr_decay=0.5, values=[0.5, 0.6])
    order = [reduce, unfreezer] if reduce_first else [unfreezer, reduce]
    fit(model, *order, epochs=2)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    assert float(model.optimizer.group("block4").learning_rate) == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (lambda: Phase("block4"), "When does .* begin"),
        (lambda: Phase("block4", at_epoch=-1), "at_epoch must be whole numbers from 0"),
        (lambda: Phase("block4", patience=0), "patience must be whole numbers from 1"),
        (lambda: Phase("block4", at_epoch=1, learning_rate="1e-4"), "must be a positive number"),
        (lambda: Phase("block4", at_epoch=1, lr_decay=0), "`lr_decay` must be a positive"),
        (lambda: Phase("block4", at_epoch=1, optimizer="adamm"), "adamm"),
        (lambda: BlockUnfreezer([Phase("a", at_epoch=3), Phase("b", at_epoch=2)]), "out of order"),
        (lambda: BlockUnfreezer({1: "a"}, monitor="speed"), "does not tell whether lower"),
    ],
)
def test_an_impossible_phase_is_refused_at_construction(phase, message):
    with pytest.raises(ValueError, match=message):
        phase()


@pytest.mark.parametrize(
    "schedule",
    [
        {1: "block4", 2: 1},
        [Phase("block4", at_epoch=1, freeze="block4")],
        [Phase("block4", at_epoch=1), Phase(at_epoch=2, freeze="block3")],
    ],
)
def test_a_phase_that_changes_nothing_is_refused_before_the_first_batch(schedule):
    with pytest.raises(ValueError, match="trains nothing new"):
        fit(plain(), BlockUnfreezer(schedule), epochs=3)


@pytest.mark.slow
def test_a_metric_that_is_not_logged_is_an_error_that_lists_what_is():
    unfreezer = BlockUnfreezer([Phase("block4", patience=1)], monitor="accuracy")
    with pytest.raises(ValueError, match=r"monitor='accuracy' is not logged. Logged are: loss"):
        fit(plain(), unfreezer, epochs=2)
    with pytest.warns(UserWarning, match="give `validation_data`"):
        fit(plain(), BlockUnfreezer([Phase("block4", patience=1)]), epochs=1)


@pytest.mark.slow
def test_a_metric_that_is_not_a_number_is_told_and_is_no_improvement():
    for values in ([0.5, math.nan, math.nan, 0.4], [math.nan, math.nan, 0.4, 0.3]):
        unfreezer = Given([Phase("block4", patience=2)], values=values)
        with pytest.warns(UserWarning, match="val_loss is nan"):
            fit(plain(), unfreezer, epochs=4)
        assert [t.epoch for t in unfreezer.transitions] == [2 + (values[0] == 0.5)]


def test_two_unfreezers_in_one_fit_are_refused():
    with pytest.raises(ValueError, match="Expected one BlockUnfreezer"):
        fit(plain(), BlockUnfreezer({1: "block4"}), BlockUnfreezer({2: "block3"}), epochs=3)


def test_averages_of_blocks_cannot_be_swapped():
    with pytest.raises(ValueError, match="SwapEMAWeights cannot swap"):
        fit(plain(), BlockUnfreezer({1: "block4"}), keras.callbacks.SwapEMAWeights(), epochs=1)


def test_another_schedule_in_a_second_fit_brings_its_own_rate():
    model = plain()
    fit(model, BlockUnfreezer({1: "block4"}, learning_rate=1e-3), epochs=2)
    history = fit(model, BlockUnfreezer({0: "block3"}, learning_rate=1e-5), epochs=1).history
    np.testing.assert_allclose(history["learning_rate"], [1e-5], rtol=1e-6)


def test_the_optimizer_of_a_phase_needs_a_rate_that_is_a_number():
    rates = keras.optimizers.schedules.ExponentialDecay(1e-4, 2, 0.5)
    phase = Phase("block4", at_epoch=1, optimizer=ADAM(rates))
    with pytest.raises(ValueError, match="Phase 1: its optimizer has a learning rate schedule"):
        fit(plain(), BlockUnfreezer([phase]), epochs=2)


def test_under_a_compiled_schedule_another_optimizer_goes_on_with_it():
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1e-2, 1e-3])
    model = plain(optimizer=keras.optimizers.SGD(rates))
    phase = Phase("block4", at_epoch=1, optimizer="rmsprop")
    history = fit(model, BlockUnfreezer([phase]), epochs=2).history
    np.testing.assert_allclose(history["learning_rate/block4"], [0, 1e-3], rtol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "changed", "message"),
    [
        (ADAM, {"learning_rate": 1e-5}, "'learning_rate': 0.001.*this one.*'learning_rate': 1e-05"),
        (ADAM, {"lr_decay": 0.1}, "'lr_decay': 1.0.*this one.*'lr_decay': 0.1"),
        (ADAM, {"restore_best": True}, "'monitor': None.*this one.*'monitor': 'val_loss'"),
        (keras.optimizers.SGD, {}, "'optimizer': 'Adam'.*this one.*'optimizer': 'SGD'"),
    ],
)
def test_what_else_decides_a_schedule_is_compared_too(optimizer, changed, message):
    def adopted(optimizer, **kwargs):
        model = plain(optimizer=optimizer(1e-3))
        unfreezer = BlockUnfreezer({1: "block4"}, **{"learning_rate": 1e-3, **kwargs})
        keras.callbacks.CallbackList([unfreezer], model=model)
        return model.optimizer

    saved: dict[str, np.ndarray] = {}
    adopted(ADAM).save_own_variables(saved)
    with pytest.raises(ValueError, match=message):
        adopted(optimizer, **changed).load_own_variables(saved)


@pytest.mark.slow
@pytest.mark.parametrize("make", [kept])
def test_saving_twice_loses_nothing_of_what_is_frozen_again(make, tmp_path):
    schedule = [
        Phase("block4", at_epoch=1),
        Phase("block3", at_epoch=2, freeze="block4", restore_best=True),
        Phase("block4", at_epoch=4, restore_best=True, optimizer="rmsprop"),
    ]
    values = [0.5, 0.4, 0.3, 0.6, 0.7]

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 3

    model = make()
    fit(model, Given(schedule, values=values), Stop(), epochs=5)
    twice = model
    for name in ("once.keras", "twice.keras"):
        twice.save(tmp_path / name)
        twice = keras.saving.load_model(tmp_path / name)
    for one in (model, twice):
        fit(one, Given(schedule, values=values), epochs=5, initial_epoch=4)
    assert identical(snapshot(model), twice)


@pytest.mark.parametrize("value", [math.inf, np.float64(0.1)])
@pytest.mark.slow
def test_a_metric_that_does_not_move_runs_out_of_patience(value, recwarn):
    unfreezer = Given([Phase("block4", patience=2)], values=[value] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(plain(), unfreezer, epochs=4)
    assert len(unfreezer.transitions) == 1


@pytest.mark.slow
def test_numbers_of_numpy_are_numbers():
    schedule = [Phase("block4", at_epoch=np.int64(1), learning_rate=np.float32(1e-3))]
    fit(plain(), BlockUnfreezer(schedule), epochs=2)
    fit(plain(), BlockUnfreezer({np.int64(1): "block4"}), epochs=2)


def test_clipping_all_gradients_under_accumulation_is_refused():
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=0.1, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="global_clipnorm together with gradient_accumulation"):
        fit(plain(optimizer=optimizer), BlockUnfreezer({1: "block4"}), epochs=2)


@pytest.mark.slow
def test_the_best_of_a_second_schedule_holds_its_blocks_too():
    backbone = tiny_backbone()
    model = plain(backbone)
    first = Given([Phase("block4", at_epoch=1, restore_best=True)], values=[0.5, 0.4])
    fit(model, first, epochs=2)

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.best = snapshot(backbone.block("block3"))

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.same = identical(self.best, backbone.block("block3"))

    keep, schedule = Keep(), [Phase("block3", at_epoch=0), Phase("block2", at_epoch=2)]
    fit(model, keep, Given(schedule, values=[0.1, 0.5, 0.5], restore_best=True), epochs=3)
    assert keep.same


@pytest.mark.slow
def test_a_backup_that_was_torn_in_the_writing_gives_way_to_the_one_before(tmp_path):
    def run(folder, *callbacks):
        keras.utils.set_random_seed(1)
        model = plain()
        backup = keras.callbacks.BackupAndRestore(
            tmp_path / folder, delete_checkpoint=False, double_checkpoint=True
        )
        unfreezer = BlockUnfreezer({1: "block4", 3: "block3"}, learning_rate=1e-4)
        return model, fit(model, backup, unfreezer, *callbacks, epochs=5).history

    with pytest.raises(KeyboardInterrupt):
        run("torn", Interrupt(4))
    (latest,) = (tmp_path / "torn").glob("*.weights.h5")
    latest.write_bytes(latest.read_bytes()[: latest.stat().st_size // 2])
    (resumed, rest), (whole, history) = run("torn"), run("whole")
    assert identical(snapshot(whole), resumed)
    assert rest == history
