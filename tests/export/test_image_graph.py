"""Images decoded and resized in a graph are those of image_folder, bit for bit."""

import io
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_transfer.export.image_ops import decoded, decoded_batch
from keras_transfer.export.resizing import resized
from keras_transfer.images.decoding import MAX_PIXELS, decode_image

pytestmark = pytest.mark.traced

SIZE = (64, 48)
CHINA, FLOWER = (Image.fromarray(photo) for photo in load_sample_images().images)


@pytest.fixture(scope="module")
def decode():
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda c: decoded(c, SIZE), input_signature=signature, autograph=False)


@pytest.fixture(scope="module")
def decode_batch():
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda c: decoded_batch(c, SIZE), input_signature=signature, autograph=False)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    image.save(file := io.BytesIO(), format, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description that comes before", orientation
    return exif


def see_through(image: Image.Image) -> Image.Image:
    alpha = np.random.default_rng(0).integers(0, 256, (image.height, image.width))
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(alpha.astype("uint8")))
    return image


def grey_16() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 65536, (90, 70)).astype("uint16"))


ODD = CHINA.crop((0, 0, 301, 227))
CLEAR = see_through(FLOWER)
FILES = {
    **{f"jpeg turned {i}": encoded(ODD, "JPEG", exif=turned(i)) for i in range(1, 9)},
    **{f"png turned {i}": encoded(ODD, "PNG", exif=turned(i)) for i in (3, 6)},
    **{f"webp turned {i}": encoded(ODD, "WEBP", exif=turned(i)) for i in (6, 8)},
    "jpeg of an unknown orientation": encoded(ODD, "JPEG", exif=turned(9)),
    "jpeg of high quality": encoded(FLOWER, "JPEG", quality=95, subsampling=0),
    "progressive jpeg": encoded(FLOWER, "JPEG", progressive=True),
    "grey jpeg": encoded(FLOWER.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(FLOWER.convert("CMYK"), "JPEG"),
    **{f"large jpeg {i}": encoded(CHINA.resize((320 * i, 291 * i)), "JPEG") for i in (1, 2, 4, 6)},
    "png": encoded(FLOWER, "PNG"),
    "clear png": encoded(CLEAR, "PNG"),
    "clear grey png": encoded(CLEAR.convert("LA"), "PNG"),
    "grey png": encoded(FLOWER.convert("L"), "PNG"),
    "grey png, one level clear": encoded(FLOWER.convert("L"), "PNG", transparency=80),
    "png of black and white": encoded(FLOWER.convert("1"), "PNG"),
    "png of 256 colours": encoded(FLOWER.quantize(256), "PNG"),
    "png of 12 colours": encoded(FLOWER.quantize(12), "PNG", bits=4),
    "png of 12 colours, one clear": encoded(FLOWER.quantize(12), "PNG", bits=4, transparency=3),
    "png of clear colours": encoded(CLEAR.quantize(50), "PNG"),
    "png of 16 bits": encoded(grey_16(), "PNG"),
    "webp": encoded(FLOWER, "WEBP"),
    "lossless webp": encoded(FLOWER, "WEBP", lossless=True),
    "clear webp": encoded(CLEAR, "WEBP"),
    "clear lossless webp": encoded(CLEAR, "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_encoded_images_become_the_pixels_of_image_folder(decode, tmp_path, name):
    (tmp_path / "image").write_bytes(FILES[name])
    expected = decode_image(tmp_path / "image", SIZE)
    np.testing.assert_array_equal(decode(FILES[name]), expected)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "Expected the bytes of a JPEG, PNG or WebP image"),
        (encoded(ODD, "GIF"), "Expected the bytes of a JPEG, PNG or WebP image"),
        (b"\xff\xd8\xff", "Invalid JPEG"),
        (FILES["png"][:1000], "Invalid PNG"),
        (FILES["webp"][:1000], "Failed to decode WebP"),
        (FILES["jpeg turned 6"][:50], "Invalid JPEG"),
        # TensorFlow's own decoder of these writes past the end of its memory.
        (encoded(ODD, "WEBP", save_all=True, append_images=[ODD.rotate(9)]), "an animated one"),
    ],
    ids=["nothing", "gif", "jpeg", "png", "webp", "exif", "animated"],
)
def test_other_files_and_damaged_images_are_refused(decode, contents, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(contents)


def test_damaged_exif_data_are_as_none(decode):
    whole = FILES["jpeg turned 6"]
    place = whole.index(b"Exif\0\0") + 6
    for damage in (b"XX", b"II*\0\xff\xff\xff\x7f", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x04"):
        contents = whole[:place] + damage + whole[place + len(damage) :]
        assert decode(contents).shape == (*SIZE, 3)
        np.testing.assert_array_equal(decode(contents), decode(FILES["jpeg turned 1"]))


def chunk(name: bytes, content: bytes = b"") -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def behind_header(png: bytes, chunks: bytes) -> bytes:
    return png[:33] + chunks + png[33:]


def patched(contents: bytes, place: int, numbers: bytes) -> bytes:
    return contents[:place] + numbers + contents[place + len(numbers) :]


EXIF = turned(6).tobytes().removeprefix(b"Exif\0\0")
MANY = 1 << 15  # of 12 bytes each
LONG_EXIF = b"MM\0*\0\0\0\x08" + struct.pack(">H", MANY) + bytes(12 * (MANY - 1))
LONG_EXIF += struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
TURNED = FILES["jpeg turned 6"]
STRANGE = {
    "jpeg with 100 kB of fill bytes": TURNED[:2] + b"\xff" * 100_000 + TURNED[2:],
    "jpeg with 10,000 segments before": TURNED[:2] + b"\xff\xe5\0\x02" * 10_000 + TURNED[2:],
    "png with EXIF behind 20,000 chunks": behind_header(
        encoded(ODD, "PNG"), chunk(b"teSt") * 20_000 + chunk(b"eXIf", EXIF)
    ),
    "png with EXIF at its end": encoded(ODD, "PNG")[:-12] + chunk(b"eXIf", EXIF) + chunk(b"IEND"),
    "png with EXIF of many entries": behind_header(encoded(ODD, "PNG"), chunk(b"eXIf", LONG_EXIF)),
}


@pytest.mark.parametrize("name", STRANGE)
def test_the_orientation_is_found_behind_much_else(decode, name):
    expected = "png turned 6" if "png" in name else "jpeg turned 6"
    np.testing.assert_array_equal(decode(STRANGE[name]), decode(FILES[expected]))


JPEG, PROGRESSIVE = FILES["jpeg turned 1"], FILES["progressive jpeg"]
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
TOO_MUCH = {  # damaged, too: what is refused was never decoded
    "png": (patched(FILES["png"], 16, struct.pack(">II", 13_000, 6_884)), "6884 x 13000"),
    "wide png": (patched(FILES["png"], 16, b"\xff" * 8), "2147483647 x 2147483647"),
    "jpeg": (
        patched(JPEG, JPEG.index(b"\xff\xc0") + 5, struct.pack(">HH", 65_500, 65_400)),
        "65500 x 65400",
    ),
    "webp": (patched(FILES["webp"], 26, struct.pack("<HH", 16_383, 16_382)), "16382 x 16383"),
    "lossless webp": (patched(FILES["lossless webp"], 21, b"\xff\xff\xff\x0f"), "16384 x 16384"),
    "extended webp": (
        patched(FILES["clear webp"], 24, b"\xff\xff\0\x00\x00\x01"),
        "65537 x 65536",
    ),
    "scans": (PROGRESSIVE[:-2] + LAST_SCAN * 200, "a JPEG of fewer scans"),
    "texts": (
        behind_header(FILES["png"], chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9))) * 17),
        "at most 16 zTXt and iTXt chunks",
    ),
}


