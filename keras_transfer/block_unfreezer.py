"""BlockUnfreezer: a callback that unfreezes a backbone block by block inside one fit."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras

from keras_transfer.blockwise_optimizer import BlockwiseOptimizer
from keras_transfer.frozen_backbone import FrozenBackbone
from keras_transfer.schedule import Which, phases


@dataclass(frozen=True)
class Transition:
    """What changed between two epochs.

    Attributes:
        epoch: The first epoch of the new phase, counted from 0.
        blocks: The blocks that train from here on and did not before.
        learning_rate: The base learning rate from here on; `None` under a schedule.
    """

    epoch: int
    blocks: tuple[str, ...]
    learning_rate: float | None


class BlockUnfreezer(keras.callbacks.Callback):
    """Unfreezes blocks of a `FrozenBackbone` at given epochs, within one `model.fit`.

    Works on any compiled Keras model that holds one `FrozenBackbone`, at any depth. The compiled
    optimizer is kept: each block steps with a copy of its own, so that what trained before goes on
    with its slots and step counts, and what is new starts as under a fresh optimizer. The state
    of the blocks follows from the epoch alone: a block of the schedule is frozen before its epoch,
    also in a second fit.

    Args:
        schedule: `{epoch: which}`: epochs counted from 0, blocks as `FrozenBackbone.unfreeze` takes
            them.
        learning_rate: The learning rate for all that trains, from the first epoch of the schedule
            on; `None` to leave it.

    Attributes:
        transitions: What has changed in this fit, one `Transition` each.

    Raises:
        TypeError: If the schedule is no mapping.
        ValueError: If the schedule is empty, names an unknown block or an impossible epoch, or the
            model holds no backbone, or several.

    Example:
        >>> model.fit(train, validation_data=valid, epochs=40, callbacks=[
        ...     BlockUnfreezer({20: "block5", 30: "block4"}, learning_rate=1e-5)])
    """

    def __init__(
        self, schedule: Mapping[int, Which], *, learning_rate: float | None = None
    ) -> None:
        super().__init__()
        if learning_rate is not None and not (
            isinstance(learning_rate, Real) and 0 < learning_rate < math.inf
        ):
            raise ValueError(
                f"`learning_rate` must be a positive number. Received: {learning_rate!r}."
            )
        self.schedule = schedule
        self.learning_rate = learning_rate
        self._phases = phases(schedule)
        self.transitions: list[Transition] = []

    def set_model(self, model: keras.Model) -> None:
        """Checks the schedule against the model, and gives each block of it an optimizer."""
        super().set_model(model)
        self.transitions = []
        self._backbone = _only_backbone(model)
        self._blocks = [self._backbone.select(phase.which) for phase in self._phases]
        self._adopt_optimizer()

    def _adopt_optimizer(self) -> None:
        model, backbone = self.model, self._backbone
        self._optimizer = _blockwise(model)
        if self.learning_rate is not None and self._optimizer.compiled_learning_rate is None:
            raise ValueError(
                f"learning_rate={self.learning_rate:g} cannot be set: the model was compiled with "
                "a learning rate schedule. Leave it out, or compile with a number."
            )
        groups = {name: backbone.block_weights(name) for name in sorted(self.blocks)}
        self._optimizer.add_groups(groups)
        self._optimizer.know(model)

    @property
    def blocks(self) -> set[str]:
        """All blocks of the schedule."""
        return {block for blocks in self._blocks for block in blocks}

    def next_start(self, epoch: int) -> int | None:
        """Returns the first epoch after `epoch` at which a phase begins, or `None`."""
        later = (phase.at_epoch for phase in self._phases if phase.at_epoch > epoch)
        return min(later, default=None)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Warns of a schedule that begins after the last epoch."""
        first, epochs = self._phases[0].at_epoch, self.params.get("epochs")
        if epochs is not None and first >= epochs:
            warnings.warn(
                f"Nothing will be unfrozen: the schedule begins at epoch {first}, counted from 0, "
                f"and the last of {epochs} epochs is {epochs - 1}.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Brings the blocks into the state that belongs to the epoch."""
        begun = sum(phase.at_epoch <= epoch for phase in self._phases)
        wanted = {block for blocks in self._blocks[:begun] for block in blocks}
        before = {block.name for block in self._backbone.blocks if not block.frozen}
        if before & self.blocks != wanted:
            self._backbone.freeze(sorted(self.blocks))
            if wanted:
                self._backbone.unfreeze(sorted(wanted))
            _retrace(self.model)
        if self._optimizer.phase != begun:
            self._optimizer.phase = begun
            self._set_learning_rate(begun > 0)
        new = tuple(b.name for b in self._backbone.blocks if b.name in wanted - before)
        if new:
            self._tell(epoch, new)

    def _set_learning_rate(self, begun: bool) -> None:
        if self.learning_rate is not None:
            rate = self.learning_rate if begun else self._optimizer.compiled_learning_rate
            self._optimizer.learning_rate = rate

    def _tell(self, epoch: int, blocks: tuple[str, ...]) -> None:
        fixed = self._optimizer.compiled_learning_rate is not None
        rate = float(f"{float(self._optimizer.learning_rate):.6g}") if fixed else None  # float32
        self.transitions.append(Transition(epoch, blocks, rate))
        if self.params.get("verbose"):
            count = sum(math.prod(v.shape) for v in self.model.trainable_weights)
            print(
                f"Epoch {epoch + 1}: {', '.join(blocks)} unfrozen; {count:,} parameters train"
                + (f" at learning rate {rate:g}." if rate is not None else ".")
            )


def _layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    # `model.layers` shows the outermost layers only, and not those in attributes of subclassed
    # layers; Keras' own search through all of them has no public name.
    return layer._flatten_layers()


def _only_backbone(model: keras.Model) -> FrozenBackbone:
    backbones = [layer for layer in _layers(model) if isinstance(layer, FrozenBackbone)]
    if len(backbones) == 1:
        return backbones[0]
    found = ", ".join(repr(backbone.name) for backbone in backbones) or "none"
    raise ValueError(
        f"BlockUnfreezer needs a model that holds one FrozenBackbone. Model '{model.name}' holds: "
        f"{found}. Expected FrozenBackbone(...) as one of its layers, at any depth."
    )


def _blockwise(model: keras.Model) -> BlockwiseOptimizer:
    """The model's optimizer as one that keeps blocks apart, put in its place if it does not."""
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
    _retrace(model)
    return blockwise


def _retrace(model: keras.Model) -> None:
    """Lets the next step see which weights train and which optimizer steps them."""
    if model.train_function is not None:
        model.make_train_function(force=True)
    # What `compile` notes of the trainable flags, to warn when they change behind its back, as
    # they do not here (keras `Trainer._warn_if_trainable_state_changed`).
    model._compiled_trainable_state = {layer: layer.trainable for layer in _layers(model)}
