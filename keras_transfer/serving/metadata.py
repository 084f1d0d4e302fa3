"""Metadata of exports: classes, image size and metrics, as JSON beside the model."""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from os.path import lexists
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_transfer.utils.atomic_files import folder_written_whole, recover

FORMATS = ("tf_saved_model", "litert", "onnx", "openvino")
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}

_LAYOUT = 1  # to be raised when older versions could no longer read the file


@dataclass(frozen=True)
class ExportFacts:
    """Everything that a runtime has to know of an export.

    Attributes:
        format: One of `FORMATS`.
        class_names: The classes, in the order of the scores.
        image_size: Height and width trained on.
        any_size: Whether images of other sizes are resized inside.
        channels: Of an image: 3 for RGB.
        probabilities: Whether the outputs are probabilities; else logits.
        metrics: Those of the training's last epoch and of the last evaluation, where there was one.
        quantization: The changes by quantization; empty without.
        versions: Versions of the packages that made it.
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
    def read(cls, path: Path, *, check_files: bool = True) -> Self:
        """Reads what `write` has written.

        Args:
            path: The file.
            check_files: Whether to compare the model's files with their digests.

        Raises:
            ValueError: If it is something else, or the model's files are not those it was written
                for.
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
        root = path.parents[1] if facts.format == "tf_saved_model" else path.parent
        for name, digest in facts.digests.items() if check_files else ():
            file = root / name
            if not file.is_file():
                raise ValueError(f"{str(file)!r} is missing. Copy it, too, or export again.")
            if digest_of(file) != digest:
                raise ValueError(
                    f"{str(file)!r} is damaged, or belongs to another export than "
                    f"{str(path)!r}. Copy both together, or export again."
                )
        return facts


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


def write_labels(path: Path, class_names: tuple[str, ...]) -> None:
    """Writes class names, one on each line."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in class_names), "utf-8", newline="\n")


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
        return [_finite(part) for part in value]
    return value if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Returns the result of a metric as a float, or as a list if it gives several numbers."""
    return np.asarray(value, "float64").tolist()


def check_overwrite(export: Path, format: str, names: Iterable[str] = ()) -> None:
    """Checks that nothing would be replaced but files of an earlier export of this name.

    Args:
        export: The SavedModel's folder, or the model's file.
        format: One of `FORMATS`.
        names: For a file, the names of all files that will be written beside each other.

    Raises:
        FileExistsError: If another file is there.
        NotADirectoryError: If the path of a SavedModel is a file.
    """
    facts, root = facts_path(export, format), export.parent
    existing = [root / name for name in names if lexists(root / name)]
    if format == "tf_saved_model":
        root = export
        if export.exists() and not export.is_dir():
            raise NotADirectoryError(
                f"{str(export)!r} is a file. A SavedModel is a folder: choose another name."
            )
        existing = [path for path in export.rglob("*") if path.is_symlink() or not path.is_dir()]
    own = set()
    with contextlib.suppress(OSError, ValueError):  # there is no earlier export
        digests = ExportFacts.read(facts, check_files=False).digests
        own = {facts, labels_path(export, format), *(root / name for name in digests)}
    for path in sorted(existing):
        if path not in own:
            raise FileExistsError(
                f"{str(path)!r} was not written by an earlier export, and would be lost. Expected "
                "a new name, an empty folder, or an earlier export to replace. Choose another "
                "name, or move that away."
            )


@contextlib.contextmanager
def files_written_together(export: Path, format: str) -> Iterator[Path]:
    """Yields a folder for the files of an export, and moves them into place when complete.

    One rename, that of the folder, decides: after it the files in the folder are the export, and
    `recover_export` moves those that a killed process did not.

    Raises:
        FileExistsError: If a file would replace one that no export wrote.
    """
    pending = _pending(export)
    with folder_written_whole(pending) as folder:
        yield folder
        check_overwrite(export, format, [file.name for file in folder.iterdir()])
    _put_in_place(export, format, pending)


def recover_export(export: Path) -> None:
    """Completes or undoes an export that was interrupted while its files were moved into place.

    Raises:
        FileExistsError: If a file would replace one that no export wrote.
        OSError: If files cannot be renamed.
    """
    formats = {suffix: format for format, suffix in SUFFIXES.items()}
    format, pending = formats.get(export.suffix), _pending(export)
    if format is None:
        recover(export.resolve())
        return
    recover(pending)
    if pending.is_dir():
        check_overwrite(export, format, [file.name for file in pending.iterdir()])
        _put_in_place(export, format, pending)


def _pending(export: Path) -> Path:
    return export.with_name(f".{export.name}.pending")


def _put_in_place(export: Path, format: str, pending: Path) -> None:
    last = facts_path(export, format).name  # those of the earlier export tell which files are its
    with contextlib.suppress(FileNotFoundError):  # another process completes the export, too
        for file in sorted(pending.iterdir(), key=lambda file: file.name == last):
            with contextlib.suppress(FileNotFoundError):
                file.replace(export.parent / file.name)
        pending.rmdir()
