"""Images decoded and resized by TensorFlow, to the very pixels that Pillow gives image_folder."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_transfer.image_files import JPEG_HEADROOM

KINDS = "JPEG, PNG or WebP"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_BYTES_OF_TYPE = (0, 1, 0, 2, 4)  # of a number in EXIF data: BYTE, SHORT and LONG
_EXIF_PREFIX = b"Exif\0\0"

# Pillow's weights are whole multiples of this (`PRECISION_BITS` of its Resample.c).
_WEIGHT_UNIT = 2.0**22


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
    if branches:
        x = tf.cond(
            fits,
            lambda: tf.cast(images, tf.float32),
            lambda: _resize(images, size, _columns_first(before, size)),
        )
    else:
        x = _resize(images, size, None)
    return tf.ensure_shape(x, (None, *size, images.shape[-1]))


def _resize(images: tf.Tensor, size: tuple[int, int], columns_first: tf.Tensor | None) -> tf.Tensor:
    x = tf.transpose(tf.cast(images, tf.float64), (0, 3, 1, 2))
    whole = tf.reduce_all((x == tf.floor(x)) & (x >= 0) & (x <= 255), (1, 2, 3), keepdims=True)

    def rows(x: tf.Tensor) -> tf.Tensor:
        return _levels(
            tf.matmul(x, _weights(tf.shape(images)[2], size[1]), transpose_b=True), whole
        )

    def columns(x: tf.Tensor) -> tf.Tensor:
        return _levels(tf.matmul(_weights(tf.shape(images)[1], size[0]), x), whole)

    if columns_first is None:
        x = columns(rows(x))
    else:
        x = tf.cond(columns_first, lambda: rows(columns(x)), lambda: columns(rows(x)))
    return tf.cast(tf.transpose(x, (0, 2, 3, 1)), tf.float32)


def _columns_first(before: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Whether Pillow begins with columns: from 13 on where they shrink by much more than rows.

    The rule is not documented. It was right for each of 3,489 random pairs of sizes.
    """
    shrinks = before[1] - size[0]
    return _pillow_chooses() & (shrinks > 0) & (shrinks > 2 * (before[2] - size[1]))


@functools.cache
def _pillow_chooses() -> bool:
    """Tries whether this Pillow ever begins with columns, on pixels where rounding shows it."""
    image = Image.fromarray(np.array([[7, 5], [4, 2], [2, 0], [0, 0]], np.uint8))
    columns_first = image.resize((2, 1), Image.Resampling.BILINEAR)
    return image.resize((3, 1), Image.Resampling.BILINEAR) == columns_first.resize(
        (3, 1), Image.Resampling.BILINEAR
    )


def _weights(before: tf.Tensor, after: int) -> tf.Tensor:
    """What each of `before` pixels adds to each of `after`, as an `(after, before)` matrix."""
    scale = tf.cast(before, tf.float64) / after
    centres = (tf.range(after, dtype=tf.float64) + 0.5) * scale
    places = tf.cast(tf.range(before), tf.float64) + 0.5
    off = tf.abs(places[None] - centres[:, None]) / tf.maximum(scale, 1.0)
    triangle = tf.maximum(1.0 - off, 0.0)
    return tf.floor(triangle / tf.reduce_sum(triangle, 1, keepdims=True) * _WEIGHT_UNIT + 0.5)


