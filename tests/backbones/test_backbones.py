"""From a name or a model to a chain of blocks: every family of keras.applications, once."""

import functools
import inspect
import re
import sys
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import relative_difference, snapshot, tiny_network

from keras_transfer import FrozenBackbone, TransferModel
from keras_transfer.backbones import registry
from keras_transfer.backbones.layers import PixelScaling

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


@dataclass(frozen=True)
class Family:
    """A backbone made by name, and the very model that keras.applications made for it."""

    name: str
    backbone: FrozenBackbone
    original: keras.Model
    images: np.ndarray
    features: np.ndarray

    def preprocess_input(self, images: np.ndarray) -> np.ndarray:
        return application_module(self.name).preprocess_input(images.astype("float32"))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    name, size = request.param, FAMILIES[request.param][0]
    constructor = getattr(keras.applications, name)
    made = []

    @functools.wraps(constructor)
    def record(**kwargs):
        made.append(constructor(**kwargs))
        return made[-1]

    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, name, record)
        own_size = (size, size, 3) if name == "NASNetMobile" else None
        backbone = FrozenBackbone(
            name.lower(), weights=None, input_shape=own_size, pooling=None, name="backbone"
        )
    (original,) = made
    for layer in original.layers:  # ConvNeXt's first value, 1e-6, would hide its blocks
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))
    images = random_pixels(size)
    return Family(name, backbone, original, images, np.asarray(backbone(images)))


