"""From a name or a model to a chain of blocks: every family of keras.applications, once."""

import functools
import inspect
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import identical, relative_difference, snapshot, tiny_network

from keras_transfer import FrozenBackbone, TransferModel
from keras_transfer.backbones import registry
from keras_transfer.backbones.layers import preprocessing_layer

# keras.Variable to numpy, in TensorFlow's own __array__ under numpy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

APPLICATIONS = [name for name in dir(keras.applications) if name[0].isupper()]

# The smallest member of each family, the smallest image that it takes, and its blocks.
FAMILIES = {
    "VGG16": (32, "block1 block2 block3 block4 block5"),
    "ResNet50": (32, "stem conv2 conv3 conv4 conv5"),
    "ResNet50V2": (32, "stem conv2 conv3 conv4 conv5"),
    "MobileNet": (32, "stem stage1 stage2 stage3 stage4 stage5"),
    "MobileNetV2": (32, "stem stage1 stage2 stage3 stage4 stage5 top"),
    "MobileNetV3Small": (32, "stem stage1 stage2 stage3 stage4 top"),
    "DenseNet121": (32, "stem conv2 conv3 conv4 conv5"),
    "InceptionV3": (75, "stem " + " ".join(f"mixed{i}" for i in range(11))),
    "InceptionResNetV2": (
        75,
        "stem mixed_5b block35 mixed_6a block17 mixed_7a block8 conv_7b",
    ),
    "Xception": (71, "stage1 stage2 stage3 stage4 stage5"),
    "ConvNeXtTiny": (32, "stem stage_0 stage_1 stage_2 stage_3"),
    "EfficientNetB0": (32, "stem block1 block2 block3 block4 block5 block6 block7 top"),
    "EfficientNetV2B0": (32, "stem block1 block2 block3 block4 block5 block6 top"),
    "NASNetMobile": (32, "stem cells"),  # each cell reads the two before it: cuts in the stem only
}


def application_module(application: str):
    return sys.modules[getattr(keras.applications, application).__module__]


def random_pixels(size: int, count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype("uint8")


def relative_error(found, expected) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.ptp(expected) > 0
    return float(np.abs(found - expected).max() / np.ptp(expected))


# Their graphs take longest to build; none of them pools in a way of its own.
BUILT_ONCE = ("DenseNet121", "InceptionResNetV2", "NASNetMobile", "EfficientNetV2B0", "Xception")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_a_chain_of_blocks_that_equals_the_application(name, monkeypatch):
    size, names = FAMILIES[name]
    shape = (size, size, 3)
    constructor, made = getattr(keras.applications, name), []

    @functools.wraps(constructor)
    def record(**kwargs):
        made.append(constructor(**kwargs))
        return made[-1]

    keras.utils.set_random_seed(0)
    monkeypatch.setattr(keras.applications, name, record)
    own_size = shape if name == "NASNetMobile" else None
    backbone = FrozenBackbone(name.lower(), weights=None, input_shape=own_size)
    (original,) = made
    for layer in original.layers:  # ConvNeXt's first value, 1e-6, would hide its blocks
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))

    blocks = backbone.blocks
    assert [block.name for block in blocks] == names.split()
    assert all(block.frozen and block.parameters for block in blocks)
    assert {id(weight) for weight in backbone.weights} == {id(w) for w in original.weights}
    assert sum(block.parameters for block in blocks) == original.count_params()

    images = random_pixels(size, count=2)
    kept = images
    for link in backbone.link_names:
        kept = backbone.activations(kept, after=link)
    preprocessed = application_module(name).preprocess_input(images.astype("float32"))
    if name in BUILT_ONCE:
        expected = np.mean(original(preprocessed, training=False), axis=(1, 2))
    else:
        own = constructor(include_top=False, weights=None, input_shape=shape, pooling="avg")
        own.set_weights(original.get_weights())
        expected = own(preprocessed, training=False)
    assert relative_error(kept["after:pooling"], expected) <= 1e-5

    found = registry.load(original)
    assert original is found.model or original.layers[-1] is found.norm
    scaled = preprocessing_layer(found.preprocessing)(images)
    np.testing.assert_array_equal(scaled, backbone.preprocessing(images))


