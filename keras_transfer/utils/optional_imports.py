"""Packages that are imported only where they are used, or kept from being imported."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def require(name: str, *, extra: str, purpose: str) -> Any:
    """Imports an optional package.

    Args:
        name: The module.
        extra: The extra of keras-transfer that installs it.
        purpose: What needs it, as the begin of a sentence.

    Raises:
        ImportError: If it cannot be imported. The message names the extra.

    Example:
        >>> require("onnxruntime", extra="export", purpose="Running an ONNX file")
    """
    try:
        return import_openvino() if name == "openvino" else importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {name!r}, which cannot be imported ({error}). Install "
            f'it: pip install "keras-transfer[{extra}]"'
        ) from error


def import_openvino() -> Any:
    """Imports it without its telemetry, which reports each conversion unless the user objected."""
    with _absent("openvino_telemetry", unless="openvino"):  # OpenVINO has a stub for its absence
        import openvino
    return openvino


def import_tensorflow_alone() -> Any:
    """Imports TensorFlow without Keras, which takes half the time.

    TensorFlow imports Keras only to register its optimizers, and does without if it is not there.
    """
    with _absent("keras", unless="tensorflow"):
        import tensorflow
    return tensorflow


@contextmanager
def _absent(name: str, *, unless: str) -> Iterator[None]:
    """Hides a module from imports within a block, unless it or another one is there already."""
    if {name, unless} & set(sys.modules):
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
