"""Images decoded by TensorFlow, to the very pixels that Pillow gives image_folder."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_transfer.export.resizing import resize_in_strips
from keras_transfer.images.decoding import JPEG_HEADROOM, MAX_PIXELS

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X")  # the first of a file: lossy, lossless, extended

# For JPEG, PNG, WebP and others: what comes before EXIF data, and bytes between the two.
_EXIF_PREFIX = b"Exif\0\0"
_EXIF_MARKERS = (_EXIF_PREFIX, b"eXIf", b"EXIF", _EXIF_PREFIX)
_EXIF_GAPS = (0, 0, 4, 0)
_ORIENTATION_TAG = 0x0112
_BYTES_OF_TYPE = (0, 1, 0, 2, 4)  # of a number in EXIF data: BYTE, SHORT and LONG

# Images with more pixels are decoded one after the other, so that their memory does not add up.
_LARGE = 2**24

# A few bytes can be a scan over a whole JPEG, and a few thousand a text of 8 MB in a PNG. Ordinary
# files have up to a dozen, and texts that are not compressed count, too.
_MOST_SCANS = 50
_MOST_TEXTS = 16


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
    """Returns why a file would cost too much to decode; an empty string if it would not."""
    kind = _kind(contents)
    scans = _count(contents, b"\xff\xda")
    most_scans = _MOST_SCANS + tf.strings.length(contents) // 2**15  # also found by chance
    texts = _count(contents, b"zTXt") + _count(contents, b"iTXt")
    height, width = tf.unstack(tf.strings.as_string(shape))
    most = f"Expected an image of at most {MAX_PIXELS:,} pixels. Received: "
    error = tf.where((kind == 0) & (scans > most_scans), "Expected a JPEG of fewer scans.", "")
    many_texts = f"Expected a PNG of at most {_MOST_TEXTS} zTXt and iTXt chunks."
    error = tf.where((kind == 1) & (texts > _MOST_TEXTS), many_texts, error)
    too_large = tf.strings.join([most, height, " x ", width, "."])
    return tf.where(tf.reduce_prod(shape) > MAX_PIXELS, too_large, error)


def _count(contents: tf.Tensor, what: bytes) -> tf.Tensor:
    return tf.size(tf.strings.split(contents, what)) - 1


def _shape(contents: tf.Tensor) -> tf.Tensor:
    """Returns height and width as the decoder will find them; zeros for no image."""
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
    pixels = resize_in_strips(image, size, _on_white)
    return tf.ensure_shape(tf.cast(pixels, tf.float32), (*size, 3))


def _kind(contents: tf.Tensor) -> tf.Tensor:
    """Returns 0 for JPEG, 1 for PNG, 2 for WebP, 3 for anything else."""
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
    """Returns the first 32 bytes, which hold the headers, and zeros."""
    return tf.strings.join([tf.strings.substr(contents, 0, 32), b"\0" * 32])


def _refused(contents: tf.Tensor) -> tf.Tensor:
    message = "Expected the bytes of a JPEG, PNG or WebP image. Received something else, of length"
    with tf.control_dependencies(
        [tf.debugging.Assert(False, [message, tf.strings.length(contents)])]
    ):
        return tf.zeros((1, 1, 3), tf.uint8)


def _decode_jpeg(contents: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes at 1, 1/2, 1/4 or 1/8 of the size, as image_folder does."""
    shape = tf.image.extract_jpeg_shape(contents)
    room = tf.minimum(shape[0], shape[1]) // (JPEG_HEADROOM * max(size))
    ratio = tf.where(room >= 8, 3, tf.where(room >= 4, 2, tf.where(room >= 2, 1, 0)))

    def decoder(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_jpeg(
            contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    return tf.switch_case(ratio, [decoder(1), decoder(2), decoder(4), decoder(8)])


def _decode_png(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG as Pillow does: of 16 bits the upper 8 are kept, but grey is rounded."""

    def few_bits() -> tf.Tensor:  # asked for 4, TensorFlow 2.21 fills in an alpha of 1, 3 or 15
        image = tf.io.decode_png(contents, channels=0)
        has_alpha = tf.shape(image)[-1] == 4
        return tf.cond(has_alpha, lambda: image, lambda: tf.io.decode_png(contents, channels=3))

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
    """Puts RGB, RGBA or grey with alpha on white, as Pillow's `alpha_composite` does."""
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
    """Returns the EXIF orientation, 1 where there is none or it is damaged.

    EXIF data are found by searching, since a walk over thousands of pieces of a file would take
    seconds.
    """
    pieces = tf.strings.split(contents, tf.gather(_EXIF_MARKERS, kind))[1:]
    pieces = _from(tf.strings.join([pieces, b"\0" * 16]), tf.gather(_EXIF_GAPS, kind))
    has_prefix = tf.strings.substr(pieces, 0, len(_EXIF_PREFIX)) == _EXIF_PREFIX
    pieces = tf.where(has_prefix, _from(pieces, len(_EXIF_PREFIX)), pieces)
    start = tf.strings.substr(pieces, 0, 4)
    little = start == b"II*\0"
    known = little | (start == b"MM\0*")
    tiff = tf.concat([tf.boolean_mask(pieces, known), [b""]], 0)[0]
    little = tf.concat([tf.boolean_mask(little, known), [False]], 0)[0]
    data = tf.io.decode_raw(tiff, tf.uint8)
    return tf.cond(tf.reduce_any(known), lambda: _tag(data, little), lambda: 1)


def _from(pieces: tf.Tensor, start: Any) -> tf.Tensor:
    return tf.strings.substr(pieces, start, 2**30)


def _tag(tiff: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """Returns the orientation among the entries of the first directory, 12 bytes each."""
    directory = _number(tiff, 4, 4, little)
    count = _number(tiff, directory, 2, little)
    entries = tiff[directory + 2 : directory + 2 + 12 * count]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12))
    low, high = (tf.cast(entries[:, place], tf.int32) for place in (0, 1))
    tags = tf.where(little, high * 256 + low, low * 256 + high)
    entry = tf.boolean_mask(entries, tags == _ORIENTATION_TAG)[:1]
    entry = tf.pad(tf.reshape(entry, [-1]), [[0, 12 - tf.size(entry)]])
    kind = _number(entry, 2, 2, little)
    lengths = [lambda n=n: _number(entry, 8, n, little) if n else 1 for n in _BYTES_OF_TYPE]
    value = tf.switch_case(kind, [*lengths, lambda: 1])
    return tf.where((value >= 1) & (value <= 8), value, 1)


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
