"""Stratified: images divided class by class, in the same way on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

from keras_transfer.images.discovery import ImageFile


def rank(file: ImageFile, seed: int) -> str:
    """Shuffle by hash: the same everywhere, and no file's place depends on other files."""
    key = f"{seed}/{'/'.join(file.parts)}"
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def deal(
    labels: np.ndarray, ranks: Sequence[str], k: int, class_names: Sequence[str]
) -> np.ndarray:
    """Deals rows out, class after class, so that folds differ by one row at most, also in a class.

    Args:
        labels: Positions in the class names, `(n,)`.
        ranks: In what order the rows of a class are dealt, `(n,)`.
        k: How many folds.
        class_names: Names of the classes.

    Returns:
        The fold of each row, `(n,)`, 0 to `k - 1`.

    Raises:
        ValueError: If there are fewer than two folds, or fewer rows of a class than folds.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    smallest = int(counts.argmin())
    if not 2 <= k <= counts[smallest]:
        raise ValueError(
            f"k={k} folds of {len(labels)} images, {counts[smallest]} of them of the smallest "
            f"class {class_names[smallest]!r}. Expected 2 folds or more, and an image of each "
            "class in each: give another k, or add images."
        )
    by_class = np.lexsort((np.asarray(ranks), labels))
    fold = np.empty(len(labels), int)
    fold[by_class] = np.arange(len(labels)) % k
    return fold
