"""Inputs of a model as pixels, with and without heat over them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.plotting.layout import blank_figure, fit_text
from keras_transfer.plotting.style import GREY, INK, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_VEIL = 0.65  # how much of the picture the hottest place hides


def as_pixels(images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], str]:
    """Turns what a model took into pixels.

    Args:
        images: `(height, width, 1, 3 or 4)`; 0..255, 0..1, or any other range, which is stretched.

    Returns:
        uint8 `(height, width, 3)` each, and a sentence on the range, empty where it is 0..255.
    """
    if not images:
        return [], ""
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    if np.issubdtype(images[0].dtype, np.integer) or (low >= 0 and 1 < high <= 255):
        return [_rgb(image.astype(np.float64)) for image in images], ""
    if low >= 0 and high <= 1:
        note = "The model takes pixels from 0 to 1; they are shown from black to white."
        return [_rgb(image * 255.0) for image in images], note
    note = (
        f"The model takes values from {low:.3g} to {high:.3g}; they are shown from black to white."
    )
    return [_rgb((image - low) / max(high - low, 1e-12) * 255.0) for image in images], note


def _rgb(image: np.ndarray) -> np.ndarray:
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return image[..., :3].round().clip(0, 255).astype(np.uint8)


def under_heat(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays heat over a picture: the warmer, the brighter and the less of the picture is seen.

    Args:
        pixels: uint8 `(height, width, 3)`.
        heat: `(height, width)`, 0..1.

    Returns:
        uint8 `(height, width, 3)`.
    """
    import matplotlib

    # Of even lightness steps, so that it is read without colours, too; its darkest part is left
    # out, since it would look like a dark place of the picture.
    color = matplotlib.colormaps["plasma"](0.25 + 0.75 * heat)[..., :3] * 255
    veil = _VEIL * heat[..., None]
    return (pixels * (1 - veil) + color * veil).round().clip(0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, least: int = 160) -> bytes:
    """Encodes a picture as a JPEG file, and enlarges a small one.

    Args:
        pixels: uint8 `(height, width, 3)`.
        least: Pixels of the shorter side; a smaller picture is enlarged without smoothing, by at
            most as much as makes the longer side ten times as many pixels.
    """
    from PIL import Image, ImageOps

    image = Image.fromarray(pixels)
    if (times := min(-(-least // min(image.size)), 10 * least // max(image.size))) > 1:
        image = ImageOps.scale(image, times, Image.Resampling.NEAREST)
    image.save(file := io.BytesIO(), "JPEG", quality=88)
    return file.getvalue()


_SLOT, _TALL, _LINE = 220.0, 118.0, 12.0  # points: width of a place, of a picture, of a line
_COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture with its caption.

    Attributes:
        name: Path or row of the image.
        lines: The lines of its caption.
        views: The picture, and others of the same size beside it: uint8 `(height, width, 3)`.
    """

    name: str
    lines: tuple[str, ...]
    views: tuple[np.ndarray, ...]

    @property
    def jpegs(self) -> list[bytes]:
        """The views as JPEG files."""
        return [jpeg(view) for view in self.views]


def pictures_figure(shown: Sequence[Shown], title: str) -> Figure:
    """Draws pictures in a grid, each with its name and lines under it.

    Args:
        shown: One or more pictures, each with as many views and lines as the first.
        title: What they have in common.

    Returns:
        A figure that pyplot does not know.

    Example:
        >>> grey = np.full((96, 96, 3), 128, "uint8")
        >>> figure = pictures_figure([Shown("cat/1.png", ("true cat",), (grey,))], "mistakes")
    """
    views, lines = len(shown[0].views), 1 + len(shown[0].lines)
    columns = min(len(shown), _COLUMNS)
    rows = math.ceil(len(shown) / columns)
    slot = max(_SLOT, views * _TALL + 12)
    wide = (slot - 12) / views - 4
    tall = min(_TALL, wide * shown[0].views[0].shape[0] / shown[0].views[0].shape[1])
    step = tall + _LINE * (lines + 1)
    width, height = columns * slot, rows * step + 30
    with figure_style():
        figure = blank_figure(width / 72, height / 72)
        title, size = fit_text(figure, title, width - 20, 12, "bold", least=8)
        figure.text(8 / width, 1 - 8 / height, title, size=size, weight="bold", va="top")
        for number, image in enumerate(shown):
            row, column = divmod(number, columns)
            top = height - 30 - row * step
            left = column * slot + 8
            for i, view in enumerate(image.views):
                place = (left + i * (wide + 4), top - tall, wide, tall)
                axes = figure.add_axes(_shares(place, width, height))
                axes.imshow(view, interpolation="nearest")
                axes.set_anchor("NW")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            for i, line in enumerate((image.name, *image.lines)):
                text, size = fit_text(figure, line, slot - 16, 8.5, least=7.5)
                look: dict[str, Any] = {"color": INK if i else GREY, "size": size, "va": "top"}
                below = top - tall - 3 - i * _LINE
                figure.text(left / width, below / height, text, **look)
    return figure


def _shares(
    place: tuple[float, float, float, float], width: float, height: float
) -> tuple[float, float, float, float]:
    left, bottom, wide, tall = place
    return left / width, bottom / height, wide / width, tall / height
