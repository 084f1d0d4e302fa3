"""Images decoded and resized by TensorFlow, to the very pixels that Pillow gives image_folder."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_transfer.images.decoding import JPEG_HEADROOM, MAX_PIXELS

KINDS = "JPEG, PNG or WebP"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X")  # the first of a file: lossy, lossless, extended
_ORIENTATION_TAG = 0x0112
_BYTES_OF_TYPE = (0, 1, 0, 2, 4)  # of a number in EXIF data: BYTE, SHORT and LONG
_EXIF_PREFIX = b"Exif\0\0"

# A walk over the pieces of a file takes 0.1 ms for each, and ordinary files have a few.
_MOST_PIECES = 256
_FILLER_WINDOW = 4096

# Images with more pixels are decoded one after the other, so that their memory does not add up.
_LARGE = 2**24

# A few bytes can be a scan over a whole JPEG, and a few thousand a text of 8 MB in a PNG. Ordinary
# files have up to a dozen, and texts that are not compressed count, too.
_MOST_SCANS = 50
_MOST_TEXTS = 16

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
        by_one = lambda image: _resize_in_strips(image, size, lambda strip: strip)  # noqa: E731
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


def _resize_in_strips(
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
    """Whether Pillow begins with columns: from 13 on where they shrink by much more than rows.

    The rule is not documented. It was right for each of 3,489 random pairs of sizes.
    """
    shrinks = height - size[0]
    return _pillow_chooses() & (shrinks > 0) & (shrinks > 2 * (width - size[1]))


@functools.cache
def _pillow_chooses() -> bool:
    """Tries whether this Pillow ever begins with columns, on pixels where rounding shows it."""
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
    """The places of all pixels with a weight in each of `after`, `(after, n)`, and some beyond."""
    centres, support = _centres(before, after)
    count = 2 * tf.cast(tf.math.ceil(support), tf.int32) + 1
    return tf.cast(tf.floor(centres - support + 0.5), tf.int32)[:, None] + tf.range(count)


def _centres(before: tf.Tensor, after: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The centre of each of `after` pixels among `before`, and the reach of its weights."""
    scale = tf.cast(before, tf.float64) / tf.cast(after, tf.float64)
    centres = (tf.cast(tf.range(after), tf.float64) + 0.5) * scale
    return centres, tf.maximum(scale, 1.0)


