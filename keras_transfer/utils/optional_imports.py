"""Packages that are imported only where they are used."""

import importlib
import sys
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
    """Imports OpenVINO without its telemetry, which reports each conversion unless users object."""
    telemetry = "openvino_telemetry"
    hidden = not {telemetry, "openvino"} & set(sys.modules)
    if hidden:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # OpenVINO does without it
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[telemetry]
