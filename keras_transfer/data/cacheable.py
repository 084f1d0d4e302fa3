"""What may not be kept: functions of a pipeline that are random, change, or mix rows."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_RANDOM = re.compile(
    r"Random|Multinomial|Poisson|Binomial|Generator|TruncatedNormal|Sample|Shuffle|^Rng"
    r"|Stateful(Uniform|StandardNormal)|^Assign"
)
_CHANGING = re.compile(r"ReadVariable|^Variable|ResourceGather|^Lookup|Mutable|Timestamp|GetNext")
_OPAQUE = re.compile(r"PyFunc")


class NotKeepable(Exception):
    """Raised with the reason why the rows of a pipeline cannot be computed once."""


def refuse_random(function: Any) -> None:
    """Refuses a function of a pipeline that may give something else in the next epoch."""
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


def check_rows_apart(maps: Iterable[Any]) -> None:
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
