"""What stands for content: of arrays, and of layers but for the names that Keras makes up."""

import contextlib
import hashlib
import inspect
import json
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType
from typing import Any

import keras
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


def of_layer(layer: keras.Layer, *, without: Collection[keras.Variable] = ()) -> str:
    """Returns what stands for a layer with its weights: its config, own code and their values.

    Args:
        layer: The layer.
        without: Weights that do not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    left_out = {id(variable) for variable in without}
    for weight in layer.weights:
        if id(weight) not in left_out:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return f"{of_architecture(layer)}{digest.hexdigest()}"


def of_architecture(layer: keras.Layer) -> str:
    """Returns what stands for a layer without its weights: its class, config, and own code.

    The code of layers that are neither Keras' nor this package's is that of their methods, with the
    values that these have closed over; functions that they call are not looked into.
    """
    # Keras has no public way to all layers within a layer.
    own = {type(part) for part in layer._flatten_layers()}
    code = sorted(text for kind in own for text in _code(kind))
    return type(layer).__name__ + nameless(layer.get_config()) + "".join(code)


def _code(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("keras", "keras_transfer", "builtins"):
            return
        for name, value in sorted(vars(base).items()):
            function = inspect.unwrap(getattr(value, "__func__", value))
            if isinstance(function, FunctionType):
                yield f"{base.__qualname__}.{name} {_of_function(function)}"


def _of_function(function: FunctionType) -> str:
    held = [*(function.__defaults__ or ()), *_closed_over(function)]
    return f"{_of_code(function.__code__)} {[_text(value) for value in held]}"


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


def _text(value: Any) -> str:
    """A value as text, the same in every process; of an object, which has an address, its type."""
    if isinstance(value, CodeType):
        return _of_code(value)
    if isinstance(value, tuple | list):
        return f"{[_text(part) for part in value]}"
    if isinstance(value, set | frozenset):
        return f"{sorted(_text(part) for part in value)}"
    plain = value is None or isinstance(value, str | bytes | int | float | complex)
    return repr(value) if plain else type(value).__name__


def _of_code(code: CodeType) -> str:
    digest = hashlib.blake2b(code.co_code, digest_size=16)
    digest.update("\0".join([*code.co_names, *map(_text, code.co_consts)]).encode())
    return digest.hexdigest()
