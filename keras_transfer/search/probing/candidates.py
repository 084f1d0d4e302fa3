"""Candidates: which of the backbones on this machine is worth its time, for `--backbone auto`."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.features.runners import by_keras
from keras_transfer.search.probing.probe import loss_of_each
from keras_transfer.search.state.files import read_json, write_json

FILE = "backbones.json"
_IMAGES = 400  # to compare on


@dataclass(frozen=True)
class Candidate:
    """A backbone, compared with others on a part of the training images.

    Attributes:
        name: Its name.
        accuracy: Of a logistic regression on its features, cross-validated.
        loss: The log loss of the same.
        milliseconds: What an image takes.
        parameters: How many weights it has.
    """

    name: str
    accuracy: float
    loss: float
    milliseconds: float
    parameters: int


def choose(
    names: Sequence[str],
    train: tf.data.Dataset,
    size: int,
    output: Path,
    seed: int,
    *,
    compare: bool = True,
) -> str:
    """Returns the backbone to search with, and prints how each did.

    That is the fastest, unless a slower one has a lower loss by more than chance would give: by
    more than the standard error of the difference, image by image.

    Args:
        names: Those on this machine.
        train: The training images, of `image_folder`.
        size: Their height and width.
        output: The folder of the search, which remembers the choice.
        seed: Decides the parts of the cross-validation.
        compare: Whether there is time to compare; else it is the first.
    """
    path = output / FILE
    if path.exists():
        return str(read_json(path)["chosen"])
    if not compare:
        return _remembered(path, names[0], [])
    images, labels = _some(train)
    found: list[tuple[Candidate, np.ndarray]] = []
    for name in names:
        print(f"Trying {name} on {len(images)} images", flush=True)
        found.append(_tried(name, images, labels, size, seed))
    found.sort(key=lambda one: one[0].milliseconds)
    best, losses = found[0]
    for candidate, others in found[1:]:
        gain = losses - others
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            best, losses = candidate, others
    candidates = [candidate for candidate, _ in found]
    _show(candidates, best)
    return _remembered(path, best.name, candidates)


def _remembered(path: Path, name: str, candidates: Sequence[Candidate]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"chosen": name, "candidates": [asdict(one) for one in candidates]})
    return name


def _some(train: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns some images of all over the dataset, which is in the order of classes."""
    step = max(1, len(train.labels) // _IMAGES)
    images = [x.numpy()[::step] for x, *_ in train.ordered]
    labels = [y.numpy()[::step] for _, y, *_ in train.ordered]
    return np.concatenate(images), np.concatenate(labels).reshape(-1).astype(int)


def _tried(
    name: str, images: np.ndarray, labels: np.ndarray, size: int, seed: int
) -> tuple[Candidate, np.ndarray]:
    backbone = FrozenBackbone(name, pooling="levels")
    backbone.compute_output_shape((None, size, size, 3))
    run = by_keras(backbone, "pooling")
    run(images[:8])  # which traces it
    began = time.monotonic()
    features = run(images)
    milliseconds = 1000 * (time.monotonic() - began) / len(images)
    losses, right = loss_of_each(features, labels, seed)
    facts = (float(right.mean()), float(losses.mean()), milliseconds, backbone.count_params())
    return Candidate(name, *facts), losses


def _show(candidates: Iterable[Candidate], chosen: Candidate) -> None:
    table = Table(title="Backbones on this machine")
    for column in ("backbone", "accuracy of a probe", "log loss", "ms an image", "parameters"):
        table.add_column(column)
    for one in candidates:
        mark = " (chosen)" if one is chosen else ""
        numbers = (f"{one.accuracy:.1%}", f"{one.loss:.3f}", f"{one.milliseconds:.1f}")
        table.add_row(f"{one.name}{mark}", *numbers, f"{one.parameters / 1e6:.1f} million")
    Console().print(table)
