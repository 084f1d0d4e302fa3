"""A loaded SavedModel as one function of images, with what it demands and what it holds."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer.saved_model_files import DamagedModule, what_is_missing

# What TensorFlow raises when it loads a SavedModel of which bytes are missing or others.
_UNREADABLE = (OSError, tf.errors.OpError, ValueError, LookupError, RuntimeError, AssertionError)


@dataclass(frozen=True)
class Regularizer:
    """A loss of the module, and the variables that it is a loss of."""

    loss: Callable[[], Any]
    variables: tuple[Any, ...]


@dataclass(frozen=True)
class ModuleGraph:
    """What a SavedModel computes of images, in inference mode.

    Attributes:
        run: The function: images in, one tensor out.
        given: Shape and type of the images that it takes.
        gives: Shape and type of what comes out, as far as the graph tells.
        variables: All variables of the module.
        trainable: Whether each of them can train.
        order: Indices of `variables` in the order in which the network uses them.
        regularizers: The losses of the module's weights.
        is_reusable: Whether it has the interface of TF-Hub's modules.
        traces: The concrete functions behind it.
        module: What TensorFlow loaded.
    """

    run: Callable[[Any], Any]
    given: tf.TensorSpec
    gives: tf.TensorSpec
    variables: tuple[Any, ...]
    trainable: tuple[bool, ...]
    order: tuple[int, ...]
    regularizers: tuple[Regularizer, ...]
    is_reusable: bool
    traces: tuple[Any, ...]
    module: Any


@dataclass(frozen=True)
class _Callable:
    """One way into a module: a function, what it was traced with, and its traces."""

    run: Callable[[Any], Any]
    given: tf.TensorSpec
    outputs: Any
    traces: Sequence[Any]


def load_graph(
    folder: Path,
    *,
    signature: str | None = None,
    output: str | int | None = None,
    arguments: Mapping[str, Any] | None = None,
    values: bool = True,
) -> ModuleGraph:
    """Loads a SavedModel folder as a function of images.

    Args:
        folder: The folder.
        signature: The signature to call; `None` for `__call__`, or the only one that takes images.
        output: The key, or the place, of the output that is wanted where there are several.
        arguments: What `__call__` is given besides the images and `training=False`.
        values: Whether to read the values of the variables. Without, they must be assigned.

    Raises:
        DamagedModule: If files are missing, or cannot be read.
        ValueError: If it is no module that makes one tensor of images, or does not say which.
    """
    module = _loaded(folder, values)
    if hasattr(module, "prune"):  # what TensorFlow makes of a graph without objects
        raise ValueError(
            f"{folder} holds a module in the TF1 Hub format, or a SavedModel of TensorFlow 1. "
            "Expected one of TensorFlow 2: on tfhub.dev and Kaggle that is a higher version of "
            "the same module."
        )
    reusable = bool(_traces(getattr(module, "__call__", None)))  # noqa: B004
    if reusable and signature is None:
        entry = _reusable(module, dict(arguments or {}))
    else:
        if arguments:
            raise ValueError(f"arguments={arguments!r}: a signature takes none but the images.")
        entry = _signature(module, signature, folder)
    _check_images(entry.given)
    pick, gives = _output(entry.outputs, output)
    variables = _distinct(
        [
            *_listed(module, "variables"),
            *_listed(module, "trainable_variables"),
            *(variable for trace in entry.traces for variable in trace.variables),
        ]
    )
    used = [id(variable) for trace in entry.traces for variable in trace.variables]
    places = {key: place for place, key in reversed(list(enumerate(used)))}
    order = sorted(
        range(len(variables)), key=lambda i: (places.get(id(variables[i]), len(used)), i)
    )
    return ModuleGraph(
        run=lambda images: pick(entry.run(images)),
        given=entry.given,
        gives=gives,
        variables=variables,
        trainable=_trainable(module, variables),
        order=tuple(order),
        regularizers=tuple(_regularizers(module)),
        is_reusable=reusable,
        traces=tuple(entry.traces),
        module=module,
    )


def read_variables(graph: ModuleGraph, variables: Sequence[Any]) -> ModuleGraph:
    """Returns a graph that reads these variables in the place of its own, one for one."""
    pairs = list(zip(graph.variables, variables, strict=True))
    by_variable = {id(old): new for old, new in pairs}
    by_capture = {id(_capture(old)): _capture(new) for old, new in pairs}
    losses = [trace for regularizer in graph.regularizers for trace in _traces(regularizer.loss)]
    for trace in {id(trace): trace for trace in (*graph.traces, *losses)}.values():
        trace.set_variables([by_variable.get(id(one), one) for one in trace.variables])
        captured = [by_capture.get(id(one), one) for one in trace.captured_inputs]
        trace.set_external_captures(captured)
    return replace(
        graph,
        variables=tuple(variables),
        regularizers=tuple(
            replace(one, variables=tuple(by_variable.get(id(v), v) for v in one.variables))
            for one in graph.regularizers
        ),
    )


def _capture(variable: Any) -> Any:
    """What TensorFlow lets a function capture of a variable; the whole, where it has replicas."""
    return variable if getattr(variable, "is_distributed_variable", False) else variable.handle


def _loaded(folder: Path, values: bool) -> Any:
    if values and (problem := what_is_missing(folder)) is not None:
        raise DamagedModule(f"{folder} is no complete SavedModel: {problem}.")
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=not values)
    try:
        return tf.saved_model.load(str(folder), options=options)
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError, PermissionError):
        raise
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        if "not registered" in reason[0]:
            raise ValueError(
                f"{folder} needs an operation that this TensorFlow lacks: {reason[0]}. Import the "
                "package that brings it (such as tensorflow_text) first."
            ) from error
        raise DamagedModule(f"{folder} cannot be read as a SavedModel: {reason[0]}") from error


# ---- ways in


def _traces(function: Any) -> list[Any]:
    return list(getattr(function, "concrete_functions", ()))


def _reusable(module: Any, arguments: dict[str, Any]) -> _Callable:
    """The interface that TF-Hub calls a reusable SavedModel: `module(images, training=...)`."""
    parameters = inspect.signature(module.__call__).parameters
    (first, *others) = parameters.values()
    _check_arguments(first.name, others, arguments)
    traces = _traces(module.__call__)
    if "training" in parameters:
        arguments["training"], traces = _inference(list(parameters).index("training"), traces)
    specs = [_bound(trace, 0, first.name) for trace in traces]
    return _Callable(
        run=lambda images: module(images, **arguments),
        given=_widest(specs, first.name),
        outputs=traces[0].structured_outputs,
        traces=traces,
    )


def _check_arguments(
    first: str, others: Sequence[inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    named = [other for other in others if other.kind is not other.VAR_KEYWORD]
    open_ended = len(named) < len(others)
    unknown = [name for name in arguments if name not in {other.name for other in named}]
    if "training" in arguments or (unknown and not open_ended):
        known = [other.name for other in named if other.name != "training"]
        raise ValueError(
            f"arguments={dict(arguments)!r}: the module takes {known or 'no others'} besides "
            f"{first!r}; `training` is always False."
        )
    missing = [
        other.name
        for other in named
        if other.default is other.empty and other.name not in (*arguments, "training")
    ]
    if missing:
        raise ValueError(
            f"The module has several inputs: {first!r} and {', '.join(map(repr, missing))}. "
            f"Expected one, a batch of images. Give the others as arguments={{{missing[0]!r}: ...}}"
            ", if they are plain values."
        )


def _inference(place: int, traces: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The value of `training` that means inference, and the traces that take it."""
    values = [_bound(trace, place, "training") for trace in traces]
    for wanted in (False, None):
        fitting = [t for t, v in zip(traces, values, strict=True) if v is wanted]
        if fitting:
            return wanted, fitting
    fitting = [t for t, v in zip(traces, values, strict=True) if isinstance(v, tf.TensorSpec)]
    if fitting:
        return False, fitting
    raise ValueError(
        "The module was saved for training=True only. Expected a trace for training=False, in "
        "which its statistics stay as they are: export it again with both."
    )


