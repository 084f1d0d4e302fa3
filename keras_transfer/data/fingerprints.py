"""Digests of content: of arrays, and of layers without the names that Keras makes up."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from keras_transfer.utils.keras_internals import layers_of


class NotCacheable(Exception):
    """Raised with the reason why activations of some data cannot be kept."""


def digest_of(array: np.ndarray) -> str:
    """Returns a digest of an array's shape, type and content."""
    digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


_REFERENCES = ("input_layers", "output_layers", "keras_history")

# Attributes in a config that change with use, and do not decide what a layer computes.
_NOTES = ("known_shapes",)


def nameless(config: Any) -> str:
    """Returns a config as text, with numbers for layers' names: Keras gives each new layer another.

    Args:
        config: What `get_config` or `keras.saving.serialize_keras_object` returns.
    """
    numbers: dict[str, int] = {}

    def number(value: Any) -> Any:
        if isinstance(value, str):
            return numbers.setdefault(value, len(numbers))
        return [number(part) for part in value] if isinstance(value, list | tuple) else value

    def plain(value: Any, of_layer: bool) -> Any:
        if isinstance(value, dict):
            is_object = "class_name" in value
            # A dtype policy has a name, too, which says what it is.
            layer = is_object and not value["class_name"].endswith("DTypePolicy")
            return {
                key: number(value[key])
                if key in _REFERENCES or (key == "name" and (of_layer or is_object))
                else plain(value[key], layer and key == "config")
                for key in sorted(value, key=str)
                if key not in _NOTES
            }
        if isinstance(value, list | tuple):
            return [plain(part, False) for part in value]
        return value

    return json.dumps(plain(config, True), default=str)


def of_layer(layer: keras.Layer, *, without: Collection[keras.Variable] = ()) -> str:
    """Returns a key for a layer with its weights: its config and a digest of their values.

    Args:
        layer: The layer.
        without: Weights that do not count.

    Raises:
        NotCacheable: If the layer, or one within it, has no config.
    """
    digest = hashlib.blake2b(digest_size=16)
    left_out = {id(variable) for variable in without}
    for weight in layer.weights:
        if id(weight) not in left_out:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return f"{of_architecture(layer)}{digest.hexdigest()}"


def of_architecture(layer: keras.Layer) -> str:
    """Returns a key for a layer without its weights: its class and config.

    It does not cover the code of a layer, and what that reads elsewhere: so cached activations are
    compared with those of the layers themselves when they are found.

    Raises:
        NotCacheable: If the layer, or one within it, has no config.
    """
    try:
        return type(layer).__name__ + nameless(layer.get_config())
    except Exception as error:  # of a user's `get_config`, of whatever kind
        raise NotCacheable(
            f"{_without_config(layer)} has no config to know its activations again by "
            f"({type(error).__name__}); give it a `get_config` that returns the arguments of its "
            "constructor"
        ) from error


def _without_config(layer: keras.Layer) -> str:
    """Names the innermost layer whose config cannot be had."""
    for part in reversed(list(layers_of(layer))):
        try:
            nameless(part.get_config())
        except Exception:  # a user's layer may raise anything
            return f"layer '{part.name}' of class {type(part).__name__}"
    return f"layer '{layer.name}'"
