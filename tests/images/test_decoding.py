"""How image files are decoded, and which are left out as unreadable."""

import io
import os
import warnings

import numpy as np
import photo_folders
import pytest
from photo_folders import SIZE, load_all, make_classes, of_ours, picture, pixels_of, reference, save
from PIL import Image

from keras_transfer.images import decoding


@pytest.fixture
def photos(tmp_path):
    return make_classes(tmp_path / "photos", {"cats": 10, "dogs": 20})


@pytest.fixture
def few(tmp_path):
    """Two classes of one image, to which a test adds the file that it is about."""
    return make_classes(tmp_path / "few", {"a": 1, "b": 1})


@pytest.fixture(params=["in RAM", "decoded again"])
def storage(request, monkeypatch):
    if request.param == "decoded again":
        monkeypatch.setattr(decoding, "memory_budget", lambda: 0)


# ---- decoding


@pytest.mark.parametrize(
    "suffix", [".jpg", ".jpeg", ".JPG", ".jfif", ".png", ".bmp", ".gif", ".webp"]
)
def test_every_format_gives_the_pixels_of_plain_pillow(few, suffix):
    path = save(
        few / "a" / f"it{suffix}", number=3, **({"format": "JPEG"} if "jf" in suffix else {})
    )
    np.testing.assert_array_equal(pixels_of(load_all(few), path.name), reference(path))


@pytest.mark.parametrize("size", [(5, 3), (12, 8), (100, 30), (30, 100)])
def test_images_of_any_shape_are_stretched_to_the_size(few, size):
    picture(4, size).save(few / "a" / "it.png")
    result = pixels_of(load_all(few), "it.png")
    assert result.shape == (*SIZE, 3)
    np.testing.assert_array_equal(result, reference(few / "a" / "it.png"))


def test_one_number_is_a_square(few):
    assert load_all(few, image_size=7).train.element_spec[0].shape == (None, 7, 7, 3)
    assert load_all(few, image_size=[7, 9]).train.element_spec[0].shape == (None, 7, 9, 3)


