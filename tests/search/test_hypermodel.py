import math
import time

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, identical, images, labels, snapshot, tiny_backbone, tiny_network
from small_lite import small_lite

from keras_transfer import BlockUnfreezer, FeatureCache, FrozenBackbone, TransferModel
from keras_transfer.features import runners
from keras_transfer.search.hypermodel import TransferHyperModel
from keras_transfer.search.space.rules import SpaceError
from keras_transfer.search.space.space import Range, Space

EPOCHS = 3
FINE = {"unfreeze": 2, "pooling": "avg", "dropout": 0.5, "label_smoothing": 0.1, "lr_decay": 0.5}
FINE |= {"depth": 1}
HEAD = {"unfreeze": 0, "pooling": "max", "depth": 2, "weight_decay": 0.1}
TOP = {"unfreeze": 1, "pooling": "avg", "hidden": 16, "depth": 1}


def hypermodel(classes=("a", "b"), *, backbone=None, **kwargs) -> TransferHyperModel:
    kwargs = {"space": Space(hidden=[8, 16], unfreeze=[0, 1, 2]), "epochs": EPOCHS, **kwargs}
    backbones = {"tiny": backbone or tiny_backbone()}
    return TransferHyperModel(backbones, classes, cache=FeatureCache(verbose=False), **kwargs)


def small() -> FrozenBackbone:
    """Fewer layers, for searches of several trials that each trace the last one."""
    return FrozenBackbone(small_lite(), preprocessing="lite")


def chosen(**values) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.values.update(values)
    return hp


DATA = {}


def data():
    """The same two datasets for all trials: a backbone runs once on an object."""
    if not DATA:
        DATA["data"] = dataset(), dataset(shuffle=False)
    return DATA["data"]


def trial(model: TransferHyperModel, values, seed: int = 0, epochs: int = EPOCHS, **kwargs):
    """Runs a trial as any tuner would, and returns what it leaves behind."""
    keras.utils.set_random_seed(seed)
    hp = chosen(**values)
    train, valid = data()
    built = model.build(hp)
    model.fit(hp, built, train, validation_data=valid, epochs=epochs, verbose=0, **kwargs)
    return model.trained


def equal(one, other) -> bool:
    """Whether two trials have trained the same, bit by bit, on the same way."""
    a, b = one.member, other.member
    weights = [
        [*member.head_weights, *(w for block in member.blocks.values() for w in block)]
        for member in (a, b)
    ]
    return (
        a.blocks.keys() == b.blocks.keys()
        and one.plotter.history == other.plotter.history
        and all(np.array_equal(x, y) for x, y in zip(*weights, strict=True))
    )


@pytest.fixture(scope="module")
def three():
    """A hypermodel, the weights of its backbone, and three trials that it has run."""
    tf.config.run_functions_eagerly(True)  # as in the tests that they are compared with
    model = hypermodel()
    before = snapshot(model.backbones["tiny"])
    return model, before, [trial(model, values) for values in (FINE, HEAD, TOP)]


@pytest.mark.slow
def test_a_trial_is_the_same_whether_it_comes_first_or_after_others(three):
    _, _, (fine, head, top) = three
    other = hypermodel()
    assert equal(trial(other, HEAD), head)
    assert equal(trial(other, FINE), fine)
    assert not equal(trial(other, HEAD, seed=1), head)
    assert not equal(fine, top)


@pytest.mark.slow
def test_the_backbone_stays_as_it_is_and_each_model_keeps_what_it_trained(three):
    model, before, trials = three
    assert identical(before, model.backbones["tiny"])
    assert model.backbones["tiny"].cut_point == "pooling"
    for one in trials:
        found = dict(one.model.evaluate(data()[1], verbose=0, return_dict=True))
        assert found["loss"] == pytest.approx(one.metrics["val_loss"], abs=1e-6)


