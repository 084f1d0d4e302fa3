"""Finds image files by class and split in a folder."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_transfer.images.system_files import counted, kind_of
from keras_transfer.utils.name_lists import some

SPLITS = ("train", "valid", "test")

_SPLIT_NAMES = {split: split for split in SPLITS} | {"val": "valid", "validation": "valid"}
_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"})
# Suffixes of picture formats that are not read.
_UNREAD_SUFFIXES = (
    *(".apng", ".avif", ".emf", ".eps", ".exr", ".hdr", ".heic", ".heif", ".hif", ".ico", ".svg"),
    *(".j2k", ".jp2", ".jpx", ".jxl", ".jxr", ".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".psd"),
    *(".tga", ".tif", ".tiff", ".dcm", ".dicom", ".nii"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),  # of cameras
)


@dataclass(frozen=True)
class ImageFile:
    """What the name of an image file says.

    Attributes:
        path: The file.
        parts: Parts of its path below the folder in which it was found, spelled alike everywhere.
        class_name: Name of its class folder.
        split: In which split's folder it is; `"train"` where splits have no folders.
    """

    path: Path
    parts: tuple[str, ...]
    class_name: str
    split: str


@dataclass(frozen=True)
class LeftOut:
    """Counts of files and folders in image folders that are not read.

    Attributes:
        suffixes: Suffix to number of files that have no image suffix, or lie beside class folders.
        system: Name to number of hidden files and folders, and of those that systems leave. What is
            in such a folder is not counted.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.suffixes or self.system)

    def add(self, other: "LeftOut") -> None:
        """Adds the counts of another folder."""
        self.suffixes.update(other.suffixes)
        self.system.update(other.system)

    def __str__(self) -> str:
        parts = []
        if self.suffixes:
            kinds = counted(self.suffixes)
            parts.append(f"{self.suffixes.total()} other files ignored ({kinds})")
        if self.system:
            kinds = counted(self.system)
            parts.append(f"{self.system.total()} hidden or system entries ignored ({kinds})")
        return ", ".join(parts)

    @property
    def unread_pictures(self) -> str:
        """The suffixes and numbers of pictures in formats that are not read, if there are any."""
        return counted({k: n for k, n in self.suffixes.items() if k in _UNREAD_SUFFIXES})


def find_images(root: Path) -> tuple[list[ImageFile], LeftOut]:
    """Find the images of every class, by suffix, at any depth of the class folders.

    Args:
        root: A folder of class folders, or of folders `train`, `valid` and `test` of such.

    Returns:
        The images sorted by path, and what else lies there.

    Raises:
        ValueError: If the folders do not make two or more classes with images in every split.
    """
    files: list[ImageFile] = []
    left_out = LeftOut()
    folders = _split_folders(root)
    for split, folder in folders.items():
        for class_folder in _class_folders(folder):
            paths, others = walk_images(class_folder)
            left_out.add(others)
            if not paths:
                raise ValueError(_tell_empty(class_folder, others))
            for path in paths:
                parts = tuple(map(_plain, path.relative_to(root).parts))
                files.append(ImageFile(path, parts, _plain(class_folder.name), split))
    for folder in {root, *folders.values()}:  # what lies beside the class folders
        entries, system = _entries(folder)
        left_out.system.update(system)
        left_out.suffixes.update(path.suffix.lower() for path in entries if not path.is_dir())
    _check_same_classes(folders, files)
    return sorted(files, key=lambda file: (file.parts, file.path)), left_out


def _split_folders(root: Path) -> dict[str, Path]:
    """Map the splits that have folders to them; a folder of class folders is all train."""
    folders = _visible_folders(root)
    named = [folder for folder in folders if folder.name.casefold() in _SPLIT_NAMES]
    splits = {_SPLIT_NAMES[folder.name.casefold()]: folder for folder in named}
    others = [folder for folder in folders if folder not in named]
    # With others beside it, "train" may be a class, of rail vehicles: then it holds the images.
    if not named or (others and ("train" not in splits or _holds_images(splits["train"]))):
        _check_no_misnamed_splits(folders)
        return {"train": root}
    if others or len(splits) < len(named) or "train" not in splits:
        raise ValueError(
            f"{str(root)!r} holds the folders {_names(folders)}. Expected either class folders, "
            "or 'train' and, if there are such splits, one 'valid' (or 'val', 'validation') and "
            "one 'test', and nothing else. Rename, merge or move the folders that do not fit."
        )
    return {split: splits[split] for split in SPLITS if split in splits}