def test_shrinking_is_antialiased(few):
    stripes = np.zeros((80, 120), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(few / "a" / "it.png")
    result = pixels_of(load_all(few), "it.png").astype(int)
    assert np.abs(result - 127.5).max() < 16


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_decoded_at_reduced_size_looks_the_same(few, turn):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (75, 100, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x112] = turn
    large = noise.resize((800, 600), Image.Resampling.BICUBIC)
    large.save(few / "a" / "it.jpg", quality=95, exif=exif)
    result = pixels_of(load_all(few, image_size=(20, 30)), "it.jpg").astype(int)
    difference = np.abs(result - reference(few / "a" / "it.jpg", (20, 30)))
    assert difference.mean() < 1
    assert difference.max() < 8


def test_a_jpeg_of_less_than_six_times_the_size_is_decoded_in_full(few):
    picture(4, (70, 45)).save(few / "a" / "it.jpg")
    np.testing.assert_array_equal(
        pixels_of(load_all(few), "it.jpg"), reference(few / "a" / "it.jpg")
    )


@pytest.mark.parametrize(
    ("orientation", "suffix"), [*((n, ".jpg") for n in range(1, 9)), (6, ".png"), (5, ".webp")]
)
def test_exif_orientation_is_applied(few, orientation, suffix):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = few / "a" / f"it{suffix}"
    picture(8, (40, 20)).save(path, exif=exif)
    result = pixels_of(load_all(few), path.name)
    np.testing.assert_array_equal(result, reference(path))
    if orientation > 1:
        path.write_bytes(b"")
        picture(8, (40, 20)).save(path)
        assert np.any(result != reference(path))


@pytest.mark.parametrize(
    ("damaged", "suffix"),
    [
        (b"MM\x00*\x00\x00\x00\x08\xff\xff\x01", ".jpg"),
        (b"no TIFF at all", ".png"),
        (b"no TIFF at all", ".webp"),
    ],
)
def test_damaged_exif_data_does_not_cost_the_image(few, damaged, suffix):
    path = few / "a" / f"it{suffix}"
    picture(8).save(path, exif=b"Exif\x00\x00" + damaged)
    data = load_all(few)
    assert data.skipped == ()
    whole = path.with_stem("whole")
    picture(8).save(whole)
    np.testing.assert_array_equal(pixels_of(data, path.name), reference(whole))


@pytest.mark.parametrize("mode", ["L", "1"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif"])
def test_grey_becomes_rgb(few, mode, suffix):
    path = few / "a" / f"it{suffix}"
    picture(2, mode=mode).save(path)
    result = pixels_of(load_all(few), path.name)
    np.testing.assert_array_equal(result, reference(path))
    assert np.all(result == result[..., :1])


def test_16_bit_grey_is_scaled_not_clipped(few):
    values = np.linspace(0, 65535, 8 * 12).round().astype(np.uint16).reshape(SIZE)
    Image.fromarray(values).save(few / "a" / "it.png")
    with Image.open(few / "a" / "it.png") as image:
        assert image.mode == "I;16"
    expected = np.round(values / 257).astype(int)
    result = pixels_of(load_all(few), "it.png")
    np.testing.assert_array_equal(result, np.stack([expected] * 3, axis=-1))
    assert (result.min(), result.max()) == (0, 255)


def test_a_transparent_16_bit_grey_is_white(few):
    values = np.full(SIZE, 20000, np.uint16)
    values[:, :6] = 700
    Image.fromarray(values).save(few / "a" / "it.png", transparency=700)
    result = pixels_of(load_all(few), "it.png")
    assert np.all(result[:, :6] == 255)
    assert np.all(result[:, 6:] == round(20000 / 257))


def test_a_palette_with_transparency_is_put_on_white(few):
    image = Image.new("P", SIZE[::-1], 0)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.paste(1, (0, 0, 6, 8))
    image.paste(2, (0, 0, 6, 4))
    for name, transparency in (("whole.png", 1), ("partly.png", bytes([255, 0, 128]))):
        image.save(few / "a" / name, transparency=transparency)
        result = pixels_of(load_all(few), name)
        np.testing.assert_array_equal(result, reference(few / "a" / name))
        assert np.all(result[5:, :6] == 255)
        assert np.all(result[:, 7:] == [255, 0, 0])
    assert np.all(result[0, 0] == [127, 127, 255])


def test_a_palette_without_transparency_becomes_rgb(few):
    picture(2).convert("P", palette=Image.Palette.ADAPTIVE).save(few / "a" / "it.png")
    np.testing.assert_array_equal(
        pixels_of(load_all(few), "it.png"), reference(few / "a" / "it.png")
    )


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", ".png"), ("RGBA", ".webp"), ("LA", ".png")])
def test_alpha_is_put_on_white(few, mode, suffix):
    image = Image.new("RGBA", SIZE[::-1], (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (6, 0, 12, 8))
    image.paste((0, 0, 0, 51), (6, 0, 12, 4))
    path = few / "a" / f"it{suffix}"
    image.convert(mode).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    result = pixels_of(load_all(few), path.name)
    assert np.all(result[:, :6] == 255)
    assert np.all(result[4:, 6:] == 0)
    assert np.all(result[:4, 6:] == 204)


def test_a_cmyk_jpeg_becomes_rgb(few):
    Image.new("CMYK", (24, 16), (0, 255, 255, 0)).save(few / "a" / "it.jpg", quality=95)
    result = pixels_of(load_all(few), "it.jpg").astype(int)
    assert np.abs(result - [255, 0, 0]).max() < 8
    np.testing.assert_array_equal(result, reference(few / "a" / "it.jpg"))


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_gives_its_first_frame(few, suffix):
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = few / "a" / f"it{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.all(pixels_of(load_all(few), path.name) == [255, 0, 0])


def test_the_content_decides_about_the_format_not_the_suffix(few):
    picture(6).save(few / "a" / "it.jpg", format="PNG")
    np.testing.assert_array_equal(
        pixels_of(load_all(few), "it.jpg"), reference(few / "a" / "it.jpg")
    )


# ---- corrupt files


def corrupt(root):
    """Add one file of each kind to class a, and return path → part of the reason."""
    folder = root / "a"
    whole = io.BytesIO()
    picture(1, (200, 150)).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "zero.png").touch()
    (folder / "text.jpg").write_text("This is not an image.")
    save(folder / "scan.tif").rename(folder / "tiff.png")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    return {
        "circle.png": "symbolic links",
        "cut.jpg": "image file is truncated",
        "gone.png": "No such file",
        "text.jpg": "not a JPEG, PNG, BMP, GIF or WebP image",
        "tiff.png": "not a JPEG, PNG, BMP, GIF or WebP image",
        "zero.png": r"empty file \(0 bytes\)",
    }


@pytest.mark.usefixtures("storage")
def test_corrupt_files_are_skipped_with_one_warning_that_lists_them(photos, few):
    expected = corrupt(few)
    with pytest.warns(UserWarning, match="6 of 8 image files") as caught:
        data = load_all(few)
    caught = of_ours(caught)
    assert [warning.filename for warning in caught] == [photo_folders.__file__]
    for name, reason in expected.items():
        assert caught[0].message.args[0].count(f"{few / 'a' / name}: ") == 1
        with pytest.raises(AssertionError, match=f"(?s){name}: [^\\n]*{reason}"):
            raise AssertionError(caught[0].message.args[0])
    assert [path.name for path, _ in data.skipped] == list(expected)
    assert data.counts["train"] == {"a": 1, "b": 1}
    assert np.all(pixels_of(data, "000.png") == reference(few / "a" / "000.png"))
    assert "6 skipped as unreadable" in str(data)


def test_corrupt_files_are_refused_with_an_error_that_lists_them(few):
    expected = corrupt(few)
    pattern = "(?s)" + ".*".join(f"a/{name}: [^\n]*{why}" for name, why in expected.items())
    with pytest.raises(ValueError, match=pattern + '.*on_corrupt="skip"'):
        load_all(few, on_corrupt="error")


def test_good_files_are_not_complained_about(few):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load_all(few, on_corrupt="error").skipped == ()
    assert of_ours(caught) == []


def test_truncated_files_of_every_format_are_found(few):
    cut = []
    for suffix in (".jpg", ".png", ".bmp", ".gif", ".webp"):
        for part in (0.02, 0.3, 0.6, 0.95):
            path = few / "a" / f"{part}{suffix}"
            picture(1, (200, 150)).save(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(part * len(content))])
            cut.append(path)
    with pytest.warns(UserWarning, match="20 of 22 image files"):
        skipped = load_all(few).skipped
    assert sorted(path for path, _ in skipped) == sorted(cut)


def test_a_truncated_jpeg_is_found_when_it_is_decoded_at_reduced_size(few):
    path = few / "a" / "it.jpg"
    picture(1, (800, 600)).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="it.jpg: image file is truncated"):
        load_all(few, image_size=10)


def test_a_decompression_bomb_is_reported(few, monkeypatch):
    picture(1, (60, 60)).save(few / "a" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(UserWarning, match=r"bomb.png: .*decompression bomb"):
        data = load_all(few)
    assert data.counts["train"] == {"a": 1, "b": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(few):
    os.mkfifo(few / "a" / "pipe.png")
    with pytest.warns(UserWarning, match="pipe.png: not a regular file"):
        load_all(few)


def test_running_out_of_memory_is_no_corrupt_file(few, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(decoding, "decode_image", fail)
    with pytest.raises(MemoryError):
        load_all(few)


def test_a_class_emptied_by_skipping_is_refused(few):
    for path in (few / "b").iterdir():
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ValueError, match=r"(?s)'b' is empty.*000\.png: empty file.*Replace"),
    ):
        load_all(few)