def _bound(trace: Any, place: int, name: str) -> Any:
    positional, keywords = trace.structured_input_signature
    return positional[place] if place < len(positional) else keywords.get(name)


def _widest(specs: Sequence[Any], name: str) -> tf.TensorSpec:
    """One spec for all traces, of floating point where there are such."""
    plain = [spec for spec in specs if isinstance(spec, tf.TensorSpec)]
    if not plain:
        raise ValueError(
            f"The module's input {name!r} is {specs[0]!r}. Expected one tensor, a batch of images."
        )
    floating = [spec for spec in plain if spec.dtype.is_floating] or plain
    shape = floating[0].shape
    for spec in floating[1:]:
        shape = shape.most_specific_compatible_shape(spec.shape)
    return tf.TensorSpec(shape, floating[0].dtype)


def _signature(module: Any, name: str | None, folder: Path) -> _Callable:
    signatures = dict(getattr(module, "signatures", {}))
    if not signatures:
        raise ValueError(
            f"The SavedModel in {folder} can be called in no way: it has neither traces of "
            "__call__ nor signatures. Expected a TF-Hub module, or a model with a signature."
        )
    if name is None:
        usual = [key for key in ("serving_default", "default") if key in signatures]
        name = usual[0] if usual else next(iter(signatures)) if len(signatures) == 1 else None
    if name not in signatures:
        raise ValueError(
            f"signature={name!r}. Expected one of the module's: {sorted(signatures)}. Give it as "
            "HubModule(..., signature=...)."
        )
    function = signatures[name]
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise ValueError(
            f"Signature {name!r} has {len(inputs)} inputs: {sorted(inputs)}. Expected one, a batch "
            "of images."
        )
    ((key, spec),) = inputs.items()
    return _Callable(
        lambda images: function(**{key: images}), spec, function.structured_outputs, [function]
    )


