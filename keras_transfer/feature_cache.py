"""FeatureCache: what a frozen part of a backbone makes of the data, computed once."""

import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from keras_transfer import pipelines
from keras_transfer.flips import Flips
from keras_transfer.frozen_backbone import FrozenBackbone

# Keras' CPU kernels run fastest on small batches: more fits into the processor's cache.
_CPU_BATCH = 16

# Of the free memory, at most this share is taken by what one call keeps.
_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class Rows:
    """Kept rows in their own order: activations, and labels and weights as the dataset has them."""

    activations: np.ndarray
    rest: tuple[np.ndarray, ...]


def batches(views: Sequence[Rows], after: str, indices: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches of kept rows, each row from one of its views.

    Args:
        views: The rows of each view; more than one are drawn among, anew in each epoch.
        after: The block that the activations come from.
        indices: Batches of row numbers.
    """
    kept = [tf.constant(rows.activations) for rows in views]
    rest = [tf.constant(column) for column in views[0].rest]

    def batch(index: tf.Tensor, seed: tf.Tensor | None = None) -> tuple[Any, ...]:
        seen = [tf.gather(activations, index) for activations in kept]
        if seed is not None:
            shape = tf.shape(index)
            drawn = tf.random.stateless_uniform(shape, [seed, 0], maxval=len(kept), dtype=tf.int32)
            seen = [Flips.choose(seen, drawn)]
        return {f"after:{after}": seen[0]}, *(tf.gather(column, index) for column in rest)

    if len(kept) > 1:
        seed = random.randrange(2**31)  # Keras' set_random_seed reaches this generator too
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        indices = tf.data.Dataset.zip(indices, seeds)
    return pipelines.prefetched(indices.map(batch))


class FeatureCache:
    """Keeps activations at any place of a backbone, so that what is frozen runs once.

    Entries are found by the data (a digest for `image_folder` datasets and arrays, the object
    itself for other datasets), by a digest of the frozen part with its weights, and by the place
    in the chain. Changed weights or another preprocessing are never mistaken for the same.

    Args:
        verbose: Whether to show progress on a terminal.

    Example:
        >>> cache = FeatureCache()
        >>> backbone = FrozenBackbone("vgg16", input_shape=(150, 150, 3), pooling="flatten")
        >>> head.fit(cache.dataset(backbone, data.train).map(lambda x, y: (x["after:pooling"], y)))
    """

    def __init__(self, *, verbose: bool = True) -> None:
        self.verbose = verbose
        self._entries: dict[tuple[Any, ...], Rows] = {}
        self._shadows: dict[Any, tf.data.Dataset] = {}
        self._alive: dict[int, Any] = {}  # so that no id is given to another object

    def dataset(
        self,
        backbone: FrozenBackbone,
        data: tf.data.Dataset,
        *,
        after: str = "pooling",
    ) -> tf.data.Dataset:
        """Returns the batches of a dataset with activations in place of images.

        Order, batches and reshuffling are those of the dataset.

        Args:
            backbone: What makes the activations. It must be frozen up to `after`.
            data: Batches of `(images, labels)` or `(images, labels, sample_weights)`.
            after: A block's name, or `"pooling"` for the features.

        Returns:
            Batches of `({"after:<block>": activations}, labels, ...)`, held in RAM.

        Raises:
            NotKeepable: If the rows are random, their number unknown, or the activations too many
                for the memory; the message says why.
            ValueError: If `after` lies above a block that is not frozen, or is unknown.
        """
        pipeline = pipelines.inspect(data)
        rows = self.rows(backbone, pipeline, after)
        return batches([rows], after, pipeline.order.indices(len(rows.activations)))

    def array(self, backbone: FrozenBackbone, images: Any, *, after: str = "pooling") -> Any:
        """Returns the activations of an array of images `(n, height, width, 3)`, row for row."""
        images = np.asarray(images)
        order = pipelines.Order(_CPU_BATCH)
        data = tf.data.Dataset.from_tensor_slices((images,)).batch(_CPU_BATCH)
        pipeline = pipelines.Pipeline(
            data, _CPU_BATCH, ordered=True, order=order, identity=_digest(images)
        )
        return self.rows(backbone, pipeline, after).activations

    def __len__(self) -> int:
        """How many sets of activations are kept."""
        return len(self._entries)

    def clear(self) -> None:
        """Forgets all that is kept."""
        self._entries.clear()
        self._shadows.clear()
        self._alive.clear()

    def rows(
        self,
        backbone: FrozenBackbone,
        pipeline: pipelines.Pipeline,
        after: str,
        *,
        flips: Flips | None = None,
        view: int = 0,
    ) -> Rows:
        """Returns the kept rows of a pipeline, computed now if there are none.

        Args:
            backbone: What makes the activations.
            pipeline: The data.
            after: A block's name, or `"pooling"`.
            flips: What the images go through before, `None` for nothing.
            view: Which of its views.
        """
        _check_frozen(backbone, after)
        data = (self._data_key(pipeline), view)
        if flips is not None and view:
            pipeline = replace(pipeline, transform=lambda images: flips.view(images, view))
        key = (data, after, backbone.digest(after))
        if key not in self._entries:
            self._entries[key] = self._from_below(backbone, data, after) or self._from_images(
                backbone, pipeline, data, after
            )
        return self._entries[key]

    def _data_key(self, pipeline: pipelines.Pipeline) -> Any:
        if isinstance(pipeline.identity, str):
            return pipeline.identity
        self._alive[id(pipeline.identity)] = pipeline.identity
        return id(pipeline.identity)

    def _from_below(self, backbone: FrozenBackbone, data: Any, after: str) -> Rows | None:
        """Goes on from the nearest kept activations below `after`, if there are any."""
        below = backbone.link_names[: backbone.link_names.index(after)]
        for name in reversed(below):
            rows = self._entries.get((data, name, backbone.digest(name)))
            if rows is not None:
                inputs = _chunks({f"after:{name}": rows.activations})
                return Rows(self._run(backbone, inputs, after, len(rows.activations)), rows.rest)
        return None

    def _from_images(
        self, backbone: FrozenBackbone, pipeline: pipelines.Pipeline, data: Any, after: str
    ) -> Rows:
        rest: list[Sequence[Any]] = []

        def images() -> Iterator[Any]:
            for batch in pipeline.dataset:
                x, *others = batch if isinstance(batch, tuple) else (batch,)
                if not rest:
                    backbone.check_pixels(x)
                x = pipeline.transform(x) if pipeline.transform else x
                rest.append([np.asarray(column) for column in others])
                yield from _chunks(x)

        size = int(pipeline.dataset.cardinality()) * pipeline.batch_size
        activations = self._run(backbone, images(), after, size)
        columns = tuple(np.concatenate(column) for column in zip(*rest, strict=True))
        rows = Rows(activations, columns)
        if pipeline.ordered:
            return rows
        # A shadow that is read whenever the pipeline is: a pass over a seeded shuffle has the order
        # of the same pass over another with that seed. Without a seed, or if somebody else reads
        # the pipeline too, any order is as good as another.
        shadow = self._shadows.setdefault(data[0], pipeline.order.indices(len(activations)))
        return _unshuffled(rows, np.concatenate([batch.numpy() for batch in shadow]))

    def _run(
        self, backbone: FrozenBackbone, inputs: Iterator[Any], after: str, rows: int
    ) -> np.ndarray:
        """Runs the chain over all inputs; `rows` is how many there are at most."""
        run = tf.function(
            lambda x: backbone.activations(x, after=after)[f"after:{after}"], reduce_retracing=True
        )
        kept, done = np.empty(0), 0
        with _progress(self.verbose) as progress:
            task = progress.add_task(f"activations after {after}", total=rows)
            for x in inputs:
                activations = run(x).numpy()
                if not done:
                    _check_memory(after, rows, activations)
                    kept = np.empty((rows, *activations.shape[1:]), activations.dtype)
                kept[done : done + len(activations)] = activations
                done += len(activations)
                progress.update(task, completed=done)
        return kept[:done]


def _check_frozen(backbone: FrozenBackbone, after: str) -> None:
    names = backbone.link_names
    if after not in names:
        raise ValueError(f"Backbone '{backbone.name}' has no link {after!r}: it has {names}.")
    border = backbone.border
    if border is None or names.index(border) < names.index(after):
        raise ValueError(
            f"What comes after {after!r} changes while training: backbone '{backbone.name}' is "
            f"frozen up to {border!r} only. Keep activations there, or freeze more blocks."
        )


def _chunks(x: Any) -> Iterator[Any]:
    """Slices of a size that the device is fast at."""
    rows = len(tf.nest.flatten(x)[0])
    size = rows if tf.config.list_physical_devices("GPU") else _CPU_BATCH
    for start in range(0, rows, size):
        yield tf.nest.map_structure(lambda column: column[start : start + size], x)  # noqa: B023


def _unshuffled(rows: Rows, places: np.ndarray) -> Rows:
    """Puts rows from a shuffled pass into their own order."""
    columns = (rows.activations, *rows.rest)
    ordered = [np.empty_like(column) for column in columns]
    for column, shuffled in zip(ordered, columns, strict=True):
        column[places] = shuffled
    return Rows(ordered[0], tuple(ordered[1:]))


def _check_memory(after: str, rows: int, activations: np.ndarray) -> None:
    needed = rows * activations.nbytes // len(activations)
    available = psutil.virtual_memory().available
    if needed > _MEMORY_SHARE * available:
        raise pipelines.NotKeepable(
            f"{rows:,} activations after {after} take {needed / 1e9:.1f} GB, more than a quarter "
            f"of the {available / 1e9:.1f} GB of free memory"
        )


def _progress(verbose: bool) -> Any:
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, disable=not (verbose and sys.stdout.isatty()))


def _digest(array: np.ndarray) -> str:
    """Returns a digest of an array's shape, type and content."""
    digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
