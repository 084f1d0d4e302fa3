"""ModelBlocks: the blocks of all backbones in a model, each under one name."""

from __future__ import annotations

from collections.abc import Collection

import keras

from keras_transfer.backbones.blocks import Which
from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.backbones.splitting import is_numbered_by_keras
from keras_transfer.utils.keras_internals import layers_of


class ModelBlocks:
    """Finds the backbones of a model at any depth, and freezes and unfreezes their blocks.

    In a model with several backbones a block's name is `"<layer>/<block>"`, and so is what is
    selected by: `"left/block5"`, `"left/2"`, `"left/all"`. A layer without a name of its own goes
    by its place among the backbones, counted from 1: `"backbone2/block5"`.

    Args:
        model: A Keras model.

    Attributes:
        names: The names of all blocks, backbone by backbone, first to last.

    Raises:
        ValueError: If the model holds no backbone.
    """

    def __init__(self, model: keras.Model) -> None:
        backbones = [layer for layer in layers_of(model) if isinstance(layer, FrozenBackbone)]
        if not backbones:
            raise ValueError(
                f"Model '{model.name}' holds no backbone. Expected FrozenBackbone(...) as one of "
                "its layers, at any depth."
            )
        self._backbones = {
            f"backbone{number}" if is_numbered_by_keras(backbone) else backbone.name: backbone
            for number, backbone in enumerate(backbones, 1)
        }
        if len(self._backbones) < len(backbones):
            names = ", ".join(repr(backbone.name) for backbone in backbones)
            raise ValueError(
                f"Model '{model.name}' holds several backbones named {names}. Give each a name of "
                "its own: FrozenBackbone(..., name='left')."
            )
        self.names = tuple(
            self._full(layer, block.name)
            for layer, backbone in self._backbones.items()
            for block in backbone.blocks
        )

    def _full(self, layer: str, block: str) -> str:
        return f"{layer}/{block}" if len(self._backbones) > 1 else block

    def _parts(self, name: str | int) -> tuple[FrozenBackbone, str]:
        if len(self._backbones) == 1:
            return next(iter(self._backbones.values())), str(name)
        layer, slash, block = name.partition("/") if isinstance(name, str) else ("", "", "")
        if not slash or layer not in self._backbones:
            raise ValueError(
                f"The model holds the backbones {', '.join(map(repr, self._backbones))}, and "
                f"{name!r} names none. Expected '<backbone>/<blocks>', such as "
                f"'{next(iter(self._backbones))}/1'."
            )
        return self._backbones[layer], block

    def select(self, which: Which) -> tuple[str, ...]:
        """Returns the names of the blocks that `which` stands for.

        Args:
            which: As for `FrozenBackbone.unfreeze`; with the layer's name in front of each item in
                a model of several backbones.

        Raises:
            ValueError: If it matches no block.
        """
        if len(self._backbones) == 1:
            return self._parts("")[0].select(which)
        chosen: set[str] = set()
        for pattern in [which] if isinstance(which, str | int) else which:
            backbone, block = self._parts(pattern)
            selected = backbone.select(int(block) if block.isdecimal() else block)
            (layer,) = (name for name, known in self._backbones.items() if known is backbone)
            chosen.update(self._full(layer, name) for name in selected)
        return tuple(name for name in self.names if name in chosen)

    @property
    def trained(self) -> set[str]:
        """The blocks that train."""
        return {
            self._full(layer, block.name)
            for layer, backbone in self._backbones.items()
            for block in backbone.blocks
            if not block.frozen
        }

    def train(self, blocks: Collection[str], *, of: Collection[str]) -> None:
        """Unfreezes some of the given blocks and freezes the others of them."""
        for name in self.names:
            if name in of:
                backbone, block = self._parts(name)
                (backbone.unfreeze if name in blocks else backbone.freeze)([block])

    def weights(self, name: str) -> list[keras.Variable]:
        """Returns the weights of a block that train while it is not frozen."""
        backbone, block = self._parts(name)
        return backbone.block_weights(block)

    def state(self, name: str) -> list[keras.Variable]:
        """Returns all weights of a block, its statistics included."""
        backbone, block = self._parts(name)
        return backbone.block_state(block)

    def check_trains(self, names: Collection[str]) -> None:
        """Checks that one of some blocks, at least, has weights that can train.

        Raises:
            ValueError: If none has, such as those of a module that declares none.
        """
        if not any(self.weights(name) for name in names):
            for name in self.names:
                if name in names:
                    backbone, block = self._parts(name)
                    backbone.check_trains([block])

    def all_weights(self) -> list[keras.Variable]:
        """Returns all weights of the backbones."""
        return [weight for backbone in self._backbones.values() for weight in backbone.weights]

    def depth(self, name: str) -> int:
        """Returns how far below the head a block is: 1 for the top one."""
        backbone, block = self._parts(name)
        names = [unit.name for unit in backbone.blocks]
        return len(names) - names.index(block)


def is_wholly_built(model: keras.Model) -> bool:
    """Returns whether all weights of a model exist: `Model.build` of a subclassed one makes none.

    Layers whose building adds no weights of their own do not count.
    """
    layers = list(layers_of(model))
    backbones = [layer for layer in layers if isinstance(layer, FrozenBackbone)]
    inside = {id(layer) for backbone in backbones for layer in layers_of(backbone)}
    unbuilt = [layer for layer in layers if not layer.built and id(layer) not in inside]
    return all(_makes_no_weights(layer) for layer in unbuilt)


def _makes_no_weights(layer: keras.Layer) -> bool:
    """Returns whether building a layer adds no weights of its own."""
    return isinstance(layer, keras.Sequential) or type(layer).build is keras.Layer.build
