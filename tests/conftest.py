import gc
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores have a process each
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import dataset_ops

from keras_transfer import FrozenBackbone
from keras_transfer.features import runners

SIZE = 24


def _untuned(dataset):
    """Leaves a pipeline as it is written, unless a test says otherwise.

    TensorFlow 2.21's thread that tunes a pipeline can miss that its iterator is gone, and sleep on
    for up to a minute, with Python waiting. There is no public way to do without it everywhere;
    this is the hook of tf.data's own debug mode.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset_ops._OptionsDataset(dataset, options)


dataset_ops.DatasetV2._apply_debug_options = _untuned

# Tracing makes so many objects that Python would look for garbage for a sixth of the time.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 10, 10)


@pytest.fixture(autouse=True)
def _fresh_keras(request):
    """Lets no test see the seeds or the policy that another one left.

    Models train eagerly, as tracing them takes most of a small fit's time; a test of what depends
    on tracing is marked `traced`.
    """
    keras.utils.set_random_seed(0)
    traced = any(request.node.iter_markers(name="traced"))
    tf.config.run_functions_eagerly(not traced)
    yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def _fresh_session():
    """Gives back the memory of a module's graphs, which makes the tests after it slow."""
    yield
    keras.utils.clear_session()


@pytest.fixture
def computed(monkeypatch):
    """How many images, or kept rows, the frozen part was run on, pass by pass."""
    counts = []
    by_keras = runners.by_keras

    def counted(backbone, after):
        run = by_keras(backbone, after)

        def runner(x):
            out = run(x)
            counts.append(len(out))
            return out

        return runner

    monkeypatch.setattr(runners, "by_keras", counted)
    return counts


# One of each, all with slots.
OPTIMIZERS = {
    "sgd": lambda **kw: keras.optimizers.SGD(1e-2, momentum=0.9, **kw),
    "rmsprop": lambda **kw: keras.optimizers.RMSprop(1e-3, **kw),
    "adam": lambda **kw: keras.optimizers.Adam(1e-3, **kw),
    "adamw": lambda **kw: keras.optimizers.AdamW(1e-3, **kw),
    "nadam": lambda **kw: keras.optimizers.Nadam(1e-3, **kw),
    "lion": lambda **kw: keras.optimizers.Lion(1e-4, **kw),
    "lamb": lambda **kw: keras.optimizers.Lamb(1e-3, **kw),
    "adafactor": lambda **kw: keras.optimizers.Adafactor(1e-3, **kw),
    "muon": lambda **kw: keras.optimizers.Muon(1e-3, **kw),
}


def tiny_network(dropout: float = 0.5) -> keras.Model:
    """Four blocks with BatchNormalization and Dropout, random but the same each time."""
    keras.utils.set_random_seed(7)
    x = inputs = keras.Input((None, None, 3))
    for i, channels in enumerate((4, 6, 8, 10), 1):
        x = keras.layers.Conv2D(
            channels, 3, strides=2 if i < 4 else 1, padding="same", name=f"block{i}_conv"
        )(x)
        x = keras.layers.BatchNormalization(name=f"block{i}_bn")(x)
        x = keras.layers.Activation("tanh", name=f"block{i}_tanh")(x)
        x = keras.layers.Dropout(dropout, name=f"block{i}_drop")(x)
    return keras.Model(inputs, x, name="tiny")


def tiny_backbone(**kwargs) -> FrozenBackbone:
    return FrozenBackbone(tiny_network(), preprocessing="tf", **kwargs)


def images(count: int = 48, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Images whose brightness goes with their place, so that labels can be learned."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 120, (count, size, size, 3))
    return (noise + 120 * (np.arange(count) % 2)[:, None, None, None]).astype("uint8")


def labels(count: int = 48, classes: int = 2) -> np.ndarray:
    return (np.arange(count) % classes).astype("int32")


def dataset(count: int = 48, *, classes: int = 2, shuffle: bool = True, batch: int = 8):
    data = tf.data.Dataset.from_tensor_slices((images(count), labels(count, classes)))
    if shuffle:
        data = data.shuffle(count, seed=3)
    return data.batch(batch)


def snapshot(layer) -> list[np.ndarray]:
    return [weight.numpy().copy() for weight in layer.weights]


def identical(before: list[np.ndarray], layer) -> bool:
    return all(np.array_equal(a, b.numpy()) for a, b in zip(before, layer.weights, strict=True))


def relative_difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The largest difference of two lists of weights, relative to each weight's largest value."""
    return max(
        float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-8)) for x, y in zip(a, b, strict=True)
    )


# Seconds of its own thread that a test may take which is not marked `slow`: two, and a margin.
_QUICK = float(os.environ.get("QUICK_TEST_SECONDS", "3"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = time.thread_time()
    result = yield
    seconds = time.thread_time() - began
    if seconds > _QUICK and not any(item.iter_markers(name="slow")):
        pytest.fail(
            f"{seconds:.1f} s of processor time for a quick test. Expected at most {_QUICK:g} s: "
            "make it smaller, or mark it `slow`."
        )
    return result
