"""What a compiled model holds: its optimizer, put in place, and its train step, traced anew."""

import keras

from keras_transfer.blockwise_optimizer import BlockwiseOptimizer
from keras_transfer.model_blocks import layers_of


def adopt_optimizer(model: keras.Model) -> BlockwiseOptimizer:
    """Returns the model's optimizer as one that keeps blocks apart, put in its place if need be.

    Raises:
        ValueError: If the model has none, or one that holds several.
    """
    optimizer = model.optimizer
    if optimizer is None:
        raise ValueError("The model has no optimizer. Call `compile` with one before `fit`.")
    wraps = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner = optimizer.inner_optimizer if wraps else optimizer
    if isinstance(inner, BlockwiseOptimizer):
        return inner
    blockwise = BlockwiseOptimizer(inner)
    if wraps:
        optimizer.inner_optimizer = blockwise
    else:
        model.optimizer = blockwise
    # What `save` writes of the optimizer is the one that `compile` was given.
    compiled = model._compile_config.config
    if not isinstance(compiled["optimizer"], keras.optimizers.LossScaleOptimizer):
        compiled["optimizer"] = blockwise
    retrace(model)
    return blockwise


def retrace(model: keras.Model) -> None:
    """Lets the next step see which weights train and which optimizer steps them."""
    if model.train_function is not None:
        model.make_train_function(force=True)
    # What `compile` notes of the trainable flags, to warn when they change behind its back, as
    # they do not here (keras `Trainer._warn_if_trainable_state_changed`).
    model._compiled_trainable_state = {layer: layer.trainable for layer in layers_of(model)}
