"""Quantization of LiteRT files, and its effect on the predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.serving.metadata import ExportFacts
from keras_transfer.serving.runtime import litert, probabilities

KINDS = ("float16", "int8")

# The converter's own advice is 100 to 500 images to find the ranges of activations.
_CALIBRATION = 200

# As many images are enough to measure the effect of quantization.
_MOST = 1000


@dataclass(frozen=True, eq=False)
class Quantization:
    """A way to make a LiteRT file smaller.

    Attributes:
        kind: `"float16"` for weights of half the size; `"int8"` for weights and computation in
            whole numbers, a quarter of the size.
        images: Raw pixels `(n, height, width, channels)` of the size trained on, such as the model
            is for; `None` if there are none.
        labels: Positions in the classes, `(n,)`; `None` if they are unknown.
    """

    kind: str
    images: np.ndarray | None = None
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, kind: str, data: Any, image_shape: tuple[int, int, int]) -> "Quantization":
        """Makes it of the images in data, and of labels if there are any.

        Args:
            kind: `"float16"` or `"int8"`.
            data: Batches of images or of `(images, labels)`; one such pair of arrays; an array of
                images; `None`. Labels are positions or one-hot.
            image_shape: What the images must have.

        Raises:
            ValueError: If the kind is unknown, `"int8"` has no data, or images of another shape.
        """
        if kind not in KINDS:
            raise ValueError(f"quantize={kind!r} is unknown. Expected None, 'float16' or 'int8'.")
        if data is None:
            if kind == "int8":
                raise ValueError(
                    "quantize='int8' needs images to find the ranges of activations. Pass some "
                    "hundred such as the model is for, for example data=valid."
                )
            return cls(kind)
        images, labels = _collect(data)
        if images.shape[1:] != image_shape or not len(images):
            raise ValueError(
                f"data= holds images of shape {images.shape}. Expected (n, "
                f"{', '.join(map(str, image_shape))}), the size that the model was trained on."
            )
        return cls(kind, images, labels)

    def report(self, model: keras.Model, path: Path, facts: ExportFacts) -> dict[str, Any]:
        """Compares what the file predicts with what the model does.

        Returns:
            The kind; and where there is data: the number of images, the share with the same
            prediction, the largest difference of a score, and with labels both accuracies.
        """
        if self.images is None:
            return {"kind": self.kind}
        logits = not facts.probabilities
        before = probabilities(model.predict(self.images, verbose=0), logits=logits)
        after = probabilities(litert(path)(self.images), logits=logits)
        same = before.argmax(1) == after.argmax(1)
        report = {
            "kind": self.kind,
            "images": len(same),
            "agreement": float(same.mean()),
            "largest_difference": float(np.abs(before - after).max()),
        }
        if self.labels is not None:
            report["accuracy_before"] = float((before.argmax(1) == self.labels).mean())
            report["accuracy_after"] = float((after.argmax(1) == self.labels).mean())
        return report


def converter_options(quantization: Quantization | None) -> dict[str, Any]:
    """Returns the attributes of TensorFlow's converter.

    They allow LiteRT's own operations only: Keras would allow those that need TensorFlow at run
    time.
    """
    operations = tf.lite.OpsSet.TFLITE_BUILTINS
    if quantization is None:
        return {"target_spec": {"supported_ops": [operations]}}
    options: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantization.kind == "float16":
        spec = {"supported_types": [tf.float16], "supported_ops": [operations]}
        return {**options, "target_spec": spec}
    images = quantization.images
    assert images is not None  # noqa: S101
    some = images[:: max(1, len(images) // _CALIBRATION)]
    return {
        **options,
        "representative_dataset": lambda: ([image[None].astype("float32")] for image in some),
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    }


def _collect(data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns images and labels, of some batches: data may be endless."""
    if isinstance(data, np.ndarray | tf.Tensor):
        return np.asarray(data), None
    is_pair = isinstance(data, tuple) and len(data) in (2, 3) and not isinstance(data[1], tuple)
    if is_pair and getattr(data[0], "ndim", 0) == 4 and np.ndim(data[1]) < 3:
        data = [data]  # as Keras' `validation_data`, and no tuple of batches
    images, labels, count = [], [], 0
    for part in data:
        batch = part if isinstance(part, tuple | list) else (part,)
        images.append(np.asarray(batch[0]))
        labels += [_positions(label) for label in batch[1:2]]
        count += len(images[-1])
        if count >= _MOST:
            break
    return np.concatenate(images), np.concatenate(labels) if labels else None


def _positions(labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    return labels.argmax(1) if one_hot else labels.reshape(-1)


def tell(report: Mapping[str, Any]) -> str:
    """Returns a report as one line."""
    line = f"Quantized to {report['kind']}"
    if "images" not in report:
        return f"{line}; without data= nothing was compared."
    line += (
        f": {report['agreement']:.1%} of {report['images']} predictions as before, scores differ "
        f"by {report['largest_difference']:.2g} at most"
    )
    if "accuracy_after" in report:
        line += f", accuracy {report['accuracy_before']:.4g} before, {report['accuracy_after']:.4g}"
    return f"{line}."
