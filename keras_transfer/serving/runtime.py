"""Exports at work: each run by its own runtime, without Keras."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from keras_transfer.serving.metadata import SUFFIXES, ExportFacts, facts_path, recover_export
from keras_transfer.utils.optional_imports import require
from keras_transfer.utils.processors import processors

_EXTRA = "export"


@dataclass(frozen=True)
class Served:
    """An export that is ready to classify.

    Attributes:
        facts: Its metadata.
        run: From images `(batch, height, width, channels)`, uint8 or float32, to its outputs
            `(batch, units)`.
    """

    facts: ExportFacts
    run: Callable[[np.ndarray], np.ndarray]

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each class, `(batch, classes)`."""
        return probabilities(self.run(images), logits=not self.facts.probabilities)


def probabilities(outputs: np.ndarray, *, logits: bool) -> np.ndarray:
    """Returns the probability of each class from the outputs of a model.

    Args:
        outputs: `(batch, 1)`, of the second of two classes, or `(batch, classes)`.
        logits: Whether they come without sigmoid or softmax.
    """
    outputs = np.asarray(outputs, "float64")
    if outputs.shape[1] == 1:
        second = special.expit(outputs) if logits else outputs
        return np.concatenate([1 - second, second], axis=1)
    return special.softmax(outputs, axis=1) if logits else outputs


def open_export(path: str | os.PathLike[str]) -> Served:
    """Opens what `TransferModel.export` has written, in any of its formats.

    Args:
        path: The SavedModel's folder, or the `.tflite`, `.onnx` or `.xml` file.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no such export, or a damaged one.
        ImportError: If the format's runtime is not installed. The message names the extra.
    """
    path = Path(path).expanduser()
    with contextlib.suppress(OSError):  # if it cannot be completed, its digests tell
        recover_export(path)
    format = _format(path)
    facts = facts_path(path, format)
    if not facts.is_file():
        raise ValueError(
            f"{str(path)!r} has no {str(facts)!r}, the file of classes and image size. Expected "
            "an export by `TransferModel.export`, with all the files that it wrote."
        )
    known = ExportFacts.read(facts)
    if known.format != format or (format in SUFFIXES and path.name not in known.digests):
        raise ValueError(
            f"{str(facts)!r} is of another export, {known.format!r} in "
            f"{', '.join(map(repr, known.digests))}. Expected that of {str(path)!r}. Copy each "
            "export with its own, or export again."
        )
    open_one = {"tf_saved_model": _saved_model, "litert": litert, "onnx": _onnx}
    try:
        return Served(known, open_one.get(format, _openvino)(path))
    except ImportError:
        raise
    except Exception as error:  # each runtime has kinds of its own
        raise ValueError(
            f"{str(path)!r} cannot be loaded by this version of its runtime: {error}. It was "
            f"written by {known.versions}. Export the model again with the versions used here."
        ) from error


def _format(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(
            f"{str(path)!r} does not exist (looked for {str(path.absolute())!r}). Expected what "
            "`TransferModel.export` has written."
        )
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "tf_saved_model"
        inside = sorted(str(found.parent) for found in path.glob("*/saved_model.pb"))
        hint = f" There is one in {', '.join(map(repr, inside))}." if inside else ""
        raise ValueError(f"{str(path)!r} is no export: it holds no saved_model.pb.{hint}")
    for format, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return format
    raise ValueError(
        f"{str(path)!r} is no export. Expected the folder of a SavedModel, or a file that ends in "
        f"{', '.join(SUFFIXES.values())}."
    )


def _saved_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))
    by_type = {"uint8": "serving_uint8", "float32": "serving_default"}

    def run(images: np.ndarray) -> np.ndarray:
        signature = loaded.signatures[by_type[images.dtype.name]]
        (outputs,) = signature(tensorflow.constant(images)).values()
        return outputs.numpy()

    run.loaded = loaded  # type: ignore[attr-defined]  # its variables live as long as it
    return run


def litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function of images that runs a LiteRT file, an image at a time."""
    package = require("ai_edge_litert.interpreter", extra=_EXTRA, purpose="Running a LiteRT file")
    interpreter = package.Interpreter(str(path), num_threads=processors())
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], image[None].astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(taken["index"])[0]

    return lambda images: np.stack([run(image) for image in images])


def _onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    package = require("onnxruntime", extra=_EXTRA, purpose="Running an ONNX file")
    session = package.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images.astype("float32")})[0]


def _openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    package: Any = require("openvino", extra=_EXTRA, purpose="Running an OpenVINO file")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would compute in bfloat16
    compiled = package.Core().compile_model(str(path), "CPU", exact)
    return lambda images: compiled(images.astype("float32"))[0]
