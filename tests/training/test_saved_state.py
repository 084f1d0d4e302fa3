"""What is saved is found again, whatever else the process has built and however training ended."""

import h5py
import keras
import numpy as np
import pytest
from conftest import (
    OPTIMIZERS,
    SIZE,
    dataset,
    identical,
    images,
    snapshot,
    tiny_backbone,
)

from keras_transfer import BlockUnfreezer, FrozenBackbone, Phase, TransferModel


def unnamed_network(count: int = 3) -> keras.Model:
    """A model in which Keras names everything."""
    convolutions = [
        keras.layers.Conv2D(4 + i, 3, strides=2, activation="tanh") for i in range(count)
    ]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *convolutions])


def build_another_model() -> None:
    unnamed_network()


def plain(backbone, optimizer=None) -> keras.Model:
    head = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone, head])
    model.compile(optimizer or keras.optimizers.Adam(1e-3), "binary_crossentropy", run_eagerly=True)
    return model


def kept(backbone, optimizer=None) -> keras.Model:
    model = TransferModel(backbone, 2, hidden=4, dropout=0)
    model.compile(optimizer or keras.optimizers.Adam(1e-3), run_eagerly=True)
    model.build((None, SIZE, SIZE, 3))
    return model


def fit(model, *callbacks, epochs=2, **kwargs):
    data = dataset(16, shuffle=False)
    return model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs)


def predictions(model) -> np.ndarray:
    return model.predict(images(8), verbose=0)


@keras.saving.register_keras_serializable(package="test_saved_state")
class OwnConfig(keras.Model):
    """A functional model that is rebuilt from arguments, with layers that Keras names anew."""

    def __init__(self, widths, **kwargs):
        self.widths = widths
        x = inputs = keras.Input((SIZE, SIZE, 3))
        for width in widths:
            x = keras.layers.Conv2D(width, 3, strides=2)(x)
        super().__init__(inputs, x, **kwargs)

    def get_config(self):
        return {"widths": self.widths}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


# ---- blocks and slots are known by names that do not depend on what else was built


@pytest.mark.slow
def test_an_unfrozen_model_with_a_config_of_its_own_and_unnamed_layers_is_loaded(tmp_path):
    backbone = FrozenBackbone(OwnConfig([4, 5, 6]), preprocessing="unit")
    model = plain(backbone)
    fit(model, BlockUnfreezer({0: 1}), epochs=1)
    model.save(tmp_path / "model.keras")
    build_another_model()
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [block.frozen for block in loaded.layers[0].blocks] == [True, True, False]
    np.testing.assert_array_equal(predictions(model), predictions(loaded))


NETWORKS = {
    "layers": unnamed_network,
    "one block": lambda: OwnConfig([4]),
    "nested models": lambda: keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), *(nested(channels, 4) for channels in (3, 4))]
    ),
    "some names": lambda: keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(4, 3, name="mine"),
            keras.layers.Conv2D(4, 3),
        ]
    ),
}


def nested(channels, filters):
    return keras.Sequential([keras.Input((None, None, channels)), keras.layers.Conv2D(filters, 3)])


@pytest.mark.parametrize("kind", NETWORKS)
def test_names_of_blocks_do_not_depend_on_what_else_was_built(kind):
    names = []
    for _ in range(2):
        names.append(
            [b.name for b in FrozenBackbone(NETWORKS[kind](), preprocessing="unit").blocks]
        )
        build_another_model()
    assert names[0] == names[1]
    expected = {"one block": ["block1"], "some names": ["mine", "block2"]}
    assert names[0] == expected.get(kind, names[0])


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def two_unnamed_backbones() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 3))
    both = [FrozenBackbone(unnamed_network(), preprocessing="unit")(inputs) for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.concatenate(both)))
    model.compile(keras.optimizers.Adam(1e-3), "mse", run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("make", "schedule"),
    [
        (lambda: plain(FrozenBackbone(unnamed_network(), preprocessing="unit")), {0: 1, 1: 2}),
        (two_unnamed_backbones, {0: "backbone2/1", 1: "backbone1/block2"}),
    ],
    ids=["plain", "two backbones"],
)
@pytest.mark.slow
def test_unnamed_layers_resume_as_uninterrupted_though_another_model_was_built(
    make, schedule, tmp_path
):
    def run(folder, *callbacks):
        keras.utils.set_random_seed(1)
        model = make()
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, delete_checkpoint=False)
        return model, fit(model, BlockUnfreezer(schedule), backup, *callbacks, epochs=3).history

    with pytest.raises(KeyboardInterrupt):
        run("interrupted", Interrupt(2))
    build_another_model()
    (resumed, rest), (whole, history) = run("interrupted"), run("whole")
    assert rest == history
    assert identical(snapshot(whole), resumed)
    for ours, theirs in zip(resumed.optimizer.variables, whole.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_schedule_with_a_layer_name_that_keras_made_up_is_refused():
    network = unnamed_network()
    model = plain(FrozenBackbone(network, preprocessing="unit"))
    with pytest.raises(ValueError, match=r"No block .* matches 'conv2d.*block1, block2, block3"):
        fit(model, BlockUnfreezer({0: network.layers[1].name}), epochs=1)


@pytest.mark.slow
def test_state_of_a_block_that_the_model_does_not_have_is_an_error(tmp_path):
    model, file = plain(tiny_backbone()), tmp_path / "saved.weights.h5"
    fit(model, BlockUnfreezer({0: "block4"}), epochs=1)
    model.save_weights(file)
    with h5py.File(file, "r+") as saved:
        for key in [key for key in saved["optimizer/vars"] if key.startswith("block4:")]:
            saved["optimizer/vars"].move(key, key.replace("block4", "block9"))
    model.load_weights(file)
    with pytest.raises(ValueError, match="optimizer state of 'block9', which is no block"):
        fit(model, BlockUnfreezer({0: "block4"}), epochs=2, initial_epoch=1)


@keras.saving.register_keras_serializable(package="test_saved_state")
class Block1(keras.layers.Conv2D):
    """A layer that Keras names as the package names the first block."""


def test_a_name_that_keras_made_up_is_not_taken_for_that_of_a_block():
    network = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 3)])
    network.add(Block1(4, 3, name="block1"))
    backbone = FrozenBackbone(network, preprocessing="unit")
    backbone.unfreeze("block1")
    loaded = FrozenBackbone.from_config(backbone.get_config())
    assert [block.frozen for block in loaded.blocks] == [False, True]


