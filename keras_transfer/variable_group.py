"""VariableGroup: variables of a layer that are frozen and unfrozen together."""

import math
from collections.abc import Sequence

import keras


class VariableGroup:
    """Some of a layer's variables, with what `FrozenBackbone` asks of a block.

    Args:
        name: The group's name.
        layer: The layer that they are of.
        weights: The variables.
        trains: Whether each of them can train.
    """

    def __init__(
        self,
        name: str,
        layer: keras.Layer,
        weights: Sequence[keras.Variable],
        trains: Sequence[bool],
    ) -> None:
        self.name = name
        self.weights = list(weights)
        self._layer = layer
        self._trains = [weight for weight, can in zip(weights, trains, strict=True) if can]

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """That of the layer: what lies inside is not known."""
        return self._layer.specification.output_shape

    @property
    def trainable(self) -> bool:
        """Whether they train."""
        return self._layer.trainable and any(weight.trainable for weight in self._trains)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if value and not self._layer.trainable:
            self._layer.trainable = True  # which would unfreeze the other groups, too
            for weight in self._layer.weights:
                weight.trainable = False
        for weight in self._trains:
            weight.trainable = value

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Those of them that train."""
        return [weight for weight in self._trains if weight.trainable] if self.trainable else []

    def count_params(self) -> int:
        """Returns the number of their elements."""
        return sum(math.prod(weight.shape) for weight in self.weights)
