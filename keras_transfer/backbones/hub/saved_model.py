"""A loaded SavedModel as a function of images, with its variables and losses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer.backbones.hub.files import DamagedModule, what_is_missing
from keras_transfer.backbones.hub.signatures import (
    by_signature,
    check_images,
    output_of,
    reusable,
    traces_of,
)
from keras_transfer.utils.keras_internals import checksum_of_graph

# Errors of the machine, not of the files.
_NOT_DAMAGE = (
    tf.errors.ResourceExhaustedError,
    tf.errors.PermissionDeniedError,
    PermissionError,
    MemoryError,
)


@dataclass(frozen=True)
class Regularizer:
    """A loss of the module, and the variables that it is a loss of."""

    loss: Callable[[], Any]
    variables: tuple[Any, ...]


@dataclass(frozen=True)
class ModuleGraph:
    """The function of images that a SavedModel computes in inference mode.

    Attributes:
        run: The function: images in, one tensor out.
        given: Shape and type of the images that it takes.
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
    variables: tuple[Any, ...]
    trainable: tuple[bool, ...]
    order: tuple[int, ...]
    regularizers: tuple[Regularizer, ...]
    is_reusable: bool
    traces: tuple[Any, ...]
    module: Any


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
    is_reusable = bool(traces_of(getattr(module, "__call__", None)))  # noqa: B004
    if is_reusable and signature is None:
        entry = reusable(module, dict(arguments or {}))
    else:
        if arguments:
            raise ValueError(f"arguments={arguments!r}: a signature takes none but the images.")
        entry = by_signature(module, signature, folder)
    check_images(entry.given)
    pick = output_of(entry.outputs, output)
    traced = [variable for trace in entry.traces for variable in trace.variables]
    variables = _distinct(
        [*_listed(module, "variables"), *_listed(module, "trainable_variables"), *traced]
    )
    used = [id(variable) for variable in _distinct(traced)]
    order = sorted(
        range(len(variables)),
        key=lambda i: used.index(id(variables[i])) if id(variables[i]) in used else len(used),
    )
    return ModuleGraph(
        run=lambda images: pick(entry.run(images)),
        given=entry.given,
        variables=variables,
        trainable=_trainable(module, variables, is_reusable),
        order=tuple(order),
        regularizers=tuple(_regularizers(module)),
        is_reusable=is_reusable,
        traces=tuple(entry.traces),
        module=module,
    )


def read_variables(graph: ModuleGraph, variables: Sequence[Any]) -> ModuleGraph:
    """Returns a graph that reads these variables in the place of its own, one for one."""
    pairs = list(zip(graph.variables, variables, strict=True))
    by_variable = {id(old): new for old, new in pairs}
    by_capture = {id(_capture(old)): _capture(new) for old, new in pairs}
    losses = [trace for regularizer in graph.regularizers for trace in traces_of(regularizer.loss)]
    for trace in {id(trace): trace for trace in (*graph.traces, *losses)}.values():
        trace.set_variables([by_variable.get(id(v), v) for v in trace.variables])
        captured = [by_capture.get(id(x), x) for x in trace.captured_inputs]
        trace.set_external_captures(captured)
    return replace(
        graph,
        variables=tuple(variables),
        regularizers=tuple(
            replace(r, variables=tuple(by_variable.get(id(v), v) for v in r.variables))
            for r in graph.regularizers
        ),
    )


def _capture(variable: Any) -> Any:
    """Returns what a function captures of a variable: all of it if it has replicas."""
    return variable if getattr(variable, "is_distributed_variable", False) else variable.handle


def _loaded(folder: Path, values: bool) -> Any:
    if values and (problem := what_is_missing(folder)) is not None:
        raise DamagedModule(f"{folder} is no complete SavedModel: {problem}.")
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=not values)
    try:
        module = tf.saved_model.load(str(folder), options=options)
    except _NOT_DAMAGE:
        raise
    except Exception as error:  # bytes that are missing or others can raise nearly anything
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        if "not registered" in reason[0]:
            raise ValueError(
                f"{folder} needs an operation that this TensorFlow lacks: {reason[0]}. Import the "
                "package that brings it (such as tensorflow_text) first."
            ) from error
        raise DamagedModule(f"{folder} cannot be read as a SavedModel: {reason[0]}") from error
    _check_fingerprint(folder, module)
    return module


def _check_fingerprint(folder: Path, module: Any) -> None:
    """Checks a graph by the fingerprint that TensorFlow writes beside it, but never checks.

    The values of variables have checksums of their own, the constants of a graph have none. Only
    the version that wrote a fingerprint is sure to compute the same.
    """
    path = folder / "fingerprint.pb"
    if not path.is_file() or module.tensorflow_version != tf.version.VERSION:
        return
    try:
        expected = tf.saved_model.experimental.read_fingerprint(str(folder)).saved_model_checksum
    except RuntimeError as error:
        raise DamagedModule(f"{folder} is damaged: {path.name} cannot be read.") from error
    if checksum_of_graph(folder) != expected:
        raise DamagedModule(f"{folder} is damaged: its graph does not fit {path.name}.")


def _listed(module: Any, name: str) -> list[Any]:
    listed = getattr(module, name, ())
    return [] if callable(listed) else [v for v in listed if isinstance(v, tf.Variable)]


def _distinct(variables: Sequence[Any]) -> tuple[Any, ...]:
    return tuple({id(variable): variable for variable in variables}.values())


def _trainable(module: Any, variables: Sequence[Any], is_reusable: bool) -> tuple[bool, ...]:
    """Returns which variables can train: those that a reusable module lists.

    Keras' export writes such a list, too, but of what trained when it was written: it is empty for
    a frozen network. There, each variable's own flag tells weights from statistics; Keras never
    changes it when a layer is frozen.
    """
    listed = {id(variable) for variable in _listed(module, "trainable_variables")}
    has_list = is_reusable and hasattr(module, "trainable_variables")
    return tuple(
        v.dtype.is_floating and (id(v) in listed or (v.trainable and not has_list))
        for v in variables
    )


def _regularizers(module: Any) -> Iterator[Regularizer]:
    for loss in getattr(module, "regularization_losses", ()):
        variables = [v for trace in traces_of(loss) for v in trace.variables]
        yield Regularizer(loss, _distinct(variables))
