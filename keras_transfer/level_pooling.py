"""LevelPooling: features from all levels of a backbone, not of its last alone."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transfer")
class LevelPooling(keras.layers.Layer):
    """Averages and maxima of several feature maps, one behind the other.

    What a network has learnt of textures and parts lies below its last block, and often serves
    images that are not like those it was trained on better (Evci et al., Head2Toe, ICML 2022). The
    levels differ in scale, so a head on them begins well with `keras.layers.BatchNormalization`.

    Args:
        **kwargs: As for any Keras layer.

    Input: A list of tensors: feature maps `(batch, height, width, channels)` or tokens
        `(batch, tokens, channels)`. Vectors are left out.
    Output: `(batch, features)`: twice the channels of all maps together.

    Example:
        >>> LevelPooling()([numpy.ones((2, 8, 8, 3)), numpy.ones((2, 4, 4, 5))]).shape
        TensorShape([2, 16])
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        """Pools all maps."""
        parts = []
        for level in inputs:
            if axes := tuple(range(1, len(level.shape) - 1)):
                parts += [ops.mean(level, axis=axes), ops.max(level, axis=axes)]
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the features for the shapes of the maps."""
        levels = [tuple(shape) for shape in input_shape if len(shape) > 2]
        return (levels[0][0], sum(2 * int(shape[-1] or 0) for shape in levels))
