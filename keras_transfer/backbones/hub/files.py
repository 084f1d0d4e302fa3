"""The files of a SavedModel folder: which are missing, and which of them are the graph."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

GRAPH = "saved_model.pb"


class DamagedModule(OSError):
    """A SavedModel folder that lacks files, or holds files that cannot be read."""


def what_is_missing(folder: Path) -> str | None:
    """Returns what a folder lacks to be a SavedModel of TensorFlow 2; `None` if nothing.

    Damage within files, and to the values of variables, is found when they are loaded.

    Example:
        >>> what_is_missing(Path("module"))
        'variables/variables.index is missing or empty'
    """
    for name in (GRAPH, "variables/variables.index"):
        path = folder / name
        if not path.is_file() or not path.stat().st_size:
            return f"{name} is missing or empty"
    return None


def is_tf_keras(folder: Path) -> bool:
    """Returns whether the Keras of TensorFlow 2.15 or before wrote the folder."""
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
