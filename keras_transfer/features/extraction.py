"""Extraction: the activations of one view of some data after a block."""

import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import Views
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features import pipelines, runners
from keras_transfer.features.runners import Runner
from keras_transfer.utils.console import say
from keras_transfer.utils.progress import progress


class FrozenPart:
    """The frozen part of a backbone during a fit: its digests, made once for each cut point.

    Args:
        backbone: The backbone.

    Attributes:
        checked: The `ExtractionJob.key` of activations in RAM that are known to be what the layers
            give.
    """

    def __init__(self, backbone: FrozenBackbone) -> None:
        if not isinstance(backbone, FrozenBackbone):
            raise TypeError(
                f"`backbone` is a {type(backbone).__name__}. Expected a FrozenBackbone; a Keras "
                "model becomes one by FrozenBackbone(model, preprocessing=...)."
            )
        self.backbone = backbone
        self.checked: set[tuple[Any, ...]] = set()
        self._cut: str | None = None
        self._fingerprints: Mapping[str, Mapping[str, str]] = {}

    def check(self, after: str) -> None:
        """Checks that the backbone is frozen up to a block.

        Raises:
            ValueError: If it is not, or has no such block.
        """
        names = self.backbone.link_names
        if after not in names:
            raise ValueError(
                f"Backbone '{self.backbone.name}' has no link {after!r}: it has {names}."
            )
        cut = self.backbone.cut_point
        if cut is None or names.index(cut) < names.index(after):
            raise ValueError(
                f"What comes after {after!r} changes while training: backbone "
                f"'{self.backbone.name}' is frozen up to {cut!r} only. Keep activations there, or "
                "freeze more blocks."
            )

    def fingerprints(self) -> Mapping[str, Mapping[str, str]]:
        """Returns digests of what decides the activations after each block up to the cut point.

        Raises:
            NotCacheable: If a layer has no config.
        """
        if (cut := self.backbone.cut_point) != self._cut:  # blocks may have trained meanwhile
            self._fingerprints = self.backbone.fingerprints()
            self._cut = cut
        return self._fingerprints


@dataclass
class BatchesRead:
    """Notes on the batches whose images were read.

    Attributes:
        rest: Labels, and weights if there are any, of each batch.
        sizes: Number of rows of each batch.
        first: The first images of the data: two, or the first batch where views are drawn.
    """

    rest: list[Sequence[np.ndarray]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    first: np.ndarray | None = None


@dataclass(frozen=True)
class ExtractionJob:
    """Activations of one view of some data after a block.

    Attributes:
        frozen: The frozen part of the backbone.
        pipeline: The data.
        after: A block's name, or `"pooling"`.
        views: The views that the images are made to.
        view: Which of these.
        cache_key: Everything that decides the activations.
        show: Whether to print what is done.
    """

    frozen: FrozenPart
    pipeline: pipelines.Pipeline
    after: str
    views: Views
    view: int
    cache_key: Mapping[str, Any]
    show: bool

    @property
    def backbone(self) -> FrozenBackbone:
        """The backbone that makes the activations."""
        return self.frozen.backbone

    @property
    def key(self) -> tuple[Any, ...]:
        """The cache key, as a key of a dictionary."""
        return tuple(sorted(self.cache_key.items()))

    @property
    def most_rows(self) -> int:
        """How many rows there are, at most."""
        known = len(self.pipeline.columns[0]) if self.pipeline.columns else None
        return known or self.pipeline.batches * self.pipeline.batch_size

    @property
    def lasting(self) -> bool:
        """Whether another run can recognize the data."""
        return isinstance(self.pipeline.identity, str)

    def say(self, text: str) -> None:
        """Prints a line, unless nothing is to be shown."""
        if self.show:
            say(f"activations after {self.after}: {text}")

    def images(self, start: int, read: BatchesRead) -> Iterator[Any]:
        """Yields the images batch by batch.

        Args:
            start: The first row, of which a batch begins.
            read: Notes what comes with the images.

        Raises:
            NotCacheable: If batches have another number of rows than they should.
        """
        row, short = start, False
        for batch in self.pipeline.read(start // self.pipeline.batch_size, None):
            x, *others = batch if isinstance(batch, tuple) else (batch,)
            self.backbone.check_pixels(x, finite_only=row > start)
            if row == 0:
                read.first = self.first_of(x)
            if others:
                read.rest.append([np.asarray(column) for column in others])
            read.sizes.append(len(x))
            if self.pipeline.even and (len(x) > self.pipeline.batch_size or short):
                raise NotCacheable(pipelines.UNEVEN)
            short = len(x) < self.pipeline.batch_size
            yield self.views.view(x, self.view, row)
            row += len(x)

    def batch(self, number: int) -> Any:
        """Returns the images of one batch, without augmentation."""
        batch = next(iter(self.pipeline.read(number, number + 1)))
        return batch[0] if isinstance(batch, tuple) else batch

    def first_of(self, batch: Any) -> np.ndarray:
        """Returns so much of the first batch as shows whether its activations are still right."""
        return np.array(batch if self.views.layers else batch[: runners.SOME_ROWS])


def extract(
    job: ExtractionJob,
    inputs: Iterable[Any],
    *,
    start: int,
    total: int,
    fast_runners: MutableMapping[Any, Runner | None],
    key: Any,
) -> Iterator[np.ndarray]:
    """Yields the activations for batches of inputs.

    Keras runs the first batches. If it would need long for the rest, OpenVINO takes over where it
    is installed.

    Args:
        job: The activations that are wanted.
        inputs: Batches of images, or of cached activations.
        start: How many rows are there already.
        total: How many rows there are, at most.
        fast_runners: Functions of OpenVINO that were made before, by `key`.
        key: A key for the frozen part.
    """
    backbone, after = job.backbone, job.after
    slow = runners.by_keras(backbone, after)
    done, shape, began = start, None, 0.0
    with progress(f"activations after {after}", total, show=job.show) as shown:
        shown.start_at(done)
        for number, x in enumerate(inputs):
            fast_key = (key, _spec(x))
            if number == 1:  # the first batch traced
                began, first = time.monotonic(), done
            if number == 2 and fast_key not in fast_runners:
                left = (time.monotonic() - began) / (done - first) * (total - done)
                if left > runners.WORTH_SECONDS:
                    fast_runners[fast_key] = runners.by_openvino(backbone, after, x)
            fast = fast_runners.get(fast_key)
            activations = (slow if number == 0 or fast is None else fast)(x)
            if number == 0 and fast is not None and not runners.alike(fast(x), activations):
                del fast_runners[fast_key]  # the layers have changed since it was made
            if activations.shape[1:] != (shape or activations.shape[1:]):
                raise NotCacheable(
                    f"its images give activations after {after} of different shapes, "
                    f"{shape} and {activations.shape[1:]}; resize them to one size"
                )
            shape = activations.shape[1:]
            yield activations
            done += len(activations)
            shown.update(done)


def _spec(x: Any) -> Any:
    """Returns names, shapes and types, which a function of OpenVINO depends on."""
    parts = x.items() if isinstance(x, Mapping) else (("images", x),)
    return tuple(
        (name, tuple(part.shape[1:]), tf.as_dtype(part.dtype).name) for name, part in parts
    )
