"""Folders of small pictures, and what `image_folder` reads from them."""

import numpy as np
from PIL import Image, ImageOps

from keras_transfer.data.read_folder import image_folder

SIZE = (8, 12)  # height, width


def picture(number=0, size=(24, 16), mode="RGB"):
    """Smooth colours that differ with the number, so that JPEG keeps them."""
    noise = np.random.default_rng(number).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").resize(size, Image.Resampling.BILINEAR).convert(mode)


def save(path, number=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path, **options)
    return path


def make_classes(root, counts, suffix=".png", first=0):
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            save(root / name / f"{number:03}{suffix}", number=first + 1000 * label + number)
    return root


def load(directory, **options):
    return image_folder(
        directory, **({"image_size": SIZE, "batch_size": 4, "verbose": 0} | options)
    )


def load_all(directory, **options):
    """All images in train, so that a test finds the one that it made."""
    return load(directory, **({"validation_split": 0, "test_split": 0} | options))


def reference(path, size=SIZE):
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            white.paste(image, mask=image)
            image = white
        image = image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def pixels_of(data, name, split="train"):
    """The pixels that the dataset yields for the file of this name."""
    row = [path.name for path in data.paths[split]].index(name)
    ordered = getattr(data, split).ordered
    return np.concatenate([images for images, _ in ordered.as_numpy_iterator()])[row]


def of_ours(caught):
    """Warnings without the one that TensorFlow gives of pipelines in tests, which run eagerly."""
    return [one for one in caught if "run_functions_eagerly" not in str(one.message)]


def names_of(data, split):
    return {"/".join(path.parts[-2:]) for path in data.paths[split]}
