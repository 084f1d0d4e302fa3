"""Pixel ranges as layers: the same numbers as keras.applications, inside the model and its file."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.preprocessing import MODES, PixelScaling, preprocessing_layer, warn_of_range

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


def test_what_is_neither_mode_nor_layer_is_refused():
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
    exact = PixelScaling(
        MODES[mode].scale, MODES[mode].offset, bgr=MODES[mode].bgr, dtype="float32"
    )
    exact = np.asarray(exact(resized))
    assert keras.backend.standardize_dtype(half.dtype) == dtype
    error = np.abs(np.asarray(keras.ops.cast(half, "float32")) - exact)
    assert (error <= np.abs(exact) * 2.0**-digits + 1e-7).all()


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(pixels().astype("float32") / 255, id="0..1"),
        pytest.param(pixels().astype("float16") / 255, id="0..1, float16"),
        pytest.param(tf.constant(pixels(), tf.float32) / 255, id="0..1, a tensor"),
        pytest.param(pixels().astype("float32") / 127.5 - 1, id="-1..1"),
        pytest.param((pixels().astype("float32") - 120) / 50, id="standardized"),
        pytest.param(pixels().astype("float32") - 120, id="mean taken off"),
    ],
)
def test_pixels_that_were_scaled_before_are_named(images):
    low, high = np.min(images), np.max(images)
    with pytest.warns(
        UserWarning, match=rf"0\.\.255\. Received: {low:.3g}\.\.{high:.3g}\..*rescal"
    ):
        warn_of_range(images)


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(pixels(), id="uint8"),
        pytest.param(pixels() // 255, id="uint8, dark"),
        pytest.param(pixels().astype("int64"), id="int64"),
        pytest.param(pixels().astype("float32"), id="float32"),
        pytest.param(pixels().astype("float32") / 50, id="float32, dark"),
        pytest.param(pixels().astype("float32") * 1.1 - 20, id="float32, overshot by a resize"),
        pytest.param(np.zeros((0, 8, 8, 3), "float32"), id="no images"),
    ],
)
def test_raw_pixels_pass_without_a_word(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_range(images)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value):
    images = np.full((1, 4, 4, 3), 128, "float32")
    images[0, 1, 2, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        warn_of_range(images)
