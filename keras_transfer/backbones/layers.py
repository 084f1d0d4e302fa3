"""Pixel ranges: from raw 0..255 RGB to what a backbone was trained on, as one layer."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="keras_transfer")
class PixelScaling(keras.layers.Layer):
    """Maps raw pixels to the range that a backbone was trained on: `pixel * scale + offset`.

    Args:
        scale: One factor, or one for each channel.
        offset: One offset, or one for each channel, added after scaling.
        bgr: Whether the channels are turned from RGB to BGR first. Scale and offset are then in
            BGR order.
        **kwargs: As for any Keras layer.

    Input: RGB images `(batch, height, width, 3)`, 0..255, uint8 or floating point.
    Output: The same shape in the layer's compute dtype.

    Example:
        >>> PixelScaling(1 / 127.5, -1)(numpy.full((1, 2, 2, 3), 255, "uint8"))[0, 0, 0]
        [1., 1., 1.]
    """

    def __init__(
        self,
        scale: float | Sequence[float] = 1.0,
        offset: float | Sequence[float] = 0.0,
        *,
        bgr: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # float16 would round the pixels
        self.scale = scale
        self.offset = offset
        self.bgr = bgr

    def call(self, inputs: Any) -> Any:
        """Scales a batch of images."""
        x = ops.cast(inputs, "float32")
        if self.bgr:
            x = ops.flip(x, axis=-1)
        x = x * ops.cast(self.scale, "float32") + ops.cast(self.offset, "float32")
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same layer."""
        config = {"scale": self.scale, "offset": self.offset, "bgr": self.bgr}
        return {**super().get_config(), **config}


# A resize by cubic interpolation overshoots a range on both sides, by less than a quarter of it.
_OVERSHOOT = 0.25


def warn_of_range(images: Any) -> None:
    """Warns if the range of pixels is another than raw 0..255.

    Args:
        images: A batch of images, `(batch, height, width, 3)`, of any type.

    Warns:
        UserWarning: If none is above 1, some are far above 255, or they spread around 0.

    Raises:
        ValueError: If they are no numbers, or some are not finite.
    """
    low, high, kind = _range_of(images)
    over = _OVERSHOOT if "float" in kind else 0  # of whole numbers no resize has made one
    if low >= -over * high and 1 < high <= 255 * (1 + over):
        return
    if low == high == 0:  # no images, or black ones, tell nothing
        return
    next_step = (
        "The backbone scales pixels itself: leave out the rescaling, or undo it with "
        "dataset.map(lambda image, label: (image * 255, label)), or pass preprocessing=None if the "
        "backbone takes them as they are."
    )
    if kind == "bool":
        next_step = "Such masks become black and white by images.astype('uint8') * 255."
    elif high > 255:
        most = next((2**bits - 1 for bits in (10, 12, 14, 16) if high < 2**bits), high)
        next_step = (
            f"Images of more than 8 bits come to 0..255 by images * (255 / {most:.10g}); or pass "
            "preprocessing=None if the backbone takes them as they are."
        )
    _warn("raw pixels, 0..255", low, high, kind, next_step)


def warn_of_raw_pixels(images: Any) -> None:
    """Warns if the range of pixels is another than 0..1.

    Args:
        images: A batch of images, `(batch, height, width, 3)`, of any type.

    Warns:
        UserWarning: If some lie far outside 0..1.

    Raises:
        ValueError: If they are no numbers, or some are not finite.
    """
    low, high, kind = _range_of(images)
    if high > 1 + _OVERSHOOT or low < -_OVERSHOOT:
        next_step = (
            "The module takes 0..1, and preprocessing=None passes pixels on as they are: leave "
            "that out, so that the backbone scales raw 0..255 itself."
        )
        _warn("pixels in 0..1", low, high, kind, next_step)


def check_finite(images: Any) -> None:
    """Checks that pixels, of whatever range, are finite numbers.

    Raises:
        ValueError: If they are no numbers, or some are not finite.
    """
    if np.asarray(images).dtype.kind not in "bui":  # those are finite
        _range_of(images)