def test_what_a_trial_trains_is_its_head_and_the_blocks_it_unfreezes(three):
    _, _, (fine, head, top) = three
    assert [list(one.member.blocks) for one in (fine, head, top)] == [
        ["block3", "block4"],
        [],
        ["block4"],
    ]
    assert [len(one.member.head_weights) for one in (fine, head, top)] == [4, 6, 4]
    backbone = tiny_backbone()
    for name, values in fine.member.blocks.items():
        weights = [weight.numpy() for weight in backbone.block_state(name)]
        assert all(not np.array_equal(a, b) for a, b in zip(weights, values, strict=True))


def test_a_head_is_left_with_its_best_epoch_and_a_fine_tuning_with_its_last(three):
    fine, head, top = three[2]
    curve = head.plotter.history["val_loss"]
    assert head.epoch == int(np.argmin(curve)) + 1
    assert head.metrics["val_loss"] == min(curve)
    for one in (fine, top):
        assert one.epoch == EPOCHS
        assert one.metrics["val_loss"] == one.plotter.history["val_loss"][-1]
    assert all(one.plotter.epochs == list(range(EPOCHS)) for one in three[2])


@pytest.mark.slow
def test_an_earlier_best_epoch_is_gone_back_to():
    model = hypermodel(metric="accuracy")
    values = {"unfreeze": 0, "learning_rate": 5.0, "weight_decay": 0.0}
    one = trial(hypermodel(space=Space(unfreeze=0, learning_rate=5.0, hidden=8)), values, epochs=4)
    assert one.epoch < 4  # at such a rate the loss goes up and down
    found = one.model.evaluate(data()[1], verbose=0)[0]
    assert found == pytest.approx(min(one.plotter.history["val_loss"]), rel=1e-5)
    assert (model.objective.name, model.objective.mode) == ("val_accuracy", "max")


@pytest.mark.slow
def test_the_backbone_runs_once_to_each_border_whatever_the_order_of_trials(monkeypatch):
    runs, by_keras = [], runners.by_keras
    monkeypatch.setattr(runners, "WORTH_SECONDS", 1e9)
    monkeypatch.setattr(runners, "by_keras", lambda *a: (runs.append(a[1]), by_keras(*a))[1])
    model = hypermodel()
    for values in (HEAD, {**TOP, "frozen_epochs": 0.2}, HEAD):
        trial(model, values, epochs=2)
    # To the lowest cut point of all trials at once, though the first needs the highest only.
    # Training and validation data each; average and maximum pooling.
    assert sorted(runs) == ["block2"] * 2 + ["block3"] * 2 + ["pooling"] * 4
    assert runs[0] == "block2"


@pytest.fixture
def traced(monkeypatch):
    """The training steps that were traced: only then Keras calls this in Python."""
    step, found = TransferModel.train_step, []
    monkeypatch.setattr(
        TransferModel, "train_step", lambda self, data: (found.append(1), step(self, data))[1]
    )
    return found


@pytest.mark.traced
@pytest.mark.slow
def test_heads_of_equal_shape_share_what_is_traced_and_train_as_fresh_ones_do(traced):
    model, values = hypermodel(flips="mirror"), {**HEAD, "depth": 1, "hidden": 8}
    first = trial(model, values)
    kept, count = first.member.head_weights, len(traced)
    again = trial(model, values, seed=1)  # another fold, or execution
    faster = trial(model, {**values, "learning_rate": 5e-3}, seed=2)
    assert len(traced) == count > 0
    assert equal(again, trial(hypermodel(flips="mirror"), values, seed=1))
    assert len(traced) > count
    fresh = trial(hypermodel(flips="mirror"), {**values, "learning_rate": 5e-3}, seed=2)
    assert equal(faster, fresh)
    # Each model keeps what it has trained, that whose functions were used among them.
    for one in (first, again, faster):
        weights = [weight.numpy() for weight in one.model.head.weights]
        assert all(
            np.array_equal(a, b) for a, b in zip(weights, one.member.head_weights, strict=True)
        )
    assert all(
        np.array_equal(a, b.numpy()) for a, b in zip(kept, first.model.head.weights, strict=True)
    )