@pytest.mark.slow
class TestEveryFamily:
    def test_blocks_have_the_names_that_people_use(self, family):
        names = [block.name for block in family.backbone.blocks]
        assert names == FAMILIES[family.name][1].split()
        assert 4 <= len(names) <= 12 or family.name == "NASNetMobile"

    def test_each_weight_is_in_exactly_one_block(self, family):
        owned = [id(weight) for weight in family.backbone.weights]
        assert len(owned) == len(set(owned))
        assert set(owned) == {id(weight) for weight in family.original.weights}
        counts = [block.parameters for block in family.backbone.blocks]
        assert sum(counts) == family.original.count_params()
        assert all(counts)

    def test_all_blocks_are_frozen_at_the_start(self, family):
        assert all(block.frozen for block in family.backbone.blocks)
        assert family.backbone.trainable_weights == []

    def test_chain_on_raw_pixels_equals_the_application_on_preprocessed_ones(self, family):
        expected = family.original(family.preprocess_input(family.images), training=False)
        assert relative_error(family.features, expected) <= 1e-5

    @pytest.mark.parametrize("pooling", ["avg", "max"])
    def test_each_pooling_equals_the_applications_own(self, family, pooling):
        size = 2 * FAMILIES[family.name][0]  # at the smallest there is one place to pool
        shape = (size, size, 3)
        constructor = getattr(keras.applications, family.name)
        own = constructor(include_top=False, weights=None, input_shape=shape, pooling=pooling)
        own.set_weights(family.original.get_weights())
        images = random_pixels(size, count=2)
        given = family.original
        if family.name == "NASNetMobile":  # whose graph has a size of its own
            given = constructor(include_top=False, weights=None, input_shape=shape)
            given.set_weights(family.original.get_weights())
        found = FrozenBackbone(given, pooling=pooling)(images)
        expected = own(family.preprocess_input(images), training=False)
        assert relative_error(found, expected) <= 1e-5

    def test_activations_lead_from_each_block_to_the_same_features(self, family):
        kept = family.images
        for link in family.backbone.link_names:
            kept = family.backbone.activations(kept, after=link)
            assert list(kept) == [f"after:{link}"]
        np.testing.assert_array_equal(kept["after:pooling"], family.features)

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_preprocessing_is_a_layer_that_equals_preprocess_input(self, family, dtype):
        images = random_pixels(32, count=4, seed=1)
        layer = family.backbone.preprocessing
        found = type(layer).from_config(layer.get_config())(images.astype(dtype))
        assert relative_error(found, family.preprocess_input(images)) <= 1e-5

    def test_the_model_itself_is_known_by_its_name(self, family):
        found = registry.load(family.original)
        known = family.original if found.norm is None else family.original.layers[-1]
        assert known is (found.norm or found.model)
        assert found.preprocessing == registry._MODES[registry._family(family.name)]

    def test_law_4_training_on_kept_activations_equals_training_end_to_end(self, family):
        if family.name in ("ResNet50V2", "InceptionResNetV2", "NASNetMobile"):
            pytest.skip("takes a minute to trace; its sisters are tested")
        backbone = family.backbone
        before = [np.array(weight) for weight in backbone.weights]
        after = []
        for cache in ("auto", None):
            for weight, value in zip(backbone.weights, before, strict=True):
                weight.assign(value)
            backbone.unfreeze(backbone.blocks[-1].name)
            keras.utils.set_random_seed(1)
            head = keras.Sequential(
                [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")]
            )
            model = TransferModel(backbone, 2, head=head, feature_cache=cache)
            model.compile(keras.optimizers.SGD(1e-3))
            pixels = random_pixels(FAMILIES[family.name][0], 8)
            data = tf.data.Dataset.from_tensor_slices((pixels, np.arange(8) % 2)).batch(4)
            model.fit(data, epochs=2, verbose=0)
            after.append(snapshot(model))
        assert relative_difference(*after) <= 1e-5
        backbone.freeze("all")
        moved = any((a != b).any() for a, b in zip(snapshot(backbone), before, strict=True))
        assert moved or np.abs(family.features).max() < 1e-9  # MobileNetV3's, at random weights


def stand_in(monkeypatch, application: str, make=None) -> list[dict]:
    """Puts something small in an application's place, and returns the calls that it got."""
    calls: list[dict] = []

    @functools.wraps(getattr(keras.applications, application))
    def small(**kwargs):
        calls.append(kwargs)
        return (make or tiny_network)()

    monkeypatch.setattr(keras.applications, application, small)
    return calls


def test_names_are_the_embedded_default_and_every_application():
    assert registry.names() == ("efficientnet_lite0", *sorted(map(str.lower, APPLICATIONS)))
    assert len(APPLICATIONS) >= 40


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_auto_preprocessing_is_the_applications_own(application, dtype, monkeypatch):
    stand_in(monkeypatch, application)
    backbone = FrozenBackbone(application.lower(), weights=None)
    images = random_pixels(16, count=3)
    expected = application_module(application).preprocess_input(images.astype("float32"))
    assert isinstance(backbone.preprocessing, PixelScaling)
    assert relative_error(backbone.preprocessing(images.astype(dtype)), expected) <= 1e-5


@pytest.mark.parametrize("application", APPLICATIONS)
def test_the_default_name_of_each_application_tells_its_preprocessing(application):
    """Of a model that the user made with `keras.applications`, `"auto"` knows the pixels, too."""
    name = inspect.signature(getattr(keras.applications, application)).parameters["name"].default
    if name is None:  # MobileNet's and MobileNetV2's names tell their width and size
        name = {"MobileNet": "mobilenet_0.25_128", "MobileNetV2": "mobilenetv2_1.40_224"}[
            application
        ]
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Rescaling(1 / 255)(inputs), name=name)
    assert registry.load(model).preprocessing == registry._MODES[registry._family(application)]


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnetb0", "MobileNetV3Small"])
def test_a_model_that_was_made_without_its_own_scaling_is_not_taken_for_one_with_it(name):
    """`include_preprocessing=False` leaves the name as it was."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs), name=name)
    assert registry.load(model).preprocessing is None


@pytest.mark.parametrize("name", ["resnet50", "ResNet50", "RESNET_50", "res-net-50"])
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
def test_what_is_neither_name_nor_model_is_refused(source):
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


@pytest.mark.parametrize("application", ["VGG16", "MobileNetV2"])
def test_weights_that_cannot_be_downloaded_are_an_os_error_with_ways_out(
    application, monkeypatch, tmp_path
):
    refuse_downloads(monkeypatch, application, tmp_path)
    ways_out = r"Go online once.*~/\.keras.*path of a weights file.*'efficientnet_lite0'"
    with pytest.raises(
        OSError, match=f"'imagenet' weights of {application}.*URL fetch.*{ways_out}"
    ):
        FrozenBackbone(application.lower())


def test_other_failures_of_an_application_come_through_as_they_are(monkeypatch):
    def fail():
        raise ValueError("Input size must be at least 32x32")

    stand_in(monkeypatch, "VGG16", fail)
    with pytest.raises(ValueError, match=re.escape("Input size must be at least 32x32")):
        registry.load("vgg16", weights=None)


@pytest.mark.slow
@pytest.mark.parametrize("application", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_an_open_image_size_does_not_warn_of_what_is_no_fault(application, monkeypatch):
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
