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
from keras_transfer.training.blockwise_optimizer import REST
from keras_transfer.training.callback_order import lead
from keras_transfer.training.schedule import Phase, check_rate, gradual, phases, stages
from keras_transfer.training.schedule_file import read_schedule
from keras_transfer.training.train_step import adopt_optimizer, make_variables, retrace
from keras_transfer.utils.console import say
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
        reason: Why it came now, in a few words, as it was printed.
    """

    epoch: int
    blocks: tuple[str, ...]
    learning_rate: float | None
    frozen: tuple[str, ...] = ()
    reason: str = field(default="", compare=False)


class BlockUnfreezer(keras.callbacks.Callback):
    """Unfreezes blocks of a `FrozenBackbone` in phases, within one `model.fit`.

    Works on any compiled Keras model that holds a `FrozenBackbone`, at any depth; where it holds
    several, blocks are named `"<layer>/<block>"`. The compiled optimizer is kept: each block steps
    with a copy of its own, so that what trained before goes on with its slots and step counts, and
    what is new starts as under a fresh optimizer. What trains in an epoch follows from the epoch
    and from what is saved with the optimizer, so runs resume: a block of the schedule is frozen
    before its phase, also in a second fit.

    The logs, hence History, get `phase`, `trainable_parameters`, `learning_rate` (the base rate)
    and `learning_rate/<block>` for each block of the schedule, 0 while it is frozen.

    Args:
        schedule: `{epoch: which}`: epochs counted from 0, blocks as `FrozenBackbone.unfreeze` takes
            them; a list of `Phase`; `"gradual"` for one block a phase from the top, each when
            `monitor` has not improved for 3 epochs; or the path of a YAML file with the same
            content.
        learning_rate: The base learning rate from the first phase on; `None` to leave it.
        lr_decay: The rate of each block relative to the one above it, from the first phase on.
        monitor: The metric that phases with `patience` or `restore_best` look at: one that the
            model logs. Epochs without validation do not count.
        mode: `"min"`, `"max"`, or `"auto"` to tell from the name.
        restore_best: Whether each phase goes on from the best epoch of the phase before it.
        early_stopping: `"last"`: `keras.callbacks.EarlyStopping` ends the fit only in the last
            phase, and its best is that of the phase. `"any"`: as if there were no phases.

    Attributes:
        transitions: What has changed in this fit, one `Transition` each.

    Raises:
        TypeError: If the schedule is of no known kind.
        ValueError: If the schedule is empty, out of order, names an unknown block or an impossible
            value, has a phase that changes nothing, or the model holds no backbone.

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
        self._phases = None if schedule == "gradual" else _phases(schedule)

    def set_model(self, model: keras.Model) -> None:
        """Checks the schedule against the model, and gives each block of it an optimizer."""
        super().set_model(model)
        self._others = lead(self)
        check_keras_3(model=model, callbacks=self._others)
        if any(isinstance(other, BlockUnfreezer) for other in self._others):
            raise ValueError("Expected one BlockUnfreezer in a fit. Received: several.")
        self.transitions = []
        self._told: set[str] = set()
        self._blocks = ModelBlocks(model)
        listed = gradual(self._blocks.names) if self._phases is None else self._phases
        with model.distribute_strategy.scope():
            self._optimizer = adopt_optimizer(model)
            self._stages = stages(
                listed,
                self._blocks,
                self._optimizer,
                learning_rate=self.learning_rate,
                lr_decay=self.lr_decay,
                restore_best=self.restore_best,
            )
            self._check_phases()
            groups = {name: self._blocks.weights(name) for name in sorted(self.blocks)}
            self._optimizer.add_groups(groups)
        self._optimizer.know(model)
        described = self._described()
        self._is_same_schedule = self._optimizer.schedule in (None, described)
        self._optimizer.adopt_schedule(described)

    def _check_phases(self) -> None:
        """Refuses a schedule that unfreezes blocks of which nothing can train."""
        for before, stage in pairwise(self._stages):
            if (new := stage.trained - before.trained) and self._phases is not None:
                self._blocks.check_trains(new)
        if self._phases is None:  # one block after the other, whatever they hold
            self._blocks.check_trains(self.blocks)

    def _described(self) -> list[dict[str, Any]]:
        """All that decides how the schedule goes, as plain values."""
        watches = self._watches()
        first = {
            "optimizer": self._optimizer.kind_name,
            "monitor": self.monitor if watches else None,
            "mode": self.mode if watches else None,
        }
        return [first, *(stage.describe() for stage in self._stages[1:])]

    def _watches(self) -> bool:
        return any(s.restore_best or (s.phase and s.phase.patience) for s in self._stages)

    @property
    def blocks(self) -> set[str]:
        """All blocks of the schedule."""
        return {block for stage in self._stages for block in stage.trained}

    def next_start(self, epoch: int) -> int | None:
        """Returns the first epoch after `epoch` at which a phase begins for sure, or `None`."""
        starts = [stage.phase.at_epoch for stage in self._stages if stage.phase]
        return min((at for at in starts if at is not None and at > epoch), default=None)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Warns of a schedule that begins after the last epoch; makes room for the best."""
        first, epochs = self._stages[1].phase, self.params.get("epochs")
        at = first.at_epoch if first and first.patience is None else None
        if at is not None and epochs is not None and at >= epochs:
            warnings.warn(
                f"Nothing will be unfrozen: the schedule begins at epoch {at}, counted from 0, "
                f"and the last of {epochs} epochs is {epochs - 1}.",
                stacklevel=2,
            )
        if any(stage.restore_best for stage in self._stages):
            self._make_room_for_best()
        self._optimizer.loaded_history = None  # of a file; what is loaded from here on is a backup

    def _make_room_for_best(self) -> None:
        model = self.model
        if not is_wholly_built(model):
            raise ValueError(
                "restore_best needs a model whose weights exist: call the model on a batch before "
                "`fit`, model(images)."
            )
        frozen = {id(weight) for weight in self._blocks.all_weights()}
        weights = {name: self._blocks.weights(name) for name in self.blocks}
        weights[REST] = [weight for weight in model.weights if id(weight) not in frozen]
        with model.distribute_strategy.scope():
            if not self._optimizer.built:
                self._optimizer.build(model.trainable_variables)
            self._optimizer.keep_best_of(weights)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Brings the blocks into the state that belongs to the epoch."""
        self._complete_history(epoch)
        self._optimizer.check_owners(self._blocks.names)
        state, why = self._optimizer.state, "what was saved"
        if not (self._is_same_schedule and state.epoch == epoch - 1):  # not the run that is saved
            self._begin(self._begun_by(epoch), epoch)
            why = _SCHEDULED
        while (reason := self._due(epoch)) is not None:
            why = reason
            self._advance(epoch)
        self._apply(epoch, why)
        self._restrain_early_stopping()

    def _complete_history(self, epoch: int) -> None:
        """Gives the History of a resumed run the epochs before."""
        optimizer = self._optimizer
        earlier, optimizer.loaded_history = optimizer.loaded_history, None
        for history in self._others:
            if isinstance(history, keras.callbacks.History) and not history.epoch:
                for number, logs in earlier or ():
                    if number < epoch:
                        history.on_epoch_end(number, logs)

    def _begun_by(self, epoch: int) -> int:
        """How many phases have begun at an epoch, as far as epochs alone tell."""
        at = [stage.phase.at_epoch if stage.phase else 0 for stage in self._stages]
        return max(
            number for number, start in enumerate(at) if start is not None and start <= epoch
        )

    def _begin(self, begun: int, epoch: int) -> None:
        """Goes to a phase from wherever the last run was."""
        state, stage = self._optimizer.state, self._stages[begun]
        if state.phase != begun or not self._is_same_schedule:
            self._set_rate(stage.rate)
        self._restart_state(begun, epoch)
        self._is_same_schedule = True

    def is_due(self, epoch: int) -> bool:
        """Whether the next phase begins with this epoch."""
        return self._due(epoch) is not None

    def _due(self, epoch: int) -> str | None:
        """Why the next phase begins with this epoch; `None` if it does not."""
        state = self._optimizer.state
        if state.phase + 1 >= len(self._stages):
            return None
        phase = self._stages[state.phase + 1].phase
        if phase is None:  # only the stage before the first has none
            return None
        if phase.at_epoch is not None and epoch >= phase.at_epoch:
            return _SCHEDULED
        if phase.patience is not None and state.wait >= phase.patience:
            return f"{self.monitor} no better for {state.wait} epoch{'s' * (state.wait != 1)}"
        return None

    def _advance(self, epoch: int) -> None:
        """Goes from a phase to the next."""
        begun = self._optimizer.phase + 1
        stage = self._stages[begun]
        if stage.restore_best and math.isfinite(self._optimizer.state.best):
            self._optimizer.recall()
        self._set_rate(stage.sets_rate)
        self._restart_state(begun, epoch)
        if self.early_stopping == "last":
            for stopper in self._early_stoppings():
                stopper.on_train_begin()  # its best is that of the phase

    def _restart_state(self, begun: int, epoch: int) -> None:
        phase = self._stages[begun].phase
        self._optimizer.state.restart(begun, epoch, warmup=phase.warmup if phase else 0)

    def _set_rate(self, rate: float | None) -> None:
        if rate is not None:
            self._optimizer.learning_rate = rate

    def _apply(self, epoch: int, why: str) -> None:
        """Makes flags, rates and the step those of the phase."""
        stage, optimizer = self._stages[self._optimizer.phase], self._optimizer
        before = self._blocks.trained
        for name in self.blocks:
            optimizer.scales[name] = stage.lr_decay ** self._blocks.depth(name)
        changed = before & self.blocks != stage.trained
        if changed:
            self._blocks.train(stage.trained, of=self.blocks)
        if changed or optimizer.active != stage.active:
            optimizer.active = stage.active
            retrace(self.model)
            self._note(epoch, before, why)
        make_variables(self.model)

    def _note(self, epoch: int, before: set[str], why: str) -> None:
        after = self._blocks.trained
        new = tuple(name for name in self._blocks.names if name in after - before)
        frozen = tuple(name for name in self._blocks.names if name in before - after)
        fixed = self._optimizer.compiled_learning_rate is not None
        rate = float(f"{_number(self._optimizer.learning_rate):.6g}") if fixed else None  # float32
        self.transitions.append(Transition(epoch, new, rate, frozen, why))
        if self.params.get("verbose"):
            parts = [
                f"{', '.join(names)} {what}"
                for names, what in ((new, "unfrozen"), (frozen, "frozen"))
                if names
            ]
            say(
                f"Epoch {epoch + 1}: {'; '.join(parts) or 'another optimizer'} ({why}); "
                f"{self._trainable():,} parameters train"
                + (f" at learning rate {rate:g}." if rate is not None else ".")
            )

    def _trainable(self) -> int:
        return sum(math.prod(weight.shape) for weight in self.model.trainable_weights)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes how the epoch went, and logs phase, parameters and rates."""
        state, optimizer = self._optimizer.state, self._optimizer
        state.epoch = epoch
        if self._watches():
            self._look_at(dict(logs or {}))
        if isinstance(logs, dict):
            stage = self._stages[state.phase]
            logs["phase"] = state.phase
            logs["trainable_parameters"] = self._trainable()
            logs["learning_rate"] = _number(optimizer.learning_rate)
            for name in sorted(self.blocks):
                rate = _number(optimizer.rate(name))
                logs[f"learning_rate/{name}"] = rate if name in stage.trained else 0.0
            history = [one for one in optimizer.history.value if one[0] < epoch]
            optimizer.history.value = [*history, (epoch, _plain(logs))]

    def _look_at(self, logs: Mapping[str, Any]) -> None:
        """Counts the epochs since the monitored metric was best."""
        state, value = self._optimizer.state, logs.get(self.monitor)
        if value is None:
            self._complain(logs)
            return
        value = float(np.float32(value))  # as what it is compared with is kept
        sign = 1 if self._lower_is_better else -1
        if not math.isfinite(value):
            self._warn(f"{self.monitor} is {value:g}. Such an epoch counts as no improvement.")
            state.wait += 1
        elif math.isinf(state.best) or sign * value < sign * state.best:
            state.best, state.wait = value, 0
            self._optimizer.remember()
        else:
            state.wait += 1

    def _complain(self, logs: Mapping[str, Any]) -> None:
        message = f"monitor={self.monitor!r} is not logged. Logged are: {', '.join(sorted(logs))}."
        validated = any(name.startswith("val_") for name in logs)
        if validated or not self.monitor.startswith("val_"):
            raise ValueError(f"{message} Give one of these as `monitor`.")
        self._warn(f"{message} Phases wait until it is: give `validation_data`.")

    def _warn(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            warnings.warn(message, stacklevel=2)

    def _early_stoppings(self) -> list[keras.callbacks.EarlyStopping]:
        return [one for one in self._others if isinstance(one, keras.callbacks.EarlyStopping)]

    def _restrain_early_stopping(self) -> None:
        """Makes only epochs of the last phase count for the patience of EarlyStopping."""
        if self.early_stopping == "last" and self._optimizer.phase + 1 < len(self._stages):
            for stopper in self._early_stoppings():
                stopper.wait = -math.inf


def _plain(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items() if np.ndim(value) == 0}


def _number(value: Any) -> float:
    return float(value.numpy())  # `float()` alone fails for what is spread over devices


def _phases(schedule: Any) -> tuple[Phase, ...]:
    is_path = isinstance(schedule, str | os.PathLike)
    return phases(read_schedule(schedule) if is_path else schedule)
