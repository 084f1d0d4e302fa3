"""What stands for content: digests of arrays, configs without the names that Keras makes up."""

import hashlib
import json
from typing import Any

import numpy as np


def digest_of(array: np.ndarray) -> str:
    """Returns a digest of an array's shape, type and content."""
    digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


_REFERENCES = ("input_layers", "output_layers", "keras_history")

# What a layer has noted in the course of time, which says nothing of what it computes.
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