@pytest.mark.slow
def test_files_that_cost_too_much_are_refused_and_the_rest_decoded(decode, decode_batch):
    good = FILES["clear png"]
    pixels, errors = decode_batch([good, *(contents for contents, _ in TOO_MUCH.values()), good])
    first, *found, last = (error.decode() for error in errors.numpy())
    assert (first, last) == ("", "")
    for error, (_, expected) in zip(found, TOO_MUCH.values(), strict=True):
        assert re.search(rf"{expected}\.$", error)
    np.testing.assert_array_equal(pixels[0], decode(good))
    np.testing.assert_array_equal(pixels[-1], decode(good))
    assert not pixels[1:-1].numpy().any()


@pytest.mark.slow
def test_the_limit_is_that_of_image_folder(decode_batch, tmp_path):
    for width, refused in ((9460, True), (9459, False)):
        assert (width * 9459 > MAX_PIXELS) is refused
        size = struct.pack(">II", width, 9459)
        header = chunk(b"IHDR", size + b"\x01\0\0\0\0")  # one bit a pixel
        contents = FILES["png"][:8] + header + chunk(b"IDAT") + chunk(b"IEND")
        (tmp_path / "image.png").write_bytes(contents)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            message = "9459 x 9460 pixels, which may be a decompression" if refused else "truncated"
            with pytest.raises((OSError, ValueError), match=message):
                decode_image(tmp_path / "image.png", SIZE)
        if refused:
            assert b"9459 x 9460" in decode_batch([contents])[1].numpy()[0]
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):
                decode_batch([contents])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((427, 640), (224, 224)),
        ((427, 640), (150, 37)),
        ((213, 311), (224, 224)),
        ((101, 97), (96, 300)),
        ((7, 5), (33, 34)),
        ((427, 1), (3, 5)),
    ],
)
@pytest.mark.slow
def test_images_are_resized_as_pillow_does(given, wanted, dtype):
    for photo in (CHINA, FLOWER):
        image = photo.crop((0, 0, given[1], given[0]))
        expected = image.resize(wanted[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image).astype(dtype)
        np.testing.assert_array_equal(resized(pixels[None], wanted)[0], np.asarray(expected))


@pytest.mark.parametrize("branches", [True, False])
def test_images_of_the_wanted_size_pass_unchanged(branches):
    pixels = np.random.default_rng(0).uniform(-5, 300, (2, 9, 8, 3)).astype("float32")
    np.testing.assert_array_equal(resized(pixels, (9, 8), branches=branches), pixels)


def test_without_branches_the_order_of_rows_and_columns_costs_one_level_at_most():
    for image, size in ((CHINA, (150, 100)), (FLOWER.crop((0, 0, 97, 101)), (96, 300))):
        expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
        found = resized(np.asarray(image)[None], size, branches=False)[0].numpy()
        assert np.abs(found - expected).max() <= 1
        assert 0 < (found != expected).mean() < 0.2 or size[1] < image.width


def test_fractions_are_not_rounded_and_do_not_make_other_images_so():
    photo = np.asarray(CHINA.crop((0, 0, 90, 70))).astype("float32")
    pair = resized(np.stack([photo, photo / 2]), (30, 30)).numpy()
    bands = [Image.fromarray(photo[..., i] / 2, "F").resize((30, 30), 2) for i in range(3)]
    np.testing.assert_allclose(pair[1], np.stack(bands, -1), atol=1e-3)
    np.testing.assert_array_equal(pair[0], np.round(pair[0]))
    assert (pair[1] != np.round(pair[1])).any()
