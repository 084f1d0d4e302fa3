"""Image files decoded: checked, turned upright, resized, and kept in RAM where they fit."""

import contextlib
import itertools
import stat
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rich.progress
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console

from keras_transfer.utils.memory import memory_budget
from keras_transfer.utils.processors import processors

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")

# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which made photographs of 4000 x 3000 five
# times as fast. While that leaves three times the wanted size, they differed from a full decode by
# 0.2 of 255 on average and 2 at most; twice the size would be 0.3 and 4.
JPEG_HEADROOM = 3

# Images with more pixels are refused, here and by exports, before they are decoded. It is the
# number above which Pillow warns of decompression bombs.
MAX_PIXELS = 89_478_485

# Bounds what is waiting at a time: futures of a million files would take a gigabyte.
_WINDOW = 1024


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

        def decode_again(row: int) -> np.ndarray:
            try:
                return decode_image(self.paths[row], self.image_size)
            except Exception as error:
                raise RuntimeError(
                    f"{str(self.paths[row])!r} was a good image when image_folder checked it, and "
                    f"now it is not: {reason(error)}. Call image_folder again to leave it out."
                ) from error

        with ThreadPoolExecutor(processors()) as pool:
            return np.stack(list(pool.map(decode_again, rows)))


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
        # Damaged EXIF data raise errors of many kinds; the pixels are fine.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
        rgb = _to_rgb(image)
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

    def attempt(row: int) -> tuple[tuple[int, int], str]:
        stamp, path = (0, 0), paths[row]
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                return stamp, "not a regular file"
            if not status.st_size:
                return stamp, "empty file (0 bytes)"
            image = decode_image(path, image_size)
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:  # Pillow raises a dozen kinds on damaged files
            return stamp, reason(error)
        if pixels is not None:
            pixels[row] = image
        return stamp, ""

    windows = (range(n, min(n + _WINDOW, len(paths))) for n in range(0, len(paths), _WINDOW))
    with warnings.catch_warnings(), ThreadPoolExecutor(processors()) as pool:
        # About damaged EXIF data, without a file name, and about bombs, which are refused.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        attempts = list(
            rich.progress.track(
                itertools.chain.from_iterable(pool.map(attempt, window) for window in windows),
                "Checking images",
                total=len(paths),
                console=Console(file=sys.stdout),
                disable=not show_progress,
            )
        )
    return CheckedImages(
        paths=tuple(paths),
        image_size=image_size,
        stamps=tuple(stamp for stamp, _ in attempts),
        reasons={row: why for row, (_, why) in enumerate(attempts) if why},
        pixels=pixels,
    )


def reason(error: Exception) -> str:
    """Return why a file is no usable image, from what `decode_image` raised."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, BMP, GIF or WebP image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


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
