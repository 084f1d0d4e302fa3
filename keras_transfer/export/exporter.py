"""Exports: the model with all that comes before it, as files for other runtimes."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_transfer import __version__
from keras_transfer.data.labels import check_class_names
from keras_transfer.export.quantization import Quantization, converter_options
from keras_transfer.export.resizing import resized
from keras_transfer.export.saved_model import write_saved_model
from keras_transfer.serving.metadata import (
    SUFFIXES,
    ExportFacts,
    check_overwrite,
    digest_of,
    facts_path,
    files_written_together,
    finite,
    labels_path,
    recover_export,
    write_labels,
)
from keras_transfer.utils.atomic_files import folder_written_whole
from keras_transfer.utils.name_lists import some
from keras_transfer.utils.optional_imports import require

# What Keras imports to write a format.
_WRITERS = {"onnx": ("onnx", "tf2onnx"), "openvino": ("openvino",)}


def facts_of(
    model: Any, format: str, image_size: tuple[int, int] | None, *, probabilities: bool
) -> ExportFacts:
    """Collects the metadata of a classifier.

    Args:
        model: A `TransferModel`.
        format: One of `FORMATS`.
        image_size: Height and width; `None` for those that the model was built for.
        probabilities: Whether its outputs are probabilities; else logits.

    Raises:
        ValueError: If the model is not built, or the size is unknown.
    """
    if not model.built:
        raise ValueError(
            "The model is not built, so there is nothing to export. Train it, load it, or call "
            "`model.build((None, 224, 224, 3))` first."
        )
    *built_for, channels = model.image_shape
    size = tuple(built_for if image_size is None else image_size)
    if len(size) != 2 or not all(isinstance(side, Integral) and int(side) > 0 for side in size):
        raise ValueError(
            f"The size of the images trained on is {size}. Expected a height and a width, to which "
            "the export brings images. Pass image_size=(224, 224), or, for an export that resizes "
            "nothing, input_signature=[keras.InputSpec((None, None, None, 3), 'float32')]."
        )
    history = getattr(model, "history", None)
    metrics = {
        "last_epoch": {k: v[-1] for k, v in history.history.items() if v} if history else {},
        "evaluation": model.evaluation or {},
    }
    return ExportFacts(
        format=format,
        class_names=tuple(model.class_names),
        image_size=(int(size[0]), int(size[1])),
        any_size=format != "litert",
        channels=channels,
        probabilities=probabilities,
        metrics={name: finite(values) for name, values in metrics.items() if values},
    )


def check_arguments(
    format: str, quantize: str | None, data: Any, options: Mapping[str, Any]
) -> None:
    """Checks that arguments go with the format.

    Raises:
        ValueError: If they do not.
    """
    if format != "litert" and not (quantize is None and data is None):
        raise ValueError(
            f"`quantize` and `data` are for format='litert'. Received: format={format!r}, "
            f"quantize={quantize!r}."
        )
    if quantize is None and data is not None:
        raise ValueError("`data` is for quantization. Pass quantize='int8' or 'float16', too.")
    if format == "tf_saved_model" and options:
        raise ValueError(
            f"Unknown arguments {', '.join(options)} for format='tf_saved_model'. Leave them out, "
            "or pass `input_signature`, too, for an export by Keras alone."
        )


def summary(path: Path, facts: ExportFacts) -> str:
    """Returns what was written, in a few lines."""
    size = "any size" if facts.any_size else " x ".join(map(str, facts.image_size))
    lines = [f"Saved {facts.format!r} at {str(path)!r}, for raw pixels, 0..255, of {size}."]
    if facts.format == "tf_saved_model":
        encoded = ", 'classify_bytes' (JPEG, PNG, WebP)" if facts.channels == 3 else ""
        lines.append(f"Signatures: 'serving_default' (float32), 'serving_uint8'{encoded}.")
    return "\n".join([*lines, f"Classes: {some(facts.class_names, 20)}."])


def export(
    model: keras.Model,
    path: Path,
    facts: ExportFacts,
    *,
    quantization: Quantization | None = None,
    options: Mapping[str, Any],
) -> ExportFacts:
    """Writes a model for images, with its preprocessing, labels and facts, whole or not at all.

    Args:
        model: From raw pixels of the size trained on to outputs.
        path: A folder for a SavedModel, else a file.
        facts: What is known of the model. Versions and digests are filled in here.
        quantization: How a LiteRT file is made smaller.
        options: Of Keras' exporter of the format.

    Returns:
        The facts as they were written.

    Raises:
        ValueError: If the path does not fit the format.
        FileExistsError: If something is there that no earlier export wrote.
        ImportError: If a package that writes the format is missing.
    """
    check_class_names(facts.class_names)
    if facts.format == "tf_saved_model":
        path = path.resolve()  # a link stays one, and what it points at is replaced
    recover_export(path)
    _check_target(path, facts.format)
    for name in _WRITERS.get(facts.format, ()):
        require(name, extra="export", purpose=f"Exporting to {facts.format!r}")
    versions = {"keras_transfer": __version__, "keras": keras.__version__}
    facts = replace(facts, versions={**versions, "tensorflow": tf.__version__})
    if facts.format == "tf_saved_model":
        with folder_written_whole(path) as folder:
            write_saved_model(model, folder, facts)
            return _add_facts(folder, facts, [p for p in folder.rglob("*") if p.is_file()])
    return _write_files(model, path, facts, quantization, options)


def _check_target(path: Path, format: str) -> None:
    suffix = SUFFIXES.get(format)
    if suffix is not None and (path.suffix != suffix or path.is_dir()):
        what = "a folder" if path.is_dir() else f"a name that ends in {path.suffix!r}"
        raise ValueError(
            f"format={format!r} writes a file whose name ends in {suffix!r}. Received: "
            f"{str(path)!r}, {what}."
        )
    files = [path, facts_path(path, format), labels_path(path, format), path.with_suffix(".bin")]
    check_overwrite(path, format, [file.name for file in files[: 4 if format == "openvino" else 3]])


def _add_facts(export: Path, facts: ExportFacts, files: list[Path]) -> ExportFacts:
    path = facts_path(export, facts.format)
    path.parent.mkdir(exist_ok=True)
    labels = labels_path(export, facts.format)
    digests = {
        file.relative_to(export if export.is_dir() else export.parent).as_posix(): digest_of(file)
        for file in sorted(files)
        if file != labels
    }
    facts = replace(facts, digests=digests)
    facts.write(path)
    return facts


class _Resized(keras.layers.Layer):
    """`resized` as a layer. It is only a step on the way to a file, and never saved."""

    def __init__(self, size: tuple[int, int], format: str) -> None:
        super().__init__(autocast=False, dtype="float32")
        self._size = size
        # OpenVINO 2026.4 answers wrongly to the first batch of several images after a branch.
        self._branches = format != "openvino"

    def call(self, images: Any) -> Any:
        return resized(images, self._size, branches=self._branches)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self._size, input_shape[-1])


def _convert(model: keras.Model, path: Path, format: str, options: Mapping[str, Any]) -> None:
    spec = keras.InputSpec(dtype="float32", shape=model.input_shape, name="images")
    try:
        with warnings.catch_warnings():
            # Keras 3.15.1 asks whether numpy has `np.object` when it writes ONNX.
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            model.export(str(path), format, verbose=False, input_signature=[spec], **options)
    except (OSError, ImportError):
        raise
    except Exception as error:  # each converter has kinds of its own
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("TF Select ops")), lines[0])
        raise ValueError(
            f"The model cannot be written as {format!r}: {reason[:300]}. A layer computes what the "
            "format cannot hold; LiteRT does not hold half precision. Export a SavedModel, or "
            "train without that layer or precision."
        ) from error


def _write_files(
    model: keras.Model,
    path: Path,
    facts: ExportFacts,
    quantization: Quantization | None,
    options: Mapping[str, Any],
) -> ExportFacts:
    shape = (None, None) if facts.any_size else facts.image_size
    images = keras.Input((*shape, facts.channels), name="images")
    x = _Resized(facts.image_size, facts.format)(images) if facts.any_size else images
    whole = keras.Model(images, model(x, training=False))
    with files_written_together(path, facts.format) as folder:
        unfinished = folder / path.name
        if facts.format == "litert":
            options = {**converter_options(quantization), **options}
        _convert(whole, unfinished, facts.format, options)
        if quantization is not None:
            facts = replace(facts, quantization=quantization.report(model, unfinished, facts))
        facts = _add_facts(unfinished, facts, [p for p in folder.iterdir() if p.is_file()])
        write_labels(labels_path(unfinished, facts.format), facts.class_names)
    return facts
