"""The laws that the package stands for. Each fails if its law is broken."""

import subprocess
import sys
import textwrap
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    SIZE,
    dataset,
    identical,
    images,
    labels,
    relative_difference,
    snapshot,
    tiny_backbone,
    tiny_network,
)

from keras_transfer import BlockUnfreezer, FeatureCache, FrozenBackbone, TransferModel, image_folder


def sequential(backbone: FrozenBackbone) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            backbone,
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def transfer(backbone: FrozenBackbone, cache: str | None = "auto") -> TransferModel:
    return TransferModel(backbone, 2, hidden=16, dropout=0, feature_cache=cache)


def adapting() -> FrozenBackbone:
    """Its Dropout, which would drop, drops nothing."""
    return FrozenBackbone(tiny_network(dropout=0.0), preprocessing="tf", batch_norm="adapt")


MODELS = {
    "sequential": sequential,
    "kept": transfer,
    "end_to_end": lambda backbone: transfer(backbone, None),
}
BACKBONES = {
    "tiny": (tiny_backbone, "block4", ("block1", "block2", "block3")),
    "adapting": (adapting, "block4", ("block1", "block2", "block3")),
    "vgg16": (lambda: FrozenBackbone("vgg16", weights=None), "block5", ("block1", "block4")),
    "mobilenet": (lambda: FrozenBackbone("mobilenet", weights=None), "stage5", ("stem", "stage4")),
}
FITS = [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=[pytest.mark.slow] * (name != "tiny"))
    for name, kind in (
        *(("tiny", kind) for kind in MODELS),
        ("vgg16", "sequential"),
        ("mobilenet", "kept"),
    )
]


def sub_model(backbone: FrozenBackbone, block: str) -> keras.Model:
    return next(layer for layer in backbone._chain if layer.name == block)


def statistics(backbone: FrozenBackbone) -> list[np.ndarray]:
    return [w.numpy().copy() for w in backbone.weights if "moving_" in w.path]


