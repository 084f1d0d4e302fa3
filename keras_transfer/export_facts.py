"""What an export says of itself: classes, image size, metrics, as JSON beside the model."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

FORMATS = ("tf_saved_model", "litert", "onnx", "openvino")
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}

_LAYOUT = 1  # raise it when older versions could no longer make sense of the file


@dataclass(frozen=True)
class ExportFacts:
    """What one needs to know to use an export.

    Attributes:
        format: One of `FORMATS`.
        class_names: The classes, in the order of the scores.
        image_size: Height and width trained on.
        any_size: Whether images of other sizes are resized inside.
        channels: Of an image: 3 for RGB.
        probabilities: Whether the outputs are probabilities; else logits.
        metrics: Of the training's last epoch and of the last evaluation, where there was one.
        quantization: What quantization changed; empty without.
        versions: Of the packages that made it.
        digests: Path of each of the model's files, as seen from the folder, to its SHA-256.
    """

    format: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    any_size: bool
    channels: int
    probabilities: bool
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        content = {
            "layout": _LAYOUT,
            "input": "raw pixels, 0..255" + (", RGB" if self.channels == 3 else ""),
            **asdict(self),
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` has written, and checks the model's files.

        Raises:
            ValueError: If it is something else, or the model's files are not those it was written
                for.
        """
        facts = cls.parse(path)
        facts._check_files(path)
        return facts

    @classmethod
    def parse(cls, path: Path) -> Self:
        """Reads what `write` has written, whatever became of the model's files.

        Raises:
            ValueError: If it is something else.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
            layout = content.pop("layout")
            content.pop("input")
            for key in ("class_names", "image_size"):
                content[key] = tuple(content[key])
            facts = cls(**content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{str(path)!r} is not what `TransferModel.export` writes ({error!r}). Export the "
                "model again."
            ) from error
        if layout != _LAYOUT:
            raise ValueError(
                f"{str(path)!r} has layout {layout!r}. Expected {_LAYOUT}: it was written by "
                "another version of keras_transfer. Use that one, or export the model again."
            )
        return facts

    def _check_files(self, path: Path) -> None:
        root = folder_of(self.format, path)
        for name, digest in self.digests.items():
            file = root / name
            if not file.is_file():
                raise ValueError(f"{str(file)!r} is missing. Copy it, too, or export again.")
            if digest_of(file) != digest:
                raise ValueError(
                    f"{str(file)!r} is damaged, or belongs to another export than "
                    f"{str(path)!r}. Copy both together, or export again."
                )


def facts_path(export: Path, format: str) -> Path:
    """Returns where the facts of an export are: in a SavedModel's folder, or beside a file."""
    if format == "tf_saved_model":
        return export / "assets.extra" / "metadata.json"
    return export.with_name(f"{export.name}.metadata.json")


def labels_path(export: Path, format: str) -> Path:
    """Returns where the class names of an export are, one on each line."""
    if format == "tf_saved_model":
        return export / "assets" / "labels.txt"
    return export.with_name(f"{export.name}.labels.txt")


def folder_of(format: str, facts: Path) -> Path:
    """Returns the folder from which the digests name files."""
    return facts.parents[1] if format == "tf_saved_model" else facts.parent


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metrics as JSON can hold them: numbers, `None` for those that are not finite.

    A metric that gives a number for each class becomes a list.
    """
    return {key: _finite(plain(value)) for key, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Returns what a metric gives as a float, or as a list of such where it gives several."""
    return np.asarray(value, "float64").tolist()