# ---- what goes in and comes out


def _check_images(given: tf.TensorSpec) -> None:
    if given.dtype == tf.string:
        raise ValueError(
            "The module takes strings: it is one for text, or for encoded images. Expected one "
            "that takes a batch of images (batch, height, width, 3) as numbers."
        )
    if given.shape.rank not in (None, 4) or not (given.dtype.is_floating or given.dtype.is_integer):
        raise ValueError(
            f"The module takes {given.dtype.name} of shape {tuple(given.shape)}. Expected a batch "
            "of images (batch, height, width, 3)."
        )


def _output(outputs: Any, key: str | int | None) -> tuple[Callable[[Any], Any], tf.TensorSpec]:
    """How to take the wanted tensor from what the module returns, and its spec."""
    if isinstance(outputs, tf.TensorSpec):
        if key is not None:
            raise ValueError(f"output={key!r}: the module gives one tensor. Leave it out.")
        return (lambda result: result), outputs
    keys: list[Any] = sorted(outputs) if isinstance(outputs, Mapping) else [*range(len(outputs))]
    if key is None and "default" in keys:  # TF-Hub's name for what a module is there for
        key = "default"
    if key is None and len(keys) == 1:
        key = keys[0]
    if key not in keys:
        shapes = ", ".join(f"{k!r}: {getattr(outputs[k], 'shape', '...')}" for k in keys)
        raise ValueError(
            f"output={key!r}: the module gives several tensors. Expected one of their keys: "
            f"{shapes}. Give it as HubModule(..., output={keys[-1] if keys else None!r})."
        )
    if not isinstance(outputs[key], tf.TensorSpec):
        raise ValueError(f"Output {key!r} of the module is {outputs[key]!r}. Expected one tensor.")
    return (lambda result: result[key]), outputs[key]


# ---- what is in it


def _listed(module: Any, name: str) -> list[Any]:
    found = getattr(module, name, ())
    return [] if callable(found) else [one for one in found if isinstance(one, tf.Variable)]


def _distinct(variables: Sequence[Any]) -> tuple[Any, ...]:
    return tuple({id(variable): variable for variable in variables}.values())


def _trainable(module: Any, variables: Sequence[Any]) -> tuple[bool, ...]:
    listed = {id(variable) for variable in _listed(module, "trainable_variables")}
    has_list = hasattr(module, "trainable_variables")
    return tuple(
        variable.dtype.is_floating and (id(variable) in listed if has_list else variable.trainable)
        for variable in variables
    )


def _regularizers(module: Any) -> Iterator[Regularizer]:
    for loss in getattr(module, "regularization_losses", ()):
        variables = [one for trace in _traces(loss) for one in trace.variables]
        yield Regularizer(loss, _distinct(variables))


def moves_variables(graph: ModuleGraph, run: Callable[[], Any]) -> bool:
    """Whether a run in inference mode changes a variable, as one saved for training may.

    Args:
        graph: The module.
        run: Runs it once. It does so only if the graph has an operation that assigns at all.
    """
    if not any(_assigns(trace.graph) for trace in graph.traces):
        return False
    before = [variable.numpy() for variable in graph.variables]
    run()
    after = [variable.numpy() for variable in graph.variables]
    return any((a != b).any() for a, b in zip(before, after, strict=True))


def _assigns(graph: Any) -> bool:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return any(re.fullmatch(r"Assign\w*VariableOp|\w*ScatterUpdate", node.op) for node in nodes)