class Watch(keras.callbacks.Callback):
    """Notes at the end of each epoch whether a layer is as it was at the begin of training."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__()
        self.layer = layer
        self.unchanged: list[bool] = []

    def on_train_begin(self, logs=None):
        self.before = snapshot(self.layer)

    def on_epoch_end(self, epoch, logs=None):
        self.unchanged.append(identical(self.before, self.layer))


@dataclass(frozen=True)
class Fit:
    """A fit of three epochs with a block unfrozen in the last, and what was there before it."""

    backbone: FrozenBackbone
    frozen: dict[str, list[np.ndarray]]
    moments: list[np.ndarray]
    unchanged: list[bool]


@pytest.fixture(scope="module", params=FITS)
def fit(request) -> Fit:
    name, kind = request.param
    make, block, frozen = BACKBONES[name]
    keras.utils.set_random_seed(0)
    backbone = make()
    model = MODELS[kind](backbone)
    model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    before = {other: snapshot(sub_model(backbone, other)) for other in frozen}
    moments, watch = statistics(backbone), Watch(sub_model(backbone, block))
    data = dataset(16) if name == "tiny" else large_dataset()
    model.fit(data, epochs=3, verbose=0, callbacks=[watch, BlockUnfreezer({2: block})])
    return Fit(backbone, before, moments, watch.unchanged)


def test_law_1_frozen_is_frozen_in_every_weight_and_statistic(fit):
    for other, weights in fit.frozen.items():
        assert identical(weights, sub_model(fit.backbone, other)), f"{other} moved"
    for old, new in zip(fit.moments, statistics(fit.backbone), strict=True):
        np.testing.assert_array_equal(old, new)


def test_law_2_unfrozen_moves_in_the_same_fit_and_not_before(fit):
    assert fit.unchanged == [True, True, False]


@pytest.mark.parametrize("kind", MODELS)
def test_law_1_statistics_of_unfrozen_blocks_move_only_where_that_is_asked_for(kind):
    moved = {}
    for batch_norm in ("adapt", "frozen"):
        keras.utils.set_random_seed(0)
        backbone = tiny_backbone(batch_norm=batch_norm)
        model = MODELS[kind](backbone)
        model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
        before = {
            block.name: snapshot(sub_model(backbone, block.name)) for block in backbone.blocks
        }
        moments = [w for w in backbone.block_state("block4") if "moving_" in w.path]
        was = [w.numpy().copy() for w in moments]
        model.fit(dataset(16), epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
        for other in ("block1", "block2", "block3"):
            assert identical(before[other], sub_model(backbone, other))
        moved[batch_norm] = [
            not np.array_equal(a, b.numpy()) for a, b in zip(was, moments, strict=True)
        ]
        after = [w.numpy().copy() for w in moments]
        model.predict(images(8), verbose=0)
        model.evaluate(dataset(8), verbose=0)
        backbone.freeze()
        model.compile("sgd", "binary_crossentropy")
        model.fit(dataset(16), verbose=0)
        for old, new in zip(after, moments, strict=True):  # frozen again, or not in training
            np.testing.assert_array_equal(old, new.numpy())
    assert moved["adapt"]
    assert all(moved["adapt"])
    assert not any(moved["frozen"])


@pytest.mark.slow
def test_blocks_that_adapt_train_as_in_plain_keras():
    """The trained weights equal those of a Keras model with the same trainable layers."""
    pixels, y, results = images(16, 32), labels(16), []
    for ours in (True, False):
        keras.utils.set_random_seed(0)
        base = keras.applications.MobileNet(
            include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
        )
        backbone = FrozenBackbone(base, preprocessing="tf", batch_norm="adapt")
        top = [block.name for block in backbone.blocks][-2:]
        if ours:
            backbone.unfreeze(top)
            layers = [keras.Input((32, 32, 3)), backbone, keras.layers.Dense(1)]
        else:
            base.trainable = True
            trained = {id(w) for name in top for w in backbone.block_state(name)}
            for layer in base.layers:
                layer.trainable = any(id(w) in trained for w in layer.weights)
            rescaling = keras.layers.Rescaling(1 / 127.5, offset=-1)
            layers = [keras.Input((32, 32, 3)), rescaling, base, keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.layers[-1].set_weights([np.full((1024, 1), 1e-2, "float32"), np.zeros(1, "float32")])
        model.compile(keras.optimizers.SGD(1e-2), keras.losses.BinaryCrossentropy(True))
        model.fit(pixels, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        results.append([*snapshot(base), *snapshot(model.layers[-1])])
    assert relative_difference(*results) <= 1e-4


def large_dataset() -> tf.data.Dataset:
    rows = (images(8, 32), labels(8))
    return tf.data.Dataset.from_tensor_slices(rows).batch(4)


@pytest.mark.slow
def test_statistics_move_in_plain_keras_where_ours_do_not():
    """What law 1 guards against happens: the guide's recipe moves statistics (keras#20285)."""
    base = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    inputs = keras.Input((32, 32, 3))
    plain = keras.Model(inputs, keras.layers.Dense(1)(base(inputs, training=False)))
    plain.compile("sgd", "mse")
    before = snapshot(base)
    plain.fit(large_dataset(), verbose=0)
    moved = [
        not np.array_equal(a, b.numpy())
        for a, b in zip(before, base.weights, strict=True)
        if "moving_" in b.path
    ]
    assert any(moved)


SOME_FITS = [fit for fit in FITS if fit.values[0] in {("tiny", "kept"), ("mobilenet", "kept")}]


