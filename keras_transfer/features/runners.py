"""Runs the frozen part of a backbone: by Keras, or faster by OpenVINO where that is installed."""

import importlib.util
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.utils.optional_imports import import_openvino

# Keras' CPU kernels run fastest on small batches: more fits into the processor's cache.
CPU_BATCH = 16

# OpenVINO takes a few seconds to begin; it is worth that when Keras would need longer than this.
WORTH_SECONDS = 10.0

# What OpenVINO may differ from Keras by, relative to the largest activation: rounding in float32.
_TOLERANCE = 1e-5

# So many rows show whether layers still give what they gave.
SOME_ROWS = 2

# The relative difference of float32 activations between machines, and between Keras and OpenVINO,
# that is rounding; and the spacing of numbers near 1 in less precise types.
_TRUE_TO = 1e-4
_STEPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}

Runner = Callable[[Any], np.ndarray]

# By block, for as long as a backbone lives.
_TRACED: weakref.WeakKeyDictionary[FrozenBackbone, dict[str, Any]] = weakref.WeakKeyDictionary()


def by_keras(backbone: FrozenBackbone, after: str) -> Runner:
    """Returns a function of images, or of cached activations, that gives those after a block.

    It is traced once for all data. Since a traced function keeps what the layers did at that time,
    the first rows of each later call are computed by the layers themselves, too, and compared.
    """
    traced = _TRACED.setdefault(backbone, {})
    unchecked = after in traced

    def runner(inputs: Any) -> np.ndarray:
        nonlocal unchecked
        if unchecked:
            unchecked, some = False, tf.nest.map_structure(lambda x: x[:SOME_ROWS], inputs)
            if not alike(traced[after](some).numpy(), by_layers(backbone, after, some)):
                del traced[after]
        if after not in traced:
            traced[after] = _traceable(backbone, after)
            # Once for batches of whatever size.
            traced[after].get_concrete_function(tf.nest.map_structure(_any_rows, inputs))
        return np.concatenate([traced[after](x).numpy() for x in _chunks(inputs)])

    return runner


def by_layers(backbone: FrozenBackbone, after: str, inputs: Any) -> np.ndarray:
    """Returns activations computed by the layers themselves, without a traced function.

    A traced function keeps the Python values of its time, of a global variable for example. This
    one sees those of now, and is slower.
    """
    tensors = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    return backbone.activations(tensors, after=after)[f"after:{after}"].numpy()


def alike(kept: np.ndarray, computed: np.ndarray) -> bool:
    """Returns whether activations differ by no more than rounding does.

    They are compared by the size of each channel, so that large ones hide no change in small ones;
    and a quarter of the size of all, for what was rounded within the layers.

    Args:
        kept: Activations `(rows, ..., channels)`, in the type in which they are kept.
        computed: The same rows, in the type in which they were computed.
    """
    if kept.shape != computed.shape:
        return False
    rounding = max(_TRUE_TO, _STEPS.get(kept.dtype.name, 0.0), 8 * _step_of(computed))
    a, b = kept.astype("float64"), computed.astype("float64")
    size = np.abs(np.nan_to_num(b, nan=0.0, posinf=0.0, neginf=0.0))
    sizes = size.max(axis=tuple(range(size.ndim - 1)), initial=0.0)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= rounding * (sizes + size.max(initial=0.0) / 4)
    return bool(np.all(near | (a == b) | (np.isnan(a) & np.isnan(b))))


def _step_of(computed: np.ndarray) -> float:
    """Returns the spacing of numbers near 1 where it is coarser than float32, else 0."""
    # By default, GPUs multiply float32 with the precision of float16 (TensorFloat-32).
    gpu = tf.config.list_logical_devices("GPU")
    if gpu and tf.config.experimental.tensor_float_32_execution_enabled():
        return max(_STEPS["float16"], _STEPS.get(computed.dtype.name, 0.0))
    return _STEPS.get(computed.dtype.name, 0.0)