def _check_no_misnamed_splits(folders: Sequence[Path]) -> None:
    """Refuse to take `training_set` and `test_set` for two classes."""
    if folders and all(
        folder.name.casefold().startswith(("train", "val", "test")) and not _holds_images(folder)
        for folder in folders
    ):
        raise ValueError(
            f"The folders {_names(folders)} look like splits, and were expected to be classes. "
            "Rename them to 'train', 'valid' and 'test'."
        )


def _class_folders(folder: Path) -> list[Path]:
    classes = _visible_folders(folder)
    if len(classes) < 2:
        raise ValueError(
            f"{str(folder)!r} holds {len(classes)} class folders ({_names(classes) or 'none'}). "
            f"Expected two or more, each with the images of one class, as in "
            f"{str(folder / 'cats' / '1.jpg')!r}. Sort the images into class folders, or pass the "
            "folder that holds them."
        )
    return classes


def _check_same_classes(folders: Mapping[str, Path], files: Sequence[ImageFile]) -> None:
    classes = {
        split: {file.class_name for file in files if file.split == split} for split in folders
    }
    for split, names in classes.items():
        for name in sorted(names ^ classes["train"]):
            here, there = (split, "train") if name in names else ("train", split)
            raise ValueError(
                f"Class {name!r} is in {str(folders[here])!r} but not in "
                f"{str(folders[there])!r}. Expected the same classes in every split. Add the "
                "folder with images, correct its name, or remove the class."
            )


def _tell_empty(class_folder: Path, others: LeftOut) -> str:
    return (
        f"Class {class_folder.name!r} is empty: {str(class_folder)!r} holds no images "
        f"({others or 'no files at all'}). Expected files that end in "
        f"{', '.join(sorted(_SUFFIXES))}. Add or convert images, or remove the folder."
    )


def _names(folders: Sequence[Path]) -> str:
    return some([repr(folder.name) for folder in folders], 20)


def walk_images(folder: Path) -> tuple[list[Path], LeftOut]:
    """List the images below a folder, except in hidden folders and those that systems leave.

    Links to folders are followed, into each real folder once, and never up to a parent: that would
    loop, and bring in the images of other classes.
    """
    images: list[Path] = []
    left_out = LeftOut()
    waiting = [folder]
    real, parent = folder.resolve(), folder.parent.resolve()  # apart, if the folder is a link
    entered = {real, *real.parents, parent, *parent.parents}
    while waiting:
        entries, system = _entries(waiting.pop())
        left_out.system.update(system)
        for entry in entries:
            suffix = entry.suffix.lower()
            if entry.is_dir():
                if (target := entry.resolve()) not in entered:
                    entered.add(target)
                    waiting.append(entry)
            elif suffix in _SUFFIXES:
                images.append(entry)
            else:
                left_out.suffixes[suffix] += 1
    return images, left_out


def _entries(folder: Path) -> tuple[list[Path], Counter[str]]:
    """List a folder's entries by name, and count those that are hidden or left by systems."""
    kinds = {entry: kind_of(entry.name) for entry in folder.iterdir()}
    entries = [entry for entry, kind in kinds.items() if kind is None]
    return (
        sorted(entries, key=lambda entry: _plain(entry.name)),
        Counter(kind for kind in kinds.values() if kind is not None),
    )


def _visible_folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder)[0] if entry.is_dir()]


def _holds_images(folder: Path) -> bool:
    return any(entry.suffix.lower() in _SUFFIXES for entry in _entries(folder)[0])


def _plain(name: str) -> str:
    """Spell a name alike everywhere: macOS may hand out decomposed accents."""
    return unicodedata.normalize("NFC", name)


def copies_between_splits(sizes: Mapping[ImageFile, int]) -> list[list[ImageFile]]:
    """Returns groups of files with the same bytes that are in more than one split.

    Args:
        sizes: The files and their sizes in bytes.
    """
    same_size = _across_splits(sizes, sizes.__getitem__)
    return [group for files in same_size for group in _across_splits(files, _digest)]


def _across_splits(
    files: Iterable[ImageFile], key: Callable[[ImageFile], object]
) -> list[list[ImageFile]]:
    groups: dict[object, list[ImageFile]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file)
    return [group for group in groups.values() if len({file.split for file in group}) > 1]


def _digest(file: ImageFile) -> bytes:
    try:
        with file.path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:  # gone meanwhile: like no other
        return os.fsencode(file.path)