@pytest.mark.slow
def test_a_head_on_all_levels_begins_with_what_brings_them_to_one_scale():
    values = {"pooling": "levels", "depth": 1, "hidden": 8, "dropout": 0.0, "learning_rate": 1e-2}
    values |= {"weight_decay": 0.0, "label_smoothing": 0.0}
    found = trial(hypermodel(), values)
    backbone = hypermodel().backbones["tiny"].share_blocks(pooling="levels")
    assert isinstance(found.model.head.layers[0], keras.layers.BatchNormalization)
    features = np.concatenate([backbone(x) for x, _ in data()[1]])
    assert features.shape[1] == 2 * sum(block.output_shape[-1] for block in backbone.blocks)
    np.testing.assert_allclose(
        found.model.predict(np.concatenate([x for x, _ in data()[1]]), verbose=0),
        found.model.head.predict(features, verbose=0),
        atol=1e-6,
    )
    losses = found.plotter.history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.traced
@pytest.mark.slow
def test_what_is_a_constant_in_a_step_is_traced_anew(traced):
    model = hypermodel()
    trial(model, HEAD, epochs=1)
    count = len(traced)
    for number, other in enumerate(({"dropout": 0.6}, {"weight_decay": 0.0}), 2):
        trial(model, {**HEAD, **other}, epochs=1)
        assert len(traced) == number * count


@pytest.mark.slow
def test_a_training_that_fails_leaves_the_model_as_it_was_whose_functions_it_used():
    model = hypermodel()
    first = trial(model, HEAD, epochs=1)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: _raise("no luck"))
    with pytest.raises(RuntimeError, match="no luck"):
        trial(model, HEAD, seed=1, epochs=1, callbacks=[stop])
    weights = [weight.numpy() for weight in first.model.head.weights]
    expected = first.member.head_weights
    assert all(np.array_equal(a, b) for a, b in zip(weights, expected, strict=True))


def _raise(message: str) -> None:
    raise RuntimeError(message)


def test_the_rate_of_a_fine_tuning_falls_with_a_decay_from_block_to_block(three):
    history = three[2][0].plotter.history
    rates = np.asarray(history["learning_rate"])
    assert 1e-3 > rates[0] > rates[1] > rates[2] > 0
    np.testing.assert_allclose(history["learning_rate/block4"], rates / 2, rtol=1e-5)
    np.testing.assert_allclose(history["learning_rate/block3"], rates / 4, rtol=1e-5)


@pytest.mark.slow
def test_blocks_are_unfrozen_after_the_frozen_epochs_where_there_are_some():
    history = trial(hypermodel(), {**FINE, "frozen_epochs": 2}).plotter.history
    assert history["learning_rate"][:2] == pytest.approx([1e-3, 1e-3])
    assert history["learning_rate/block4"][:2] == [0, 0]
    assert 0 < history["learning_rate/block4"][2] < 1e-3


@pytest.mark.slow
def test_a_fine_tuning_ends_in_its_time():
    """At a rate of nothing, and with the last epoch as what it has come to."""
    model = hypermodel(epochs=1000, space=Space(fine_tuning_epochs=1000, unfreeze=2))
    model.until = time.time() + 1.5
    one = trial(model, FINE, epochs=1000)
    assert 1 < one.epoch < 500
    assert one.plotter.history["learning_rate"][-1] < 0.2 * max(
        one.plotter.history["learning_rate"]
    )


def test_epochs_of_hyperband_that_end_before_the_blocks_are_unfrozen_train_the_head(monkeypatch):
    made = []
    monkeypatch.setattr(
        BlockUnfreezer, "__init__", lambda self, schedule, **kw: made.append(schedule)
    )
    model, hp = hypermodel(), chosen(**FINE, frozen_epochs=2)
    model.build(hp)
    values = model.space.declare(hp, ["tiny"])
    assert model._fine_tuning(values, ("block3",), 2, lambda: math.inf) == []
    assert len(model._fine_tuning(values, ("block3",), 3, lambda: math.inf)) == 2
    assert made == [{2: ("block3",)}]


