"""Exports: the model with all that comes before it, as files for other runtimes."""

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_transfer import __version__
from keras_transfer.data.labels import check_class_names
from keras_transfer.export.image_ops import decoded_batch, resized
from keras_transfer.export.quantization import Quantization
from keras_transfer.serving.metadata import (
    SUFFIXES,
    ExportFacts,
    check_files_replaceable,
    check_folder_replaceable,
    digest_of,
    facts_path,
    files_written_together,
    finite,
    labels_path,
    recover_export,
)
from keras_transfer.utils.atomic_files import folder_written_whole
from keras_transfer.utils.name_lists import some
from keras_transfer.utils.optional_imports import require

# What Keras imports to write a format.
_WRITERS = {"onnx": ("onnx", "tf2onnx"), "openvino": ("openvino",)}


def facts_of(
    model: Any, format: str, image_size: tuple[int, int] | None, *, probabilities: bool
) -> ExportFacts:
    """Takes down what there is to know of a classifier.

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
            _write_saved_model(model, folder, facts)
            return _add_facts(folder, facts, [p for p in folder.rglob("*") if p.is_file()])
    return _write_files(model, path, facts, quantization, options)


def _check_target(path: Path, format: str) -> None:
    suffix = SUFFIXES.get(format)
    if suffix is None:
        check_folder_replaceable(path)
        return
    if path.suffix != suffix or path.is_dir():
        what = "a folder" if path.is_dir() else f"a name that ends in {path.suffix!r}"
        raise ValueError(
            f"format={format!r} writes a file whose name ends in {suffix!r}. Received: "
            f"{str(path)!r}, {what}."
        )
    weights = [path.with_suffix(".bin")] if format == "openvino" else []
    beside = facts_path(path, format), labels_path(path, format)
    check_files_replaceable(path, format, [path, *weights, *beside])


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


def _write_saved_model(model: keras.Model, folder: Path, facts: ExportFacts) -> None:
    size, channels = facts.image_size, facts.channels
    archive = keras.export.ExportArchive()
    archive.track(model)

    # Traced here, once, and called by all signatures.
    outputs = _graph(
        lambda images: model(images, training=False),
        tf.TensorSpec((None, *size, channels), tf.float32),
    )
    specs = {
        dtype: tf.TensorSpec((None, None, None, channels), dtype, "images")
        for dtype in (tf.float32, tf.uint8)
    }
    resize = {d: _graph(lambda images: resized(images, size), spec) for d, spec in specs.items()}

    def serve(images: tf.Tensor) -> tf.Tensor:
        return outputs(resize[images.dtype](images))

    archive.add_endpoint("serving_default", serve, [specs[tf.float32]])
    archive.add_endpoint("serving_uint8", serve, [specs[tf.uint8]])
    either = tf.function(serve, autograph=False)
    for spec in specs.values():
        either.get_concrete_function(spec)
    archive.add_endpoint("serve", either)
    with tempfile.TemporaryDirectory() as temporary:
        if channels == 3:
            _add_classify_bytes(archive, outputs, facts, Path(temporary))
        archive.write_out(str(folder), verbose=False)
    labels = labels_path(folder, facts.format)
    if not labels.exists():
        write_labels(labels, facts.class_names)


def _graph(function: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


def _add_classify_bytes(archive: Any, outputs: Any, facts: ExportFacts, temporary: Path) -> None:
    """Adds a signature from encoded images to labels, which it reads from the labels asset."""
    labels = temporary / "labels.txt"
    write_labels(labels, facts.class_names)
    lines = tf.lookup.TextFileInitializer(
        str(labels),
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    table = tf.lookup.StaticHashTable(lines, default_value="")
    archive.track(table)

    def classify_bytes(images: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, errors = decoded_batch(images, facts.image_size)
        read = errors == b""
        scores = _scores(outputs(pixels), facts.probabilities)
        scores = tf.where(read[:, None], scores, float("nan"))
        return {
            "label": tf.where(read, table.lookup(tf.argmax(scores, axis=1)), ""),
            "score": tf.reduce_max(scores, axis=1),
            "scores": scores,
            "error": errors,
        }

    archive.add_endpoint(
        "classify_bytes", classify_bytes, [tf.TensorSpec((None,), tf.string, "images")]
    )


def _scores(outputs: tf.Tensor, are_probabilities: bool) -> tf.Tensor:
    if outputs.shape[1] == 1:
        second = outputs if are_probabilities else tf.sigmoid(outputs)
        return tf.concat([1 - second, second], axis=1)
    return outputs if are_probabilities else tf.nn.softmax(outputs)


def write_labels(path: Path, class_names: tuple[str, ...]) -> None:
    """Writes class names, one on each line."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in class_names), "utf-8", newline="\n")


def _converter_options(quantization: Quantization | None) -> dict[str, Any]:
    """Only LiteRT's own operations: Keras would allow those that need TensorFlow at run time."""
    if quantization is not None:
        return quantization.options()
    return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}


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
        said = next((line for line in lines if line.startswith("TF Select ops")), lines[0])
        raise ValueError(
            f"The model cannot be written as {format!r}: {said[:300]}. A layer computes what the "
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
            options = {**_converter_options(quantization), **options}
        _convert(whole, unfinished, facts.format, options)
        if quantization is not None:
            facts = replace(facts, quantization=quantization.report(model, unfinished, facts))
        facts = _add_facts(unfinished, facts, [p for p in folder.iterdir() if p.is_file()])
        write_labels(labels_path(unfinished, facts.format), facts.class_names)
    return facts
