"""BlockUnfreezer: a callback that unfreezes a backbone block by block inside one fit."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones.blocks import Which
from keras_transfer.backbones.model_blocks import ModelBlocks, is_wholly_built
from keras_transfer.plotting.curves import lower_is_better
from keras_transfer.training.blockwise_optimizer import REST, BlockwiseOptimizer
from keras_transfer.training.schedule import Phase, check_rate, gradual, phases, resolve
from keras_transfer.training.schedule_file import read_schedule
from keras_transfer.utils.console import say
from keras_transfer.utils.keras_internals import calling_list, retrace, set_optimizer
from keras_transfer.utils.supported_keras import check_keras_3

_SCHEDULED = "as scheduled"


@dataclass(frozen=True)
class Transition:
    """What changed between two epochs.

    Attributes:
        epoch: The first epoch of the new phase, counted from 0.
        blocks: The blocks that train from here on and did not before.
        learning_rate: The base learning rate from here on; `None` under a schedule.
        frozen: The blocks that trained before and do not from here on.
        reason: Why it happened now, in a few words, as it was printed.
    """

    epoch: int
    blocks: tuple[str, ...]
    learning_rate: float | None
    frozen: tuple[str, ...] = ()
    reason: str = field(default="", compare=False)


class BlockUnfreezer(keras.callbacks.Callback):
    """Unfreezes blocks of a `FrozenBackbone` in phases, within one `model.fit`.

    Works on any compiled Keras model that holds a `FrozenBackbone`, at any depth; where it holds
    several, blocks are named `"<layer>/<block>"`. Each block steps with a copy of the compiled
    optimizer, so that trained blocks keep their slots and step counts, and new blocks start as
    under a fresh optimizer. The blocks that train in an epoch follow from the epoch and from the
    state that is saved with the optimizer, so runs resume: a block of the schedule is frozen before
    its phase, also in a second fit.

    The logs, hence History, get `phase`, `trainable_parameters`, `learning_rate` (the base rate)
    and `learning_rate/<block>` for each block of the schedule, 0 while it is frozen.

    Args:
        schedule: `{epoch: which}`: epochs counted from 0, blocks as `FrozenBackbone.unfreeze` takes
            them; a list of `Phase`; `"gradual"` for one block a phase from the top, each when
            `monitor` has not improved for 3 epochs; or the path of a YAML file with the same
            content.
        learning_rate: The base learning rate from the first phase on; `None` to leave it.
        lr_decay: The rate of each block relative to the one above it, from the first phase on.
        monitor: The logged metric for phases with `patience` or `restore_best`. Epochs without
            validation do not count.
        mode: `"min"`, `"max"`, or `"auto"` to tell from the name.
        restore_best: Whether each phase goes on from the best epoch of the phase before it.
        early_stopping: `"last"`: `keras.callbacks.EarlyStopping` ends the fit only in the last
            phase, and its best is that of the phase. `"any"`: as if there were no phases.

    Attributes:
        transitions: What has changed in this fit, one `Transition` each.

    Raises:
        TypeError: If the schedule is of no known kind.
        ValueError: If the schedule is empty, out of order, names an unknown block or an impossible
            value, has a phase that changes nothing, the model holds no backbone, or
            `SwapEMAWeights` is among the callbacks, which cannot swap averages by block.

    Example:
        >>> model.fit(train, validation_data=valid, epochs=40, callbacks=[
        ...     BlockUnfreezer({20: "block5", 30: "block4"}, learning_rate=1e-5)])
    """

    def __init__(
        self,
        schedule: Mapping[int, Which] | Sequence[Phase] | str | os.PathLike[str],
        *,
        learning_rate: float | None = None,
        lr_decay: float = 1.0,
        monitor: str = "val_loss",
        mode: str = "auto",
        restore_best: bool = False,
        early_stopping: str = "last",
    ) -> None:
        super().__init__()
        check_rate("learning_rate", learning_rate)
        check_rate("lr_decay", lr_decay)
        if early_stopping not in ("last", "any"):
            raise ValueError(
                f"`early_stopping` must be 'last' or 'any'. Received: {early_stopping!r}."
            )
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.lr_decay = lr_decay
        self.monitor = monitor
        self.mode = mode
        self.restore_best = restore_best
        self.early_stopping = early_stopping
        self.transitions: list[Transition] = []
        self._lower_is_better = lower_is_better(monitor, mode)  # type: ignore[arg-type]
        self._phases = None  # "gradual": one block after the other
        if schedule != "gradual":
            is_path = isinstance(schedule, str | os.PathLike)
            self._phases = phases(read_schedule(schedule) if is_path else schedule)  # type: ignore[arg-type]

    def set_model(self, model: keras.Model) -> None:
        """Checks the schedule against the model, and gives each block of it an optimizer."""
        super().set_model(model)
        check_keras_3(model=model)
        self._others = self._lead_callbacks()
        self.transitions = []
        self._warned: set[str] = set()
        self._blocks = ModelBlocks(model)
        with model.distribute_strategy.scope():
            self._optimizer = _blockwise_optimizer(model)
            self._resolved = resolve(
                gradual(self._blocks.names) if self._phases is None else self._phases,
                self._blocks,
                self._optimizer,
                learning_rate=self.learning_rate,
                lr_decay=self.lr_decay,
                restore_best=self.restore_best,
            )
            self._check_that_phases_train()
            self._optimizer.add_groups(
                {name: self._blocks.weights(name) for name in sorted(self.blocks)}
            )
        self._watches = any(
            phase.restore_best or (phase.phase and phase.phase.patience) for phase in self._resolved
        )
        watched = {
            "optimizer": self._optimizer.kind_name,
            "monitor": self.monitor if self._watches else None,
            "mode": self.mode if self._watches else None,
        }
        described = [watched, *(phase.describe() for phase in self._resolved[1:])]
        self._is_same_schedule = self._optimizer.adopt_schedule(described)

    def _lead_callbacks(self) -> list[Any]:
        """Puts itself at the head of the callbacks, and returns the others.

        What `BackupAndRestore` saves at the end of an epoch must hold what the epoch has decided.
        """
        callbacks = calling_list(self)
        if callbacks is None:
            return []
        others = [other for other in callbacks.callbacks if other is not self]
        callbacks.callbacks = [self, *others]  # a new list: Keras is walking through the old one
        check_keras_3(callbacks=others)
        if any(isinstance(other, BlockUnfreezer) for other in others):
            raise ValueError("Expected one BlockUnfreezer in a fit. Received: several.")
        if any(isinstance(other, keras.callbacks.SwapEMAWeights) for other in others):
            raise ValueError(
                "SwapEMAWeights cannot swap the averages of an optimizer for each block. Leave it "
                "out: under `use_ema=True` the weights become their averages at the end of `fit`."
            )
        return others

    def _check_that_phases_train(self) -> None:
        """Refuses a schedule that unfreezes blocks of which nothing can train."""
        if self._phases is None:  # one block after the other, whatever they hold
            self._blocks.check_trains(self.blocks)
            return
        for before, phase in pairwise(self._resolved):
            if new := phase.trained - before.trained:
                self._blocks.check_trains(new)

    @property
    def blocks(self) -> set[str]:
        """All blocks of the schedule."""
        return {block for phase in self._resolved for block in phase.trained}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Warns of a schedule that begins after the last epoch."""
        first, epochs = self._resolved[1].phase, self.params.get("epochs")
        at = first.at_epoch if first and first.patience is None else None
        if at is not None and epochs is not None and at >= epochs:
            warnings.warn(
                f"Nothing will be unfrozen: the schedule begins at epoch {at}, counted from 0, "
                f"and the last of {epochs} epochs is {epochs - 1}.",
                stacklevel=2,
            )
        self._optimizer.loaded_history = None  # of a file; what is loaded from here on is a backup

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Brings the blocks into the state that belongs to the epoch."""
        self._complete_history(epoch)
        self._optimizer.check_owners(self._blocks.names)
        reason = "what was saved"
        if not (self._is_same_schedule and self._optimizer.state.epoch == epoch - 1):
            self._begin_anew(epoch)
            reason = _SCHEDULED
        while (due := self._due(epoch)) is not None:
            reason = due
            self._advance(epoch)
        self._apply(epoch, reason)
        if self.early_stopping == "last" and self._optimizer.phase + 1 < len(self._resolved):
            for stopper in self._early_stoppings():
                stopper.wait = -math.inf  # only epochs of the last phase count for its patience

    def _complete_history(self, epoch: int) -> None:
        """Gives the History of a resumed run the epochs before."""
        earlier, self._optimizer.loaded_history = self._optimizer.loaded_history, None
        for history in self._others:
            if isinstance(history, keras.callbacks.History) and not history.epoch:
                for number, logs in earlier or ():
                    if number < epoch:
                        history.on_epoch_end(number, logs)

    def _begin_anew(self, epoch: int) -> None:
        """Goes to the phase of an epoch, as far as epochs alone tell, wherever the last run was."""
        at = [phase.phase.at_epoch if phase.phase else 0 for phase in self._resolved]
        begun = max(
            number for number, start in enumerate(at) if start is not None and start <= epoch
        )
        if self._optimizer.phase != begun or not self._is_same_schedule:
            self._set_rate(self._resolved[begun].rate)
        self._restart(begun, epoch)
        self._is_same_schedule = True

    def is_due(self, epoch: int) -> bool:
        """Whether the next phase begins with this epoch."""
        return self._due(epoch) is not None

    def _due(self, epoch: int) -> str | None:
        """Returns why the next phase begins with this epoch; `None` if it does not."""
        state = self._optimizer.state
        following = [phase.phase for phase in self._resolved[state.phase + 1 :] if phase.phase]
        if not following:
            return None
        if following[0].at_epoch is not None and epoch >= following[0].at_epoch:
            return _SCHEDULED
        if following[0].patience is not None and state.wait >= following[0].patience:
            return f"{self.monitor} no better for {state.wait} epoch{'s' * (state.wait != 1)}"
        return None

    def _advance(self, epoch: int) -> None:
        """Goes from a phase to the next."""
        begun = self._optimizer.phase + 1
        phase = self._resolved[begun]
        if phase.restore_best and math.isfinite(self._optimizer.state.best):
            self._optimizer.recall(self._restorable_weights())
        self._set_rate(phase.sets_rate)
        self._restart(begun, epoch)
        if self.early_stopping == "last":
            for stopper in self._early_stoppings():
                stopper.on_train_begin()  # its best is that of the phase

    def _restart(self, begun: int, epoch: int) -> None:
        phase = self._resolved[begun].phase
        self._optimizer.state.restart(begun, epoch, warmup=phase.warmup if phase else 0)

    def _set_rate(self, rate: float | None) -> None:
        if rate is not None:
            self._optimizer.learning_rate = rate

    def _restorable_weights(self) -> dict[str, list[keras.Variable]]:
        """Returns the weights of the schedule's blocks, and those outside of backbones."""
        in_backbones = {id(weight) for weight in self._blocks.all_weights()}
        outside = [weight for weight in self.model.weights if id(weight) not in in_backbones]
        return {REST: outside, **{name: self._blocks.state(name) for name in self.blocks}}

    def _apply(self, epoch: int, reason: str) -> None:
        """Makes flags, rates and the train step those of the phase."""
        phase, optimizer = self._resolved[self._optimizer.phase], self._optimizer
        before = self._blocks.trained
        for name in self.blocks:
            optimizer.set_scale(name, phase.lr_decay ** self._blocks.depth(name))
        changed = before & self.blocks != phase.trained
        if changed:
            self._blocks.train(phase.trained, of=self.blocks)
        if changed or optimizer.active != phase.active:
            optimizer.active = phase.active
            retrace(self.model)
            self._note_transition(epoch, before, reason)
        # TensorFlow traces a step twice that makes variables.
        if not self.model.optimizer.built and is_wholly_built(self.model):
            with self.model.distribute_strategy.scope():
                self.model.optimizer.build(self.model.trainable_variables)

    def _note_transition(self, epoch: int, before: set[str], reason: str) -> None:
        after = self._blocks.trained
        new = tuple(name for name in self._blocks.names if name in after - before)
        frozen = tuple(name for name in self._blocks.names if name in before - after)
        rate = None
        if self._optimizer.learning_rate_of() is not None:
            rate = float(f"{_number(self._optimizer.learning_rate):.6g}")  # float32
        self.transitions.append(Transition(epoch, new, rate, frozen, reason))
        if self.params.get("verbose"):
            changes = [f"{', '.join(new)} unfrozen"] * bool(new)
            changes += [f"{', '.join(frozen)} frozen"] * bool(frozen)
            say(
                f"Epoch {epoch + 1}: {'; '.join(changes) or 'another optimizer'} ({reason}); "
                f"{self._trainable():,} parameters train"
                + (f" at learning rate {rate:g}." if rate is not None else ".")
            )

    def _trainable(self) -> int:
        return sum(math.prod(weight.shape) for weight in self.model.trainable_weights)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes how the epoch went, and logs phase, parameters and rates."""
        optimizer = self._optimizer
        optimizer.state.epoch = epoch
        if self._watches:
            self._watch(dict(logs or {}))
        if isinstance(logs, dict):
            logs["phase"] = optimizer.phase
            logs["trainable_parameters"] = self._trainable()
            logs["learning_rate"] = _number(optimizer.learning_rate)
            trained = self._resolved[optimizer.phase].trained
            for name in sorted(self.blocks):
                rate = _number(optimizer.rate(name)) if name in trained else 0.0
                logs[f"learning_rate/{name}"] = rate
            numbers = {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}
            history = [entry for entry in optimizer.history.value if entry[0] < epoch]
            optimizer.history.value = [*history, (epoch, numbers)]

    def _watch(self, logs: Mapping[str, Any]) -> None:
        """Counts the epochs since the monitored metric was best."""
        state = self._optimizer.state
        if logs.get(self.monitor) is None:
            message = (
                f"monitor={self.monitor!r} is not logged. Logged are: {', '.join(sorted(logs))}."
            )
            validated = any(name.startswith("val_") for name in logs)
            if validated or not self.monitor.startswith("val_"):
                raise ValueError(f"{message} Give one of these as `monitor`.")
            self._warn(f"{message} Phases wait until it is: give `validation_data`.")
            return
        value = float(np.float32(logs[self.monitor]))  # as the best is kept
        sign = 1 if self._lower_is_better else -1
        if not math.isfinite(value):
            self._warn(f"{self.monitor} is {value:g}. Such an epoch counts as no improvement.")
        elif math.isinf(state.best) or sign * value < sign * state.best:
            state.best, state.wait = value, 0
            if any(phase.restore_best for phase in self._resolved):
                self._optimizer.remember(self._restorable_weights())
            return
        state.wait += 1

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=2)

    def _early_stoppings(self) -> list[keras.callbacks.EarlyStopping]:
        return [other for other in self._others if isinstance(other, keras.callbacks.EarlyStopping)]


def _blockwise_optimizer(model: keras.Model) -> BlockwiseOptimizer:
    """Returns the model's BlockwiseOptimizer, made from its optimizer if there is none yet.

    Raises:
        ValueError: If the model has no optimizer, or one that holds several.
    """
    if model.optimizer is None:
        raise ValueError("The model has no optimizer. Call `compile` with one before `fit`.")
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    is_new = not isinstance(optimizer, BlockwiseOptimizer)
    blockwise = BlockwiseOptimizer(optimizer) if is_new else optimizer
    blockwise.model.value = model
    set_optimizer(model, blockwise)
    if is_new:
        retrace(model)
    return blockwise


def _number(value: Any) -> float:
    return float(value.numpy())  # `float()` alone fails for what is spread over devices
