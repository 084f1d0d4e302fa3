import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, identical, images, labels, snapshot, tiny_backbone, tiny_network

from keras_transfer import BlockUnfreezer, FeatureCache, Flips, FrozenBackbone, TransferModel


def model_of(classes=2, **kwargs) -> TransferModel:
    model = TransferModel(tiny_backbone(), classes, hidden=8, **kwargs)
    model.compile()
    return model


@pytest.mark.parametrize(("classes", "units", "activation"), [(2, 1, "sigmoid"), (3, 3, "softmax")])
@pytest.mark.slow
def test_loss_metrics_and_last_layer_follow_from_the_classes(classes, units, activation):
    model = model_of(classes)
    history = model.fit(dataset(classes=classes), epochs=1, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    scores = model.predict(images(5), verbose=0)
    assert scores.shape == (5, units)
    assert model.head.layers[-1].activation.__name__ == activation
    if units > 1:
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("classes", "form"), [(2, "floats"), (3, "column")])
@pytest.mark.slow
def test_labels_may_be_integers_floats_or_a_column(classes, form):
    y = labels(24, classes)
    y = {"floats": y.astype("float32"), "column": y[:, None]}[form]
    keras.utils.set_random_seed(1)
    model = model_of(classes)
    loss = model.fit(images(24), y, epochs=2, verbose=0, shuffle=False).history["loss"]
    keras.utils.set_random_seed(1)
    plain = model_of(classes)
    expected = plain.fit(images(24), labels(24, classes), epochs=2, verbose=0, shuffle=False)
    np.testing.assert_allclose(loss, expected.history["loss"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.traced
def test_it_learns_what_can_be_learned():
    keras.utils.set_random_seed(0)
    model = model_of(["dark", "bright"], dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(dataset(), epochs=15, verbose=0)
    assert model.evaluate(dataset(shuffle=False), verbose=0, return_dict=True)["accuracy"] > 0.9


def test_given_loss_optimizer_and_metrics_are_used():
    model = TransferModel(tiny_backbone(), 2)
    model.compile("sgd", loss="mse", metrics=["mae"])
    assert set(model.fit(dataset(8), verbose=0).history) == {"loss", "mae"}
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def test_an_own_head_takes_the_place_of_the_default_one():
    head = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(3, activation="softmax")])
    model = TransferModel(tiny_backbone(), 3, head=head)
    model.compile()
    model.fit(dataset(8, classes=3), verbose=0)
    assert model.head is head


def test_a_head_that_does_not_fit_the_classes_is_refused():
    head = keras.layers.Dense(2, activation="softmax")
    model = TransferModel(tiny_backbone(), ["a", "b", "c"], head=head)
    model.compile()
    with pytest.raises(ValueError, match=r"The head gives 2 units\. Expected 3 .* classes a, b, c"):
        model.fit(dataset(8, classes=3), verbose=0)


@pytest.mark.slow
def test_the_backbone_runs_once_for_each_image(monkeypatch):
    rows = []
    run = FrozenBackbone.activations

    def counting(self, inputs, *, after):
        outputs = run(self, inputs, after=after)
        tf.py_function(lambda x: rows.append(len(x)), [tf.nest.flatten(inputs)[0]], [])
        return outputs

    monkeypatch.setattr(FrozenBackbone, "activations", counting)
    model = model_of()
    model.fit(dataset(16), validation_data=dataset(8, shuffle=False), epochs=2, verbose=0)
    assert 24 <= sum(rows) <= 24 + 4  # each image once, and two to look at what is kept


@pytest.mark.slow
def test_what_lies_below_later_phases_is_computed_once_too():
    cache = FeatureCache()
    model = model_of(feature_cache=cache)
    model.fit(dataset(16), epochs=4, verbose=0, callbacks=[BlockUnfreezer({1: 1, 2: 2})])
    kept = sorted(dict(key)["after"] for key in cache._entries)
    assert kept == ["block2", "block3", "pooling"]


@pytest.mark.slow
def test_models_share_what_a_cache_holds_while_the_weights_are_the_same():
    cache, data = FeatureCache(), dataset(16)
    for _ in range(2):
        model_of(feature_cache=cache).fit(data, verbose=0)
    assert len(cache) == 1
    changed = tiny_backbone()
    changed.set_weights([weight + 0.01 for weight in changed.get_weights()])
    model = TransferModel(changed, 2, feature_cache=cache)
    model.compile()
    model.fit(data, verbose=0)
    assert len(cache) == 2


@pytest.mark.slow
def test_a_prediction_on_images_in_the_middle_of_a_fit_sees_one_ordinary_model(tmp_path):
    pixels, seen = images(4), []

    class Predict(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.predict(pixels, verbose=0))
            self.model.evaluate(dataset(8), verbose=0)

    model = model_of()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model.fit(dataset(16), epochs=2, verbose=0, callbacks=[Predict(), checkpoint])
    for epoch, scores in enumerate(seen, 1):
        loaded = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        np.testing.assert_allclose(loaded.predict(pixels, verbose=0), scores, atol=1e-6)


@pytest.mark.slow
def test_several_phases_are_one_training_to_callbacks_and_history():
    calls = []

    class Count(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            calls.append("begin")

        def on_train_end(self, logs=None):
            calls.append("end")

        def on_epoch_begin(self, epoch, logs=None):
            calls.append(epoch)

    model = model_of()
    history = model.fit(
        dataset(16),
        validation_data=dataset(8),
        epochs=4,
        verbose=0,
        callbacks=[BlockUnfreezer({1: "block4", 3: "block3"}), Count()],
    )
    assert calls == ["begin", 0, 1, 2, 3, "end"]
    assert history is model.history
    assert history.epoch == [0, 1, 2, 3]
    assert all(len(values) == 4 for values in history.history.values())


@pytest.mark.traced
@pytest.mark.parametrize("data", [(dataset(16),), (images(16), labels(16))], ids=["set", "arrays"])
@pytest.mark.slow
def test_the_train_step_is_traced_once_a_phase(data, monkeypatch):
    step, traced = TransferModel.train_step, []
    monkeypatch.setattr(
        TransferModel, "train_step", lambda self, data: (traced.append(1), step(self, data))[1]
    )
    model = TransferModel(tiny_backbone(), 2, hidden=4)
    model.compile()
    model.fit(*data, epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])
    assert len(traced) == 2
    assert model.history.history["accuracy"][-1] > 0


@pytest.mark.slow
def test_early_stopping_that_may_end_any_phase_ends_them_all():
    model = model_of()
    stop = keras.callbacks.EarlyStopping(
        "loss", patience=1, min_delta=10, restore_best_weights=True
    )
    unfreezer = BlockUnfreezer({5: "block4"}, early_stopping="any")
    history = model.fit(dataset(16), epochs=9, verbose=0, callbacks=[stop, unfreezer])
    assert len(history.epoch) == 2


def test_augmentation_runs_in_training_only():
    class Black(keras.layers.Layer):
        def call(self, images, training=False):
            return images * 0 if training else images

    model = TransferModel(tiny_backbone(), 2, augmentation=[Black()])
    pixels = images(4).astype("float32")
    np.testing.assert_array_equal(model(pixels), model(pixels, training=False))
    dark = model.head(model.backbone(pixels * 0), training=False)
    model.head.get_layer("dropout").rate = 0.0
    np.testing.assert_allclose(model(pixels, training=True), dark, rtol=1e-5)


@pytest.mark.parametrize(
    "data",
    [
        lambda: dataset(8).repeat(),
        lambda: dataset(8).unbatch().filter(lambda x, y: True).batch(4),
        lambda: tf.data.Dataset.from_generator(
            lambda: iter([(images(4), labels(4))]),
            output_signature=(
                tf.TensorSpec((None, SIZE, SIZE, 3), "uint8"),
                tf.TensorSpec((None,), "int32"),
            ),
        ),
    ],
)
def test_what_cannot_be_kept_trains_end_to_end_and_one_line_says_why(data, capsys):
    model = model_of()
    model.fit(data(), epochs=1, steps_per_epoch=1, verbose=2)
    out = capsys.readouterr().out
    assert out.count("Training end to end, with nothing kept: the number of batches is") == 1


def test_a_generator_trains_end_to_end():
    def batches():
        while True:
            yield images(4), labels(4)

    history = model_of().fit(batches(), steps_per_epoch=2, epochs=2, verbose=0)
    assert len(history.epoch) == 2


@pytest.mark.slow
def test_class_weights_and_sample_weights_mean_what_they_always_mean():
    results = []
    for cache in ("auto", None):
        keras.utils.set_random_seed(1)
        model = model_of(dropout=0, feature_cache=cache)
        weighted = dataset(16).map(lambda x, y: (x, y, tf.cast(y, "float32") + 0.5))
        model.fit(weighted, epochs=2, verbose=0)
        model.fit(dataset(16), epochs=2, verbose=0, class_weight={0: 1.0, 1: 3.0})
        results.append(snapshot(model.head))
    for kept, plain in zip(*results, strict=True):
        np.testing.assert_allclose(kept, plain, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_kept_activations_may_be_given_but_not_beyond_a_block_that_trains():
    backbone, cache = tiny_backbone(), FeatureCache()
    kept = cache.dataset(backbone, dataset(16), after="pooling")
    model = TransferModel(backbone, 2)
    model.compile()
    model.fit(kept, epochs=1, verbose=0)
    with pytest.raises(ValueError, match="'after:pooling', which blocks below it would change"):
        model.fit(kept, epochs=2, verbose=0, callbacks=[BlockUnfreezer({1: "block4"})])


@pytest.mark.slow
def test_the_whole_model_is_in_its_file(tmp_path):
    model = TransferModel(
        tiny_backbone(pooling="max"),
        ["cat", "dog", "owl"],
        hidden=7,
        dropout=0.2,
        augmentation=[keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)],
    )
    model.compile()
    model.fit(dataset(8, classes=3), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.class_names == ("cat", "dog", "owl")
    assert [type(layer).__name__ for layer in loaded.augmentation.layers] == [
        "RandomFlip",
        "RandomRotation",
    ]
    np.testing.assert_allclose(
        loaded.predict(images(4), verbose=0), model.predict(images(4), verbose=0), atol=1e-6
    )
    assert identical(snapshot(model), loaded)
    loaded.fit(dataset(8, classes=3), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "two or more class names"),
        ({"classes": ["a", "a"]}, "two or more class names, each different"),
        ({"classes": "cat"}, r"For example \['cat', 'dog'\]"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"hidden": -1}, "hidden=-1"),
        ({"feature_cache": "ram"}, "'auto', None or a FeatureCache. Received: 'ram'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TransferModel(tiny_backbone(), **arguments)


def test_a_plain_model_as_backbone_asks_for_its_pixel_range():
    with pytest.raises(ValueError, match="nothing is known of the pixels that model 'tiny'"):
        TransferModel(tiny_network(), 2)


def test_fit_before_compile_says_so():
    with pytest.raises(ValueError, match="compile"):
        TransferModel(tiny_backbone(), 2).fit(dataset(8))


def test_a_validation_split_of_a_dataset_is_refused():
    with pytest.raises(ValueError, match="`validation_split` needs arrays"):
        model_of().fit(dataset(8), validation_split=0.2)


class OwnCall(TransferModel):
    def call(self, inputs, training=False):
        return super().call(keras.ops.cast(inputs, "float32"), training=training)


class OwnStep(TransferModel):
    def train_step(self, data):
        pixels, y = data
        return super().train_step((pixels[:, ::-1], y))


@pytest.mark.traced
@pytest.mark.parametrize("own", [OwnCall, OwnStep])
@pytest.mark.slow
def test_a_method_that_cannot_take_kept_activations_gets_a_hint(own):
    hint = rf"{own.__name__}\.\w+: kept activations[\s\S]*'after:pooling'.*feature_cache=None"
    model = own(tiny_backbone(), 2)
    model.compile()
    with pytest.raises(TypeError) as caught:
        model.fit(dataset(8), verbose=0)
    assert re.search(hint, "\n".join(caught.value.__notes__))
    model = own(tiny_backbone(), 2, feature_cache=None)
    model.compile()
    model.fit(dataset(8), verbose=0)  # as the hint says


@pytest.mark.slow
def test_a_method_that_takes_kept_activations_gets_them_and_one_line_says_so(capsys):
    class Fits(TransferModel):
        def train_step(self, data):
            return super().train_step(data)

    model = Fits(tiny_backbone(), 2)
    model.compile()
    model.fit(dataset(8), validation_data=dataset(8), epochs=2, verbose=2)
    assert capsys.readouterr().out.count("Given to Fits.train_step: kept activations") == 1


@pytest.mark.parametrize(
    "augmentation",
    [Flips(), [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)]],
    ids=["flips", "list"],
)
@pytest.mark.slow
def test_a_built_model_has_all_its_weights_whatever_its_augmentation(augmentation):
    model = TransferModel(tiny_backbone(), 2, augmentation=augmentation)
    model.compile()
    model.build((None, SIZE, SIZE, 3))
    schedule = BlockUnfreezer({1: "block4"}, restore_best=True, monitor="loss")
    assert len(model.fit(dataset(8), epochs=2, verbose=0, callbacks=[schedule]).epoch) == 2


@pytest.mark.filterwarnings("ignore:`build:UserWarning")  # Keras says so of the unbuilt Flips
@pytest.mark.slow
def test_a_layer_that_runs_in_training_only_and_has_no_weights_counts_as_built():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.augmentation = keras.Sequential([Flips()])
            self.backbone = tiny_backbone()
            self.top = keras.layers.Dense(1, activation="sigmoid")

        def call(self, images, training=False):
            x = self.augmentation(images) if training else images
            return self.top(self.backbone(x))

    model = Mine()
    model.compile("adam", "binary_crossentropy")
    model(images(2))
    schedule = BlockUnfreezer({1: "block4"}, restore_best=True, monitor="loss")
    assert len(model.fit(dataset(8), epochs=2, verbose=0, callbacks=[schedule]).epoch) == 2
