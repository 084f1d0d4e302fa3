"""Inputs of a model as pixels to look at, with and without heat over them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

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
    """A picture as a JPEG file, small ones enlarged.

    Args:
        pixels: uint8 `(height, width, 3)`.
        least: Pixels of the shorter side; what is smaller is enlarged, without smoothing, while
            the longer side has at most ten times as many.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    if (times := min(-(-least // min(image.size)), 10 * least // max(image.size))) > 1:
        width, height = image.size
        image = image.resize((width * times, height * times), Image.Resampling.NEAREST)
    image.save(file := io.BytesIO(), "JPEG", quality=88)
    return file.getvalue()
