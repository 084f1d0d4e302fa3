"""The private names of Keras and TensorFlow that the package uses, each with the reason for it."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras


def layers_of(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields a model and all its layers, at any depth.

    `Layer._flatten_layers`: `Model.layers` holds the outermost layers only, and not those in
    attributes of subclassed layers.
    """
    return layer._flatten_layers()


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
