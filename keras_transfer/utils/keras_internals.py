"""Private names of Keras and TensorFlow, each with the reason why no public one does."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras


def logits_of(outputs: Any) -> Any:
    """Returns what the last sigmoid or softmax was given; None if Keras did not note it.

    Private name: `_keras_logits`, which Keras' activations set on their result so that losses can
    use it. No public API leads from an output back to its logits, and the gradient of a
    probability close to 1 is lost in float32.
    """
    return getattr(outputs, "_keras_logits", None)


# ------------------------------------------------------------------------------- of backbones
def in_symbolic_scope() -> bool:
    """Returns whether Keras asks a call only for the shape of its result.

    Private: `keras.src.backend.common.symbolic_scope.in_symbolic_scope`. A traced function looks
    the same from within a layer, and there are no public names to tell the two apart.
    """
    from keras.src.backend.common import symbolic_scope

    return symbolic_scope.in_symbolic_scope()


def in_safe_mode() -> bool | None:
    """Returns whether a model file is being loaded that nobody trusts; `None` if none is loaded.

    Private: `keras.src.saving.serialization_lib.in_safe_mode`, which Keras' own TFSMLayer asks,
    too. What a caller passes to `load_model(safe_mode=...)` is not handed to layers.
    """
    from keras.src.saving import serialization_lib

    return serialization_lib.in_safe_mode()


def layers_of(layer: Any) -> Iterator[Any]:
    """Yields a model and all its layers, at any depth.

    Private: `Layer._flatten_layers`. The public `layers` are those of one level, and leave out
    layers in attributes of subclassed layers.
    """
    yield from layer._flatten_layers()


def nodes_of(model: Any) -> list[Any]:
    """Returns the calls of a functional model in the order in which they run.

    Private: `Functional._nodes_by_depth`. The public `layer.output` is ambiguous for a layer that
    was called twice, as every layer of a model is once a model of its inner tensors has been made.
    """
    by_depth = model._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def automatic_name(operation: Any) -> str:
    """Returns the name, without a number, that Keras gives to a layer that has none.

    Private: `keras.src.utils.naming.to_snake_case`. Publicly, only making a layer tells.
    """
    from keras.src.utils.naming import to_snake_case

    return to_snake_case(type(operation).__name__)


def checksum_of_graph(folder: Path) -> int:
    """Returns the checksum of the graph in a SavedModel folder, computed anew.

    Private: `tensorflow.python.saved_model.pywrap_saved_model.fingerprinting`. The public
    `read_fingerprint` only reads the checksum that was written, and never checks it.
    """
    from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    content = fingerprinting.CreateFingerprintDef(str(folder))
    return FingerprintDef.FromString(content).saved_model_checksum


def declare_functions() -> None:
    """Adds all functions that are called in the graph that is being traced to it, at any depth.

    TensorFlow makes a call inside a function one of its `__forward_` version when a gradient of it
    is taken, and tells the graph of that function alone, not those that call the function later.
    OpenVINO, which looks in the outermost graph, would not find it.

    Private: `Graph._functions` and `Graph._add_function_recursive`. There are no public names.
    """
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    if not graph.building_function:
        return
    unseen = list(graph._functions.values())
    seen = {function.name for function in unseen}
    while unseen:
        for function in getattr(unseen.pop().graph, "_functions", {}).values():
            if function.name not in seen:
                graph._add_function_recursive(function)
                seen.add(function.name)
                unseen.append(function)


def calling_list(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """Returns the list that is calling a method of a callback, `None` if none is.

    Keras tells callbacks nothing of each other, and what `BackupAndRestore` saves at the end of an
    epoch must hold what another callback decides then. So the list is found among the callers.
    """
    for caller in inspect.stack(0):
        callbacks = caller.frame.f_locals.get("self")
        if isinstance(callbacks, keras.callbacks.CallbackList) and callback in callbacks.callbacks:
            return callbacks
    return None


def set_optimizer(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Gives a compiled model another optimizer, also in its file.

    `Model._compile_config`: `save` writes the optimizer that `compile` was called with, and Keras
    removes it from there when it writes a legacy `.h5` file. Compiling again would lose metrics.
    """
    config = model._compile_config.config
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        if model.optimizer.inner_optimizer is not optimizer:
            model.optimizer.inner_optimizer = optimizer
    elif model.optimizer is not optimizer:
        model.optimizer = optimizer
    compiled = config.get("optimizer")
    if not isinstance(compiled, keras.optimizers.LossScaleOptimizer):
        config["optimizer"] = model.optimizer if compiled is None else optimizer


def retrace(model: keras.Model) -> None:
    """Makes the next step see which weights train, and which optimizer steps them.

    `Model._compiled_trainable_state`: `compile` notes the trainable flags, and Keras warns when
    they differ, as if the change had no effect.
    """
    if model.train_function is not None:
        model.make_train_function(force=True)
    model._compiled_trainable_state = {layer: layer.trainable for layer in layers_of(model)}


def build_metrics(model: keras.Model, labels: Any, outputs: Any) -> None:
    """Makes the variables of a compiled model's metrics, for shapes of labels and outputs.

    `Model._compile_metrics`: Keras makes them in the first batch, and TensorFlow traces a step
    twice that makes variables.
    """
    metrics = model._compile_metrics
    if metrics is not None and not metrics.built:
        metrics.build(keras.KerasTensor(labels), keras.KerasTensor(outputs))


def resumed_epoch(model: keras.Model, epoch: int) -> int:
    """Returns the epoch that a callback resumes training with, else the given one.

    `Model._initial_epoch`: `BackupAndRestore` leaves the epoch there, for one `fit`.
    """
    resumed, model._initial_epoch = model._initial_epoch, None
    return resumed or epoch


def is_evaluation_of_fit(arguments: Mapping[str, Any]) -> bool:
    """Returns whether these are the arguments of `evaluate` when `fit` calls it.

    `_use_cached_eval_dataset`: the only argument that `fit` gives and users do not.
    """
    return bool(arguments.get("_use_cached_eval_dataset"))


def stepped_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Returns the variables that a built optimizer has slots for.

    `Optimizer._trainable_variables`: `variables` holds the slots only.
    """
    return optimizer._trainable_variables


def name_variables(variables: Sequence[keras.Variable], prefix: str) -> None:
    """Gives each variable a path of its own, as `.h5` files need.

    `Variable._path`: Keras gives some paths twice, those of Adafactor even within an optimizer.
    """
    for number, variable in enumerate(variables):
        variable._path = f"{prefix}:{number}"


def weight_decay_exclusions(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns the attributes that `exclude_from_weight_decay` has set, which no config holds.

    `Optimizer._exclude_from_weight_decay` and `Optimizer._exclude_from_weight_decay_pattern`.
    """
    names = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
    return {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}


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
