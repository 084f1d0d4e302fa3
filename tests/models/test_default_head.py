"""What a user does to the head that TransferModel makes is in the file, as for an own head."""

import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import SIZE, dataset, identical, images, snapshot, tiny_backbone

from keras_transfer import AveragedViews, Flips, TransferModel


def model_of(classes=2, **kwargs) -> TransferModel:
    model = TransferModel(tiny_backbone(), classes, hidden=6, dropout=0.2, **kwargs)
    model.build((None, SIZE, SIZE, 3))
    return model


def hidden(model) -> keras.layers.Dense:
    return model.head.get_layer("hidden")


def gelu(model):
    hidden(model).activation = keras.activations.gelu


def regularized(model):
    layer = hidden(model)
    layer.kernel_regularizer = layer.kernel.regularizer = keras.regularizers.L2(0.1)


def partly_frozen(model):
    hidden(model).trainable = False


def frozen(model):
    model.head.trainable = False


def half_precision(model):
    hidden(model).dtype_policy = "mixed_bfloat16"


def quantized(model):
    hidden(model).quantize("int8")


def low_rank(model):
    hidden(model).enable_lora(2)


def other_rate(model):
    model.head.get_layer("dropout").rate = 0.7


CHANGES = {
    "settings": (gelu, regularized, other_rate),
    "partly frozen": (partly_frozen,),
    "frozen in half precision": (frozen, half_precision),
    "quantized": (quantized,),
    "low rank": (low_rank,),
}


def described(model) -> str:
    return json.dumps(model.head.get_config()["layers"], sort_keys=True)


@pytest.mark.parametrize("changes", list(CHANGES.values()), ids=list(CHANGES))
@pytest.mark.slow
def test_a_change_of_the_default_head_is_in_its_file(changes, tmp_path):
    model = model_of()
    for change in changes:
        change(model)
    model.compile()
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert described(loaded) == described(model)
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    assert len(loaded.losses) == len(model.losses)
    pixels = images(4)
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
    assert [v.shape for v in loaded.optimizer.variables] == [
        v.shape for v in model.optimizer.variables
    ]


def test_another_head_that_was_put_in_its_place_is_in_the_file(tmp_path):
    model = TransferModel(tiny_backbone(), 2)
    model.head = keras.layers.Dense(1, activation="hard_sigmoid")
    model.build((None, SIZE, SIZE, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images(4)), model(images(4)))


@pytest.mark.slow
def test_a_clone_and_the_average_over_views_have_the_changed_head(tmp_path):
    model = model_of()
    gelu(model)
    clone = keras.models.clone_model(model)
    clone.build((None, SIZE, SIZE, 3))
    clone.set_weights(model.get_weights())
    pixels = images(4)
    np.testing.assert_array_equal(clone(pixels), model(pixels))
    averaged = AveragedViews.of(model, Flips())
    averaged.save(tmp_path / "averaged.keras")
    loaded = keras.saving.load_model(tmp_path / "averaged.keras")
    np.testing.assert_array_equal(loaded(pixels), averaged(pixels))


@pytest.mark.slow
def test_a_file_of_an_earlier_version_gets_the_head_that_its_arguments_make(tmp_path):
    model = model_of(3)
    model.compile()
    model.fit(dataset(8, classes=3), verbose=0)
    model.save(tmp_path / "model.keras")
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as now,
        zipfile.ZipFile(tmp_path / "earlier.keras", "w") as earlier,
    ):
        for name in now.namelist():
            content = now.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["head"] = None
                content = json.dumps(config).encode()
            earlier.writestr(name, content)
    loaded = keras.saving.load_model(tmp_path / "earlier.keras")
    assert identical(snapshot(model), loaded)
    np.testing.assert_array_equal(loaded(images(4)), model(images(4)))
