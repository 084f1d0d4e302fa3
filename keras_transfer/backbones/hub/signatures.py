"""Signatures of a SavedModel: the function of images, and the tensor that comes out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Entry:
    """A function of a module, the spec of its images, its outputs and its traces."""

    run: Callable[[Any], Any]
    given: tf.TensorSpec
    outputs: Any
    traces: Sequence[Any]


def traces_of(function: Any) -> list[Any]:
    """Returns the concrete functions of a restored function; none of anything else."""
    return list(getattr(function, "concrete_functions", ()))


def reusable(module: Any, arguments: dict[str, Any]) -> Entry:
    """Returns the function of a reusable SavedModel of TF-Hub: `module(images, training=...)`."""
    parameters = inspect.signature(module.__call__).parameters
    (first, *others) = parameters.values()
    _check_arguments(first.name, others, arguments)
    traces = traces_of(module.__call__)
    if "training" in parameters:
        arguments["training"], traces = _inference(list(parameters).index("training"), traces)
    specs = [_bound(trace, 0, first.name) for trace in traces]
    return Entry(
        run=lambda images: module(images, **arguments),
        given=_widest(specs, first.name),
        outputs=traces[0].structured_outputs,
        traces=traces,
    )


def _check_arguments(
    first: str, others: Sequence[inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    named = {p.name: p for p in others if p.kind is not p.VAR_KEYWORD and p.name != "training"}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in others)
    unknown = [name for name in arguments if not (open_ended or name in named)]
    missing = [n for n, p in named.items() if p.default is p.empty and n not in arguments]
    if unknown or missing or "training" in arguments:
        raise ValueError(
            f"arguments={dict(arguments)!r}: besides the images, {first!r}, the module takes "
            f"{list(named) or 'none'}, of which {missing or 'none'} must be given; "
            "`training` is always False."
        )


def _inference(place: int, traces: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Returns the value of `training` that means inference, and the traces that take it."""
    values = [(trace, _bound(trace, place, "training")) for trace in traces]
    for value in (False, None):
        if fitting := [trace for trace, given in values if given is value]:
            return value, fitting
    if fitting := [trace for trace, given in values if isinstance(given, tf.TensorSpec)]:
        return False, fitting
    raise ValueError(
        "The module was saved for training=True only. Expected a trace for training=False, in "
        "which its statistics stay as they are: export it again with both."
    )


def _bound(trace: Any, place: int, name: str) -> Any:
    positional, keywords = trace.structured_input_signature
    return positional[place] if place < len(positional) else keywords.get(name)


def _widest(specs: Sequence[Any], name: str) -> tf.TensorSpec:
    """Returns one spec for all traces, of floating point where there are such."""
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


def by_signature(module: Any, name: str | None, folder: Path) -> Entry:
    """Returns a signature with one input.

    Args:
        module: What TensorFlow loaded.
        name: The signature; `None` for the usual or the only one.
        folder: For the message.

    Raises:
        ValueError: If there is no such signature, or it has several inputs.
    """
    signatures = dict(getattr(module, "signatures", {}))
    if not signatures:
        raise ValueError(
            f"The SavedModel in {folder} cannot be called: it has neither traces of "
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
    return Entry(
        lambda images: function(**{key: images}), spec, function.structured_outputs, [function]
    )


def check_images(given: tf.TensorSpec) -> None:
    """Checks that an input is a batch of images, with channels last.

    Raises:
        ValueError: If it is something else, such as text.
    """
    is_number = given.dtype.is_floating or given.dtype.is_integer
    shape = given.shape
    channels_first = shape.rank == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
    if not is_number or shape.rank not in (None, 4) or channels_first:
        raise ValueError(
            f"The module takes {given.dtype.name} of shape {shape}. Expected a batch of images "
            "(batch, height, width, 3) as numbers, with channels last."
        )


def output_of(outputs: Any, key: str | int | None) -> Callable[[Any], Any]:
    """Returns a function from what the module returns to the wanted tensor."""
    if isinstance(outputs, tf.TensorSpec):
        if key is not None:
            raise ValueError(f"output={key!r}: the module gives one tensor. Leave it out.")
        return lambda result: result
    keys: list[Any] = sorted(outputs) if isinstance(outputs, Mapping) else [*range(len(outputs))]
    if key is None and "default" in keys:  # TF-Hub's name for the main output
        key = "default"
    if key is None and len(keys) == 1:
        key = keys[0]
    if key not in keys or not isinstance(outputs[key], tf.TensorSpec):
        shapes = ", ".join(f"{k!r}: {getattr(outputs[k], 'shape', '...')}" for k in keys)
        raise ValueError(
            f"output={key!r}: the module gives several tensors. Expected one of their keys: "
            f"{shapes}. Give it as HubModule(..., output={keys[-1] if keys else None!r})."
        )
    return lambda result: result[key]
