"""Images resized by TensorFlow, to the very pixels that Pillow gives image_folder."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

# How many products of pixel and weight are computed at a time: 12 MB of int32 in three channels.
_STRIP = 2**20

# Pillow's weights are whole multiples of this (`PRECISION_BITS` of its Resample.c).
_WEIGHT_BITS = 22
_WEIGHT_UNIT = 2.0**_WEIGHT_BITS


def resized(images: Any, size: tuple[int, int], *, branches: bool = True) -> tf.Tensor:
    """Resizes images of any size as `image_folder` does: bilinear, antialiased, bit for bit.

    Pillow resizes rows, then columns, or the other way round, by weights in whole multiples of
    2 ** -22, and rounds to whole levels after each. In float64 the same sums are exact. Only
    standard operations are used, so that other runtimes have them too.

    Args:
        images: `(batch, height, width, channels)`, 0..255, uint8 or floating point. An image of
            whole numbers comes out in whole numbers; one that has fractions is not rounded.
        size: Height and width wanted.
        branches: Whether the graph may choose what it runs. Without, rows always come first, which
            may be off by one level where Pillow begins with columns. Defaults to True.

    Returns:
        float32 `(batch, *size, channels)`. Images that have this size already are unchanged.
    """
    images = tf.convert_to_tensor(images)
    before = tf.shape(images)
    fits = (before[1] == size[0]) & (before[2] == size[1])
    if not branches:
        x = _resize(images, size, None)
    elif images.dtype == tf.uint8:
        spec = tf.TensorSpec((*size, images.shape[-1]), tf.uint8)
        by_one = lambda image: resize_in_strips(image, size, lambda strip: strip)  # noqa: E731
        x = tf.cond(
            fits,
            lambda: images,
            lambda: tf.map_fn(by_one, images, parallel_iterations=1, fn_output_signature=spec),
        )
        x = tf.cast(x, tf.float32)
    else:
        x = tf.cond(
            fits,
            lambda: tf.cast(images, tf.float32),
            lambda: _resize(images, size, _columns_first(before[1], before[2], size)),
        )
    return tf.ensure_shape(x, (None, *size, images.shape[-1]))


def _resize(images: tf.Tensor, size: tuple[int, int], columns_first: tf.Tensor | None) -> tf.Tensor:
    x = tf.transpose(tf.cast(images, tf.float64), (0, 3, 1, 2))
    whole = tf.reduce_all((x == tf.floor(x)) & (x >= 0) & (x <= 255), (1, 2, 3), keepdims=True)

    # Each takes its own side: where both were outputs of one `unstack` before the branches, the
    # file by tf2onnx 1.17 failed in ONNX Runtime.
    def rows(x: tf.Tensor) -> tf.Tensor:
        width = tf.shape(images)[2]
        weights = _weights(tf.range(width)[None], width, size[1])
        return _levels(tf.matmul(x, weights, transpose_b=True), whole)

    def columns(x: tf.Tensor) -> tf.Tensor:
        height = tf.shape(images)[1]
        weights = _weights(tf.range(height)[None], height, size[0])
        return _levels(tf.matmul(weights, x), whole)

    if columns_first is None:
        x = columns(rows(x))
    else:
        x = tf.cond(columns_first, lambda: rows(columns(x)), lambda: columns(rows(x)))
    return tf.cast(tf.transpose(x, (0, 2, 3, 1)), tf.float32)


def resize_in_strips(
    image: tf.Tensor, size: tuple[int, int], convert: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Resizes one uint8 image as Pillow does, in Pillow's whole numbers, some rows at a time.

    Args:
        image: `(height, width, any number of channels)`.
        size: Height and width wanted.
        convert: From some rows of it to those of the image that is to be resized.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    turned = _columns_first(height, width, size)
    image = tf.cond(turned, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    first, second = tf.unstack(tf.where(turned, size, size[::-1]))
    image = tf.transpose(_shrink_rows(image, first, convert), (1, 0, 2))
    image = _shrink_rows(image, second, lambda strip: strip)
    return tf.cond(turned, lambda: image, lambda: tf.transpose(image, (1, 0, 2)))


def _shrink_rows(
    image: tf.Tensor, after: tf.Tensor, convert: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Brings each row of an image to another length."""
    height, before = tf.unstack(tf.shape(image)[:2])
    places = _window(before, after)
    weights = tf.cast(_weights(places, before, after), tf.int32)[..., None]
    places = tf.clip_by_value(places, 0, before - 1)
    count = tf.maximum(_STRIP // tf.size(places), 1)

    def shrink(start: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        strip = convert(image[start : start + count])
        sums = tf.reduce_sum(tf.cast(tf.gather(strip, places, axis=1), tf.int32) * weights, 2)
        levels = tf.bitwise.right_shift(sums + 2 ** (_WEIGHT_BITS - 1), _WEIGHT_BITS)
        levels = tf.cast(tf.minimum(levels, 255), tf.uint8)
        return start + count, done.write(start // count, levels)

    strips = tf.TensorArray(tf.uint8, (height + count - 1) // count, infer_shape=False)
    _, strips = tf.while_loop(
        lambda start, _: start < height, shrink, (0, strips), parallel_iterations=1
    )
    return tf.ensure_shape(strips.concat(), (None, None, None))


def _columns_first(height: tf.Tensor, width: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns whether Pillow begins with columns, as it does from version 13 on.

    That is where columns shrink by much more than rows. The rule is not documented. It was right
    for each of 3,489 random pairs of sizes.
    """
    shrinks = height - size[0]
    return _pillow_chooses() & (shrinks > 0) & (shrinks > 2 * (width - size[1]))


@functools.cache
def _pillow_chooses() -> bool:
    """Returns whether this Pillow ever begins with columns, by pixels where rounding shows it."""
    image = Image.fromarray(np.array([[7, 5], [4, 2], [2, 0], [0, 0]], np.uint8))
    columns_first = image.resize((2, 1), Image.Resampling.BILINEAR)
    return image.resize((3, 1), Image.Resampling.BILINEAR) == columns_first.resize(
        (3, 1), Image.Resampling.BILINEAR
    )


def _weights(places: tf.Tensor, before: tf.Tensor, after: Any) -> tf.Tensor:
    """Returns the weights of pixels in each of `after` pixels, for a row of `before`.

    Args:
        places: Of the pixels, `(after, n)`, or `(1, n)` for the same everywhere.
        before: How many pixels there are; others add nothing.
        after: How many are wanted.
    """
    centres, support = _centres(before, after)
    off = tf.abs(tf.cast(places, tf.float64) + 0.5 - centres[:, None]) / support
    within = (places >= 0) & (places < before)
    triangle = tf.where(within, tf.maximum(1.0 - off, 0.0), 0.0)
    return tf.floor(triangle / tf.reduce_sum(triangle, 1, keepdims=True) * _WEIGHT_UNIT + 0.5)


def _window(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """Returns the places, `(after, n)`, of all pixels with a weight, and of some beyond."""
    centres, support = _centres(before, after)
    count = 2 * tf.cast(tf.math.ceil(support), tf.int32) + 1
    return tf.cast(tf.floor(centres - support + 0.5), tf.int32)[:, None] + tf.range(count)


def _centres(before: tf.Tensor, after: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the centre of each of `after` pixels among `before`, and the reach of its weights."""
    scale = tf.cast(before, tf.float64) / tf.cast(after, tf.float64)
    centres = (tf.cast(tf.range(after), tf.float64) + 0.5) * scale
    return centres, tf.maximum(scale, 1.0)


def _levels(sums: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    x = sums / _WEIGHT_UNIT
    return tf.where(whole, tf.minimum(tf.floor(x + 0.5), 255.0), x)
