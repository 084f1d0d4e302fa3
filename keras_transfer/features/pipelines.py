"""Pipelines of data whose rows can be computed once, whatever form they have."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.cacheable import NotKeepable, check_rows_apart, refuse_random
from keras_transfer.data.fingerprints import digest_of
from keras_transfer.data.shuffling import Given, Order, all_stages

_MAPS = ("_MapDataset", "_ParallelMapDataset")
_BATCHES = ("_BatchDataset", "_ParallelBatchDataset")
_KEEP_ROWS = (
    *_MAPS,
    *_BATCHES,
    "_PrefetchDataset",
    "_OptionsDataset",
    "CacheDataset",
    "_AssertCardinalityDataset",
)
_TRIED = 8  # batches of a PyDataset that are read twice, to see whether they stay the same


@dataclass(frozen=True)
class Pipeline:
    """Batches whose rows are the same in every epoch.

    Attributes:
        read: Gives the batches from a number on up to another, `None` for the last, once.
        batches: How many there are.
        batch_size: Rows in a batch, at most.
        ordered: Whether it gives its rows in their own order, so that no shuffle is to be undone.
        order: How batches are made from the rows.
        identity: What stands for the content: a digest, or an object.
        content: Gives a digest of the content of the files, if there are any.
        columns: Labels and so on for all rows, where they are known without reading.
        sample: A digest of some of it, where the object may come to give something else.
        even: Whether all batches but the last have `batch_size` rows.
        parts: Pipelines that have its rows too, if there are any.
        places: Where each row is in the rows of these, one behind the other.
    """

    read: Callable[[int, int | None], Iterable[Any]]
    batches: int
    batch_size: int
    ordered: bool
    order: Order | Given
    identity: Any
    content: Callable[[], str] | None = None
    columns: tuple[np.ndarray, ...] | None = None
    sample: str = ""
    even: bool = True
    parts: tuple["Pipeline", ...] = ()
    places: np.ndarray | None = None


def of_array(images: np.ndarray, batch_size: int) -> Pipeline:
    """Returns the pipeline of an array of images, known by its content."""
    count = math.ceil(len(images) / batch_size)

    def read(start: int, stop: int | None) -> Iterator[tuple[np.ndarray]]:
        for batch in range(start, count if stop is None else stop):
            yield (images[batch * batch_size : (batch + 1) * batch_size],)

    identity = f"array {digest_of(images)}"
    order = Order(batch_size)
    return Pipeline(read, count, batch_size, True, order, identity, columns=())


def of_py_dataset(dataset: keras.utils.PyDataset) -> Pipeline:
    """Returns the pipeline of a `PyDataset`, its batches in their order.

    Eight of its batches are read twice. What changes more rarely than these show, or is changed in
    the middle of a fit, is not found out.

    Raises:
        NotKeepable: If the number of batches is infinite, or they may differ between epochs: there
            is code to run between them, or a batch that is read twice is not the same.
    """
    kind, base = type(dataset), keras.utils.PyDataset
    count = dataset.num_batches
    if not count:
        raise NotKeepable(f"the number of batches of the {kind.__name__} is infinite, or 0")
    for hook in ("on_epoch_begin", "on_epoch_end"):
        if getattr(kind, hook) is not getattr(base, hook):
            raise NotKeepable(f"the {hook} of the {kind.__name__} may change what it gives")
    sample = ""
    for number in sorted({round(n) for n in np.linspace(0, count - 1, _TRIED)}):
        once, again = (
            [digest_of(np.asarray(part)) for part in tf.nest.flatten(dataset[number])]
            for _ in range(2)
        )
        if once != again:
            raise NotKeepable(f"the {kind.__name__} gives another batch each time it is asked")
        sample += "".join(once)
    size = len(tf.nest.flatten(dataset[0])[0])

    def read(start: int, stop: int | None) -> Iterator[Any]:
        for number in range(start, count if stop is None else stop):
            yield dataset[number]

    return Pipeline(
        read,
        count,
        size,
        ordered=True,
        order=Order(size),
        identity=dataset,
        sample=sample,
        even=False,
    )


def inspect(dataset: tf.data.Dataset) -> Pipeline:
    """Finds out how to compute the rows of a pipeline once and to make the same batches of them.

    Args:
        dataset: Batches of `(images, labels)` or `(images, labels, sample_weights)`. One from
            `image_folder` says by itself what it holds. For others, the transformations and the
            graphs of their functions are looked through for random operations.

    Raises:
        NotKeepable: If the number of rows is unknown or infinite, or something random comes before
            the rows are kept.
    """
    batches = int(dataset.cardinality())
    if batches < 0:
        kind = "infinite" if batches == tf.data.INFINITE_CARDINALITY else "unknown"
        raise NotKeepable(f"the number of batches is {kind}")
    _check_structure(dataset.element_spec)
    if hasattr(dataset, "identity"):
        ordered, selection = dataset.ordered, getattr(dataset, "selection", None)
        return Pipeline(
            ordered.part,
            batches,
            _batch_size(ordered),
            ordered=True,
            order=Given(dataset.index_batches),
            identity=dataset.identity,
            content=functools.cache(dataset.content),  # it reads all files
            columns=(dataset.labels,),
            parts=tuple(map(inspect, selection.parts)) if selection else (),
            places=selection.places if selection else None,
        )
    return _inspect_graph(dataset, batches)


def _check_structure(spec: Any) -> None:
    parts = spec if isinstance(spec, tuple) else (spec,)
    if not (1 <= len(parts) <= 3 and all(isinstance(part, tf.TensorSpec) for part in parts)):
        raise NotKeepable(
            "it does not give batches of (images, labels) or (images, labels, weights), each one "
            "dense tensor"
        )


def _from(dataset: tf.data.Dataset) -> Callable[[int, int | None], tf.data.Dataset]:
    def read(start: int, stop: int | None) -> tf.data.Dataset:
        rest = dataset.skip(start) if start else dataset
        return rest if stop is None else rest.take(stop - start)

    return read


def _batch_size(dataset: tf.data.Dataset) -> int:
    return int(next(iter(dataset.index_batches)).shape[0])


def _inspect_graph(dataset: tf.data.Dataset, batches: int) -> Pipeline:
    batch, shuffle, maps = None, None, []
    for stage in _stages(dataset):
        kind = type(stage).__name__
        if kind in _MAPS and batch is None:
            maps.append(stage)
        if hasattr(stage, "identity"):
            # The pass that reads the images takes an epoch of their order; training begins anew.
            given, ordered = Given(stage.index_batches, afresh=True), stage.shuffle_seed is None
            size = _batch_size(stage.ordered)
            if not ordered:
                check_rows_apart(maps)
            return Pipeline(_from(dataset), batches, size, ordered, given, dataset)
        if kind in _BATCHES and batch is None:
            batch = stage
        elif kind == "_ShuffleDataset":
            if shuffle is not None:
                raise NotKeepable("it shuffles twice; shuffle once, before batching")
            shuffle = stage
            if batch is None:
                raise NotKeepable("it shuffles whole batches; shuffle before batching")
        elif kind not in _KEEP_ROWS and shuffle is None and stage._inputs():
            raise NotKeepable(f"it regroups rows ({kind.strip('_')})")
    if batch is None:
        raise NotKeepable(
            "it is not batched, or not where one can see it; batch it as the last step"
        )
    if shuffle is not None and bool(batch._drop_remainder):
        raise NotKeepable("it shuffles and drops the last rows, other ones in each epoch")
    if shuffle is not None:
        check_rows_apart(maps)
    order = Order(int(batch._batch_size), bool(batch._drop_remainder), **_shuffle(shuffle))
    return Pipeline(_from(dataset), batches, order.batch_size, shuffle is None, order, dataset)


def _shuffle(stage: Any) -> dict[str, Any]:
    if stage is None:
        return {}
    return {
        "buffer_size": int(stage._buffer_size),
        "seeds": (int(stage._seed), int(stage._seed2)),
        "reshuffle": bool(stage._reshuffle_each_iteration),
    }


def _stages(dataset: Any) -> Iterator[Any]:
    """The transformations from the last to the first, as far as the rows depend on them.

    tf.data has no public way to look into a pipeline; `_inputs` and `_functions` are what its own
    distribution and debugging code use. What a `cache()` holds is the same in every epoch,
    whatever made it, so there is nothing to look for behind one.
    """
    yield dataset
    if hasattr(dataset, "identity"):  # from `image_folder`: nothing random below
        return
    for function in dataset._functions():
        refuse_random(function)
    if type(dataset).__name__ == "RandomDataset":
        raise NotKeepable("it draws random numbers")
    if type(dataset).__name__ == "CacheDataset":
        yield from (stage for stage in all_stages(dataset) if type(stage).__name__ in _BATCHES)
        return
    for source in dataset._inputs():
        yield from _stages(source)