@pytest.mark.slow
def test_weights_are_decayed_and_biases_are_not():
    space = Space(weight_decay=[0, 10], unfreeze=0, learning_rate=1e-2, depth=1, hidden=8)
    model = hypermodel(space=space)
    decayed, free = (trial(model, {"weight_decay": decay}, epochs=2) for decay in (10.0, 0.0))

    def size(one, kind):
        return sum(float(np.abs(w.numpy()).sum()) for w in one.model.head.weights if w.name == kind)

    assert size(decayed, "kernel") < 0.5 * size(free, "kernel")
    optimizer = hypermodel().build(chosen(unfreeze=0)).optimizer
    use = [optimizer._use_weight_decay(w) for w in free.model.head.weights]
    assert use == [True, False, True, False]


def test_dropout_and_label_smoothing_do_what_they_say():
    model = hypermodel().build(chosen(**FINE))
    assert model.label_smoothing == 0.1
    assert [type(layer).__name__ for layer in model.head.layers] == ["Dense", "Dropout", "Dense"]
    model = hypermodel(("a", "b", "c")).build(chosen(depth=2, dropout=0.4, hidden=16))
    kinds = [type(layer).__name__ for layer in model.head.layers]
    assert kinds == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert [layer.rate for layer in model.head.layers[1::2]] == [0.4, 0.4]
    assert (model.head.layers[-1].units, model.head.layers[0].units) == (3, 16)


def tuner(kind, model, folder, **kwargs):
    epochs = model.epochs
    made = getattr(keras_tuner, kind)(
        model, objective="val_loss", seed=1, directory=folder, project_name="search", **kwargs
    )
    made.search(data()[0], validation_data=data()[1], epochs=epochs, verbose=0)
    return made


@pytest.mark.slow
def test_it_works_in_a_plain_search_of_keras_tuner_and_writes_kilobytes(tmp_path):
    space = Space(hidden=8, unfreeze=1, depth=1)
    model = hypermodel(space=space, backbone=small())
    searched = tuner("RandomSearch", model, tmp_path, max_trials=2)
    files = list(tmp_path.rglob("*.h5"))
    assert len(files) == 2
    assert max(path.stat().st_size for path in files) < 50_000
    assert not list(tmp_path.rglob("unfinished*"))
    best = searched.oracle.get_best_trials(2)
    models = searched.get_best_models(2)  # both at once
    for model, one in zip(models, best, strict=True):
        assert model.evaluate(data()[1], verbose=0)[0] == pytest.approx(one.score, abs=1e-6)


@pytest.mark.slow
def test_hyperband_goes_on_with_the_weights_of_the_earlier_trial(tmp_path):
    space = Space(hidden=8, unfreeze=1, frozen_epochs=0, depth=1, pooling="avg")
    model, begins = hypermodel(space=space, epochs=2, backbone=small()), {}
    fit = model.fit

    def noted(hp, built, *args, **kwargs):
        found = [weight.numpy() for weight in built.head.weights if built.built]
        blocks = [weight.numpy() for weight in built.backbone.block_state("top")]
        begins[hp.values.get("tuner/trial_id")] = [*found, *blocks]
        history = fit(hp, built, *args, **kwargs)
        ends[len(ends)] = [
            *model.trained.member.head_weights,
            *model.trained.member.blocks["top"],
        ]
        return history

    ends, model.fit = {}, noted
    searched = tuner("Hyperband", model, tmp_path, max_epochs=2, factor=2)
    went_on = [earlier for earlier in begins if earlier is not None]
    order = list(searched.oracle.trials)
    assert went_on
    for earlier in went_on:
        end = ends[order.index(earlier)]
        assert all(np.array_equal(a, b) for a, b in zip(begins[earlier], end, strict=True))


@pytest.mark.slow
def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    tuner("RandomSearch", hypermodel(space=Space(**{**HEAD, "hidden": 8})), tmp_path, max_trials=1)
    (path,) = tmp_path.rglob("*.h5")
    model = hypermodel().build(chosen(**TOP))
    model.build((None, 24, 24, 3))
    with pytest.raises(ValueError, match="holds 6 weights, this trial trains 10"):
        model.load_weights(path)


