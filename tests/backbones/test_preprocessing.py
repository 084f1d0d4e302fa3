"""Pixel ranges as layers: the same numbers as keras.applications, inside the model and its file."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import FrozenBackbone, TransferModel
from keras_transfer.backbones.layers import MODES, PixelScaling, preprocessing_layer
from keras_transfer.backbones.pixel_range import check_pixels

APPLICATIONS = {
    "caffe": keras.applications.vgg16,
    "tf": keras.applications.mobilenet_v2,
    "torch": keras.applications.densenet,
    "raw": keras.applications.efficientnet,
}


def pixels(shape=(2, 8, 8, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


def every_pixel_value() -> np.ndarray:
    values = np.arange(256, dtype="uint8")
    return np.stack([values, values[::-1], np.roll(values, 100)], axis=-1).reshape(1, 16, 16, 3)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("mode", APPLICATIONS)
def test_mode_equals_the_applications_own_preprocess_input(mode, dtype):
    images = np.concatenate([every_pixel_value(), pixels((2, 16, 16, 3))])
    expected = APPLICATIONS[mode].preprocess_input(images.astype("float32"))
    found = np.asarray(preprocessing_layer(mode)(images.astype(dtype)))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.parametrize(("mode", "low", "high"), [("unit", 0, 1), ("lite", -127 / 128, 1)])
def test_mode_maps_0_to_255_to_its_range(mode, low, high):
    found = np.asarray(preprocessing_layer(mode)(every_pixel_value()))
    assert (found.min(), found.max()) == pytest.approx((low, high), abs=1e-6)


def test_lite_is_the_pixel_less_127_through_128():
    images = every_pixel_value()
    expected = (images.astype("float64") - 127) / 128
    np.testing.assert_allclose(preprocessing_layer("lite")(images), expected, atol=1e-6)


def test_caffe_turns_rgb_to_bgr_before_it_takes_the_mean_of_each_channel_off():
    red, green, blue = np.asarray(preprocessing_layer("caffe")(np.uint8([[[[10, 20, 30]]]])))[
        0, 0, 0
    ]
    assert (red, green, blue) == pytest.approx((30 - 103.939, 20 - 116.779, 10 - 123.68), abs=1e-4)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "caffe"])
def test_all_other_modes_keep_the_order_of_the_channels(mode):
    black, image = np.zeros((1, 1, 1, 3), "uint8"), np.uint8([[[[200, 0, 0]]]])
    change = np.asarray(preprocessing_layer(mode)(image)) - np.asarray(
        preprocessing_layer(mode)(black)
    )
    assert change[0, 0, 0, 0] > 0
    assert not change[0, 0, 0, 1:].any()


def test_raw_changes_nothing_but_the_type():
    np.testing.assert_array_equal(preprocessing_layer("raw")(pixels()), pixels().astype("float32"))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_none_passes_pixels_on_as_they_are(dtype):
    found = np.asarray(preprocessing_layer(None)(pixels().astype(dtype)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels())


def test_a_layer_is_taken_as_it_is():
    layer = keras.layers.Rescaling(1 / 255)
    assert preprocessing_layer(layer) is layer


def test_an_unknown_mode_is_refused_with_the_list():
    with pytest.raises(ValueError, match=r"Unknown preprocessing 'imagenet'.*'torch'.*'caffe'"):
        preprocessing_layer("imagenet")


def test_preprocessing_of_another_type_is_refused():
    with pytest.raises(
        TypeError, match=r"'auto'.*a Keras layer or None.*Received: 255 of type int"
    ):
        preprocessing_layer(255)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_file_brings_the_preprocessing_along(mode, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), preprocessing_layer(mode)])
    model.save(tmp_path / "scaled.keras")
    loaded = keras.saving.load_model(tmp_path / "scaled.keras")
    assert isinstance(loaded.layers[0], PixelScaling)
    np.testing.assert_array_equal(loaded(pixels()), model(pixels()))


def test_shape_and_type_are_known_before_a_pixel_is_seen():
    found = preprocessing_layer("caffe")(keras.Input((None, None, 3), dtype="uint8"))
    assert found.shape == (None, None, None, 3)
    assert found.dtype == "float32"


def test_a_pipeline_can_use_the_layer():
    data = tf.data.Dataset.from_tensor_slices(pixels()).batch(2).map(preprocessing_layer("torch"))
    np.testing.assert_allclose(
        next(iter(data)), preprocessing_layer("torch")(pixels()), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_rounds_the_result_only(mode, dtype, digits):
    """Pixels that were rounded before the mean is taken off would be wrong by up to a half."""
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    resized = pixels().astype("float32") * 0.97  # not whole numbers any more
    half = preprocessing_layer(mode)(resized)
    exact = PixelScaling(**MODES[mode], dtype="float32")
    exact = np.asarray(exact(resized))
    assert keras.backend.standardize_dtype(half.dtype) == dtype
    error = np.abs(np.asarray(keras.ops.cast(half, "float32")) - exact)
    assert (error <= np.abs(exact) * 2.0**-digits + 1e-7).all()


BAD_RANGES = {
    "0..1": pixels().astype("float32") / 255,
    "0..1, float16": pixels().astype("float16") / 255,
    "0..1, float64": pixels() / 255,
    "0..1, a tensor": tf.constant(pixels(), tf.float32) / 255,
    "0..1, bfloat16": tf.cast(pixels(), tf.bfloat16) / 255,
    "0..1, uint8": pixels() // 255,
    "0..1, int32": (pixels() > 99).astype("int32"),
    "bool": pixels() > 99,
    "-1..1": pixels().astype("float32") / 127.5 - 1,
    "standardized": (pixels().astype("float32") - 120) / 50,
    "mean taken off": pixels().astype("float32") - 120,
    "int8": (pixels().astype("int16") - 128).astype("int8"),
    "int16, signed": pixels().astype("int16") - 20,
    "uint16": pixels().astype("uint16") * 257,
    "12 bits": pixels().astype("int32") * 16,
    "10 bits, float": pixels().astype("float32") * 4,
    "uint32": pixels().astype("uint32") * 2**24,
}


@pytest.mark.parametrize("name", BAD_RANGES)
def test_a_range_that_is_not_raw_is_named_with_the_next_step(name):
    images = BAD_RANGES[name]
    values = np.asarray(images).astype("float64")
    kind, (low, high) = images.dtype, (values.min(), values.max())
    kind = kind.name if isinstance(kind, tf.DType) else str(kind)
    next_step = "leave out the rescaling"
    if high > 255:
        most = {"uint16": 65535, "12 bits": 4095, "10 bits, float": 1023}.get(name, "")
        next_step = rf"images \* \(255 / {most}"
    elif name == "bool":
        next_step = r"astype\('uint8'\) \* 255"
    with pytest.warns(UserWarning, match=r"0\.\.255\. Received: (\S+)\.\.(\S+), (\w+)\.") as found:
        check_pixels(images, "raw")
    (message,) = (str(one.message) for one in found)
    assert f"Received: {low:.5g}..{high:.5g}, {kind}. " in message
    assert re.search(next_step, message)


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(pixels(), id="uint8"),
        pytest.param(pixels() // 100, id="uint8, dark"),
        pytest.param(pixels().astype("int64"), id="int64"),
        pytest.param(pixels().astype("uint16"), id="uint16"),
        pytest.param(pixels().astype("float32"), id="float32"),
        pytest.param(tf.cast(pixels(), tf.bfloat16), id="bfloat16"),
        pytest.param(pixels().astype("float32") / 50, id="float32, dark"),
        pytest.param(pixels().astype("float32") * 1.1 - 20, id="float32, overshot by a resize"),
        pytest.param(pixels().astype("float32") * 1.2, id="float32, overshot above"),
        pytest.param(np.zeros((0, 8, 8, 3), "float32"), id="no images"),
    ],
)
def test_raw_pixels_pass_without_a_word(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pixels(images, "raw")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_pixels_that_are_no_numbers_are_refused(value, kind):
    images = np.full((1, 4, 4, 3), 128, kind)
    images[0, 1, 2, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        check_pixels(images, "raw")


@pytest.mark.parametrize("images", [pixels().astype("complex64"), pixels().astype(str)])
def test_pixels_of_a_type_that_holds_no_numbers_are_refused(images):
    with pytest.raises(ValueError, match=f"as numbers.*type {images.dtype.name}"):
        check_pixels(images, "raw")


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return self.x[rows], self.y[rows]


FORMS = {
    "array": lambda x, y: (x, y),
    "tensor": lambda x, y: (tf.constant(x), y),
    "dataset": lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(4),),
    "PyDataset": lambda x, y: (Batches(x, y),),
}


def model(*, preprocessing="tf", **kwargs):
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    backbone = FrozenBackbone(network, preprocessing=preprocessing)
    made = TransferModel(backbone, 2, hidden=0, dropout=0, **kwargs)
    made.compile(metrics=[])
    made.build((None, 8, 8, 3))
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_fit_evaluate_and_predict_warn_whatever_form_the_images_have(form):
    x = np.concatenate([np.asarray(BAD_RANGES["uint16"])] * 4)
    data = FORMS[form](x, np.arange(8) % 2)
    kept, end_to_end = model(), model(feature_cache=None)
    calls = (
        lambda: kept.fit(*data, verbose=0),
        lambda: end_to_end.fit(*data, verbose=0),
        lambda: kept.evaluate(*data, verbose=0),
        lambda: kept.predict(data[0], verbose=0),
    )
    for call in calls:
        with pytest.warns(UserWarning, match=r"Expected raw pixels") as found:
            call()
        assert sum("raw pixels" in str(warning.message) for warning in found) == 1


@pytest.mark.parametrize("form", FORMS)
def test_one_image_with_nan_among_many_is_refused(form):
    x = np.concatenate([pixels().astype("float32")] * 4)
    x[6, 1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        model().fit(*FORMS[form](x, np.arange(8) % 2), batch_size=4, verbose=0)


@pytest.mark.slow
def test_ranges_are_left_to_preprocessing_of_ones_own():
    x = np.asarray(BAD_RANGES["uint16"])
    own = model(preprocessing=keras.layers.Rescaling(1 / 65535))
    for made in (own, model(preprocessing=None)):
        made.predict(x, verbose=0)
        made.fit(x, np.arange(2), verbose=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model(preprocessing=None).predict(np.full((2, 8, 8, 3), np.nan), verbose=0)