def _levels(sums: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    x = sums / _WEIGHT_UNIT
    return tf.where(whole, tf.minimum(tf.floor(x + 0.5), 255.0), x)


def decoded(contents: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes one JPEG, PNG or WebP image as `image_folder` does, and resizes it.

    The first frame is turned upright by its EXIF orientation, becomes RGB with transparency on
    white, and 16-bit grey is scaled.

    Args:
        contents: The file's bytes, a string scalar.
        size: Height and width wanted.

    Returns:
        float32 `(*size, 3)`, whole numbers, 0..255.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are none of these, or damaged.
    """
    kind = _kind(contents)
    decoders: list[Callable[[], tf.Tensor]] = [
        lambda: _decode_jpeg(contents, size),
        lambda: _decode_png(contents),
        lambda: _decode_webp(contents),
        lambda: _refused(contents),
    ]
    image = _upright(tf.switch_case(kind, decoders), _orientation(contents, kind))
    image.set_shape((None, None, 3))
    return resized(image[None], size)[0]


def _kind(contents: tf.Tensor) -> tf.Tensor:
    """0 for JPEG, 1 for PNG, 2 for WebP, 3 for anything else."""
    head = _head(contents)
    is_jpeg = tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(head, 0, 8) == _PNG_SIGNATURE
    is_webp = (tf.strings.substr(head, 0, 4) == b"RIFF") & (
        tf.strings.substr(head, 8, 4) == b"WEBP"
    )
    return tf.where(is_jpeg, 0, tf.where(is_png, 1, tf.where(is_webp, 2, 3)))


def _head(contents: tf.Tensor) -> tf.Tensor:
    """The first bytes, where all kinds say what they are, and zeros where there are fewer."""
    return tf.strings.join([tf.strings.substr(contents, 0, 32), b"\0" * 32])


def _refused(contents: tf.Tensor) -> tf.Tensor:
    message = f"Expected the bytes of a {KINDS} image. Received something else, of so many bytes:"
    with tf.control_dependencies(
        [tf.debugging.Assert(False, [message, tf.strings.length(contents)])]
    ):
        return tf.zeros((1, 1, 3), tf.uint8)


def _decode_jpeg(contents: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes at 1, 1/2, 1/4 or 1/8 of the size: the least that image_folder is content with."""
    shape = tf.image.extract_jpeg_shape(contents)
    room = tf.minimum(shape[0], shape[1]) // (JPEG_HEADROOM * max(size))
    ratio = tf.where(room >= 8, 3, tf.where(room >= 4, 2, tf.where(room >= 2, 1, 0)))

    def decoder(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_jpeg(
            contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    return tf.switch_case(ratio, [decoder(1), decoder(2), decoder(4), decoder(8)])


def _decode_png(contents: tf.Tensor) -> tf.Tensor:
    """Of 16 bits Pillow and TensorFlow keep the upper 8; only grey is rounded by image_folder."""

    def few_bits() -> tf.Tensor:  # TensorFlow 2.21 fills in an alpha of 1, 3 or 15 for opaque
        rgb, found = (tf.io.decode_png(contents, channels=n) for n in (3, 0))
        opaque = tf.fill(tf.shape(rgb[..., :1]), tf.constant(255, tf.uint8))
        alpha = tf.cond(tf.shape(found)[-1] == 4, lambda: found[..., 3:], lambda: opaque)
        return tf.cast(tf.concat([rgb, alpha], -1), tf.int32)

    def grey_16() -> tf.Tensor:
        levels = tf.io.decode_png(contents, channels=4, dtype=tf.uint16)
        return (tf.cast(levels, tf.int32) + 128) // 257

    def others() -> tf.Tensor:
        return tf.cast(tf.io.decode_png(contents, channels=4), tf.int32)

    depth, colour = tf.unstack(_bytes(tf.io.decode_raw(_head(contents), tf.uint8), 24, 2))
    is_grey_16 = (depth == 16) & (colour == 0)
    decoders = [others, few_bits, grey_16]
    return _on_white(tf.switch_case(tf.where(is_grey_16, 2, tf.cast(depth < 8, "int32")), decoders))


def _decode_webp(contents: tf.Tensor) -> tf.Tensor:
    flags = tf.io.decode_raw(tf.strings.substr(_head(contents), 20, 1), tf.uint8)[0]
    is_animated = (tf.strings.substr(_head(contents), 12, 4) == b"VP8X") & (flags & 2 > 0)
    message = "Expected a WebP image of one frame. Received: an animated one. Save its first frame."
    # TensorFlow 2.21 writes past the end of its buffer on them.
    with tf.control_dependencies([tf.debugging.Assert(~is_animated, [message])]):
        only = tf.io.decode_webp(tf.identity(contents))[0]
    return tf.cond(
        tf.shape(only)[-1] == 3,
        lambda: tf.ensure_shape(only, (None, None, 3)),
        lambda: _on_white(tf.cast(only, tf.int32)),
    )


def _on_white(rgba: tf.Tensor) -> tf.Tensor:
    """Pillow's `alpha_composite` with an opaque white below, in its whole numbers."""
    alpha = rgba[..., 3:]

    def blend() -> tf.Tensor:
        x = (rgba[..., :3] * alpha + 255 * (255 - alpha)) * 128 + 128 * 128
        return tf.cast((x // 256 + x) // 256 // 128, tf.uint8)

    opaque = tf.reduce_all(alpha == 255)
    return tf.cond(opaque, lambda: tf.cast(rgba[..., :3], tf.uint8), blend)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image by the meaning of its EXIF orientation, 1 to 8."""
    image = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    image = _flipped_if(_one_of(orientation, (3, 4, 7, 8)), image, axis=0)
    return _flipped_if(_one_of(orientation, (2, 3, 6, 7)), image, axis=1)


def _flipped_if(flips: tf.Tensor, image: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.cond(flips, lambda: tf.reverse(image, [axis]), lambda: image)


def _one_of(value: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(values, value.dtype))


def _orientation(contents: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """What the EXIF data says, 1 where there is none or it is damaged."""
    data = tf.io.decode_raw(contents, tf.uint8)
    nothing = lambda: tf.size(data)  # noqa: E731
    finders = [lambda: _in_jpeg(data), lambda: _in_png(data), lambda: _in_webp(data), nothing]
    tiff = tf.switch_case(kind, finders)
    tiff += 6 * tf.cast(_equal(data, tiff, _EXIF_PREFIX), tf.int32)
    little = _equal(data, tiff, b"II*\0")
    known = little | _equal(data, tiff, b"MM\0*")
    return tf.cond(known, lambda: _tag(data, tiff, little), lambda: 1)


def _tag(data: tf.Tensor, tiff: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """The orientation among the entries of the first directory, 12 bytes each."""
    directory = tiff + _number(data, tiff + 4, 4, little)
    count = _number(data, directory, 2, little)
    entries = data[directory + 2 : directory + 2 + 12 * count]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12))
    tags = tf.map_fn(lambda e: _number(e, 0, 2, little), entries, fn_output_signature=tf.int32)
    found = tf.boolean_mask(entries, tags == _ORIENTATION_TAG)[:1]
    found = tf.pad(tf.reshape(found, [-1]), [[0, 12 - tf.size(found)]])
    kind = _number(found, 2, 2, little)
    lengths = [lambda n=n: _number(found, 8, n, little) if n else 1 for n in _BYTES_OF_TYPE]
    value = tf.switch_case(kind, [*lengths, lambda: 1])
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _in_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Where the TIFF header of the EXIF data begins; behind the end if there is none."""

    def is_other(place: tf.Tensor) -> tf.Tensor:  # a segment before the image, and not EXIF
        marker = _number(data, place, 2, False)
        exif = (marker == 0xFFE1) & _equal(data, place + 4, _EXIF_PREFIX)
        return (marker >= 0xFFC0) & (marker != 0xFFDA) & ~exif

    def following(place: tf.Tensor) -> tf.Tensor:
        filler = _number(data, place, 2, False) == 0xFFFF
        return place + tf.where(filler, 1, 2 + _number(data, place + 2, 2, False))

    place = _walk(data, 2, is_other, following)
    return _behind(data, place, 10, _number(data, place, 2, False) == 0xFFE1)


def _in_png(data: tf.Tensor) -> tf.Tensor:
    place = _walk(
        data,
        8,
        lambda place: ~_equal(data, place + 4, b"eXIf"),
        lambda place: place + 12 + _number(data, place, 4, False),
    )
    return _behind(data, place, 8, _equal(data, place + 4, b"eXIf"))


def _in_webp(data: tf.Tensor) -> tf.Tensor:
    def following(place: tf.Tensor) -> tf.Tensor:
        length = _number(data, place + 4, 4, True)
        return place + 8 + length + length % 2

    place = _walk(data, 12, lambda place: ~_equal(data, place, b"EXIF"), following)
    return _behind(data, place, 8, _equal(data, place, b"EXIF"))


def _walk(
    data: tf.Tensor,
    start: int,
    goes_on: Callable[[tf.Tensor], tf.Tensor],
    following: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """From one piece of a file to the next; a damaged length, too, ends at the file's end."""
    end = tf.size(data)

    def step(place: tf.Tensor) -> tuple[tf.Tensor]:
        to = following(place)
        return (tf.where((to > place) & (to < end), to, end),)

    return tf.while_loop(lambda place: (place < end) & goes_on(place), step, [start])[0]


def _behind(data: tf.Tensor, place: tf.Tensor, header: int, found: tf.Tensor) -> tf.Tensor:
    return tf.where(found, place + header, tf.size(data))


def _bytes(data: tf.Tensor, place: Any, count: int) -> tf.Tensor:
    """Bytes from a place on, with zeros for those behind the end."""
    some = data[tf.maximum(place, 0) :][:count]
    return tf.ensure_shape(tf.pad(some, [[0, count - tf.size(some)]]), (count,))


def _number(data: tf.Tensor, place: Any, count: int, little: Any) -> tf.Tensor:
    """A whole number of at most 31 bits, as int32; larger ones become its largest."""
    some = tf.cast(_bytes(data, place, count), tf.int64)
    some = tf.where(little, some[::-1], some)
    value = tf.reduce_sum(some * [256**i for i in reversed(range(count))])
    return tf.cast(tf.minimum(value, 2**31 - 1), tf.int32)


def _equal(data: tf.Tensor, place: Any, expected: bytes) -> tf.Tensor:
    return tf.reduce_all(_bytes(data, place, len(expected)) == tf.constant(list(expected), "uint8"))
