"""From a source (name, model, module) to a pretrained model and the pixel range that it expects."""

import difflib
import inspect
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_transfer.backbones.hub import download
from keras_transfer.backbones.hub.hub_module import HubModule
from keras_transfer.backbones.splitting import is_numbered_by_keras, without_last_layer

DEFAULT = "efficientnet_lite0"
EMBEDDED = {  # whose weights come with the extra `demo`
    "efficientnet_lite0": "EfficientNetLite0",
    "efficientnet_lite1": "EfficientNetLite1",
    "efficientnet_lite2": "EfficientNetLite2",
}

# The mode of each family's `preprocess_input`; the families absent here scale inside the model.
_MODES = {
    "densenet": "torch",
    "inception": "tf",
    "mobilenet": "tf",
    "mobilenetv3": "raw",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnetv2": "tf",
    "vgg": "caffe",
    "xception": "tf",
    "convnext": "raw",
    "efficientnet": "raw",
    "efficientnetv2": "raw",
}


# Families whose last normalization comes after their own pooling, and not before it.
_NORMALIZE_POOLED = ("convnext",)


@dataclass(frozen=True)
class Source:
    """A pretrained model and the preprocessing mode that it was trained with.

    Attributes:
        model: The model.
        preprocessing: The mode; `None` if it is not known.
        dtype: The type that its pixels must reach it in; `None` for that of the policy.
        norm: A layer that belongs behind the pooling of the model's feature map, if there is one.
    """

    model: keras.Model
    preprocessing: str | None
    dtype: str | None = None
    norm: keras.Layer | None = None


def names() -> tuple[str, ...]:
    """Returns the names that `FrozenBackbone` takes as a source, the embedded ones first."""
    return (*EMBEDDED, *sorted(_applications()))


def on_this_machine() -> tuple[str, ...]:
    """Returns the names of the backbones whose pretrained weights need no download.

    Those are the embedded ones whose data packages are installed, and the models of
    `keras.applications` that Keras has downloaded without a top (to `~/.keras/models`).
    """
    from keras_transfer.backbones import efficientnet_lite

    embedded = [name for name in EMBEDDED if efficientnet_lite.is_installed(name[-1])]
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    found: set[str] = set()
    for path in sorted((home / "models").glob("*.h5")):
        key = _key(path.stem).removeprefix("weights")
        known = [name for name in _applications() if key.startswith(_key(name))]
        if "notop" in key and known:
            found.add(max(known, key=len))
    return (*embedded, *sorted(found))