# ---- checkpoints of every format


@pytest.mark.parametrize("name", ["adam", "adafactor", "muon"])
@pytest.mark.slow
def test_a_checkpoint_of_the_legacy_format_is_written_while_blocks_unfreeze(name, tmp_path):
    backbone = FrozenBackbone(unnamed_network(2), preprocessing="unit")
    model = plain(backbone, OPTIMIZERS[name]())
    phases = [Phase(1, at_epoch=0, restore_best=True), Phase(2, at_epoch=1, optimizer="sgd")]
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.h5")
    fit(model, BlockUnfreezer(phases, monitor="loss"), checkpoint)
    loaded = keras.saving.load_model(tmp_path / "best.h5")
    assert loaded.layers[0].blocks == backbone.blocks
    np.testing.assert_array_equal(loaded(images(4)), model(images(4)))
    fit(model, BlockUnfreezer(phases, monitor="loss"))  # Keras forgets the optimizer as it saves
    fit(loaded, BlockUnfreezer(phases, monitor="loss"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [kept])
def test_checkpoints_of_all_other_formats_are_whole(make, tmp_path):
    model = make(tiny_backbone())
    checkpoints = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True),
    ]
    phases = [Phase("block4", at_epoch=0, restore_best=True), Phase("block3", at_epoch=1)]
    fit(model, BlockUnfreezer(phases, monitor="loss"), *checkpoints)
    model.save_weights(tmp_path / "best.weights.json", max_shard_size=1)
    before, state = snapshot(model), [v.numpy() for v in model.optimizer.variables]
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    assert identical(before, loaded)
    for file in ("best.weights.h5", "best.weights.json"):
        for variable in (*model.weights, *model.optimizer.variables):
            variable.assign(variable * 0)
        model.load_weights(tmp_path / file)
        assert identical(before, model)
        for value, variable in zip(state, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(value, variable.numpy())


# ---- what is interrupted keeps its weights, as in plain Keras


class InterruptBatch(keras.callbacks.Callback):
    """Ends a fit within its second epoch, and notes the weights of then."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.phase == 1:
            self.weights = snapshot(self.model)
            raise self.error


@pytest.mark.parametrize(("make", "error"), [(plain, KeyboardInterrupt), (kept, RuntimeError)])
@pytest.mark.slow
def test_an_interrupted_fit_leaves_the_weights_and_not_their_averages(make, error):
    model, interrupt = make(tiny_backbone(), keras.optimizers.SGD(1.0, use_ema=True)), None
    interrupt = InterruptBatch(error)
    with pytest.raises(error):
        fit(model, BlockUnfreezer({1: "block4"}), interrupt)
    assert identical(interrupt.weights, model)
    fit(model, BlockUnfreezer({1: "block4"}))
    rest = model.optimizer.group("rest")
    np.testing.assert_array_equal(  # a fit that ends as it should brings the averages
        rest._trainable_variables[0].numpy(), rest._model_variables_moving_average[0].numpy()
    )


@pytest.mark.slow
def test_a_callback_that_fails_as_training_begins_leaves_nothing_held():
    class Fails(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise RuntimeError("no training today")

    model = kept(tiny_backbone(), keras.optimizers.SGD(1.0, use_ema=True))
    with pytest.raises(RuntimeError, match="no training today"):
        fit(model, BlockUnfreezer({1: "block4"}), Fails())
    keras.Model.fit(model, dataset(16), verbose=0)  # two batches: after one, both are the same
    rest = model.optimizer.group("rest")
    np.testing.assert_array_equal(
        rest._trainable_variables[0].numpy(), rest._model_variables_moving_average[0].numpy()
    )
