"""Private names of Keras and TensorFlow that the package needs, each with its reason.

Each function names what it uses and why no public API does; a test notices when it changes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# ---- data


def dataset_stages(dataset: Any) -> Iterator[Any]:
    """Yields a tf.data pipeline and all datasets that it is made from, the last step first.

    `Dataset._inputs`: tf.data has no public way to look into a pipeline; its own distribution and
    debugging code use this.
    """
    yield dataset
    for source in dataset._inputs():
        yield from dataset_stages(source)


def dataset_inputs(dataset: Any) -> list[Any]:
    """Returns the datasets that one step of a tf.data pipeline reads (`Dataset._inputs`)."""
    return dataset._inputs()


def dataset_kind(dataset: Any) -> str:
    """Returns the name of a step, such as "Map", "Batch", "Shuffle" or "Cache".

    The classes of steps, such as `_ParallelMapDataset`, are private; there is no other mark.
    """
    return type(dataset).__name__.strip("_").removesuffix("Dataset").removeprefix("Parallel")


def stateful_operations(dataset: Any) -> set[str]:
    """Returns the operations in the functions of a step that may give something else each time.

    `Dataset._functions` holds the functions, for which there is no public name, and
    `op_def_registry` tells whether an operation is stateful: the public `Operation.op_def` does not
    reach into functions called by functions.
    """
    from tensorflow.python.framework import op_def_registry

    operations: set[str] = set()
    for function in dataset._functions():
        graph = function.function.graph.as_graph_def()
        operations |= {node.op for node in graph.node}
        operations |= {node.op for inner in graph.library.function for node in inner.node_def}
    definitions = {operation: op_def_registry.get(operation) for operation in operations}
    # Calls and branches are marked stateful for what they may contain, which is looked at, too.
    calls = {"Case", "If", "StatefulPartitionedCall", "While"}
    checks = {"Assert", "CheckNumerics", "CheckNumericsV2", "Print", "PrintV2"}
    stateful = {name for name, known in definitions.items() if known and known.is_stateful}
    return stateful - calls - checks


def batch_arguments(stage: Any) -> tuple[int, bool]:
    """Returns the batch size of a batching step, and whether it drops a smaller last batch.

    `_batch_size` and `_drop_remainder`: a dataset tells neither in public.
    """
    return int(stage._batch_size), bool(stage._drop_remainder)


def shuffle_arguments(stage: Any) -> dict[str, Any]:
    """Returns buffer size, the two seeds and whether each pass has another order, of a shuffle.

    `_buffer_size`, `_seed`, `_seed2` and `_reshuffle_each_iteration`: a dataset tells none in
    public, and the seeds take in the global seed of the moment when it was made.
    """
    return {
        "buffer_size": int(stage._buffer_size),
        "seeds": (int(stage._seed), int(stage._seed2)),
        "reshuffle": bool(stage._reshuffle_each_iteration),
    }


def array_batches(
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | str = False,
    class_weight: Mapping[int, float] | None = None,
) -> Any:
    """Returns arrays as the dataset of batches that `fit` would train on.

    `ArrayDataAdapter`: the order in which `fit` shuffles arrays has no public name. The arguments
    are those of `fit`; class weights become sample weights, as `fit` does with arrays.
    """
    import tensorflow as tf
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

    adapter = ArrayDataAdapter(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=shuffle,
        class_weight=class_weight,
    )
    counted = tf.data.experimental.assert_cardinality(adapter.num_batches)
    return adapter.get_tf_dataset().apply(counted)


def layers_within(layer: Any) -> list[Any]:
    """Returns a layer and all layers within it, the outermost first.

    `Layer._flatten_layers`: a layer's own list of sub-layers is not public.
    """
    return list(layer._flatten_layers())
