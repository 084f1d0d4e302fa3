"""BlockwiseOptimizer: one inner optimizer for each block, so that a late block starts fresh."""

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_transfer.training.optimizer_template import OptimizerTemplate
from keras_transfer.training.schedule_state import ScheduleState, Untracked
from keras_transfer.utils.keras_internals import name_variables, stepped_variables

REST = "rest"  # the group of what belongs to no block
_BEST, _BEST_SLOTS = "best/", "best/slots/"  # under which a group's best values are saved
_SCHEDULE, _HISTORY = "schedule", "history"


@keras.saving.register_keras_serializable(package="keras_transfer")
class BlockwiseOptimizer(keras.optimizers.Optimizer):
    """Gives every block of a backbone an optimizer of its own, under one learning rate.

    With one step count for all, a variable unfrozen at step 2000 takes Adam steps of several times
    the learning rate, since its moments are new while their bias correction is not. Here each
    block has its own slots, step count and moving averages, made at the start and untouched until
    the block trains. Blocks that trained before keep their state bit by bit.

    The idea is that of `keras.optimizers.MultiOptimizer`, which knows its variables by path, must
    receive gradients for all of them, and has no learning rate of its own.

    Args:
        optimizer: The optimizer to copy for each block; itself steps all variables that belong to
            no block. Its state is kept.
        name: As for any Keras optimizer.
        others: Optimizers that may take the place of the first in later phases.
        active: Which of them steps: 0 for the first.
        positions: For loading: group name to places among the trainable variables.
        schedule: For loading: the schedule that the state belongs to.

    Attributes:
        learning_rate: The base rate, readable and settable, or a schedule. A group's rate is the
            base rate times its scale, times the part of the warm-up that is over.
        state: How far a schedule has come; saved with the state.
        history: The logs of each epoch of the run so far; saved with the state.
        loaded_history: The part of it that was loaded and that nobody has taken yet.
        active: Which of the optimizers steps. The next step has to be traced anew after a change.
        holds_averages: Whether the end of a `fit` is not the end of training yet, so that moving
            averages stay where they are.
        model: The model, among whose trainable weights a saved optimizer finds its groups again.

    Raises:
        ValueError: If the optimizer holds other optimizers already.

    Example:
        >>> optimizer = BlockwiseOptimizer(keras.optimizers.Adam(1e-4))
        >>> optimizer.add_groups({"block5": model.get_layer("block5").trainable_variables})
        >>> optimizer.set_scale("block5", 0.1)
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        name: str | None = None,
        *,
        others: Sequence[keras.optimizers.Optimizer] = (),
        active: int = 0,
        positions: Mapping[str, Sequence[int]] | None = None,
        schedule: Any = None,
    ) -> None:
        first = OptimizerTemplate.of(optimizer)
        super().__init__(learning_rate=first.learning_rate, name=name)
        self.loss_scale_factor = optimizer.loss_scale_factor
        self.active = active
        self._schedule, self._is_loaded = Untracked(schedule), schedule is not None
        self.history = Untracked([])
        self.loaded_history: list[tuple[int, dict[str, Any]]] | None = None
        self.holds_averages = False
        self.model = Untracked(None)
        self._templates = Untracked([first])
        self._inner = Untracked({REST: self._follow(optimizer, REST)})
        self._members: Untracked = Untracked({})
        self._group_of: dict[int, str] = {}
        self._scales = Untracked({})
        self._best: Untracked = Untracked({})
        self._pending: dict[str, list[Any]] = {}
        self._positions = dict(positions or {})
        self._built_on = Untracked([])
        self.iterations.assign(optimizer.iterations)
        self.state = ScheduleState(self)
        self._add(REST, stepped_variables(optimizer))
        for other in others:
            self.add_optimizer(other)

    def _follow(self, optimizer: keras.optimizers.Optimizer, group: str) -> Any:
        """Gives an inner optimizer its group's rate, and turns off its global clipping."""
        optimizer.learning_rate = lambda: self.rate(group)
        optimizer.global_clipnorm = None
        return optimizer

    def learning_rate_of(self, number: int = 0) -> float | None:
        """Returns the rate that an optimizer was made with; `None` for a schedule of rates."""
        rate = self._templates.value[number].learning_rate
        return rate if isinstance(rate, float | int) else None

    @property
    def kind_name(self) -> str:
        """The class of the optimizer that the model was compiled with."""
        return self._templates.value[0].config["class_name"]

    @property
    def phase(self) -> int:
        """How many phases have begun."""
        return self.state.phase

    @property
    def group_names(self) -> tuple[str, ...]:
        """The blocks that have an optimizer, and `"rest"` for the variables of no block."""
        return tuple(name for name in self._inner.value if "@" not in name)

    def group(self, name: str, number: int | None = None) -> keras.optimizers.Optimizer:
        """Returns the inner optimizer of a group, to look at its slots and step count."""
        return self._inner.value[_key(name, self.active if number is None else number)]

    def set_scale(self, group: str, scale: float) -> None:
        """Sets the scale of a group, which is saved with the state; 1.0 unless set."""
        self._scale_of(group).assign(scale)

    def _scale_of(self, group: str) -> keras.Variable:
        scales = self._scales.value
        if group not in scales:
            with tf.init_scope():
                scales[group] = keras.Variable(1.0, trainable=False, name="scale")
            self._complete(f"scale/{group}", [scales[group]])
        return scales[group]

    def rate(self, group: str) -> Any:
        """Returns the learning rate of a group at this step."""
        return self.learning_rate * self._scale_of(group).value * self.state.warmed_up()

    @property
    def variables(self) -> list[keras.Variable]:
        """The own variables (steps, base rate, schedule), then those of each group."""
        return [variable for part in self._parts().values() for variable in part]

    def add_optimizer(self, optimizer: keras.optimizers.Optimizer) -> int:
        """Gives each group slots for another optimizer, too.

        Args:
            optimizer: One that steps all variables alike. It is copied.

        Returns:
            Its number, for `active`; that of an equal one if there is one.
        """
        template, templates = OptimizerTemplate.of(optimizer), self._templates.value
        if template not in templates:
            templates.append(template)
            for group in self.group_names:
                self._add(group, [])
        return templates.index(template)

    def add_groups(self, groups: Mapping[str, Sequence[keras.Variable]]) -> None:
        """Makes an optimizer with slots for each group of variables that has none yet.

        Args:
            groups: Name to variables. Variables known to another group stay there.
        """
        for group, variables in groups.items():
            own = [v for v in variables if id(v) not in self._group_of]
            if own and group not in self._inner.value:
                self._add(group, own)

    def _add(self, group: str, variables: Sequence[keras.Variable]) -> None:
        """Gives a group variables, the slots of all optimizers, and a scale."""
        self._scale_of(group)
        self._group_of.update(dict.fromkeys(map(id, variables), group))
        members = self._members.value.setdefault(group, [])
        members += variables
        for number, template in enumerate(self._templates.value):
            key = _key(group, number)
            if key not in self._inner.value:
                self._inner.value[key] = self._follow(template.copy(key), group)
            inner = self._inner.value[key]
            if members and not inner.built:
                inner.build(members)
            if inner.built:
                self._complete(key, inner.variables)

    def _complete(self, part: str, variables: Sequence[keras.Variable]) -> None:
        """Names the variables of a part of the state, and loads values that wait for them."""
        name_variables(variables, f"{self.name}/{_entry(part)}")
        if part in self._pending:
            _assign(part, variables, self._pending.pop(part))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the slots of all variables that have none, in the group `"rest"`.

        A loaded optimizer finds its groups by the variables' places.
        """
        if not variables:  # as Keras builds what a legacy `.h5` file holds, before it knows more
            return
        for group, places in self._positions.items():
            self.add_groups({group: [variables[place] for place in places]})
        rest = [v for v in variables if id(v) not in self._group_of]
        if rest:
            self._add(REST, rest)
        super().build([])
        self._built_on = Untracked(list(variables))

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Steps each group that has gradients. The others keep their slots and step counts."""
        if trainable_variables is None:
            trainable_variables = self._built_on.value
        if not self.built:
            self.build(trainable_variables)
        pairs: dict[str, list[tuple[Any, Any]]] = {}
        for grad, variable in zip(self._clip_globally(grads), trainable_variables, strict=True):
            if id(variable) not in self._group_of:
                raise ValueError(
                    f"Unknown variable {variable.path}: it was not trainable when training began "
                    "and belongs to no block of the schedule. Let BlockUnfreezer unfreeze it, or "
                    "compile the model again."
                )
            pairs.setdefault(self._group_of[id(variable)], []).append((grad, variable))
        for group, grads_and_variables in pairs.items():
            if any(grad is not None for grad, _ in grads_and_variables) or len(pairs) == 1:
                self.group(group).apply(*map(list, zip(*grads_and_variables, strict=True)))
        self.iterations.assign_add(1)

    def _clip_globally(self, grads: Sequence[Any]) -> Sequence[Any]:
        highest = self._templates.value[self.active].global_clipnorm
        if highest is None:
            return grads
        squares = [ops.sum(ops.square(grad)) for grad in grads if grad is not None]
        scale = highest / ops.maximum(ops.sqrt(sum(squares)), highest)
        return [None if grad is None else grad * ops.cast(scale, grad.dtype) for grad in grads]

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Sets the variables that have trained to their moving average, where one is kept."""
        if self.holds_averages:
            return
        for group in self.group_names:
            inner = self.group(group)
            own = [v for v in var_list if self._group_of.get(id(v)) == group]
            if own and int(inner.iterations.numpy()) > 0:
                inner.finalize_variable_values(own)

    def remember(self, weights: Mapping[str, Sequence[keras.Variable]]) -> None:
        """Keeps the present values of weights, and of the slots of all groups, as the best.

        Args:
            weights: Group name to weights.
        """
        self._best.value = {
            part: [variable.numpy() for variable in variables]
            for part, variables in self._best_parts(weights).items()
        }

    def recall(self, weights: Mapping[str, Sequence[keras.Variable]]) -> None:
        """Restores the values that were kept as the best.

        Args:
            weights: As for `remember`.
        """
        parts = self._best_parts(weights)
        for part, values in self._best.value.items():
            _assign(part, parts[part], values)

    def _best_parts(
        self, weights: Mapping[str, Sequence[keras.Variable]]
    ) -> dict[str, Sequence[keras.Variable]]:
        slots = {f"{_BEST_SLOTS}{key}": x.variables for key, x in self._inner.value.items()}
        return {**{f"{_BEST}{group}": part for group, part in weights.items()}, **slots}

    def save_own_variables(self, store: Any) -> None:
        """Saves the state under the names of the groups, so that a missing group is no mismatch."""
        values = {part: [v.numpy() for v in variables] for part, variables in self._parts().items()}
        for part, arrays in {**self._pending, **values, **self._best.value}.items():
            for i, array in enumerate(arrays):
                store[f"{_entry(part)}:{i}"] = array
        if self._schedule.value is not None:
            store[_SCHEDULE] = _as_bytes(self._schedule.value)
        if self.history.value:
            store[_HISTORY] = _as_bytes(self.history.value)

    def load_own_variables(self, store: Any) -> None:
        """Restores the state; that of a group which is still unknown waits until it is added.

        Raises:
            ValueError: If the state belongs to another schedule or another model.
        """
        saved: dict[str, dict[int, Any]] = {}
        for key in list(store.keys()):
            if key == _SCHEDULE:
                self._load_schedule(json.loads(np.asarray(store[key]).tobytes()))
            elif key == _HISTORY:
                self.history.value = json.loads(np.asarray(store[key]).tobytes())
                self.loaded_history = [(epoch, logs) for epoch, logs in self.history.value]
            else:
                part, _, i = key.rpartition(":")
                saved.setdefault(part.replace("|", "/"), {})[int(i)] = store[key]
        parts = self._parts()
        for part, values in saved.items():
            arrays = [ops.convert_to_numpy(values[i]) for i in range(len(values))]
            if part.startswith(_BEST):
                self._best.value[part] = arrays
            elif parts.get(part):
                _assign(part, parts[part], arrays)
            else:
                self._pending[part] = arrays

    def _load_schedule(self, saved: Any) -> None:
        current = None if self._is_loaded else self._schedule.value
        self._schedule.value, self._is_loaded = saved, True
        if current is not None:
            self.adopt_schedule(current)

    def adopt_schedule(self, schedule: Any) -> bool:
        """Takes note of the schedule that it steps under.

        Args:
            schedule: Plain values, as JSON has them: for all phases, then for each.

        Returns:
            Whether the state belongs to it.

        Raises:
            ValueError: If the state was loaded and belongs to another schedule.
        """
        former, is_loaded = self._schedule.value, self._is_loaded
        self._schedule.value, self._is_loaded = schedule, False
        if former is None:
            return True
        phases = zip_longest(map(_effects, former), map(_effects, schedule))
        differences = [(number, *pair) for number, pair in enumerate(phases) if pair[0] != pair[1]]
        if differences and is_loaded:
            number, saved, given = differences[0]
            where = f"in phase {number} " if number else ""
            raise ValueError(
                f"What was saved belongs to another schedule: {where}it had {saved}, this one has "
                f"{given}. Go on with the schedule that it was saved under, or compile the model "
                "again to begin another."
            )
        return not differences

    def check_owners(self, groups: Collection[str]) -> None:
        """Checks that all loaded state belongs to a group that exists or may be added.

        Args:
            groups: The names of all blocks.

        Raises:
            ValueError: If some state belongs to no such group.
        """
        names = {part.removeprefix("scale/").partition("@")[0] for part in self._pending}
        if lost := sorted(names.difference({*groups, REST})):
            raise ValueError(
                f"What was saved holds optimizer state of {', '.join(map(repr, lost))}, which is "
                f"no block of this model. Its blocks are {', '.join(groups)}. Build the model that "
                "was saved, or begin anew without the saved state."
            )

    def _parts(self) -> dict[str, list[keras.Variable]]:
        """Returns all variables, by the names under which they are saved."""
        return {
            "": super().variables,
            **{f"scale/{group}": [scale] for group, scale in self._scales.value.items()},
            **{key: inner.variables for key, inner in self._inner.value.items()},
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the optimizers copied for each block, and where each group's variables stand."""
        rate = super().get_config()["learning_rate"]
        first, *others = (template.config for template in self._templates.value)
        return {
            "optimizer": {**first, "config": {**first["config"], "learning_rate": rate}},
            "name": self.name,
            "others": others,
            "active": self.active,
            "positions": self._current_positions(),
            "schedule": self._schedule.value,
        }

    def _current_positions(self) -> dict[str, list[int]]:
        if self.model.value is None:
            return {group: list(places) for group, places in self._positions.items()}
        positions: dict[str, list[int]] = {}
        for place, variable in enumerate(self.model.value.trainable_weights):
            group = self._group_of.get(id(variable), REST)
            if group != REST:
                positions.setdefault(group, []).append(place)
        return positions

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the optimizer again; `build` finds the groups."""
        # Not `keras.optimizers.deserialize`, whose table of names lacks Lamb in Keras 3.15.1.
        first, *others = (
            keras.saving.deserialize_keras_object(optimizer, custom_objects)
            for optimizer in (config["optimizer"], *config["others"])
        )
        return cls(**{**config, "optimizer": first, "others": others})


def _key(group: str, number: int) -> str:
    """Returns the name of a group's state under one of the optimizers."""
    return f"{group}@{number}" if number else group


def _entry(part: str) -> str:
    """Returns the name of a part of the state in a file, where "/" would make a group of HDF5."""
    return part.replace("/", "|")


def _effects(phase: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a phase of a schedule does, however its blocks are named."""
    return {key: value for key, value in phase.items() if key not in ("which", "freeze")}


def _assign(part: str, variables: Sequence[Any], values: Sequence[Any]) -> None:
    if len(values) != len(variables):
        raise ValueError(
            f"The saved optimizer has {len(values)} variables for group '{part}', this one "
            f"{len(variables)}. Expected the same model, schedule and optimizer."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _as_bytes(plain: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(plain).encode(), "uint8")