def load(
    source: str | os.PathLike[str] | keras.Model | HubModule | Source,
    *,
    weights: str | None = "imagenet",
    input_shape: tuple[int | None, ...] | None = None,
) -> Source:
    """Loads a source without its classification top.

    Args:
        source: A name of `names()`, in any spelling that differs in case, `_` and `-` only; a
            model, which is taken as it is; a `HubModule`, or a handle for one; or what an earlier
            call has returned.
        weights: `"imagenet"`, `None` for random weights, or the path of a weights file. Ignored
            for a model and a module.
        input_shape: `(height, width, 3)`; `None` for any size, where the architecture allows it.
            Of models, only one that is neither functional nor built needs it.

    Returns:
        The model, and the mode of the pixels that it expects (`None` when that is not known).

    Raises:
        ValueError: If the name is unknown, or a model has its own shape and another is given.
        OSError: If the weights, or the module, cannot be had.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, keras.Model):
        known = _known_application(source)
        model = _functional(source, input_shape)
        return _of_family(model, known and _family(known), _known_mode(source))
    if isinstance(source, HubModule):
        return _of_module(source, input_shape)
    if download.is_handle(source) and not _is_name(source):
        return _of_module(HubModule(source), input_shape)
    if not isinstance(source, str):
        raise TypeError(
            "A backbone's source must be a name, a keras.Model, or the address or folder of a "
            f"module. Received: {source!r} of type {type(source).__name__}."
        )
    if embedded := _embedded(source):
        from keras_transfer.backbones import efficientnet_lite

        make = getattr(efficientnet_lite, EMBEDDED[embedded])
        return Source(make(weights=weights, input_shape=input_shape), "lite")
    return _load_application(source, weights, input_shape)


def _embedded(name: str) -> str | None:
    """Returns the name of an embedded backbone as `EMBEDDED` spells it; `None` for another."""
    return next((known for known in EMBEDDED if _key(known) == _key(name)), None)


def _is_name(source: Any) -> bool:
    """Returns whether a source is a name, though there may be a folder of that name."""
    return isinstance(source, str) and _key(source) in map(_key, names())


def _of_module(module: HubModule, input_shape: tuple[int | None, ...] | None) -> Source:
    shape = input_shape or module.image_shape
    image = keras.Input(shape, dtype="float32")  # a module rounds by itself, if it takes bytes
    model = keras.Model(image, module(image), name=module.name)
    return Source(model, module.pixels, dtype="float32")


def _functional(model: keras.Model, input_shape: tuple[int | None, ...] | None) -> keras.Model:
    """Returns a model as a graph of layers; a subclassed model becomes a graph of one layer."""
    own_graph = getattr(model, "inputs", None)
    if own_graph and input_shape is not None and model.input_shape[1:] != tuple(input_shape):
        raise ValueError(
            f"Model '{model.name}' takes inputs of shape {model.input_shape[1:]}. Received: "
            f"input_shape={input_shape}. Leave it out."
        )
    name = None if is_numbered_by_keras(model) else model.name
    if not own_graph:
        image = keras.Input(input_shape or (None, None, 3))
        features = model(image)
        if isinstance(features, Mapping | list | tuple) and len(features) > 1:
            some = next(iter(features)) if isinstance(features, Mapping) else 0
            raise ValueError(
                f"A backbone needs one output. Received: model '{model.name}' with {len(features)}"
                f" outputs, {features}. Build one with the tensor that you want: image = "
                f"keras.Input((height, width, 3)); keras.Model(image, model(image)[{some!r}])."
            )
        return keras.Model(image, features, name=name)
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=name)
    return model


def _load_application(
    name: str, weights: str | None, input_shape: tuple[int | None, ...] | None
) -> Source:
    application = _application(name)
    family = _family(application.__name__)
    if input_shape is None and family != "nasnet":  # NASNet's graph needs a size of its own
        input_shape = (None, None, 3)
    try:
        with warnings.catch_warnings():
            # The MobileNets warn of an open size, yet without a top their weights fit every size.
            warnings.filterwarnings("ignore", "`input_shape` is undefined", UserWarning)
            model = application(include_top=False, weights=weights, input_shape=input_shape)
    except Exception as error:
        if "URL fetch failure" not in str(error):
            raise
        raise OSError(
            f"The {weights!r} weights of {application.__name__} could not be downloaded: {error}. "
            "Go online once, so that Keras keeps them in ~/.keras/models, give the path of a "
            f"weights file, or use {DEFAULT!r}, whose weights come with the extra 'demo'."
        ) from error
    return _of_family(model, family, _MODES[family])


def _of_family(model: keras.Model, family: str | None, mode: str | None) -> Source:
    if family in _NORMALIZE_POOLED and len(model.output_shape) == 4:
        rest, last = without_last_layer(model)
        if isinstance(last, keras.layers.LayerNormalization):
            return Source(rest, mode, norm=last)
    return Source(model, mode)


def _application(name: str) -> Any:
    applications = _applications()
    by_key = {_key(known): application for known, application in applications.items()}
    if _key(name) in by_key:
        return by_key[_key(name)]
    close = difflib.get_close_matches(_key(name), [*by_key, *map(_key, EMBEDDED)], n=3, cutoff=0.5)
    spelt = {_key(known): known for known in names()}
    hint = f"Did you mean {' or '.join(repr(spelt[key]) for key in close)}? " if close else ""
    raise ValueError(
        f"Unknown backbone {name!r}. {hint}Expected a keras.Model, the address or folder of a "
        f"module, or one of: {', '.join(names())}."
    )


def _applications() -> dict[str, Any]:
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name.lower(): function for name, function in functions}


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _family(application: str) -> str:
    key = _key(application)
    if key.startswith("resnet") and key.endswith("v2"):
        return "resnetv2"
    return max((family for family in _MODES if key.startswith(family)), key=len)


def _known_mode(model: keras.Model) -> str | None:
    """Returns the mode of a model of `keras.applications` or of this package, by its name."""
    if _embedded(model.name):
        return "lite"
    name = _known_application(model)
    mode = _MODES[_family(name)] if name else None
    return None if mode == "raw" and not _scales_itself(model) else mode


def _known_application(model: keras.Model) -> str | None:
    name = _key(model.name)
    mobilenet = re.match(r"mobilenet(v2)?1?\d?\.", name)  # mobilenetv2_1.00_224
    return name if mobilenet or name in map(_key, _applications()) else None


def _scales_itself(model: keras.Model) -> bool:
    scaling = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(
        isinstance(layer, scaling) or (isinstance(layer, keras.Model) and _scales_itself(layer))
        for layer in model.layers
    )
