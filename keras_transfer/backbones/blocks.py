"""The parts of a backbone that are frozen and unfrozen by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import keras

from keras_transfer.backbones.hub.variable_groups import VariableGroup
from keras_transfer.utils.keras_internals import layers_of

Which = str | int | Sequence[str]

Unit: TypeAlias = "keras.Model | VariableGroup"  # the smallest part that can be frozen


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
