"""In what order a pipeline gives its rows, and how to give them in that order again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

_ORIGINAL = "_keras_transfer_original"  # what a fresh copy is one of
ROW_NUMBERS = "_keras_transfer_row_numbers"  # what `RowNumbers` of a dataset are known by
_WITH_STATE = ("_ShuffleDataset", "RandomDataset")
_SEEDED_ANEW = ("ShuffleDatasetV3", "RandomDatasetV2")


def prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes the next two batches while the model is busy.

    Without tf.data's autotuning, which has nothing to tune here: under it, on two cores, two epochs
    in five took twice as long, with both cores idle half of the time (TensorFlow 2.21). And without
    its rewriting of graphs, for which it copies each tensor that a function holds: all activations
    that are kept in RAM.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.prefetch(2).with_options(options)


@dataclass
class RowNumbers:
    """Row numbers of a dataset, kept with it, since its order goes on from fit to fit.

    Attributes:
        to_train: In the order of the epochs that come next.
        as_read: In the order that reading the dataset itself has next.
    """

    to_train: tf.data.Dataset | None = None
    as_read: tf.data.Dataset | None = None


def row_numbers(dataset: tf.data.Dataset) -> RowNumbers:
    """Returns the row numbers that are kept with a dataset."""
    if getattr(dataset, ROW_NUMBERS, None) is None:
        setattr(dataset, ROW_NUMBERS, RowNumbers())
    return getattr(dataset, ROW_NUMBERS)


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

    @property
    def apart(self) -> bool:
        """Whether the order of the pipeline itself stands still while that of `indices` goes on."""
        return self.buffer_size > 0 and self.reshuffle

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
    """Row numbers that a dataset brings along, in step with its own order.

    Attributes:
        index_batches: Batches of row numbers.
        afresh: Whether to begin with its first epoch each time.
    """

    index_batches: tf.data.Dataset
    afresh: bool = False

    @property
    def apart(self) -> bool:
        """Whether the order of the pipeline itself stands still while that of `indices` goes on."""
        return self.afresh

    def indices(self, rows: int) -> tf.data.Dataset:
        """Returns batches of row numbers in the order in which the pipeline would give the rows."""
        return fresh_copy(self.index_batches) if self.afresh else self.index_batches


def all_stages(dataset: Any) -> Iterator[Any]:
    """Gives a dataset and all that it is made from (`_inputs`: as tf.data's own debugging does)."""
    yield dataset
    for source in dataset._inputs():
        yield from all_stages(source)


def begin_again(dataset: Any) -> None:
    """Makes the next fit on kept rows of a dataset see the order of the first one.

    Without, it goes on where the last one ended, as fits on the dataset itself do.
    """
    if hasattr(dataset, "index_batches"):
        dataset.index_batches = fresh_copy(dataset.index_batches)
    row_numbers(dataset).to_train = None


def fresh_copy(dataset: Any) -> Any:
    """Returns the same pipeline, with shuffles as they stand before the dataset's first epoch.

    What is too large to be written as a graph (2 GB of arrays in the dataset itself) stays.
    """
    dataset = getattr(dataset, _ORIGINAL, dataset)  # whose stages are known by their types
    if not any(type(stage).__name__ in _WITH_STATE for stage in all_stages(dataset)):
        return dataset
    variant = tf.data.experimental.to_variant(dataset)
    try:
        # 1: no warning of functions that call Python; they are found again in the same process.
        written = tf.raw_ops.DatasetToGraphV2(
            input_dataset=variant, external_state_policy=1, strip_device_assignment=False
        )
    except tf.errors.OpError:
        return dataset
    graph = tf.compat.v1.GraphDef.FromString(written.numpy())
    for node in list(graph.node):
        if node.op in _SEEDED_ANEW:
            new = graph.node.add(op="DummySeedGenerator", name=f"{node.name}/seeds")
            node.input[4 if node.op == "ShuffleDatasetV3" else 2] = new.name
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    copy = tf.data.experimental.from_variant(variant, dataset.element_spec)
    setattr(copy, _ORIGINAL, dataset)
    return copy
