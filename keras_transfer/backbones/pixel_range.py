"""Checks of the range of pixels."""

import warnings
from typing import Any

import numpy as np

# A resize by cubic interpolation overshoots a range on both sides, by less than a quarter of it.
_OVERSHOOT = 0.25


def check_pixels(images: Any, expected: str | None) -> None:
    """Warns if pixels are not in the expected range.

    Args:
        images: A batch of images, `(batch, height, width, 3)`, of any type.
        expected: `"raw"` for 0..255, `"unit"` for 0..1, `None` for any finite numbers.

    Warns:
        UserWarning: For `"raw"`, if none is above 1, some are far above 255, or they spread around
            0; for `"unit"`, if some lie far outside 0..1.

    Raises:
        ValueError: If they are no numbers, or some are not finite.
    """
    pixels = np.asarray(images)
    kind = pixels.dtype.name
    if expected is None and pixels.dtype.kind in "bui":
        return
    if pixels.dtype.kind not in "buif":
        if "float" not in kind:
            raise ValueError(
                f"Expected pixels as numbers, as of type uint8 or float32. Received: images of "
                f"type {kind}."
            )
        pixels = pixels.astype("float32")  # bfloat16, which numpy does not know
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():  # a NaN is both the lowest and the highest
        raise ValueError(
            "Expected pixels that are finite numbers. Received: images with NaN or infinite "
            "pixels. Look for a division by zero, or a broken file, in what makes them."
        )
    if expected == "raw":
        over = _OVERSHOOT if "float" in kind else 0  # no resize gives whole numbers
        fits = low >= -over * high and 1 < high <= 255 * (1 + over)
        tells_nothing = low == high == 0 and len(images) <= 1  # no image, or a black one
        if not fits and not tells_nothing:
            _warn("raw pixels, 0..255", low, high, kind, _next_step(high, kind))
    elif expected == "unit" and (high > 1 + _OVERSHOOT or low < -_OVERSHOOT):
        next_step = (
            "The module takes 0..1, and preprocessing=None passes pixels on as they are: leave "
            "that out, so that the backbone scales raw 0..255 itself."
        )
        _warn("pixels in 0..1", low, high, kind, next_step)


def _next_step(high: float, kind: str) -> str:
    if kind == "bool":
        return "Such masks become black and white by images.astype('uint8') * 255."
    if high > 255:
        most = next((2**bits - 1 for bits in (10, 12, 14, 16) if high < 2**bits), high)
        return (
            f"Images of more than 8 bits come to 0..255 by images * (255 / {most:.10g}); or pass "
            "preprocessing=None if the backbone takes them as they are."
        )
    return (
        "The backbone scales pixels itself: leave out the rescaling, or undo it with "
        "dataset.map(lambda image, label: (image * 255, label)), or pass preprocessing=None if the "
        "backbone takes them as they are."
    )


def _warn(expected: str, low: float, high: float, kind: str, next_step: str) -> None:
    warnings.warn(
        f"Expected {expected}. Received: {low:.5g}..{high:.5g}, {kind}. {next_step}", stacklevel=4
    )
