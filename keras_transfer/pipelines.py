"""What a pipeline of data does to its rows: whether they stay the same, and in what order."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.fingerprints import digest_of

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
_RANDOM = re.compile(
    r"Random|Multinomial|Poisson|Binomial|Generator|TruncatedNormal|Sample|Shuffle|^Rng"
    r"|Stateful(Uniform|StandardNormal)|^Assign"
)
_CHANGING = re.compile(r"ReadVariable|^Variable|ResourceGather|^Lookup|Mutable|Timestamp|GetNext")
_OPAQUE = re.compile(r"PyFunc")
ROW_NUMBERS = "_keras_transfer_row_numbers"  # what `RowNumbers` of a dataset are known by
_TRIED = 8  # batches of a PyDataset that are read twice, to see whether they stay the same
_WITH_STATE = ("_ShuffleDataset", "RandomDataset")
_SEEDED_ANEW = ("ShuffleDatasetV3", "RandomDatasetV2")


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


@dataclass(frozen=True)
class Pipeline:
    """Batches whose rows are the same in every epoch.

    Attributes:
        read: Gives the batches from a number on, once.
        batches: How many there are.
        batch_size: Rows in a batch, at most.
        ordered: Whether it gives its rows in their own order, so that no shuffle is to be undone.
        order: How batches are made from the rows.
        identity: What stands for the content: a digest, or an object.
        content: Gives a digest of the content of the files, if there are any.
        columns: Labels and so on for all rows, where they are known without reading.
        sample: A digest of some of it, where the object may come to give something else.
        even: Whether all batches but the last have `batch_size` rows.
    """

    read: Callable[[int], Iterable[Any]]
    batches: int
    batch_size: int
    ordered: bool
    order: Order | Given
    identity: Any
    content: Callable[[], str] | None = None
    columns: tuple[np.ndarray, ...] | None = None
    sample: str = ""
    even: bool = True


def of_array(images: np.ndarray, batch_size: int) -> Pipeline:
    """Returns the pipeline of an array of images, known by its content."""
    count = math.ceil(len(images) / batch_size)

    def read(start: int) -> Iterator[tuple[np.ndarray]]:
        for batch in range(start, count):
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
        once, again = (tf.nest.flatten(dataset[number]) for _ in range(2))
        if not all(np.array_equal(a, b) for a, b in zip(once, again, strict=True)):
            raise NotKeepable(f"the {kind.__name__} gives another batch each time it is asked")
        sample += "".join(digest_of(np.asarray(part)) for part in once)
    size = len(tf.nest.flatten(dataset[0])[0])

    def read(start: int) -> Iterator[Any]:
        for number in range(start, count):
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
        ordered = dataset.ordered
        return Pipeline(
            _from(ordered),
            batches,
            _batch_size(ordered),
            ordered=True,
            order=Given(dataset.index_batches),
            identity=dataset.identity,
            content=dataset.content,
            columns=(dataset.labels,),
        )
    return _inspect_graph(dataset, batches)


def _check_structure(spec: Any) -> None:
    parts = spec if isinstance(spec, tuple) else (spec,)
    if not (1 <= len(parts) <= 3 and all(isinstance(part, tf.TensorSpec) for part in parts)):
        raise NotKeepable(
            "it does not give batches of (images, labels) or (images, labels, weights), each one "
            "dense tensor"
        )


def _from(dataset: tf.data.Dataset) -> Callable[[int], tf.data.Dataset]:
    return lambda start: dataset.skip(start) if start else dataset


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
                _check_rows_apart(maps)
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
        _check_rows_apart(maps)
    order = Order(int(batch._batch_size), bool(batch._drop_remainder), **_shuffle(shuffle))
    return Pipeline(_from(dataset), batches, order.batch_size, shuffle is None, order, dataset)


def _check_rows_apart(maps: Iterable[Any]) -> None:
    """Refuses maps that make a row of a batch from several, other ones after each shuffle.

    Each is tried on a few rows, and on the same rows in other places among brighter ones.
    """
    generator = np.random.default_rng(0)
    for stage in maps:
        (function,) = stage._functions()
        specs = tf.nest.flatten(stage._inputs()[0].element_spec)
        try:
            dark, bright = ([_some(spec, generator, light) for spec in specs] for light in (0.3, 1))
            first = tf.nest.flatten(function.function(*map(tf.constant, dark)))
            apart = all(
                _stay(first, function, dark, bright, kept) for kept in _halves(len(dark[0]))
            )
        except (tf.errors.OpError, ValueError, TypeError, IndexError) as error:
            raise NotKeepable(
                "whether a map after its batching keeps rows apart could not be tried; put it "
                "before the batching"
            ) from error
        if not apart:
            raise NotKeepable(
                "a map after its batching mixes the rows of a batch, other ones in each epoch"
            )


def _halves(rows: int) -> tuple[np.ndarray, ...]:
    """Every other row, and the others; a row that is alone has no others."""
    return (np.arange(0, rows, 2), np.arange(1, rows, 2)) if rows > 1 else ()


def _stay(
    first: Sequence[Any],
    function: Any,
    dark: Sequence[np.ndarray],
    bright: Sequence[np.ndarray],
    kept: np.ndarray,
) -> bool:
    """Whether rows give the same in other places, among others."""
    to = len(dark[0]) - 1 - kept
    mixed = [np.array(part) for part in bright]
    for part, source in zip(mixed, dark, strict=True):
        part[to] = source[kept]
    second = tf.nest.flatten(function.function(*map(tf.constant, mixed)))
    return all(
        len(a) == len(b) == len(dark[0]) and _alike(np.asarray(a)[kept], np.asarray(b)[to])
        for a, b in zip(first, second, strict=True)
    )


def _some(spec: tf.TensorSpec, generator: np.random.Generator, light: float) -> np.ndarray:
    """A few rows such as a specification describes, as dark or bright as asked."""
    rows, *sizes = spec.shape.as_list()
    shape = (rows or 4, *(size or 32 for size in sizes))
    if spec.dtype == tf.string:
        return generator.integers(0, 2, shape).astype(str).astype(bytes).astype(object)
    pixels = spec.dtype == tf.uint8 or spec.dtype.is_floating  # else labels, 0 or 1
    most = int(256 * light) if pixels else 2
    return generator.integers(0, most, shape).astype(spec.dtype.as_numpy_dtype)


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "fc":
        return np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
    return np.array_equal(a, b)


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
        yield from (stage for stage in all_stages(dataset) if type(stage).__name__ in _BATCHES)
        return
    for source in dataset._inputs():
        yield from _stages(source)


def _refuse_random(function: Any) -> None:
    graph = function.function.graph.as_graph_def()
    operations = {node.op for node in graph.node}
    operations |= {node.op for inner in graph.library.function for node in inner.node_def}
    for operation in sorted(operations):
        if _RANDOM.search(operation):
            raise NotKeepable(f"it is random ({operation}): each epoch sees other images")
        if _CHANGING.search(operation):
            raise NotKeepable(
                f"it reads what may change meanwhile ({operation}); put .cache() after it if it "
                "does not"
            )
        if _OPAQUE.search(operation):
            raise NotKeepable("it calls Python code, which may be random; put .cache() after it")


def all_stages(dataset: Any) -> Iterator[Any]:
    """Gives a dataset and all that it is made from (`_inputs`: as tf.data's own debugging does)."""
    yield dataset
    for source in dataset._inputs():
        yield from all_stages(source)


def fresh_copy(dataset: Any) -> Any:
    """Returns the same pipeline, with shuffles as they stand before the dataset's first epoch.

    What is too large to be written as a graph (2 GB of arrays in the dataset itself) stays.
    """
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
    return tf.data.experimental.from_variant(variant, dataset.element_spec)
