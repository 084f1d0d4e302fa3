"""Costs: what a trial takes on this machine, known before it starts."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.data.augmentation import Flips
from keras_transfer.search.hypermodel import TransferHyperModel
from keras_transfer.search.space.space import LEVELS

# Seconds of an image in training and in extraction, relative to an eager forward pass. Measured on
# CPUs: training 2.0 (EfficientNet-Lite0 from block4 up) and 2.4 (from block6 up), extraction 0.6.
_STEP = 2.3
_EXTRACTION = 0.6
_HEAD_STEP = 1e-4  # seconds for an image
_SETUP = 8.0  # seconds to build and trace what fine-tunes
_LEAST_EPOCHS = 4  # that a fine-tuning is worth its time with
_PASSES = 3
_ENOUGH_EPOCHS = 6  # with which two are better than one that has more


@dataclass(frozen=True)
class Planned:
    """A trial with its time.

    Attributes:
        values: Its hyperparameters.
        seconds: What it is expected to take; None if nobody knows.
        share: The seconds that it may take; infinite for no limit.
    """

    values: dict[str, Any]
    seconds: float | None
    share: float = math.inf


class Costs:
    """Predicts what trials take, and fits them into the time that is left.

    A forward pass of each block is measured once for each backbone; a step of training takes a
    multiple of that, which the trials that have ended correct.

    Args:
        hypermodel: What builds the trials.
        images: A batch of images.
        counts: Training and validation images of each fold.
        epochs: Epochs of a trial that trains a head alone.
        again: What training the best fine-tuning again after the trials takes, relative to it.
            Default 0: that is not done, or reserved already.

    Example:
        >>> costs = Costs(hypermodel, images, [(1673, 295)], epochs=30)
        >>> costs.seconds({"unfreeze": 0.6, "fine_tuning_epochs": 10})
        412.0
    """

    def __init__(
        self,
        hypermodel: TransferHyperModel,
        images: np.ndarray,
        counts: Sequence[tuple[int, int]],
        epochs: int,
        again: float = 0.0,
    ) -> None:
        self.hypermodel = hypermodel
        self.images = images
        self.counts = counts
        self.epochs = epochs
        self.again = again
        self._forward: dict[str, dict[str, float]] = {}  # seconds an image, by link
        self._kept: set[tuple[str, str | None, str]] = set()  # places of trials that have ended
        self._ratios: dict[bool, list[float]] = {True: [], False: []}  # actual to expected seconds

    def forward(self, backbone: str) -> dict[str, float]:
        """Returns the seconds that each link takes for an image, measured at the first call."""
        if backbone not in self._forward:
            self._forward[backbone] = self._fastest(backbone)
        return self._forward[backbone]

    def _fastest(self, backbone: str) -> dict[str, float]:
        """The fastest of some passes: in the first much happens that later ones do not repeat."""
        passes = [self._pass(backbone) for _ in range(_PASSES)]
        return min(passes, key=lambda found: sum(found.values()))

    def _pass(self, backbone: str) -> dict[str, float]:
        at, found = time.perf_counter(), {}

        def watch(name: str, tensor: Any) -> None:
            nonlocal at
            np.asarray(tensor)  # waits for a GPU
            now = time.perf_counter()
            found[name], at = (now - at) / len(self.images), now

        chain = self.hypermodel.backbones[backbone]
        with chain.watched(watch):
            chain(self.images)
        return found

    def slowdown(self) -> float:
        """Returns how many times slower the machine is now than when it was measured."""
        name = next(iter(self.hypermodel.backbones))
        before = sum(self.forward(name).values())
        return sum(self._fastest(name).values()) / before

    def seconds(self, values: Mapping[str, Any], epochs: int | None = None) -> float:
        """Returns what a trial is expected to take.

        Args:
            values: Its hyperparameters.
            epochs: How many it trains; all that it may unless given.
        """
        blocks = self.hypermodel.blocks(values)
        usual = self._usual(values, epochs)
        ratios = self._ratios[bool(blocks)]
        return usual * (statistics.median(ratios) if ratios else 1.0)

    def _usual(self, values: Mapping[str, Any], epochs: int | None) -> float:
        train, valid = (sum(pair[i] for pair in self.counts) for i in (0, 1))
        setup, step, most = 1.0, _HEAD_STEP, self.epochs
        if self.hypermodel.blocks(values):
            setup, step = _SETUP, self._above(values)
            most = min(most, values["fine_tuning_epochs"])
        epoch = step * (_STEP * train + _EXTRACTION * valid)
        whole = (
            self._extraction(values, train, valid) + (most if epochs is None else epochs) * epoch
        )
        return setup * len(self.counts) + whole

    def _extraction(self, values: Mapping[str, Any], train: int, valid: int) -> float:
        """Returns the seconds until all activations below what trains are kept."""
        name, cut, pooling = place = self._place(values)
        if cut is None or place in self._kept:
            return 0.0
        links = list(self.forward(name))
        below = [links.index(c) + 1 for n, c, _ in self._kept if n == name and c and c != "pooling"]
        end = links.index(cut) + 1
        start = max((b for b in below if b <= end and pooling != LEVELS), default=0)
        link_seconds = sum(self.forward(name)[link] for link in links[start:end])
        views = Flips(self.hypermodel.flips).views if self.hypermodel.flips else 1
        seconds = _EXTRACTION * link_seconds * (views * train + valid)
        return seconds / max(1, len(self.counts) - 1)  # folds share their images

    def _place(self, values: Mapping[str, Any]) -> tuple[str, str | None, str]:
        """Returns the backbone, the cut point, and the pooling where that is above it."""
        name = values.get("backbone", next(iter(self.hypermodel.backbones)))
        cut = self.hypermodel.backbones[name].cut_point_without(self.hypermodel.blocks(values))
        return name, cut, values.get("pooling", "avg") if cut == "pooling" else ""

    def _above(self, values: Mapping[str, Any]) -> float:
        """Returns the seconds that the blocks above the cut point take for an image."""
        name, cut, _ = self._place(values)
        links = list(self.forward(name))
        place = links.index(cut) + 1 if cut is not None else 0
        return sum(self.forward(name)[link] for link in links[place:])

    def prediction(self, values: Sequence[Mapping[str, Any]]) -> float:
        """Returns the seconds that the average of some trials takes for a view of an image.

        Args:
            values: The hyperparameters of each trial that fine-tunes; none for the probe alone.
        """
        name = next(iter(self.hypermodel.backbones))
        whole = sum(self.forward(name).values())
        return _EXTRACTION * (whole + sum(self._above(one) for one in values[1:]))

    def fits(self, values: Mapping[str, Any], left: float) -> bool:
        """Returns whether there is time for the fewest epochs that a fine-tuning is worth.

        Args:
            values: Its hyperparameters.
            left: Seconds.
        """
        return left >= self.seconds(values, _LEAST_EPOCHS)

    def plan(self, values: Mapping[str, Any], left: float) -> Planned | None:
        """Returns a trial as it fits into the time that is left.

        A fine-tuning that would have too few epochs unfreezes less, as far as the space allows
        that. One that fits several times takes its part of the time, so that the others fit, too.

        Args:
            values: Its hyperparameters.
            left: Seconds for all trials that are still to come, infinite for no limit.

        Returns:
            None if there is no time for any trial.
        """
        for changed in self._shallower(values):
            full = self.seconds(changed)
            if left == math.inf:
                return Planned(changed, full)
            if not self.hypermodel.blocks(changed):
                return Planned(changed, min(full, left), left) if left > full / 2 else None
            if self.fits(changed, left):
                share = self._share(changed, full, left)
                return Planned(changed, min(full, share), share)
        return None

    def _share(self, values: Mapping[str, Any], full: float, left: float) -> float:
        """Returns the seconds that a fine-tuning may take."""
        beside = left - self.again * full
        if self.again and beside < full:  # both a little shorter, if that is worth it
            share = left / (1 + self.again)
            return share if share >= self.seconds(values, _ENOUGH_EPOCHS) else left
        return beside / max(1, math.floor(beside / full))

    def _shallower(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns values, and the same with fewer and fewer blocks to fine-tune."""
        found = [dict(values)]
        space, names = self.hypermodel.space, list(self.hypermodel.backbones)
        depth = values.get("unfreeze", 0)
        for less in sorted(getattr(space.unfreeze, "values", ()), reverse=True):
            if less < depth:
                complete = space.complete({**values, "unfreeze": less}, names)
                found.append({**_of_tuner(values), **complete})
        return found

    def note(self, values: Mapping[str, Any], epochs: int, seconds: float) -> None:
        """Takes note of what a trial took.

        Args:
            values: Its hyperparameters.
            epochs: The epochs that it trained.
            seconds: What it took.
        """
        expected = self._usual(values, epochs)
        blocks = self.hypermodel.blocks(values)
        if expected > 0:
            self._ratios[bool(blocks)].append(seconds / expected)
        self._kept.add(self._place(values))


def _of_tuner(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name.startswith("tuner/")}
