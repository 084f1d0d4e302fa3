"""Stream: the batches of a dataset, epoch after epoch, across the phases of a fit."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


class Stream:
    """Gives a dataset's batches pass after pass, and goes on where training stopped.

    What was taken to be ready in time, and not trained on, is given again.

    Args:
        dataset: Batches, of any number.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self.dataset = dataset
        self._live = iter(dataset.repeat())
        self._taken: deque[Any] = deque()
        self._lock, self._readers = threading.Lock(), 0

    def batches(self) -> tf.data.Dataset:
        """Returns what comes next, without end."""
        spec = self.dataset.element_spec
        endless = tf.data.Dataset.from_generator(self._give, output_signature=spec)
        return endless.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _give(self) -> Iterator[Any]:
        with self._lock:
            self._readers += 1
            me, again = self._readers, list(self._taken)
        yield from again
        while True:
            with self._lock:
                if self._readers != me:  # the fit of another phase has begun
                    return
                batch = next(self._live)
                self._taken.append(batch)
            yield batch

    def trained(self, batches: int) -> None:
        """Notes that so many batches more were trained on."""
        with self._lock:
            for _ in range(batches):
                self._taken.popleft()