@pytest.mark.slow
def test_law_4_training_on_cached_activations_equals_training_end_to_end():
    backbone = FrozenBackbone("mobilenet", weights=None)
    before = snapshot(backbone)
    after = []
    for cache in ("auto", None):
        backbone.set_weights(before)
        backbone.unfreeze(1)
        keras.utils.set_random_seed(1)
        model = TransferModel(backbone, 2, hidden=0, dropout=0, feature_cache=cache)
        model.compile(keras.optimizers.SGD(1e-3))
        data = tf.data.Dataset.from_tensor_slices((random_pixels(32, 8), np.arange(8) % 2))
        model.fit(data.batch(4), epochs=2, verbose=0)
        after.append(snapshot(model))
    assert relative_difference(*after) <= 1e-5
    assert not identical(before, backbone)


def stand_in(monkeypatch, application: str, make=None) -> list[dict]:
    """Puts something small in an application's place, and returns the calls that it got."""
    calls: list[dict] = []

    @functools.wraps(getattr(keras.applications, application))
    def small(**kwargs):
        calls.append(kwargs)
        return (make or tiny_network)()

    monkeypatch.setattr(keras.applications, application, small)
    return calls


def test_names_are_the_embedded_ones_and_every_application():
    embedded = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
    assert registry.names() == (*embedded, *sorted(map(str.lower, APPLICATIONS)))
    assert len(APPLICATIONS) >= 40


