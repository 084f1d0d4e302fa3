"""restore_training_state: restores a model after a training within a block."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

# Attributes that `fit`, or a learning rate sweep, sets on a model.
_ATTRIBUTES = ("history", "stop_training", "train_function", "steps_per_execution", "optimizer")


@contextlib.contextmanager
def restore_training_state(model: keras.Model) -> Iterator[None]:
    """Restores a model after a training within a block, also if it fails or is interrupted.

    Restored are the weights, the state of random layers, the metrics, the optimizer with its slots,
    step count and learning rate, and `model.history`. An optimizer that has no slots yet gets none:
    within the block a copy takes its place.

    Args:
        model: A model that is built and compiled.

    Example:
        >>> with restore_training_state(model):
        ...     model.fit(train)
    """
    # `model.variables` includes the state of random layers, and not the metrics.
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    values = [(variable, np.array(variable.numpy())) for variable in variables]
    attributes = {name: getattr(model, name, None) for name in _ATTRIBUTES}
    model.train_function = None  # it holds the optimizer and `steps_per_execution`
    if not model.optimizer.built:
        config = keras.saving.serialize_keras_object(model.optimizer)
        with _scope_of(model):
            # Not `keras.optimizers.deserialize`, whose table of names lacks Lamb in Keras 3.15.1.
            model.optimizer = keras.saving.deserialize_keras_object(config)
    try:
        yield
    finally:
        for name, value in attributes.items():
            setattr(model, name, value)
        model.reset_metrics()  # those that saw their first batch within the block
        for variable, value in values:
            variable.assign(value)


def _scope_of(model: keras.Model) -> contextlib.AbstractContextManager[object]:
    """Where variables are made for a model that trains on several devices."""
    strategy = model.distribute_strategy
    return contextlib.nullcontext() if strategy is None else strategy.scope()