def _range_of(images: Any) -> tuple[float, float, str]:
    """The lowest and the highest pixel, and their type."""
    pixels = np.asarray(images)
    kind = pixels.dtype.name
    if pixels.dtype.kind not in "buif":
        if "float" not in kind:
            raise ValueError(
                f"Expected pixels as numbers, as of type uint8 or float32. Received: images of "
                f"type {kind}."
            )
        pixels = pixels.astype("float32")  # bfloat16, which numpy does not know
    if not pixels.size:
        return 0.0, 0.0, kind
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():  # a NaN is both the lowest and the highest
        raise ValueError(
            "Expected pixels that are finite numbers. Received: images with NaN or infinite "
            "pixels. Look for a division by zero, or a broken file, in what makes them."
        )
    return low, high, kind


def _warn(expected: str, low: float, high: float, kind: str, next_step: str) -> None:
    warnings.warn(
        f"Expected {expected}. Received: {low:.5g}..{high:.5g}, {kind}. {next_step}", stacklevel=4
    )


@dataclass(frozen=True)
class _Mode:
    """One way of scaling pixels, with the literature's name for it."""

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    bgr: bool = False


MODES: Mapping[str, _Mode] = {
    "raw": _Mode(),  # 0..255; the model scales by itself
    "unit": _Mode(scale=1 / 255),  # 0..1; TF-Hub's convention
    "tf": _Mode(scale=1 / 127.5, offset=-1.0),  # -1..1; Inception, MobileNet, ResNetV2
    "torch": _Mode(
        scale=tuple(1 / (255 * std) for std in _IMAGENET_STD),
        offset=tuple(-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)),
    ),
    "caffe": _Mode(offset=(-103.939, -116.779, -123.68), bgr=True),  # VGG, ResNet
    "lite": _Mode(scale=1 / 128, offset=-127 / 128),  # EfficientNet-Lite
}


def preprocessing_layer(
    preprocessing: str | keras.Layer | None, dtype: str | None = None
) -> keras.Layer:
    """Returns the layer that a mode's name, a layer or `None` stands for.

    Args:
        preprocessing: A name of `MODES`, any Keras layer, or `None` for pixels passed on as they
            are.
        dtype: What the layer computes in; as the policy says unless given.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is neither a name nor a layer.
    """
    if preprocessing is None:
        return keras.layers.Rescaling(1.0, name="preprocessing", dtype=dtype)  # a cast, no promise
    if isinstance(preprocessing, keras.Layer):
        return preprocessing
    if not isinstance(preprocessing, str):
        raise TypeError(
            "`preprocessing` must be 'auto', the name of a mode, a Keras layer or None. "
            f"Received: {preprocessing!r} of type {type(preprocessing).__name__}."
        )
    if preprocessing not in MODES:
        raise ValueError(
            f"Unknown preprocessing {preprocessing!r}. Expected 'auto', None, a Keras layer or one "
            f"of {', '.join(map(repr, MODES))}."
        )
    mode = MODES[preprocessing]
    return PixelScaling(mode.scale, mode.offset, bgr=mode.bgr, name="preprocessing", dtype=dtype)


@keras.saving.register_keras_serializable(package="keras_transfer")
class LevelPooling(keras.layers.Layer):
    """Averages and maxima of several feature maps, one behind the other.

    What a network has learnt of textures and parts lies below its last block, and often serves
    images that are not like those it was trained on better (Evci et al., Head2Toe, ICML 2022). The
    levels differ in scale, so a head on them begins well with `keras.layers.BatchNormalization`.

    Args:
        **kwargs: As for any Keras layer.

    Input: A list of tensors: feature maps `(batch, height, width, channels)` or tokens
        `(batch, tokens, channels)`. Vectors are left out.
    Output: `(batch, features)`: twice the channels of all maps together.

    Example:
        >>> LevelPooling()([numpy.ones((2, 8, 8, 3)), numpy.ones((2, 4, 4, 5))]).shape
        TensorShape([2, 16])
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        """Pools all maps."""
        parts = []
        for level in inputs:
            if axes := tuple(range(1, len(level.shape) - 1)):
                parts += [ops.mean(level, axis=axes), ops.max(level, axis=axes)]
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the features for the shapes of the maps."""
        levels = [tuple(shape) for shape in input_shape if len(shape) > 2]
        return (levels[0][0], sum(2 * int(shape[-1] or 0) for shape in levels))
