"""Image files: found by class and split, decoded, and all of them tried once."""

import stat
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_transfer.images.system_files import counted, kind_of
from keras_transfer.utils.memory import memory_budget
from keras_transfer.utils.name_lists import some
from keras_transfer.utils.processors import processors

SPLITS = ("train", "valid", "test")

_SPLIT_NAMES = {split: split for split in SPLITS} | {"val": "valid", "validation": "valid"}
_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"})
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
# Suffixes of picture formats that are not read.
_UNREAD_SUFFIXES = (
    *(".apng", ".avif", ".emf", ".eps", ".exr", ".hdr", ".heic", ".heif", ".hif", ".ico", ".svg"),
    *(".j2k", ".jp2", ".jpx", ".jxl", ".jxr", ".pbm", ".pcx", ".pgm", ".pnm", ".ppm", ".psd"),
    *(".tga", ".tif", ".tiff", ".dcm", ".dicom", ".nii"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),  # of cameras
)

# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which made photographs of 4000 x 3000 five
# times as fast. While that leaves three times the wanted size, they differed from a full decode by
# 0.2 of 255 on average and 2 at most; twice the size would be 0.3 and 4.
JPEG_HEADROOM = 3

# Images with more pixels are refused, here and by exports, before they are decoded. It is the
# number above which Pillow warns of decompression bombs.
MAX_PIXELS = 89_478_485

# Bounds what is waiting at a time: futures of a million files would take a gigabyte.
_WINDOW = 1024

_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


@dataclass(frozen=True, eq=False)
class CheckedImages:
    """Files that were all read once. A row is a position in `paths`.

    Attributes:
        paths: The files, in the order in which they were given.
        image_size: Height and width to which `read` brings each image.
        stamps: Size in bytes and time of change in ns of each file, zeros if it has none.
        reasons: Row to why that file is no usable image; no entry for the good ones.
        pixels: uint8 array `(files, height, width, 3)`, or `None` if that would not fit into RAM.
    """

    paths: tuple[Path, ...]
    image_size: tuple[int, int]
    stamps: tuple[tuple[int, int], ...]
    reasons: dict[int, str]
    pixels: np.ndarray | None

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows: from RAM, or else decoded again in threads.

        Args:
            rows: Integer array `(n,)`.

        Returns:
            uint8 array `(n, height, width, 3)`, RGB, 0..255.

        Raises:
            RuntimeError: If a file was good when it was checked and no longer is.
        """
        if self.pixels is not None:
            return self.pixels[rows]
        with ThreadPoolExecutor(processors()) as pool:
            return np.stack(list(pool.map(self._decode_again, rows)))

    def _decode_again(self, row: int) -> np.ndarray:
        try:
            return decode_image(self.paths[row], self.image_size)
        except Exception as error:
            raise RuntimeError(
                f"{str(self.paths[row])!r} was a good image when image_folder checked it, and now "
                f"it is not: {reason(error)}. Call image_folder again to leave it out."
            ) from error


@dataclass(frozen=True)
class _Trial:
    """How reading one file went: its stamp, and why it is no usable image, empty if it is one."""

    stamp: tuple[int, int]
    reason: str = ""


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


def decode_image(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Read one JPEG, PNG, BMP, GIF or WebP file, whatever its suffix says.

    The first frame is turned upright by its EXIF orientation, becomes RGB with transparency on
    white, and is resized to `image_size`: bilinear with antialiasing, aspect ratio not kept.

    Args:
        path: The file.
        image_size: Height and width.

    Returns:
        uint8 array `(height, width, 3)`, 0..255.

    Raises:
        ValueError: If it has more than `MAX_PIXELS` pixels.
        Exception: Whatever Pillow raises on a damaged file, `OSError` mostly.
    """
    height, width = image_size
    needed = JPEG_HEADROOM * max(height, width)  # both sides: EXIF may swap them
    with Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"{image.height} x {image.width} pixels, which may be a decompression bomb; "
                f"expected at most {MAX_PIXELS:,}"
            )
        image.draft(None, (needed, needed))
        image.load()
        turn = _EXIF_TURNS.get(_orientation(image))
        rgb = _to_rgb(image if turn is None else image.transpose(turn))
    return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR))


def check_images(
    paths: Sequence[Path], image_size: tuple[int, int], *, show_progress: bool
) -> CheckedImages:
    """Decode every file once, in threads, and keep the pixels if all of them fit into RAM.

    Args:
        paths: The files.
        image_size: Height and width.
        show_progress: Whether to draw a progress bar on standard output.
    """
    shape = (len(paths), *image_size, 3)
    # Empty, not zeros: nothing is paged in before an image is written there.
    pixels = np.empty(shape, np.uint8) if np.prod(shape, dtype=float) <= memory_budget() else None
    with warnings.catch_warnings():
        # About damaged EXIF data, without a file name, and about bombs, which are refused.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        trials = list(_progress(_trials(paths, image_size, pixels), len(paths), show_progress))
    return CheckedImages(
        paths=tuple(paths),
        image_size=image_size,
        stamps=tuple(trial.stamp for trial in trials),
        reasons={row: trial.reason for row, trial in enumerate(trials) if trial.reason},
        pixels=pixels,
    )


def _trials(
    paths: Sequence[Path], image_size: tuple[int, int], pixels: np.ndarray | None
) -> Iterator[_Trial]:
    def attempt(row: int) -> _Trial:
        return _try(paths[row], image_size, None if pixels is None else pixels[row])

    with ThreadPoolExecutor(processors()) as pool:
        for start in range(0, len(paths), _WINDOW):
            yield from pool.map(attempt, range(start, min(start + _WINDOW, len(paths))))


def _try(path: Path, image_size: tuple[int, int], keep: np.ndarray | None) -> _Trial:
    """Decode a file, into the array `keep` if there is one."""
    stamp = (0, 0)
    try:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return _Trial(stamp, "not a regular file")
        if not status.st_size:
            return _Trial(stamp, "empty file (0 bytes)")
        image = decode_image(path, image_size)
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # Pillow raises a dozen kinds on damaged files
        return _Trial(stamp, reason(error))
    if keep is not None:
        keep[...] = image
    return _Trial(stamp)


def reason(error: Exception) -> str:
    """Return why a file is no usable image, from what `decode_image` raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, BMP, GIF or WebP image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _progress(trials: Iterator[_Trial], total: int, show: bool) -> Iterator[_Trial]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("Checking images"), *columns, console=Console(file=sys.stdout), disable=not show
    ) as progress:
        yield from progress.track(trials, total=total)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data, of which there are as many kinds; the pixels are fine
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _grey_16_to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey_16_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255, rounded. Pillow's own conversion clips at 255."""
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))
