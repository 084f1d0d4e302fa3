"""What a compiled model holds: its optimizer, put in place, and its train step, traced anew."""

from collections.abc import Sequence

import keras

from keras_transfer.backbones.model_blocks import is_wholly_built, layers_of
from keras_transfer.training.blockwise_optimizer import BlockwiseOptimizer


def adopt_optimizer(model: keras.Model) -> BlockwiseOptimizer:
    """Returns the model's optimizer as one that keeps blocks apart, put in its place if need be.

    Raises:
        ValueError: If the model has none, or one that holds several.
    """
    optimizer = model.optimizer
    if optimizer is None:
        raise ValueError("The model has no optimizer. Call `compile` with one before `fit`.")
    # `save` writes the optimizer of this config; Keras removes it from there when it saves to a
    # legacy `.h5` file.
    compiled = model._compile_config.config
    compiled.setdefault("optimizer", optimizer)
    wraps = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner = optimizer.inner_optimizer if wraps else optimizer
    if isinstance(inner, BlockwiseOptimizer):
        return inner
    blockwise = BlockwiseOptimizer(inner)
    if wraps:
        optimizer.inner_optimizer = blockwise
    else:
        model.optimizer = blockwise
    if not isinstance(compiled["optimizer"], keras.optimizers.LossScaleOptimizer):
        compiled["optimizer"] = blockwise
    retrace(model)
    return blockwise


def retrace(model: keras.Model) -> None:
    """Makes the next step see which weights train and which optimizer steps them."""
    if model.train_function is not None:
        model.make_train_function(force=True)
    # What `compile` notes of the trainable flags, to warn when they change behind its back, as
    # they do not here (keras `Trainer._warn_if_trainable_state_changed`).
    model._compiled_trainable_state = {layer: layer.trainable for layer in layers_of(model)}


def make_variables(
    model: keras.Model, labels: Sequence[int | None] | None = None, units: int | None = None
) -> None:
    """Makes the variables of the optimizer and the metrics before the train step is traced.

    TensorFlow traces a function twice that makes variables when it first runs, and tracing a step
    takes longer than running it some hundred times. Keras makes them ahead under a strategy only.

    Args:
        model: A compiled model. One whose weights do not all exist is left as it is.
        labels: The shape of a batch of labels; `None`, the default, leaves the metrics to Keras.
        units: Of its output, `(batch, units)`.
    """
    optimizer, metrics = model.optimizer, model._compile_metrics  # which has no public name
    if not is_wholly_built(model):
        return
    with model.distribute_strategy.scope():
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        if labels is not None and metrics is not None and not metrics.built:
            metrics.build(keras.KerasTensor(labels), keras.KerasTensor((None, units)))


def own_methods(model: keras.Model) -> list[str]:
    """Returns the methods of a user's subclass that `fit` hands the input to."""
    names = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")
    found = []
    for name in names:
        owner = next(kind for kind in type(model).__mro__ if name in vars(kind))
        if owner.__module__.split(".")[0] not in ("keras", "keras_transfer"):
            found.append(f"{owner.__name__}.{name}")
    return found
