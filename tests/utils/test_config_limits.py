"""A model file of few bytes fills no memory, whatever it asks for."""

import json
import zipfile

import keras
import pytest
from conftest import SIZE, tiny_backbone

from keras_transfer import TransferModel
from keras_transfer.utils.config_limits import check_config, check_memory


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    model = TransferModel(tiny_backbone(), ["cat", "dog"], hidden=4)
    model.build((None, SIZE, SIZE, 3))
    path = tmp_path_factory.mktemp("file") / "model.keras"
    model.save(path)
    return path


def changed(file, path, change) -> None:
    """Writes a file again, with another config."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config["config"])
                content = json.dumps(config)
            new.writestr(name, content)


def in_backbone(config):
    return config["backbone"]["config"]["source"]["config"]["layers"]


def first_filters(config):
    convs = [one for one in in_backbone(config) if one["class_name"] == "Conv2D"]
    convs[0]["config"]["filters"] = 10**9


def image_size(config):
    in_backbone(config)[0]["config"]["batch_shape"] = [None, 10**9, 10**9, 3]


def own_head(config):
    dense = keras.layers.Dense(1, activation="sigmoid")
    config["head"] = keras.saving.serialize_keras_object(dense)
    config["head"]["config"]["units"] = 10**9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.update(classes=10**9), "classes=1,000,000,000"),
        (lambda config: config.update(hidden=10**9, head=None), "hidden=1,000,000,000"),
        (lambda config: config.update(hidden=10**6, head=None), "`hidden` must be 0 to 100,000"),
        (first_filters, "filters=1,000,000,000"),
        (image_size, "batch_shape=1,000,000,000"),
        (own_head, "units=1,000,000,000"),
    ],
    ids=["classes", "hidden", "smaller hidden", "filters", "image size", "units"],
)
def test_a_file_that_asks_for_too_much_is_refused(change, said, file, tmp_path):
    changed(file, tmp_path / "evil.keras", change)
    with pytest.raises((ValueError, TypeError), match=said):
        keras.saving.load_model(tmp_path / "evil.keras")


def test_a_file_that_asks_for_nothing_unusual_is_loaded(file, tmp_path):
    changed(file, tmp_path / "same.keras", lambda config: config.update(name="other"))
    assert keras.saving.load_model(tmp_path / "same.keras").count_params()


def test_seeds_and_numbers_of_other_layers_may_be_large():
    check_config({"layers": [{"config": {"seed": 2**40, "units": 10, "trainable": True}}]})
    check_config({"layer": {"module": "mine", "config": {"images": 2**40}}})


def test_weights_that_the_machine_cannot_hold_are_refused():
    check_memory([(3, 4)], "The head")
    with pytest.raises(
        ValueError, match=r"The head would have weights of 4000000 GB\. This machine"
    ):
        check_memory([(10**6, 10**9)], "The head")


def test_classes_that_cannot_be_are_refused_in_a_short_message():
    with pytest.raises(ValueError, match="`classes` must be") as error:
        TransferModel(tiny_backbone(), ["cat"] * 10_000)
    assert len(str(error.value)) < 300


def test_of_many_classes_a_message_names_a_few():
    head = keras.layers.Dense(3)
    model = TransferModel(tiny_backbone(), 10_000, head=head)
    with pytest.raises(ValueError, match=r"10000 classes 0, 1, 2, 3, 4 and 9,995 more\."):
        model.build((None, SIZE, SIZE, 3))
