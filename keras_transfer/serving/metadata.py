"""What an export says of itself: classes, image size, metrics, as JSON beside the model."""

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


def check_folder_replaceable(folder: Path) -> None:
    """Checks that a folder holds nothing but an earlier export, if there is one.

    Raises:
        FileExistsError: If another file is there, or one was changed after the export.
        NotADirectoryError: If it is a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{str(folder)!r} is a file. A SavedModel is a folder: choose another name."
        )
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    _check(found, facts_path(folder, "tf_saved_model"), folder, folder / "assets" / "labels.txt")


def check_files_replaceable(export: Path, format: str, files: Iterable[Path]) -> None:
    """Checks that files of an export do not exist, or belong to an earlier one of this name.

    Raises:
        FileExistsError: If one is of something else, or was changed after the export.
    """
    found = [path for path in files if lexists(path)]
    _check(found, facts_path(export, format), export.parent, labels_path(export, format))


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
        _check_pending(export, format, folder)
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
        _check_pending(export, format, pending)
        _put_in_place(export, format, pending)


def _pending(export: Path) -> Path:
    return export.with_name(f".{export.name}.pending")


def _check_pending(export: Path, format: str, folder: Path) -> None:
    check_files_replaceable(export, format, [export.parent / one.name for one in folder.iterdir()])


def _put_in_place(export: Path, format: str, pending: Path) -> None:
    last = facts_path(export, format).name  # of the earlier export, they tell which files are its
    for file in sorted(pending.iterdir(), key=lambda file: file.name == last):
        file.replace(export.parent / file.name)
    pending.rmdir()


def _check(found: Iterable[Path], facts: Path, root: Path, labels: Path) -> None:
    digests = _digests(facts)
    for path in sorted(found):
        if digests is not None and path in (facts, labels):
            continue
        digest = (digests or {}).get(path.relative_to(root).as_posix())
        if digest is None or not path.is_file() or digest_of(path) != digest:
            what = "was not written by an earlier export"
            if digest is not None:
                what = "was changed since it was exported"
            raise FileExistsError(
                f"{str(path)!r} {what}, and would be lost. Expected a new name, an empty folder, "
                "or an earlier export, complete, to replace. Choose another name, or move that "
                "away."
            )


def _digests(facts: Path) -> Mapping[str, str] | None:
    """What an earlier export wrote; `None` if there is none."""
    try:
        return ExportFacts.parse(facts).digests
    except (OSError, ValueError):  # not ours, so nothing is known of what is there
        return None