@pytest.mark.slow
def test_several_backbones_and_their_names():
    other = FrozenBackbone(tiny_network(), preprocessing="unit")
    model = TransferHyperModel(
        {"tiny": tiny_backbone(), "other": other},
        ["a", "b"],
        space=Space(unfreeze=0, hidden=8),
        epochs=1,
        cache=FeatureCache(verbose=False),
    )
    one = trial(model, {"backbone": "other"}, epochs=1)
    assert one.member.backbone == "other"
    assert one.model.backbone.preprocessing is other.preprocessing
    assert one.member.origin == model._origin("other")


@pytest.mark.slow
def test_views_class_weights_and_arrays_are_taken_as_fit_takes_them():
    model = hypermodel(("a", "b", "c"), flips="mirror", space=Space(unfreeze=0, hidden=8))
    hp = chosen(dropout=0.0)
    built = model.build(hp)
    kwargs = {
        "validation_split": 0.25,
        "epochs": 1,
        "verbose": 0,
        "class_weight": {0: 2, 1: 1, 2: 1},
    }
    model.fit(hp, built, images(24), labels(24, 3), **kwargs)
    assert model.trained.epoch == 1
    assert model.trained.model.augmentation.kind == "mirror"


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_a_failed_trial():
    model = hypermodel(space=Space(unfreeze=0, hidden=8))
    hp = chosen()
    built = model.build(hp)
    built.build((None, 24, 24, 3))
    built.head.weights[-1].assign([np.nan])
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="the training diverged"):
        model.fit(hp, built, data()[0], validation_data=data()[1], epochs=1, verbose=0)
    assert model.trained is None


@pytest.mark.slow
def test_without_validation_data_the_search_ends_at_once():
    model, hp = hypermodel(space=Space(unfreeze=0, hidden=8)), chosen()
    with pytest.raises(keras_tuner.errors.FatalValueError, match="Give `validation_data`"):
        model.fit(hp, model.build(hp), data()[0], epochs=1, verbose=0)


def test_what_cannot_work_is_refused_before_the_first_trial():
    with pytest.raises(ValueError, match="`backbones` is empty"):
        TransferHyperModel({}, ["a", "b"], epochs=3)
    with pytest.raises(ValueError, match="matches 9"):
        hypermodel(space=Space(unfreeze=Range(0, 9)))
    with pytest.raises(SpaceError, match="Nothing would ever be unfrozen"):
        hypermodel(space=Space(frozen_epochs=2, unfreeze=1), epochs=2)
    with pytest.raises(ValueError, match="Unknown metric 'fun'"):
        hypermodel(metric="fun")
    with pytest.raises(SpaceError, match=r"unknown backbone 'tony'\. Did you mean 'tiny'"):
        hypermodel(space=Space(backbone="tony"))


def test_a_backbone_that_is_a_name_only_is_refused_with_what_to_give():
    with pytest.raises(TypeError, match=r"is of type str.*Expected a.*FrozenBackbone\('vgg16'\)"):
        TransferHyperModel({"vgg16": "vgg16"}, ["a", "b"], epochs=2)


@pytest.mark.traced
@pytest.mark.slow
def test_a_search_for_the_auc_trains_where_keras_chooses_xla(monkeypatch):
    """As on a GPU; XLA allows no variable that grows, as the rows do that the AUC keeps."""
    monkeypatch.setattr(TransferModel, "_resolve_auto_jit_compile", lambda self: True)
    for metric, compiled in (("auc", False), ("loss", True)):
        model = hypermodel(metric=metric)
        hp = chosen(unfreeze=0)
        assert model.build(hp).jit_compile == compiled
        if metric == "auc":
            found = trial(model, {"unfreeze": 0}, epochs=1)
            assert 0 <= found.metrics["val_auc"] <= 1


def test_a_tuner_with_a_distribution_strategy_runs_a_step_at_a_time():
    """Several at once fail in Keras 3.15.1 where two devices share them."""
    model = hypermodel(backbone=small())
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert model.build(chosen(unfreeze=0)).steps_per_execution == 1
    assert model.build(chosen(unfreeze=0)).steps_per_execution > 1
