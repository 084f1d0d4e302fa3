"""Small searches in tests: a folder of images, and the options of a search of seconds."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

QUICK = ("--trials", "2", "--epochs", "3", "--image-size", "32", "--batch-size", "8")


def photos(folder: Path, classes: int = 3, each: int = 12) -> Path:
    """Writes images of noise, each class in another colour, and returns the folder."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(each):
            pixels = generator.integers(0, 100, (40, 40, 3))
            pixels[..., label % 3] += 30 * label
            image = Image.fromarray(pixels.astype("uint8"))
            image.save(folder / f"class{label}" / f"{i}.png")
    return folder


def page_text(output: Path) -> str:
    """Returns the text of the report of a search."""
    text = re.sub(r"<style>.*?</style>", "", (output / "report.html").read_text(), flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", text.replace("<wbr>", "")).split())