def _levels(sums: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    x = sums / _WEIGHT_UNIT
    return tf.where(whole, tf.minimum(tf.floor(x + 0.5), 255.0), x)


def decoded_batch(files: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes files as `decoded` does, except those that would cost too much.

    Args:
        files: The bytes of each file, `(n,)`.
        size: Height and width wanted.

    Returns:
        float32 images `(n, *size, 3)`, and strings `(n,)`: why an image was left out, and is all
        zeros, else empty. What an image may cost in work and memory has a limit that way.

    Raises:
        tf.errors.InvalidArgumentError: If a file is no image, or damaged.
    """
    each = tf.function(
        lambda file, error: tf.cond(
            error == b"", lambda: decoded(file, size), lambda: tf.zeros((*size, 3))
        ),
        input_signature=[tf.TensorSpec((), tf.string)] * 2,
        autograph=False,
    ).get_concrete_function()

    def some_at_a_time(count: int) -> tf.Tensor:
        spec = tf.TensorSpec((*size, 3), tf.float32)
        return tf.map_fn(
            lambda x: each(*x), (files, errors), parallel_iterations=count, fn_output_signature=spec
        )

    shapes = tf.map_fn(_shape, files, fn_output_signature=tf.TensorSpec((2,), tf.int64))
    pixels = tf.reduce_prod(shapes, 1)
    errors = tf.map_fn(lambda x: _too_much(*x), (files, shapes), fn_output_signature=tf.string)
    any_large = tf.reduce_any((pixels > _LARGE) & (errors == b""))
    images = tf.cond(any_large, lambda: some_at_a_time(1), lambda: some_at_a_time(10))
    return images, errors


def _too_much(contents: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Why a file would cost too much to decode; empty if it would not."""
    kind = _kind(contents)
    scans = _count(contents, b"\xff\xda")
    most_scans = _MOST_SCANS + tf.strings.length(contents) // 2**15  # also found by chance
    texts = _count(contents, b"zTXt") + _count(contents, b"iTXt")
    height, width = tf.unstack(shape)

    def message(most: Any, what: str, *found: Any) -> tf.Tensor:
        numbers = [x if isinstance(x, str) else tf.strings.as_string(x) for x in (most, *found)]
        return tf.strings.join(
            ["Expected an image of at most ", numbers[0], f" {what}. Received: ", *numbers[1:], "."]
        )

    reasons = [
        (height * width > MAX_PIXELS, message(f"{MAX_PIXELS:,}", "pixels", height, " x ", width)),
        ((kind == 0) & (scans > most_scans), message(most_scans, "scans", scans)),
        ((kind == 1) & (texts > _MOST_TEXTS), message(_MOST_TEXTS, "zTXt and iTXt chunks", texts)),
    ]
    error = tf.constant("")
    for applies, reason in reversed(reasons):
        error = tf.where(applies, reason, error)
    return error


def _count(contents: tf.Tensor, what: bytes) -> tf.Tensor:
    return tf.size(tf.strings.split(contents, what)) - 1


def _shape(contents: tf.Tensor) -> tf.Tensor:
    """Height and width, as the decoder will find them; zeros for no image."""
    data = tf.io.decode_raw(_head(contents), tf.uint8)
    shapes: list[Callable[[], tf.Tensor]] = [
        lambda: tf.image.extract_jpeg_shape(contents)[:2],
        lambda: tf.stack([_number(data, 20, 4, False), _number(data, 16, 4, False)]),
        lambda: _shape_of_webp(contents, data),
        lambda: tf.zeros((2,), tf.int32),
    ]
    return tf.cast(tf.switch_case(_kind(contents), shapes), tf.int64)


def _shape_of_webp(contents: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    number = functools.partial(_number, data, little=True)
    bits = number(21, 4)
    shapes: list[Callable[[], tf.Tensor]] = [
        lambda: tf.stack([number(28, 2) % 2**14, number(26, 2) % 2**14]),
        lambda: tf.stack([bits // 2**14 % 2**14, bits % 2**14]) + 1,
        lambda: tf.stack([number(27, 3), number(24, 3)]) + 1,
    ]
    chunk = tf.strings.substr(_head(contents), 12, 4)
    return tf.switch_case(tf.argmax(chunk == _WEBP_CHUNKS, output_type=tf.int32), shapes)


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
    image = tf.ensure_shape(image, (None, None, None))
    pixels = _resize_in_strips(image, size, _on_white)
    return tf.ensure_shape(tf.cast(pixels, tf.float32), (*size, 3))


def _kind(contents: tf.Tensor) -> tf.Tensor:
    """0 for JPEG, 1 for PNG, 2 for WebP, 3 for anything else."""
    head = _head(contents)
    is_jpeg = tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(head, 0, 8) == _PNG_SIGNATURE
    is_webp = (
        (tf.strings.substr(head, 0, 4) == b"RIFF")
        & (tf.strings.substr(head, 8, 4) == b"WEBP")
        & tf.reduce_any(tf.strings.substr(head, 12, 4) == _WEBP_CHUNKS)
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

    def few_bits() -> tf.Tensor:  # asked for 4, TensorFlow 2.21 fills in an alpha of 1, 3 or 15
        found = tf.io.decode_png(contents, channels=0)
        has_alpha = tf.shape(found)[-1] == 4
        return tf.cond(has_alpha, lambda: found, lambda: tf.io.decode_png(contents, channels=3))

    def grey_16() -> tf.Tensor:  # and alpha
        levels = tf.io.decode_png(contents, channels=4, dtype=tf.uint16)[..., 2:]
        return tf.cast((tf.cast(levels, tf.int32) + 128) // 257, tf.uint8)

    def others() -> tf.Tensor:
        return tf.io.decode_png(contents, channels=4)

    depth, colour = tf.unstack(_bytes(tf.io.decode_raw(_head(contents), tf.uint8), 24, 2))
    is_grey_16 = (depth == 16) & (colour == 0)
    decoders = [others, few_bits, grey_16]
    return tf.switch_case(tf.where(is_grey_16, 2, tf.cast(depth < 8, "int32")), decoders)


def _decode_webp(contents: tf.Tensor) -> tf.Tensor:
    flags = tf.io.decode_raw(tf.strings.substr(_head(contents), 20, 1), tf.uint8)[0]
    is_animated = (tf.strings.substr(_head(contents), 12, 4) == b"VP8X") & (flags & 2 > 0)
    message = "Expected a WebP image of one frame. Received: an animated one. Save its first frame."
    # TensorFlow 2.21 writes past the end of its buffer on them.
    with tf.control_dependencies([tf.debugging.Assert(~is_animated, [message])]):
        return tf.io.decode_webp(tf.identity(contents))[0]


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """RGB of RGB, RGBA or grey with alpha: as Pillow's `alpha_composite` with a white below."""
    colour, alpha = image[..., :-1], image[..., -1:]

    def blend() -> tf.Tensor:  # in Pillow's whole numbers
        part = tf.cast(alpha, tf.int32)
        x = (tf.cast(colour, tf.int32) * part + 255 * (255 - part)) * 128 + 128 * 128
        return tf.cast((x // 256 + x) // 256 // 128, tf.uint8)

    def without_alpha() -> tf.Tensor:
        rgb = tf.cond(tf.reduce_all(alpha == 255), lambda: colour, blend)
        return tf.broadcast_to(rgb, (*tf.unstack(tf.shape(rgb)[:2]), 3))

    return tf.cond(tf.shape(image)[-1] == 3, lambda: image, without_alpha)


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
    """Returns the EXIF orientation, 1 where there is none or it is damaged."""
    data = tf.io.decode_raw(contents, tf.uint8)
    nothing = lambda: tf.size(data)  # noqa: E731
    in_png = lambda: _in_png(contents)  # noqa: E731
    finders = [lambda: _in_jpeg(data), in_png, lambda: _in_webp(data), nothing]
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
    low, high = (tf.cast(entries[:, place], tf.int32) for place in (0, 1))
    tags = tf.where(little, high * 256 + low, low * 256 + high)
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
        fillers = tf.cast(data[place + 1 : place + _FILLER_WINDOW] == 0xFF, tf.int32)
        skipped = tf.reduce_sum(tf.math.cumprod(fillers))
        return place + tf.where(skipped > 0, skipped, 2 + _number(data, place + 2, 2, False))

    place = _walk(data, 2, is_other, following)
    return _behind(data, place, 10, _number(data, place, 2, False) == 0xFFE1)


def _in_png(contents: tf.Tensor) -> tf.Tensor:
    """Searches for the chunk's name and start: it may come after thousands of chunks."""
    starts = (b"II*\0", b"MM\0*", _EXIF_PREFIX)
    parts = [tf.strings.split(contents, b"eXIf" + start, maxsplit=1)[:1] for start in starts]
    return tf.reduce_min(tf.strings.length(tf.concat(parts, 0))) + 4


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
    """Goes from one piece of a file to the next; a damaged length leads to the file's end.

    So does a walk over more pieces than any ordinary file has.
    """
    end = tf.size(data)

    def step(place: tf.Tensor) -> tuple[tf.Tensor]:
        to = following(place)
        return (tf.where((to > place) & (to < end), to, end),)

    found = tf.while_loop(
        lambda place: (place < end) & goes_on(place),
        step,
        [start],
        maximum_iterations=_MOST_PIECES,
    )[0]
    return tf.where(goes_on(found), end, found)


def _behind(data: tf.Tensor, place: tf.Tensor, header: int, found: tf.Tensor) -> tf.Tensor:
    return tf.where(found, place + header, tf.size(data))


def _bytes(data: tf.Tensor, place: Any, count: int) -> tf.Tensor:
    """Bytes from a place on, with zeros for those behind the end."""
    place = tf.maximum(place, 0)
    some = data[place : place + count]
    return tf.ensure_shape(tf.pad(some, [[0, count - tf.size(some)]]), (count,))


def _number(data: tf.Tensor, place: Any, count: int, little: Any) -> tf.Tensor:
    """A whole number of at most 31 bits, as int32; larger ones become its largest."""
    some = tf.cast(_bytes(data, place, count), tf.int64)
    some = tf.where(little, some[::-1], some)
    value = tf.reduce_sum(some * [256**i for i in reversed(range(count))])
    return tf.cast(tf.minimum(value, 2**31 - 1), tf.int32)


def _equal(data: tf.Tensor, place: Any, expected: bytes) -> tf.Tensor:
    return tf.reduce_all(_bytes(data, place, len(expected)) == tf.constant(list(expected), "uint8"))
