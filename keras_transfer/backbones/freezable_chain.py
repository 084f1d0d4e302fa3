"""The blocks of a backbone: how they are named, selected, frozen and unfrozen."""

import fnmatch
import math
from collections.abc import Collection, Sequence
from typing import Any

import keras

from keras_transfer.backbones import blocks
from keras_transfer.backbones.blocks import Unit, Which
from keras_transfer.backbones.hub.hub_module import HubModule
from keras_transfer.backbones.layers import LevelPooling


class FreezableChain(keras.layers.Layer):
    """A layer that is a chain of links, of which blocks are frozen and unfrozen.

    Subclasses set `_chain`, the blocks as models, and `_pool`, the layer behind them. What `_pool`
    has of weights belongs to the last block.
    """

    _chain: list[keras.Model]
    _pool: keras.Layer

    @property
    def blocks(self) -> tuple[blocks.Block, ...]:
        """The blocks, first to last: name, parameter count, output shape, frozen or not.

        A TF-Hub module cannot be cut; its blocks are groups of its variables.
        """
        units = self._units
        counts = [unit.count_params() for unit in units]
        counts[-1] += sum(math.prod(weight.shape) for weight in self._pool.weights)
        return tuple(
            blocks.Block(unit.name, count, unit.output_shape, not unit.trainable)
            for unit, count in zip(units, counts, strict=True)
        )

    @property
    def cut_point(self) -> str | None:
        """The cut point: the last link of the frozen part.

        It is a block, `"pooling"` if all are frozen, `None` if the first block trains. The
        activations after it are the same in every epoch.
        """
        return self.cut_point_without(())

    def cut_point_without(self, unfrozen: Collection[str]) -> str | None:
        """Returns the cut point when these blocks, too, are not frozen."""
        cut_point = None
        for link in (*self._chain, self._pool):
            if link.trainable_weights or not blocks.unit_names(link).isdisjoint(unfrozen):
                break
            cut_point = link.name if link.name in self.link_names else cut_point
        return cut_point

    @property
    def link_names(self) -> tuple[str, ...]:
        """The places at which activations can be cached: the blocks, then `"pooling"`.

        With `pooling="levels"` only the last of these, for it needs the outputs of all blocks.
        """
        names = self._all_names
        return names[-1:] if self._pools_levels else names

    @property
    def model_names(self) -> tuple[str, ...]:
        """The blocks that are models of their own, first to last: those that `block` takes."""
        return self._all_names[:-1]

    @property
    def _all_names(self) -> tuple[str, ...]:
        return tuple(link.name for link in (*self._chain, self._pool))

    @property
    def _pools_levels(self) -> bool:
        return isinstance(self._pool, LevelPooling)

    @property
    def _units(self) -> list[Unit]:
        return [unit for link in self._chain for unit in blocks.units(link)]

    @property
    def _unfrozen(self) -> list[str]:
        return [unit.name for unit in self._units if unit.trainable]

    def select(self, which: Which) -> tuple[str, ...]:
        """Returns the names of the blocks that `which` stands for, first to last.

        Args:
            which: As for `unfreeze`.

        Raises:
            ValueError: If it, or an item of it, matches no block. The message lists the blocks.
        """
        names = [unit.name for unit in self._units]
        if isinstance(which, int) and not isinstance(which, bool) and 0 < which <= len(names):
            return tuple(names[-which:])
        listed = isinstance(which, Sequence) and not isinstance(which, str) and len(which) > 0
        chosen: set[str] = set()
        for pattern in which if listed else [which]:  # type: ignore[union-attr]
            matches = fnmatch.filter(names, pattern) if isinstance(pattern, str) else []
            if not matches and pattern != "all":
                raise ValueError(
                    f"No block of backbone '{self.name}' matches {pattern!r}. Expected one of its "
                    f"{len(names)} blocks ({', '.join(names)}), a glob, a list of these, a number "
                    f"of blocks from the top (1 to {len(names)}), or 'all'."
                )
            chosen.update(names if pattern == "all" else matches)
        return tuple(name for name in names if name in chosen)

    def unfreeze(self, which: Which) -> None:
        """Makes blocks trainable. A model that is compiled already must be compiled again.

        Args:
            which: A block's name, a glob (`"conv5*"`), a list of these, the number of blocks from
                the top, or `"all"`.

        Raises:
            ValueError: If it matches no block, or none that has weights to train.
        """
        self.check_trains(self.select(which))
        self._set_trainable(which, True)

    def freeze(self, which: Which = "all") -> None:
        """Makes blocks untrainable; `which` as for `unfreeze`."""
        self._set_trainable(which, False)

    def _set_trainable(self, which: Which, trainable: bool) -> None:
        names = self.select(which)
        flags = {u.name: trainable if u.name in names else u.trainable for u in self._units}
        if trainable:
            self.trainable = True  # or `backbone.trainable = False` would hide what is unfrozen
        for link in self._chain:
            # Keras hands a link's flag down to all that is in it, so that comes first.
            link.trainable = any(flags[name] for name in blocks.unit_names(link))
        for unit in self._units:
            unit.trainable = flags[unit.name]
        if self._pool.weights:
            self._pool.trainable = unit.trainable

    def block(self, name: str) -> keras.Model:
        """Returns a block as a model of its own, which shares the layers.

        Raises:
            ValueError: If there is no such block, or it is a group of a module's variables.
        """
        (name,) = self.select([name])
        if name not in self._all_names:
            raise ValueError(
                f"Block {name!r} of backbone '{self.name}' is a group of variables, of which no "
                f"model can be made. Expected one of {list(self._all_names[:-1])}."
            )
        return self._chain[self._all_names.index(name)]

    def block_weights(self, name: str) -> list[keras.Variable]:
        """Returns the weights of a block that train while it is not frozen."""
        weights: list[keras.Variable] = []
        for part in self._parts_of(name):
            was_trainable, part.trainable = part.trainable, True
            weights += part.trainable_weights
            part.trainable = was_trainable
        return weights

    def block_state(self, name: str) -> list[keras.Variable]:
        """Returns all weights of a block, its statistics included."""
        return [weight for part in self._parts_of(name) for weight in part.weights]

    def _parts_of(self, name: str) -> list[Any]:
        (name,) = self.select([name])
        units = self._units
        parts: list[Any] = [unit for unit in units if unit.name == name]
        return [*parts, *([self._pool] if parts[-1] is units[-1] else [])]

    def check_trains(self, names: Collection[str]) -> None:
        """Checks that one of some blocks, at least, has weights that can train.

        Raises:
            ValueError: If none has, such as those of a module that declares none.
        """
        chosen = [unit for unit in self._units if unit.name in names]
        can_train = any(self.block_weights(unit.name) for unit in chosen)
        if can_train or not any(unit.count_params() for unit in chosen):
            return
        why = "they hold statistics or constants only. Expected blocks with weights."
        if any(isinstance(layer, HubModule) for layer in self._chain[0].layers):
            why = (
                "the module declares no trainable variables. It can be used frozen. To train it, "
                "too, export it again with its weights in `trainable_variables`, or take another "
                "version of it."
            )
        raise ValueError(
            f"Nothing in {', '.join(names)} of backbone '{self.name}' can train: {why}"
        )
