"""Pass: the frozen part of a backbone is run over rows, once."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer import extraction
from keras_transfer.frozen_backbone import FrozenBackbone
from keras_transfer.keepable import NotKeepable
from keras_transfer.progress import progress


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
    runners: MutableMapping[Any, extraction.Runner | None]
    key: Any
    show: bool
    others: Callable[[], int] = lambda: 0

    def __iter__(self) -> Iterator[np.ndarray]:
        slow = extraction.by_keras(self.backbone, self.after)
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
                    if left > extraction.WORTH_SECONDS:
                        self.runners[key] = extraction.by_openvino(self.backbone, self.after, x)
                fast = self.runners.get(key)
                activations = (slow if number == 0 or fast is None else fast)(x)
                if number == 0 and fast is not None and not extraction.alike(fast(x), activations):
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