@pytest.mark.parametrize(
    ("name", "kind"), [pytest.param(*f.values[0], id=f.id, marks=f.marks) for f in SOME_FITS]
)
def test_law_3_the_state_of_what_trained_is_kept_bit_by_bit_across_a_transition(name, kind):
    make, block, _ = BACKBONES[name]
    model = MODELS[kind](make())
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    seen = {}

    class Compare(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rest = self.model.optimizer.group("rest")
            seen[epoch] = [v.numpy().copy() for v in rest.variables]

        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0 and len(seen) == 2:
                rest = self.model.optimizer.group("rest")
                seen["after"] = [v.numpy().copy() for v in rest.variables]
                seen["late"] = int(self.model.optimizer.group(block).iterations)

    data = dataset(16) if name == "tiny" else large_dataset()
    model.fit(data, epochs=4, verbose=0, callbacks=[BlockUnfreezer({2: block}), Compare()])
    assert len(seen["after"]) > 4
    for before, after in zip(seen[1], seen["after"], strict=True):
        np.testing.assert_array_equal(before, after)
    assert seen["late"] == 0
    assert int(model.optimizer.group(block).iterations) == 4
    assert int(model.optimizer.group("rest").iterations) == 8


@pytest.mark.parametrize("make", [tiny_backbone, adapting])
def test_law_4_fast_equals_plain_over_all_phases(make):
    weights, histories = [], []
    for cache in ("auto", None):
        keras.utils.set_random_seed(1)
        model = TransferModel(make(), 3, hidden=8, dropout=0, feature_cache=cache)
        model.compile(keras.optimizers.Adam(1e-3))
        history = model.fit(
            dataset(8, classes=3),
            validation_data=dataset(8, classes=3, shuffle=False),
            epochs=3,
            verbose=0,
            callbacks=[BlockUnfreezer({1: "block4", 2: 2}, learning_rate=5e-4)],
        )
        weights.append(snapshot(model))
        histories.append(history.history)
    assert relative_difference(*weights) <= 1e-5
    for name in histories[1]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet"])
def test_law_4_holds_for_real_architectures_after_50_steps(name):
    weights = []
    for cache in ("auto", None):
        keras.utils.set_random_seed(1)
        backbone = FrozenBackbone(name, weights=None)
        model = TransferModel(backbone, 2, hidden=8, dropout=0, feature_cache=cache)
        model.compile(keras.optimizers.SGD(1e-2))
        data = tf.data.Dataset.from_tensor_slices((images(20, 32), labels(20)))
        data = data.shuffle(20, seed=5).batch(4)
        top = [block.name for block in backbone.blocks][-1]
        model.fit(data, epochs=10, verbose=0, callbacks=[BlockUnfreezer({5: top})])
        weights.append(snapshot(model))
    assert relative_difference(*weights) <= 1e-5


@pytest.mark.slow
def test_law_4_holds_for_arrays():
    weights = []
    for cache in ("auto", None):
        keras.utils.set_random_seed(1)
        model = transfer(tiny_backbone(), cache)
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(
            images(12),
            labels(12),
            batch_size=8,
            epochs=2,
            verbose=0,
            shuffle=False,
            validation_split=0.25,
            sample_weight=np.linspace(0, 1, 12),
            callbacks=[BlockUnfreezer({1: "block4"})],
        )
        weights.append(snapshot(model))
    assert relative_difference(*weights) <= 1e-5


class Interrupt(keras.callbacks.Callback):
    """Ends a run as a user or a power cut would, at the begin of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


LAW_5 = [
    pytest.param("tiny", "kept", 2, (1,), id="tiny"),
    pytest.param("adapting", "kept", 4, (3,), id="adapting", marks=pytest.mark.slow),
    pytest.param("tiny", "sequential", 4, (2, 3), id="tiny-sequential", marks=pytest.mark.slow),
    pytest.param("tiny", "end_to_end", 4, (1,), id="tiny-end_to_end", marks=pytest.mark.slow),
    pytest.param("mobilenet", "kept", 3, (2,), id="mobilenet", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "kind", "epochs", "interrupts"), LAW_5)
def test_law_5_resumed_equals_uninterrupted(name, kind, epochs, interrupts, tmp_path):
    make, block, _ = BACKBONES[name]

    def run(folder: str, *callbacks: keras.callbacks.Callback):
        keras.utils.set_random_seed(1)
        model = MODELS[kind](make())
        model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
        small = name in ("tiny", "adapting")
        size = SIZE if small else 32
        model.built or model.build((None, size, size, 3))
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, delete_checkpoint=False)
        unfreezer = BlockUnfreezer({min(2, epochs - 1): block}, learning_rate=1e-4)
        data = dataset(8, shuffle=False) if small else large_dataset()
        history = model.fit(
            data, epochs=epochs, verbose=0, callbacks=[*callbacks, unfreezer, backup]
        )
        return model, history.history

    for epoch in interrupts:
        with pytest.raises(KeyboardInterrupt):
            run("interrupted", Interrupt(epoch))
    (resumed, rest), (whole, history) = run("interrupted"), run("whole")
    assert rest == history
    assert identical(snapshot(resumed), whole)
    for group in ("rest", block):
        pairs = zip(*(m.optimizer.group(group).variables for m in (resumed, whole)), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert resumed.optimizer.phase == whole.optimizer.phase == 1
    assert float(resumed.optimizer.learning_rate) == float(whole.optimizer.learning_rate)


@pytest.mark.slow
def test_law_6_what_trained_is_what_ships(tmp_path):
    pixels, expected = images(8, 32), {}
    np.save(tmp_path / "pixels.npy", pixels)
    backbones = {
        "tiny": tiny_backbone(),
        "adapting": adapting(),
        "real": FrozenBackbone("vgg16", weights=None, pooling="flatten", input_shape=(32, 32, 3)),
    }
    for name, backbone in backbones.items():
        model = TransferModel(
            backbone, ["cat", "dog"], hidden=8, augmentation=keras.layers.RandomFlip()
        )
        model.backbone.unfreeze(1)
        model.compile()
        model.fit(pixels, labels(8), epochs=1, verbose=0)
        model.export(tmp_path / name, verbose=False)
        expected[name] = model.predict(pixels, verbose=0)
    script = """
        import sys
        sys.modules["keras_transfer"] = None  # any import of it fails
        import numpy, tensorflow
        pixels = numpy.load("pixels.npy")
        for folder in sys.argv[1:]:
            served = tensorflow.saved_model.load(folder).signatures["serving_default"]
            (scores,) = served(tensorflow.cast(pixels, "float32")).values()
            numpy.save(folder + ".npy", scores.numpy())
    """
    command = [sys.executable, "-I", "-c", textwrap.dedent(script), *expected]
    subprocess.run(command, cwd=tmp_path, check=True)
    for name, scores in expected.items():
        assert scores.std() > 0
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), scores, atol=1e-5)


def test_law_7_a_pixel_range_that_does_not_fit_is_named():
    model = transfer(tiny_backbone())
    model.compile()
    with pytest.warns(UserWarning, match=r"Expected raw pixels, 0\.\.255.*image \* 255"):
        model.fit(images(8) / 255, labels(8), verbose=0)
    with pytest.warns(UserWarning, match=r"Expected raw pixels, 0\.\.255"):
        model.evaluate(images(8).astype("float32") / 255, labels(8), verbose=0)


def test_law_7_augmentation_is_never_frozen_into_a_cache(capsys):
    model = TransferModel(tiny_backbone(), 2, augmentation=[keras.layers.RandomFlip()])
    model.compile()
    model.fit(dataset(8), epochs=1, verbose=2)
    assert "under augmentation each epoch sees other images" in capsys.readouterr().out

    flip = keras.layers.RandomFlip()
    model = transfer(tiny_backbone())
    model.compile()
    random = dataset(8).map(lambda x, y: (flip(x, training=True), y))
    model.fit(random, epochs=1, verbose=2)
    assert "may give something else in each epoch" in capsys.readouterr().out


def test_law_7_activations_of_other_weights_are_never_served():
    cache, data, backbone = FeatureCache(), dataset(8, shuffle=False), tiny_backbone()
    before = next(iter(cache.dataset(backbone, data)))[0]["after:pooling"]
    backbone.set_weights([weight + 0.01 for weight in backbone.get_weights()])
    after = next(iter(cache.dataset(backbone, data)))[0]["after:pooling"]
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, backbone(images(8)), atol=1e-6)


def test_law_7_unknown_blocks_and_empty_classes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"matches 'blok4'.*block1, block2, block3, block4"):
        tiny_backbone().unfreeze("blok4")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    keras.utils.save_img(tmp_path / "cat" / "1.png", images(1)[0])
    with pytest.raises(ValueError, match="Class 'dog' is empty"):
        image_folder(tmp_path)
