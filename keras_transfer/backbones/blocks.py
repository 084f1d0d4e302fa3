"""The parts of a backbone that are frozen and unfrozen by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import keras

from keras_transfer.utils.keras_internals import layers_of

Which = str | int | Sequence[str]


@dataclass(frozen=True)
class Block:
    """A block of a backbone, as `FrozenBackbone.blocks` shows it.

    Attributes:
        name: The name that `unfreeze` and `BlockUnfreezer` take.
        parameters: Number of weights, statistics included.
        output_shape: Shape of the block's output, batch axis first; `None` where it depends on
            the image size. Of a group of variables in a module, that of the module.
        frozen: Whether training leaves the block as it is.
    """

    name: str
    parameters: int
    output_shape: tuple[int | None, ...]
    frozen: bool


class Unit(Protocol):
    """The smallest part that can be frozen: a block, or a group of variables inside one."""

    name: str
    trainable: bool

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """As of `Block`."""

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that train."""

    def count_params(self) -> int:
        """Returns the number of weights, statistics included."""


class NormalizedBlock:
    """Joins the last block and the normalization behind the pooling to one unit.

    Args:
        block: The block.
        norm: The layer that normalizes.
    """

    def __init__(self, block: Unit, norm: keras.Layer) -> None:
        self.name = block.name
        self.block = block
        self.norm = norm

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of the block's output, before the pooling."""
        return self.block.output_shape

    @property
    def trainable(self) -> bool:
        """Whether the block and the normalization train."""
        return self.block.trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.block.trainable = self.norm.trainable = value

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that train, those of the normalization last."""
        return [*self.block.trainable_weights, *self.norm.trainable_weights]

    def count_params(self) -> int:
        """Returns the number of weights."""
        return self.block.count_params() + self.norm.count_params()


def units(block: keras.Model) -> tuple[Unit, ...]:
    """Returns the parts of a block that can be frozen by themselves, first to last.

    That is the block, unless all its weights are those of a module, whose graph cannot be cut, but
    whose variables have groups.
    """
    weights = {id(weight) for weight in block.weights}
    for layer in layers_of(block):
        groups = getattr(layer, "groups", ())  # of Keras' own convolutions, a number
        if isinstance(groups, tuple) and groups and weights == set(map(id, layer.weights)):
            return groups
    return (block,)


def unit_names(link: keras.Layer) -> set[str]:
    """Returns the names of the parts of a block; of another layer, its own name."""
    return {unit.name for unit in units(link)} if isinstance(link, keras.Model) else {link.name}