def _traceable(backbone: FrozenBackbone, after: str) -> Any:
    weak = weakref.proxy(backbone)  # which would never be forgotten if this held it
    # Keras' own functions are as they are written, too: `fit` runs nothing that this does not.
    return tf.function(
        lambda x: weak.activations(x, after=after)[f"after:{after}"],
        autograph=False,
        reduce_retracing=True,
    )


def _any_rows(batch: Any) -> tf.TensorSpec:
    return tf.TensorSpec((None, *batch.shape[1:]), batch.dtype)


def by_openvino(backbone: FrozenBackbone, after: str, inputs: Any) -> Runner | None:
    """Returns the same function as `by_keras`, made by OpenVINO, where that is possible.

    Args:
        backbone: The backbone.
        after: A block's name, or `"pooling"`.
        inputs: A batch of inputs, on which the two are compared.

    Returns:
        The function; `None` without the extra `fast`, on a GPU, or in half precision. A warning
        tells of a backbone that OpenVINO cannot convert or computes differently.
    """
    if not _is_at_hand():
        return None
    ((key, batch),) = inputs.items() if isinstance(inputs, Mapping) else ((None, inputs),)
    expected = by_keras(backbone, after)(inputs)
    if expected.dtype != np.float32:
        return None
    try:
        compiled = _compile(backbone, after, key, np.asarray(batch))
    except Exception as error:  # of OpenVINO, of whatever kind; the plain way remains
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        warnings.warn(
            f"OpenVINO cannot run the frozen part of '{backbone.name}' ({reason[0]}). Keras runs "
            "it, slower.",
            stacklevel=2,
        )
        return None

    def runner(inputs: Any) -> np.ndarray:
        batch = np.asarray(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
        outputs = np.empty((len(batch), *expected.shape[1:]), np.float32)

        def keep(request: Any, row: int) -> None:
            outputs[row] = request.get_output_tensor(0).data[0]

        compiled.set_callback(keep)
        for row in range(len(batch)):
            compiled.start_async(np.ascontiguousarray(batch[row : row + 1]), row)
        compiled.wait_all()
        return outputs

    off = np.abs(runner(inputs) - expected).max() / max(np.abs(expected).max(), 1e-30)
    if not off <= _TOLERANCE:
        warnings.warn(
            f"OpenVINO's activations after {after} differ from Keras' by {off:.1e}, more than "
            f"{_TOLERANCE:.0e}. Keras computes them, slower.",
            stacklevel=2,
        )
        return None
    return runner


def _is_at_hand() -> bool:
    if tf.config.list_logical_devices("GPU"):
        return False
    return importlib.util.find_spec("openvino") is not None


def _compile(backbone: FrozenBackbone, after: str, key: str | None, batch: np.ndarray) -> Any:
    """A stream for each core or so; an image at a time was fastest of all."""
    openvino = import_openvino()
    given = keras.Input(batch.shape[1:], dtype=batch.dtype.name)
    outputs = backbone.activations({key: given} if key else given, after=after)
    model = keras.Model(given, outputs[f"after:{after}"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frozen.xml"
        model.export(str(path), format="openvino", verbose=False)
        core = openvino.Core()
        converted = core.read_model(path)
        converted.reshape([1, *batch.shape[1:]])
        # Some processors would compute in bfloat16 unless told otherwise.
        exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
        compiled = core.compile_model(converted, "CPU", exact)
        # Twice as many requests as streams, so that none waits for Python: 10 % faster.
        streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return openvino.AsyncInferQueue(compiled, 2 * streams)


def _chunks(x: Any) -> Iterator[Any]:
    """Slices of a size that the device is fast at."""
    rows = len(tf.nest.flatten(x)[0])
    size = rows if tf.config.list_logical_devices("GPU") else CPU_BATCH
    for start in range(0, rows, size):
        yield tf.nest.map_structure(lambda column: column[start : start + size], x)  # noqa: B023
