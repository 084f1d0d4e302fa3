"""Untouched: what is tried on a model within a block is undone when the block is left."""

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context

from keras_transfer.row_order import ROW_NUMBERS, all_stages, fresh_copy

# What `fit` sets on a model, beside its variables. `_initial_epoch` is where BackupAndRestore
# leaves the epoch to go on with, `_eval_epoch_iterator` what `fit` validates on.
_OF_FIT = ("history", "stop_training", "train_function", "_initial_epoch", "_eval_epoch_iterator")
_MISSING = object()


@contextlib.contextmanager
def untouched(model: keras.Model, data: Any = None) -> Iterator[None]:
    """Lets a built model train within a block, and leaves no trace of it, whatever happens.

    Restored bit for bit: weights and random state of its layers, metrics, the optimizer with its
    slots, step count and learning rate, what `fit` notes on the model, the random state of Python,
    NumPy, TensorFlow and Keras, and the place in the shuffles of a `tf.data.Dataset`. An optimizer
    that has no slots yet gets none: another one made from its config takes its place.

    Args:
        model: A model that is built and compiled.
        data: What it trains on.

    Example:
        >>> with untouched(model, train):
        ...     model.fit(train)
    """
    with (
        _same_random_state(),
        _same_shuffles(data),
        _same_attributes(model),
        _same_values([*model.variables, *model.optimizer.variables]),
        _same_metrics(model),
    ):
        # A function of its own: the model's would go on with random state inside its graph.
        model.train_function = None
        if not model.optimizer.built:
            config = keras.saving.serialize_keras_object(model.optimizer)
            # Not `keras.optimizers.deserialize`, whose table of names lacks Lamb in Keras 3.15.1.
            model.optimizer = keras.saving.deserialize_keras_object(config)
        yield


@contextlib.contextmanager
def _same_attributes(model: keras.Model) -> Iterator[None]:
    names = (*_OF_FIT, "optimizer", "steps_per_execution")
    before = {name: getattr(model, name, _MISSING) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not _MISSING:
                setattr(model, name, value)
            elif hasattr(model, name):
                delattr(model, name)


@contextlib.contextmanager
def _same_values(variables: Iterable[keras.Variable]) -> Iterator[None]:
    before = [(variable, np.array(variable.numpy())) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


@contextlib.contextmanager
def _same_metrics(model: keras.Model) -> Iterator[None]:
    """Metrics that see their first batch within the block are as new afterwards."""
    with _same_values(model.metrics_variables):
        try:
            yield
        finally:
            model.reset_metrics()


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    generator = tf.random.get_global_generator()
    state = generator.state.numpy()
    try:
        with _same_operation_seeds(), _same_seed_generator():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        generator.state.assign(state)


@contextlib.contextmanager
def _same_operation_seeds() -> Iterator[None]:
    """Gives operations other seeds than those that come next.

    TensorFlow draws the seeds of operations that are given none from a generator that has no
    public name. It keeps a kernel for each seed, with the kernel's state, so it would not do to
    draw seeds and then to put the generator back: the same kernels would go on.
    """
    now = context.context()
    before, now._rng = now._rng, random.Random("untouched")
    try:
        yield
    finally:
        now._rng = before


@contextlib.contextmanager
def _same_seed_generator() -> Iterator[None]:
    """Keras' generator for random layers and functions without a seed, which has no public name."""
    name = "global_seed_generator"
    before = global_state.get_global_attribute(name)
    try:
        with _same_values([] if before is None else [before.state]):
            yield
    finally:
        global_state.set_global_attribute(name, before)


@contextlib.contextmanager
def _same_shuffles(data: Any) -> Iterator[None]:
    """Lets a dataset, and row numbers that it brings along, give way to copies.

    A shuffle goes on from epoch to epoch, and there is no way to put it back. It is the tensor
    behind the dataset that is exchanged (`_variant_tensor_attr`), since the dataset's stages and
    its identity say what of it can be kept.
    """
    with contextlib.ExitStack() as stack:
        for stage in all_stages(data) if isinstance(data, tf.data.Dataset) else ():
            if hasattr(stage, "index_batches"):
                _exchange(stack, stage, "index_batches", fresh_copy(stage.index_batches))
        if isinstance(data, tf.data.Dataset):
            before = getattr(data, ROW_NUMBERS, None)
            stack.callback(setattr, data, ROW_NUMBERS, before)
            setattr(data, ROW_NUMBERS, None)
            _exchange(stack, data, "_variant_tensor_attr", fresh_copy(data)._variant_tensor_attr)
        yield


def _exchange(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)
