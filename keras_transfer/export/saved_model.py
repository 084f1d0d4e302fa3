"""SavedModels: signatures for images of any size, as pixels or encoded."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_transfer.export.image_ops import decoded_batch
from keras_transfer.export.resizing import resized
from keras_transfer.serving.metadata import ExportFacts, labels_path, write_labels


def write_saved_model(model: keras.Model, folder: Path, facts: ExportFacts) -> None:
    """Writes a SavedModel with the signatures that `TransferModel.export` describes."""
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

    def serve(images: tf.Tensor) -> tf.Tensor:
        return outputs(_resizer(specs[images.dtype], size)(images))

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


def _graph(function: Callable[[tf.Tensor], Any], spec: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


@functools.lru_cache(maxsize=4)  # Keras traces each signature twice
def _resizer(spec: tf.TensorSpec, size: tuple[int, int]) -> Any:
    return _graph(lambda images: resized(images, size), spec)


@functools.lru_cache(maxsize=2)
def _decoder(size: tuple[int, int]) -> Any:
    spec = tf.TensorSpec((None,), tf.string)
    return _graph(lambda files: decoded_batch(files, size), spec)


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
        pixels, errors = _decoder(facts.image_size)(images)
        read = errors == b""
        scores = _scores(_of_some(outputs, pixels), facts.probabilities)
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


def _of_some(outputs: Any, pixels: tf.Tensor) -> tf.Tensor:
    """Gives the outputs for images, of which there may be none.

    TensorFlow 2.21 does not run a convolution and a normalization on none on CPUs without AVX-512.
    """
    count = tf.shape(pixels)[0]
    one_if_none = tf.zeros((tf.cast(count == 0, tf.int32), *pixels.shape[1:]), pixels.dtype)
    return outputs(tf.concat([pixels, one_if_none], axis=0))[:count]


def _scores(outputs: tf.Tensor, are_probabilities: bool) -> tf.Tensor:
    if outputs.shape[1] == 1:
        second = outputs if are_probabilities else tf.sigmoid(outputs)
        return tf.concat([1 - second, second], axis=1)
    return outputs if are_probabilities else tf.nn.softmax(outputs)
