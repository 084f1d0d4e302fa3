"""Pipelines of data whose rows can be computed once, whatever form they have."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.fingerprints import NotCacheable, digest_of
from keras_transfer.data.shuffling import lasting_order, shuffled_rows
from keras_transfer.utils.keras_internals import (
    batch_arguments,
    dataset_inputs,
    dataset_kind,
    dataset_stages,
    shuffle_arguments,
    stateful_operations,
)

_KEEP_ROWS = ("Map", "Batch", "Prefetch", "Options", "Cache", "AssertCardinality")
UNEVEN = "its batches have another number of rows than its batching makes; map rows before it"
_TRIED = 8  # batches of a PyDataset that are read twice, to see whether they stay the same


@dataclass(frozen=True)
class Pipeline:
    """Batches whose rows are the same in every epoch.

    Attributes:
        read: Yields the batches from a number on up to another, `None` for the last, once.
        batches: Number of batches.
        batch_size: Rows in a batch, at most.
        indices: Returns batches of row numbers, for a number of rows, in the order and the batches
            in which each epoch has the rows.
        identity: Identifies the content: a digest, or the object itself.
        ordered: Whether `read` yields the rows in their order, so that no shuffle is to be undone.
        content: Returns a digest of the content of the files, if there are any.
        columns: Labels and so on for all rows, where they are known without reading.
        sample: A digest of some of it, where the object may come to give something else.
        even: Whether all batches but the last have `batch_size` rows.
        parts: Pipelines that have its rows too, if there are any.
        places: Position of each row in the rows of these, concatenated.
    """

    read: Callable[[int, int | None], Iterable[Any]]
    batches: int
    batch_size: int
    indices: Callable[[int], tf.data.Dataset]
    identity: Any
    ordered: bool = True
    content: Callable[[], str] | None = None
    columns: tuple[np.ndarray, ...] | None = None
    sample: str = ""
    even: bool = True
    parts: tuple["Pipeline", ...] = ()
    places: np.ndarray | None = None

    def row_places(self, rows: int) -> np.ndarray | None:
        """Returns where each row is among those that `read` has given; `None` if in order.

        A pass over a seeded shuffle has the same order as the same pass over its row numbers.
        Without a seed, or if somebody else reads the pipeline, any order is as good as another.

        Raises:
            NotCacheable: If the batching makes another number of rows.
        """
        if self.ordered:
            return None
        order = lasting_order(self.identity, "read", lambda: self.indices(rows))
        places = np.argsort(np.concatenate([batch.numpy() for batch in order]))
        if len(places) != rows:
            raise NotCacheable(UNEVEN)
        return places


def of_array(images: np.ndarray, batch_size: int) -> Pipeline:
    """Returns the pipeline of an array of images, known by its content."""
    count = math.ceil(len(images) / batch_size)

    def read(start: int, stop: int | None) -> Iterator[tuple[np.ndarray]]:
        for batch in range(start, count if stop is None else stop):
            yield (images[batch * batch_size : (batch + 1) * batch_size],)

    identity = f"array {digest_of(images)}"
    return Pipeline(read, count, batch_size, _rising(batch_size), identity, columns=())


def _rising(batch_size: int) -> Callable[[int], tf.data.Dataset]:
    return lambda rows: tf.data.Dataset.range(rows).batch(batch_size)


def of_py_dataset(dataset: keras.utils.PyDataset) -> Pipeline:
    """Returns the pipeline of a `PyDataset`, its batches in their order.

    Eight of its batches are read twice. What changes more rarely than these show, or is changed in
    the middle of a fit, is not noticed.

    Raises:
        NotCacheable: If the number of batches is infinite, or they may differ between epochs: there
            is code to run between them, or a batch that is read twice is not the same.
    """
    kind, base = type(dataset), keras.utils.PyDataset
    count = dataset.num_batches
    if not count:
        raise NotCacheable(f"the number of batches of the {kind.__name__} is infinite, or 0")
    for hook in ("on_epoch_begin", "on_epoch_end"):
        if getattr(kind, hook) is not getattr(base, hook):
            raise NotCacheable(f"the {hook} of the {kind.__name__} may change what it gives")
    sample = ""
    for number in sorted({round(n) for n in np.linspace(0, count - 1, _TRIED)}):
        first, second = (
            [digest_of(np.asarray(part)) for part in tf.nest.flatten(dataset[number])]
            for _ in range(2)
        )
        if first != second:
            raise NotCacheable(f"the {kind.__name__} gives another batch each time it is asked")
        sample += "".join(first)
    size = len(tf.nest.flatten(dataset[0])[0])

    def read(start: int, stop: int | None) -> Iterator[Any]:
        for number in range(start, count if stop is None else stop):
            yield dataset[number]

    return Pipeline(read, count, size, _rising(size), dataset, sample=sample, even=False)


def inspect(dataset: tf.data.Dataset) -> Pipeline:
    """Finds out how to compute the rows of a dataset once, and how to make the same batches again.

    Args:
        dataset: Batches of `(images, labels)` or `(images, labels, sample_weights)`. One from
            `image_folder` says by itself what it holds. For others, the steps and the operations
            in their functions are looked through.

    Raises:
        NotCacheable: If the number of rows is unknown or infinite, or a step may give other rows in
            the next epoch.
    """
    batches = int(dataset.cardinality())
    if batches < 0:
        kind = "infinite" if batches == tf.data.INFINITE_CARDINALITY else "unknown"
        raise NotCacheable(f"the number of batches is {kind}")
    _check_structure(dataset.element_spec)
    if hasattr(dataset, "row_order"):
        return Pipeline(
            dataset.part,
            batches,
            dataset.batch_size,
            lambda rows: dataset.row_order.batches(dataset.batch_size),
            identity=dataset.identity,
            content=functools.cache(dataset.content),  # it reads all files
            columns=(dataset.labels,),
            parts=tuple(map(inspect, dataset.parts)),
            places=dataset.places,
        )
    return _inspect_steps(dataset, batches)


def _check_structure(spec: Any) -> None:
    parts = spec if isinstance(spec, tuple) else (spec,)
    if not (1 <= len(parts) <= 3 and all(isinstance(part, tf.TensorSpec) for part in parts)):
        raise NotCacheable(
            "it does not give batches of (images, labels) or (images, labels, weights), each one "
            "dense tensor"
        )


def _inspect_steps(dataset: tf.data.Dataset, batches: int) -> Pipeline:
    batch, shuffle = None, None
    for step in _steps(dataset):
        kind = dataset_kind(step)
        if hasattr(step, "row_order"):
            if batch is not None or shuffle is not None:
                raise NotCacheable("it batches or shuffles again what image_folder gives")
            return _of_mapped_folder(dataset, batches, step)
        if kind == "Batch":
            batch = batch or step
        elif kind == "Shuffle":
            if shuffle is not None:
                raise NotCacheable("it shuffles twice; shuffle once, before batching")
            shuffle = step
            if batch is None:
                raise NotCacheable("it shuffles whole batches; shuffle before batching")
        elif kind not in _KEEP_ROWS and shuffle is None and dataset_inputs(step):
            raise NotCacheable(f"it regroups rows ({kind})")
    if batch is None:
        raise NotCacheable(
            "it is not batched, or not where one can see it; batch it as the last step"
        )
    size, drop_remainder = batch_arguments(batch)
    if shuffle is not None and drop_remainder:
        raise NotCacheable("it shuffles and drops the last rows, other ones in each epoch")
    arguments = shuffle_arguments(shuffle) if shuffle is not None else None

    def indices(rows: int) -> tf.data.Dataset:
        numbers = shuffled_rows(rows, **arguments) if arguments else tf.data.Dataset.range(rows)
        return numbers.batch(size, drop_remainder=drop_remainder)

    read = functools.partial(_part, dataset)
    return Pipeline(read, batches, size, indices, dataset, ordered=shuffle is None)


def _of_mapped_folder(dataset: tf.data.Dataset, batches: int, source: Any) -> Pipeline:
    """The pipeline of what users' maps make of a dataset from `image_folder`."""
    size, order = source.batch_size, source.row_order

    def read(start: int, stop: int | None) -> Iterator[Any]:
        with order.in_order():  # which is decided when the first batch is read
            rest = iter(_part(dataset, start, stop))
            first = next(rest, None)
        if first is not None:
            yield first
            yield from rest

    return Pipeline(read, batches, size, lambda rows: order.batches(size), dataset)


def _part(dataset: tf.data.Dataset, start: int, stop: int | None) -> tf.data.Dataset:
    rest = dataset.skip(start) if start else dataset
    return rest if stop is None else rest.take(stop - start)


def _steps(dataset: Any) -> Iterator[Any]:
    """The steps of a pipeline from the last to the first, as far as the rows depend on them.

    The content of a `cache()` is the same in every epoch, so of the steps before it only the
    batching matters.
    """
    yield dataset
    if hasattr(dataset, "row_order"):  # from `image_folder`: nothing random below
        return
    if operations := sorted(stateful_operations(dataset)):
        raise NotCacheable(
            f"its functions may give something else in each epoch ({', '.join(operations[:3])}: "
            "random numbers, variables, tables or Python code); put .cache() after them if they do "
            "not"
        )
    if dataset_kind(dataset) == "Random":
        raise NotCacheable("it draws random numbers")
    if dataset_kind(dataset) == "Cache":
        yield from (step for step in dataset_stages(dataset) if dataset_kind(step) == "Batch")
        return
    for source in dataset_inputs(dataset):
        yield from _steps(source)