def test_auto_preprocessing_is_the_applications_own(monkeypatch):
    """By the name that is given, and by that of a model that `keras.applications` made."""
    inputs, images = keras.Input((8, 8, 3)), random_pixels(8, count=2)
    # MobileNet's and MobileNetV2's names tell their width and size.
    defaults = {"MobileNet": "mobilenet_0.25_128", "MobileNetV2": "mobilenetv2_1.40_224"}
    for application in APPLICATIONS:
        parameters = inspect.signature(getattr(keras.applications, application)).parameters
        name = parameters["name"].default or defaults[application]
        model = keras.Model(inputs, keras.layers.Rescaling(1 / 255)(inputs), name=name)
        stand_in(monkeypatch, application, lambda model=model: model)
        mode = registry.load(application.lower(), weights=None).preprocessing
        expected = application_module(application).preprocess_input(images.astype("float32"))
        assert relative_error(preprocessing_layer(mode)(images), expected) <= 1e-5, application
        assert registry.load(model).preprocessing == mode, application


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnetb0", "MobileNetV3Small"])
def test_auto_preprocessing_is_unknown_for_a_model_without_its_own_scaling(name):
    """`include_preprocessing=False` leaves the name as it was."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs), name=name)
    assert registry.load(model).preprocessing is None


@pytest.mark.parametrize("name", ["resnet50", "RESNET_50", "res-net-50"])
def test_the_spelling_of_a_name_is_forgiven(name, monkeypatch):
    calls = stand_in(monkeypatch, "ResNet50")
    registry.load(name, weights=None)
    assert calls == [{"include_top": False, "weights": None, "input_shape": (None, None, 3)}]


def test_nasnet_keeps_its_own_size_unless_one_is_given(monkeypatch):
    """Its graph crops to sizes that it must know."""
    calls = stand_in(monkeypatch, "NASNetMobile")
    registry.load("nasnetmobile", weights=None)
    registry.load("nasnetmobile", weights=None, input_shape=(64, 64, 3))
    assert [call["input_shape"] for call in calls] == [None, (64, 64, 3)]


def test_weights_and_shape_are_passed_on(monkeypatch):
    calls = stand_in(monkeypatch, "VGG19")
    registry.load("vgg19", weights="mine.h5", input_shape=(64, 48, 3))
    assert calls == [{"include_top": False, "weights": "mine.h5", "input_shape": (64, 48, 3)}]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("resnet51", "resnet50"),
        ("vgg-17", "vgg1[69]"),
        ("efficientnet_lite", "efficientnet_lite0"),
        ("mobile_net_v4", "mobilenetv2"),
        ("InceptionNetV3", "inceptionv3"),
    ],
)
def test_an_unknown_name_lists_close_ones_then_all(wrong, meant):
    with pytest.raises(ValueError, match=f"Unknown backbone '{wrong}'.*mean.*'{meant}'") as caught:
        FrozenBackbone(wrong)
    assert all(name in str(caught.value) for name in registry.names())


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(
        ValueError, match=r"Unknown backbone '\?'\. Expected a keras.Model, the address or"
    ):
        registry.load("?")


@pytest.mark.parametrize("source", [None, 3, keras.applications.VGG16, keras.layers.Dense(1)])
def test_a_source_of_another_type_is_refused(source):
    with pytest.raises(TypeError, match=f"a name, a keras.Model, or .*{type(source).__name__}"):
        registry.load(source)


@pytest.mark.slow
def test_the_embedded_default_goes_by_its_name():
    backbone = FrozenBackbone("efficientnet_lite0", weights=None, pooling=None)
    assert [block.name for block in backbone.blocks] == [
        "stem",
        *[f"block{i}" for i in range(1, 8)],
        "top",
    ]
    assert all(block.frozen for block in backbone.blocks)
    images = random_pixels(32, count=2)
    scaled = (images.astype("float32") - 127) / 128
    assert relative_error(backbone.preprocessing(images), scaled) <= 1e-5
    expected = registry.load("EfficientNet-Lite0", weights=None).model
    expected.set_weights([np.asarray(weight) for weight in backbone.weights])
    assert relative_error(backbone(images), expected(scaled)) <= 1e-5


def refuse_downloads(monkeypatch, application: str, folder) -> None:
    """Lets Keras itself fail to download, in its own words, without a network."""
    get_file = keras.utils.get_file
    monkeypatch.setattr(
        application_module(application).file_utils,
        "get_file",
        lambda name, origin, cache_subdir=None, **_: get_file(
            "absent", "http://127.0.0.1:9/" + origin.rsplit("/", 1)[1], cache_dir=folder
        ),
    )


@pytest.mark.parametrize("application", ["VGG16"])
def test_weights_that_cannot_be_downloaded_are_an_os_error_with_ways_out(
    application, monkeypatch, tmp_path
):
    refuse_downloads(monkeypatch, application, tmp_path)
    ways_out = r"Go online once.*~/\.keras.*path of a weights file.*'efficientnet_lite0'"
    with pytest.raises(
        OSError, match=f"'imagenet' weights of {application}.*URL fetch.*{ways_out}"
    ):
        FrozenBackbone(application.lower())


def test_other_errors_of_an_application_are_passed_on(monkeypatch):
    def fail():
        raise ValueError("Input size must be at least 32x32")

    stand_in(monkeypatch, "VGG16", fail)
    with pytest.raises(ValueError, match=re.escape("Input size must be at least 32x32")):
        registry.load("vgg16", weights=None)


@pytest.mark.slow
@pytest.mark.parametrize("application", ["MobileNetV2"])
def test_an_open_image_size_does_not_warn(application, monkeypatch):
    """Keras warns that it takes the weights for 224 px, which fit every size without a top."""
    module = application_module(application)

    def stop(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(module, "Functional", stop)
    with pytest.raises(InterruptedError):  # after the warning, which would be an error by itself
        registry.load(application, weights="imagenet")


def test_a_functional_model_is_taken_as_it_is():
    model = tiny_network()
    assert registry.load(model) == registry.Source(model, None)


def test_the_shape_of_a_model_is_its_own():
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3)], name="mine")
    assert registry.load(model, input_shape=(32, 32, 3)).model.input_shape == (None, 32, 32, 3)
    with pytest.raises(ValueError, match=r"'mine' takes.*\(32, 32, 3\).*input_shape=\(64, 64, 3\)"):
        registry.load(model, input_shape=(64, 64, 3))
