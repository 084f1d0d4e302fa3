"""What a tf.data pipeline does to its rows: whether they are always the same, and in what order."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

_MAPS = ("_MapDataset", "_ParallelMapDataset")
_BATCHES = ("_BatchDataset", "_ParallelBatchDataset")
_KEEP_ROWS = (*_MAPS, *_BATCHES, "_PrefetchDataset", "_OptionsDataset", "CacheDataset")
_RANDOM = re.compile(r"Random|Multinomial|Poisson|Generator")
_OPAQUE = re.compile(r"PyFunc")


class NotKeepable(Exception):
    """Raised with the reason why the rows of a pipeline cannot be computed once."""


def prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes the next two batches while the model is busy.

    Without tf.data's autotuning, which has nothing to tune here: under it, on two cores, two epochs
    in five took twice as long, with both cores idle half of the time (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


@dataclass(frozen=True)
class Order:
    """How a pipeline makes batches of rows.

    Attributes:
        batch_size: Rows in a batch; the last may be shorter.
        drop_remainder: Whether a shorter last batch is left out.
        buffer_size: Rows in the shuffle buffer, 0 for no shuffle.
        seeds: TensorFlow's two seeds of the shuffle; two zeros for another order each time.
        reshuffle: Whether each epoch has another order.
    """

    batch_size: int
    drop_remainder: bool = False
    buffer_size: int = 0
    seeds: tuple[int, int] = (0, 0)
    reshuffle: bool = True

    def indices(self, rows: int) -> tf.data.Dataset:
        """Returns batches of row numbers in the order in which the pipeline would give the rows."""
        indices = tf.data.Dataset.range(rows)
        if self.buffer_size:
            indices = self._shuffled(indices)
        return indices.batch(self.batch_size, drop_remainder=self.drop_remainder)

    def _shuffled(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        # `Dataset.shuffle` would mix in the global seed of now; that of then is in `seeds`.
        variant = tf.raw_ops.ShuffleDatasetV3(
            input_dataset=tf.data.experimental.to_variant(indices),
            buffer_size=self.buffer_size,
            seed=self.seeds[0],
            seed2=self.seeds[1],
            seed_generator=tf.raw_ops.DummySeedGenerator(),
            output_types=[tf.int64],
            output_shapes=[tf.TensorShape([])],
            reshuffle_each_iteration=self.reshuffle,
        )
        shuffled = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.int64))
        return shuffled.apply(tf.data.experimental.assert_cardinality(indices.cardinality()))


@dataclass(frozen=True)
class Given:
    """Row numbers that a dataset brings along, in step with its own order."""

    index_batches: tf.data.Dataset

    def indices(self, rows: int) -> tf.data.Dataset:
        """Returns batches of row numbers in the order in which the pipeline would give the rows."""
        return self.index_batches


@dataclass(frozen=True)
class Pipeline:
    """A pipeline whose rows are the same in every epoch.

    Attributes:
        dataset: The pipeline; to be read once.
        batch_size: Rows in a batch, at most.
        ordered: Whether it gives its rows in their own order, so that no shuffle is to be undone.
        order: How batches are made from the rows.
        identity: What stands for the content: a digest, or the dataset itself.
        transform: What is done to the images of each batch, if anything.
    """

    dataset: tf.data.Dataset
    batch_size: int
    ordered: bool
    order: Order | Given
    identity: Any
    transform: Callable[[Any], Any] | None = None


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
    if hasattr(dataset, "identity"):
        ordered = dataset.ordered
        order = Given(dataset.index_batches)
        size = _batch_size(ordered)
        return Pipeline(ordered, size, ordered=True, order=order, identity=dataset.identity)
    return _inspect_graph(dataset)


def _batch_size(dataset: tf.data.Dataset) -> int:
    return next(int(tf.shape(batch[0])[0]) for batch in dataset.take(1))


def _inspect_graph(dataset: tf.data.Dataset) -> Pipeline:
    batch, shuffle = None, None
    for stage in _stages(dataset):
        kind = type(stage).__name__
        if hasattr(stage, "identity"):
            given, ordered = Given(stage.index_batches), stage.shuffle_seed is None
            return Pipeline(dataset, _batch_size(stage.ordered), ordered, given, dataset)
        if kind in _BATCHES and batch is None:
            batch = stage
        elif kind == "_ShuffleDataset" and shuffle is None:
            shuffle = stage
            if batch is None:
                raise NotKeepable("it shuffles whole batches; shuffle before batching")
        elif kind not in _KEEP_ROWS and shuffle is None and stage._inputs():
            raise NotKeepable(f"it regroups rows ({kind.strip('_')})")
    if batch is None:
        raise NotKeepable("its last batching is hidden; batch the dataset as its last step")
    if shuffle is not None and bool(batch._drop_remainder):
        raise NotKeepable("it shuffles and drops the last rows, other ones in each epoch")
    order = Order(int(batch._batch_size), bool(batch._drop_remainder), **_shuffle(shuffle))
    size, ordered = order.batch_size, shuffle is None
    return Pipeline(dataset, size, ordered=ordered, order=order, identity=dataset)


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
        _refuse_random(function)
    if type(dataset).__name__ == "RandomDataset":
        raise NotKeepable("it draws random numbers")
    if type(dataset).__name__ == "CacheDataset":
        yield from (stage for stage in _unchecked(dataset) if type(stage).__name__ in _BATCHES)
        return
    for source in dataset._inputs():
        yield from _stages(source)


def _unchecked(dataset: Any) -> Iterator[Any]:
    for source in dataset._inputs():
        yield source
        yield from _unchecked(source)


def _refuse_random(function: Any) -> None:
    graph = function.function.graph.as_graph_def()
    operations = {node.op for node in graph.node}
    operations |= {node.op for inner in graph.library.function for node in inner.node_def}
    for operation in sorted(operations):
        if _RANDOM.search(operation):
            raise NotKeepable(f"it is random ({operation}): each epoch sees other images")
        if _OPAQUE.search(operation):
            raise NotKeepable("it calls Python code, which may be random; put .cache() after it")
