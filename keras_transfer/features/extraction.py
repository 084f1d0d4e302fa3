"""ExtractionJob: activations that are wanted, and the images that they are made of."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import Views
from keras_transfer.data.cacheable import NotKeepable
from keras_transfer.features import pipelines, runners
from keras_transfer.features.runners import Runner
from keras_transfer.utils.console import say
from keras_transfer.utils.progress import progress

UNEVEN = "its batches have another number of rows than its batching makes; map rows before it"


class FrozenPart:
    """The frozen part of a backbone during a fit: its digests, made once while the border stays.

    Args:
        backbone: The backbone.

    Attributes:
        checked: The `ExtractionJob.made_by` of activations in RAM that were compared with the
            layers already.
    """

    def __init__(self, backbone: FrozenBackbone) -> None:
        self.backbone = backbone
        self.checked: set[tuple[Any, ...]] = set()
        self._border: str | None = None
        self._fingerprints: Mapping[str, Mapping[str, str]] = {}

    def fingerprints(self) -> Mapping[str, Mapping[str, str]]:
        """Returns what decides the activations after each link up to the border.

        Raises:
            NotKeepable: If a layer has no config.
        """
        if (border := self.backbone.border) != self._border:  # blocks may have trained meanwhile
            self._fingerprints = self.backbone.fingerprints()
            self._border = border
        return self._fingerprints


@dataclass
class BatchesRead:
    """Notes on the batches whose images were read.

    Attributes:
        rest: Labels, and weights if there are any, of each batch.
        sizes: How many rows each batch has.
        first: The first images of the data: two, or the first batch where views are drawn.
    """

    rest: list[Sequence[np.ndarray]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    first: np.ndarray | None = None


@dataclass(frozen=True)
class ExtractionJob:
    """Activations of one view of some data after a link.

    Attributes:
        frozen: What makes the activations.
        pipeline: The data.
        after: A block's name, or `"pooling"`.
        views: What the images go through before.
        view: Which of its views.
        origin: All that decides the activations.
        show: Whether to say what is done.
    """

    frozen: FrozenPart
    pipeline: pipelines.Pipeline
    after: str
    views: Views
    view: int
    origin: Mapping[str, Any]
    show: bool

    @property
    def backbone(self) -> FrozenBackbone:
        """The backbone that makes the activations."""
        return self.frozen.backbone

    @property
    def key(self) -> tuple[Any, ...]:
        """The origin, as a key of a dictionary."""
        return tuple(sorted(self.origin.items()))

    @property
    def made_by(self) -> tuple[Any, ...]:
        """The origin without the data and the number of the view, as a key of a dictionary."""
        made_by = {**self.origin, "data": "", "view": self.views.layers}
        return tuple(sorted(made_by.items()))

    @property
    def most_rows(self) -> int:
        """How many rows there are, at most."""
        known = len(self.pipeline.columns[0]) if self.pipeline.columns else None
        return known or self.pipeline.batches * self.pipeline.batch_size

    @property
    def unit(self) -> int:
        """Rows from whose beginning on the same are run together, wherever a process begins."""
        return math.lcm(self.pipeline.batch_size, runners.CPU_BATCH)

    @property
    def lasting(self) -> bool:
        """Whether another run can know the data again."""
        return isinstance(self.pipeline.identity, str) and self.pipeline.batches > 0

    def say(self, text: str) -> None:
        """Says something about it, if it is to be said."""
        if self.show:
            say(f"activations after {self.after}: {text}")

    def images(self, start: int, stop: int | None, read: BatchesRead) -> Iterator[Any]:
        """Gives the images from a row on to another, `None` for the last, batch by batch.

        Args:
            start: The first row.
            stop: The row behind the last; rows behind it may come, up to the end of a batch.
            read: Notes what comes with the images.

        Raises:
            NotKeepable: If batches have another number of rows than they should.
        """
        size, short = self.pipeline.batch_size, False
        row, skip = start - start % size, start % size
        to = None if stop is None else math.ceil(stop / size)
        for number, batch in enumerate(self.pipeline.read(start // size, to)):
            x, *others = batch if isinstance(batch, tuple) else (batch,)
            self.backbone.check_pixels(x, finite_only=number > 0)
            if not number:
                read.first = None if row else self._first_of(x)
            if others:
                read.rest.append([np.asarray(column) for column in others])
            read.sizes.append(len(x))
            if self.pipeline.even and (len(x) > size or short):
                raise NotKeepable(UNEVEN)
            short = len(x) < size
            if len(x) > skip:
                yield self.views.view(x, self.view, row)[skip:]
            row, skip = row + len(x), 0

    def batch(self, number: int) -> Any:
        """Returns the images of one batch, without augmentation."""
        batch = next(iter(self.pipeline.read(number, number + 1)))
        return batch[0] if isinstance(batch, tuple) else batch

    def first_images(self) -> np.ndarray:
        """Reads the first images of lasting data, as many as `BatchesRead.first` holds."""
        return self._first_of(self.batch(0))

    def _first_of(self, batch: Any) -> np.ndarray:
        return np.array(batch if self.views.layers else batch[: runners.SOME_ROWS])


def in_stretches(
    read: Callable[[int, int | None], Iterator[Any]],
    stretches: Iterable[tuple[int, int | None]],
    *,
    ahead: bool,
) -> Iterator[Any]:
    """Gives the rows of stretches, as they are read, none beyond the end of its stretch.

    Args:
        read: Gives batches of rows from a row on to another, `None` for the last.
        stretches: First row, and the row behind the last, `None` for all.
        ahead: Whether the next stretch most likely begins where the last has ended, so that its
            rows are read meanwhile.
    """
    batches: Iterator[Any] = iter(())
    at = -1
    for start, stop in stretches:
        if start != at or not ahead:
            batches, at = read(start, None if ahead else stop), start
        while stop is None or at < stop:
            batch = next(batches, None)
            if batch is None:
                break
            if stop is not None and len(batch) > stop - at:
                batches = itertools.chain([batch[stop - at :]], batches)
                batch = batch[: stop - at]
            yield batch
            at += len(batch)


@dataclass(frozen=True)
class Pass:
    """Gives the activations after a link for batches of inputs.

    Keras runs the first batches. If it would need long for the rest, OpenVINO takes over where it
    is installed.

    Attributes:
        backbone: What makes the activations.
        after: A block's name, or `"pooling"`.
        inputs: Batches of images, or of kept activations.
        start: How many rows are there already.
        total: How many rows there are, at most.
        runners: Faster functions that were made before, by `key`.
        key: What stands for the frozen part.
        show: Whether to show progress.
        others: Gives how many rows other processes have made since the start.
    """

    backbone: FrozenBackbone
    after: str
    inputs: Iterable[Any]
    start: int
    total: int
    runners: MutableMapping[Any, Runner | None]
    key: Any
    show: bool
    others: Callable[[], int] = lambda: 0

    def __iter__(self) -> Iterator[np.ndarray]:
        slow = runners.by_keras(self.backbone, self.after)
        done, shape, began = self.start, None, 0.0
        with progress(f"activations after {self.after}", self.total, show=self.show) as shown:
            shown.start_at(done)
            for number, x in enumerate(self.inputs):
                key = (self.key, _spec(x))
                if number == 1:  # the first batch traced
                    began, first = time.monotonic(), done
                if number == 2 and key not in self.runners:
                    rows = self.total - done - self.others()
                    left = (time.monotonic() - began) / (done - first) * rows
                    if left > runners.WORTH_SECONDS:
                        self.runners[key] = runners.by_openvino(self.backbone, self.after, x)
                fast = self.runners.get(key)
                activations = (slow if number == 0 or fast is None else fast)(x)
                if number == 0 and fast is not None and not runners.alike(fast(x), activations):
                    del self.runners[key]  # the layers have changed since it was made
                if activations.shape[1:] != (shape or activations.shape[1:]):
                    raise NotKeepable(
                        f"its images give activations after {self.after} of different shapes, "
                        f"{shape} and {activations.shape[1:]}; resize them to one size"
                    )
                shape = activations.shape[1:]
                yield activations
                done += len(activations)
                shown.update(done + self.others())


def _spec(x: Any) -> Any:
    """What an input must be like for a function made for another to take it."""
    parts = x.items() if isinstance(x, Mapping) else (("images", x),)
    return tuple(
        (name, tuple(part.shape[1:]), tf.as_dtype(part.dtype).name) for name, part in parts
    )
