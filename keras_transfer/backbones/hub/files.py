"""The files of a SavedModel folder: which are missing, and which of them are the graph."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

GRAPH = "saved_model.pb"
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")


class DamagedModule(OSError):
    """A SavedModel folder that lacks files, or holds files that cannot be read."""


def what_is_missing(folder: Path) -> str | None:
    """Says what a folder lacks to be a SavedModel of TensorFlow 2; `None` if it is complete.

    Only names and sizes are looked at: what a file holds comes to light when it is loaded.

    Example:
        >>> what_is_missing(Path("module"))
        'variables/variables.data-00001-of-00002 is missing'
    """
    for name in (GRAPH, "variables/variables.index"):
        if (problem := _problem(folder, name)) is not None:
            return problem
    shards = [_SHARD.fullmatch(path.name) for path in (folder / "variables").iterdir()]
    counts = {int(shard[2]) for shard in shards if shard}
    for number in range(max(counts, default=1)):
        name = f"variables/variables.data-{number:05d}-of-{max(counts, default=1):05d}"
        if (problem := _problem(folder, name)) is not None:
            return problem
    return None


def _problem(folder: Path, name: str) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    return None if path.stat().st_size else f"{name} is empty"


def is_tf_keras(folder: Path) -> bool:
    """Whether the Keras of TensorFlow 2.15 or before wrote the folder, for whatever pixels."""
    return (folder / "keras_metadata.pb").is_file()


@dataclass(frozen=True, eq=False)
class GraphFiles:
    """The files that make a module's graph, without the values of its variables.

    Attributes:
        files: Relative path to content, for `saved_model.pb` and all files in `assets/`.
    """

    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads them from a SavedModel folder, or from where `write` wrote them."""
        assets = sorted(path for path in (folder / "assets").rglob("*") if path.is_file())
        paths = [folder / GRAPH, *assets]
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def write(self, folder: Path) -> None:
        """Writes them into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    @cached_property
    def digest(self) -> str:
        """A digest of their names and contents."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self.files):
            digest.update(f"{name}\0{len(self.files[name])}\0".encode() + self.files[name])
        return digest.hexdigest()
