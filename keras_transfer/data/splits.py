"""Divides images into splits or folds, class by class, in the same way on every machine."""

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from keras_transfer.images.discovery import SPLITS, ImageFile
from keras_transfer.utils.name_lists import some


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


def divide(
    files: Sequence[ImageFile], unreadable: Collection[int], shares: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Assigns each readable file to a split: its folder's, or a share of its class in train.

    Args:
        files: All files.
        unreadable: Row numbers of files that are in no split.
        shares: Share of each class that becomes `valid` and `test`, where there is no folder.
        seed: Decides which images are taken.

    Returns:
        Split to row numbers, rising; without empty splits.

    Raises:
        ValueError: If no class has an image for each split.
    """
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    classes: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        if row not in unreadable:
            of_class = classes.setdefault(file.class_name, [])
            (of_class if file.split == "train" else rows[file.split]).append(row)
    wanted = {split: share for split, share in shares.items() if share and not rows[split]}
    _check_enough({name: len(of_class) for name, of_class in classes.items()}, wanted)
    for of_class in classes.values():
        ranked = sorted(of_class, key=lambda row: rank(files[row], seed))
        valid, test = _sizes(len(ranked), wanted.get("valid", 0), wanted.get("test", 0))
        # From both ends, so that the test images stay the same whatever the validation split.
        rows["valid"] += ranked[:valid]
        rows["train"] += ranked[valid : len(ranked) - test]
        rows["test"] += ranked[len(ranked) - test :]
    return {split: np.sort(of_split) for split, of_split in rows.items() if of_split}


def _check_enough(counts: Mapping[str, int], wanted: Mapping[str, float]) -> None:
    least = 1 + len(wanted)
    few = {name: count for name, count in counts.items() if count < least}
    if not few:
        return
    message = (
        f"Classes with fewer than {least} images, one for each of train, {' and '.join(wanted)}: "
        f"{some([f'{name!r} has {count}' for name, count in few.items()])}. "
        "Add images, or pass 0 as the share of a split that you do without."
    )
    if max(counts.values()) < least:
        raise ValueError(message)
    warnings.warn(f"{message} They are missing in a split.", stacklevel=4)


def _sizes(count: int, valid_share: float, test_share: float) -> tuple[int, int]:
    """Divide a class: one image at least for train, then valid, then test, then by share."""
    valid = test = 0
    if valid_share:
        most = max(count - 1 - bool(test_share), min(count - 1, 1))
        valid = min(most, max(1, int(count * valid_share + 0.5)))
    if test_share:
        test = min(count - 1 - valid, max(1, int(count * test_share + 0.5)))
    return valid, test
