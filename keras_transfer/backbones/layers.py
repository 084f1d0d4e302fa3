"""Layers before and behind a backbone: pixel scaling, and pooling of all levels."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
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


# The arguments of PixelScaling, by the names that the literature gives to ways of scaling.
MODES: Mapping[str, dict[str, Any]] = {
    "raw": {},  # 0..255; the model scales by itself
    "unit": {"scale": 1 / 255},  # 0..1; TF-Hub's convention
    "tf": {"scale": 1 / 127.5, "offset": -1.0},  # -1..1; Inception, MobileNet, ResNetV2
    "torch": {
        "scale": tuple(1 / (255 * std) for std in _IMAGENET_STD),
        "offset": tuple(-m / std for m, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)),
    },
    "caffe": {"offset": (-103.939, -116.779, -123.68), "bgr": True},  # VGG, ResNet
    "lite": {"scale": 1 / 128, "offset": -127 / 128},  # EfficientNet-Lite
}


def preprocessing_layer(
    preprocessing: str | keras.Layer | None, dtype: str | None = None
) -> keras.Layer:
    """Returns the preprocessing layer of a mode's name, a layer or `None`.

    Args:
        preprocessing: A name of `MODES`, any Keras layer, or `None` for pixels passed on as they
            are.
        dtype: The type that the layer computes in; that of the policy unless given.

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
    return PixelScaling(**MODES[preprocessing], name="preprocessing", dtype=dtype)


@keras.saving.register_keras_serializable(package="keras_transfer")
class LevelPooling(keras.layers.Layer):
    """Concatenates averages and maxima of several feature maps.

    Features of textures and parts lie below the last block of a network, and often serve images
    that are not like those it was trained on better (Evci et al., Head2Toe, ICML 2022). The levels
    differ in scale, so a head on them begins well with `keras.layers.BatchNormalization`.

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
