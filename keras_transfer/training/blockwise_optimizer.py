"""BlockwiseOptimizer: one inner optimizer for each block, so that a late block starts fresh."""

import json
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_transfer.training.optimizer_state import (
    Kind,
    Opaque,
    ScheduleState,
    deserialized,
    steps_of,
)

REST = "rest"  # the group of what belongs to no block
_BEST, _BEST_SLOTS = "best/", "best/slots/"  # under which a group's best values are saved
_FORMER_BEST = "best"  # under which earlier versions saved those of all groups
TRAINED = "trained"  # what a schedule calls the blocks that train in a phase
_SCHEDULE = "schedule"
_HISTORY = "history"


@keras.saving.register_keras_serializable(package="keras_transfer")
class BlockwiseOptimizer(keras.optimizers.Optimizer):
    """Gives every block of a backbone an optimizer of its own, under one learning rate.

    With one step count for all, a variable unfrozen at step 2000 takes Adam steps of several times
    the learning rate, since its moments are new while their bias correction is not. Here each
    block has its own slots, step count and moving averages, made at the start and untouched until
    the block trains. What trained before goes on with its state bit by bit.

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
        scales: Group name to scale, 1.0 unless set; saved with the state.
        state: How far a schedule has come; saved with the state.
        history: The logs of each epoch of the run so far; saved with the state.
        loaded_history: What of it was loaded, and nobody has taken yet; `None` for nothing.
        active: Which of the optimizers steps. The next step has to be traced anew after a change.
        holds_averages: Whether the end of a `fit` is not the end of training yet, so that moving
            averages stay where they are.

    Raises:
        ValueError: If the optimizer holds other optimizers already.

    Example:
        >>> optimizer = BlockwiseOptimizer(keras.optimizers.Adam(1e-4))
        >>> optimizer.add_groups({"block5": model.get_layer("block5").trainable_variables})
        >>> optimizer.scales["block5"] = 0.1
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
        first = Kind.of(optimizer)
        super().__init__(learning_rate=first.learning_rate, name=name)
        self.loss_scale_factor = optimizer.loss_scale_factor
        self.active = active
        self.schedule: Any = None
        self._saved_schedule = schedule
        self.history = Opaque([])
        self.loaded_history: list[tuple[int, dict[str, Any]]] | None = None
        self._kinds = Opaque([first])
        self._iterations.assign(optimizer.iterations)
        self._groups = Opaque({REST: self._follow(optimizer, REST)})
        self._scales = Opaque({})
        self._best = Opaque({})
        self._group_of: dict[Any, str] = {}
        self._pending: dict[str, list[Any]] = {}
        self._built_on = Opaque([])
        self.holds_averages = False
        self._positions = dict(positions or {})
        self._former_names: dict[str, str] = {}
        self._model = Opaque(None)
        self.state = ScheduleState(self)
        self._name_variables(REST)
        self.scale_of(REST)
        if optimizer.built:  # what it has slots for has no public name
            for variable in optimizer._trainable_variables:
                self._group_of[self._var_key(variable)] = REST
        for other in others:
            self.add_optimizer(other)

    def _follow(self, optimizer: keras.optimizers.Optimizer, group: str) -> Any:
        """Gives an inner optimizer its group's rate, and turns off its global clipping."""
        optimizer.learning_rate = _GroupRate(self, group)
        optimizer.global_clipnorm = None
        return optimizer

    @property
    def compiled_learning_rate(self) -> float | None:
        """The learning rate that the model was compiled with; `None` for a schedule."""
        return self.learning_rate_of(0)

    def learning_rate_of(self, kind: int) -> float | None:
        """The learning rate that an optimizer came with; `None` for a schedule."""
        rate = self._kinds.value[kind].learning_rate
        return rate if isinstance(rate, float | int) else None

    @property
    def kind_name(self) -> str:
        """The class of the optimizer that the model was compiled with."""
        return self._kinds.value[0].config["class_name"]

    @property
    def phase(self) -> int:
        """How many phases have begun."""
        return self.state.phase

    @property
    def scales(self) -> "_Scales":
        """Group name to scale."""
        return _Scales(self)

    @property
    def _inner(self) -> Mapping[str, Any]:
        # Behind a proxy, since saving walks through dicts of optimizers and would number them.
        return MappingProxyType(self._groups.value)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The blocks that have an optimizer, and `"rest"` for the variables of no block."""
        return tuple(name for name in self._inner if "@" not in name)

    def group(self, name: str, kind: int | None = None) -> keras.optimizers.Optimizer:
        """Returns the inner optimizer of a group, to look at its slots and step count."""
        return self._inner[_key(name, self.active if kind is None else kind)]

    # For `keras.callbacks.SwapEMAWeights`, which knows these private names only.

    @property
    def _averaged(self) -> list[tuple[Any, Any]]:
        inner = [self.group(group) for group in self.group_names]
        return [
            pair
            for one in inner
            if one.use_ema and steps_of(one) > 0  # before, an average is empty
            for pair in zip(
                one._trainable_variables, one._model_variables_moving_average, strict=True
            )
        ]

    @property
    def _trainable_variables(self) -> list[Any]:
        return [variable for variable, _ in self._averaged]

    @_trainable_variables.setter
    def _trainable_variables(self, _: Any) -> None:
        """What Keras sets is not what has averages here."""

    @property
    def _model_variables_moving_average(self) -> list[Any]:
        if not self.group(REST).use_ema:
            raise AttributeError("The optimizer keeps no averages: use_ema=False.")
        return [average for _, average in self._averaged]

    def rate(self, group: str) -> Any:
        """Returns the learning rate of a group at this step."""
        return self.learning_rate * self.scales[group] * self.state.warmed_up()

    @property
    def variables(self) -> list[keras.Variable]:
        """The own variables (steps, base rate, schedule), then those of each group."""
        return [variable for part in self._state().values() for variable in part]

    def add_optimizer(self, optimizer: keras.optimizers.Optimizer) -> int:
        """Gives each group slots for another optimizer, too.

        Args:
            optimizer: One that steps all variables alike. It is copied.

        Returns:
            Its number, for `active`; that of an equal one if there is one.
        """
        kind, kinds = Kind.of(optimizer), self._kinds.value
        if kind not in kinds:
            kinds.append(kind)
            members: dict[str, list[Any]] = {REST: []}
            for variable in [v for one in self._inner.values() for v in one._trainable_variables]:
                members.setdefault(self._group(variable), []).append(variable)
            for group, variables in members.items():
                self._build(group, list({self._var_key(v): v for v in variables}.values()))
        return kinds.index(kind)

    def add_groups(self, groups: Mapping[str, Sequence[keras.Variable]]) -> None:
        """Makes an optimizer with slots for each group of variables that has none yet.

        Args:
            groups: Name to variables. Variables known to another group stay there.
        """
        for group, variables in groups.items():
            own = [v for v in variables if self._var_key(v) not in self._group_of]
            if own and group not in self._inner:
                self._add_group(group, own)

    def rename_groups(self, former_names: Mapping[str, str]) -> None:
        """Renames the groups of earlier versions' files, loaded before or after this call.

        Args:
            former_names: Former name to name.
        """
        self._former_names = dict(former_names)
        self._group_of = {key: self._renamed(group) for key, group in self._group_of.items()}
        stores: list[MutableMapping[str, Any]] = [
            self._groups.value,
            self._scales.value,
            self._best.value,
            self._pending,
            self._positions,
        ]
        for store in stores:
            for part in [part for part in store if self._renamed(part) != part]:
                store[self._renamed(part)] = store.pop(part)
        for key, inner in self._inner.items():
            self._follow(inner, key.partition("@")[0])

    def _renamed(self, part: str) -> str:
        what, group, kind = _parsed(part)
        return f"{what}{self._former_names.get(group, group)}{kind}"

    def check_owners(self, groups: Collection[str]) -> None:
        """Checks that all loaded state belongs to a group that exists or may be added.

        Args:
            groups: The names of all blocks.

        Raises:
            ValueError: If some state belongs to no such group.
        """
        owners = {*groups, REST, _FORMER_BEST}
        lost = sorted({_parsed(part)[1] for part in self._pending}.difference(owners))
        if lost:
            raise ValueError(
                f"What was saved holds optimizer state of {', '.join(map(repr, lost))}, which is "
                f"no block of this model. Its blocks are {', '.join(groups)}. Build the model that "
                "was saved, or begin anew without the saved state."
            )

    def _add_group(self, group: str, variables: Sequence[keras.Variable]) -> None:
        for variable in variables:
            self._group_of[self._var_key(variable)] = group
        self._build(group, list(variables))

    def _build(self, group: str, variables: list[keras.Variable]) -> None:
        """Gives a group the slots of all optimizers, and its scale."""
        self.scale_of(group)
        for number, kind in enumerate(self._kinds.value):
            key = _key(group, number)
            if key not in self._inner:
                self._groups.value[key] = self._follow(kind.copy(key), group)
            if variables and not self._inner[key].built:
                self._inner[key].build(variables)
                self._load_pending(key)
            self._name_variables(key)

    def _name_variables(self, part: str) -> None:
        """Gives each variable of the state a path of its own, as `.h5` files need.

        Keras gives some twice, those of Adafactor even within an optimizer, and lets nobody else
        set them: `_path` has no public name.
        """
        for i, variable in enumerate(self._state()[part]):
            variable._path = f"{self.name}/{_entry(part, i)}"

    def _load_pending(self, part: str) -> None:
        if part in self._pending:
            _assign(part, self._state()[part], self._pending.pop(part))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the slots of all variables that have none, in the group `"rest"`.

        A loaded optimizer finds its groups by the variables' places.
        """
        if not variables:  # as Keras builds what a legacy `.h5` file holds, before it knows more
            return
        for group, places in self._positions.items():
            self.add_groups({group: [variables[place] for place in places]})
        rest = [v for v in variables if self._var_key(v) not in self._group_of]
        if rest:
            self._add_group(REST, rest)
        super().build([])
        self._built_on = Opaque(list(variables))

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
            pairs.setdefault(self._group(variable), []).append((grad, variable))
        for group, grads_and_variables in pairs.items():
            if any(grad is not None for grad, _ in grads_and_variables) or len(pairs) == 1:
                self.group(group).apply(*map(list, zip(*grads_and_variables, strict=True)))
        self._iterations.assign_add(1)

    def _group(self, variable: keras.Variable) -> str:
        try:
            return self._group_of[self._var_key(variable)]
        except KeyError:
            raise ValueError(
                f"Unknown variable {variable.path}: it was not trainable when training began and "
                "belongs to no block of the schedule. Let BlockUnfreezer unfreeze it, or compile "
                "the model again."
            ) from None

    def _clip_globally(self, grads: Sequence[Any]) -> Sequence[Any]:
        highest = self._kinds.value[self.active].global_clipnorm
        if highest is None:
            return grads
        squares = [ops.sum(ops.square(grad)) for grad in grads if grad is not None]
        norm = ops.sqrt(sum(squares))
        scale = highest / ops.maximum(norm, highest)
        return [None if grad is None else grad * ops.cast(scale, grad.dtype) for grad in grads]

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Sets the variables that have trained to their moving average, where one is kept."""
        if self.holds_averages:
            return
        for group in self.group_names:
            inner = self.group(group)
            own = [v for v in var_list if self._group_of.get(self._var_key(v)) == group]
            if own and steps_of(inner) > 0:
                inner.finalize_variable_values(own)

    def keep_best_of(self, weights: Mapping[str, Sequence[keras.Variable]]) -> None:
        """Makes room for the best values of weights, and of the slots of all groups.

        Args:
            weights: Group name to weights.
        """
        slots = {f"{_BEST_SLOTS}{key}": inner.variables for key, inner in self._inner.items()}
        own = {f"{_BEST}{group}": variables for group, variables in weights.items()}
        for part, variables in {**own, **slots}.items():
            kept = self._best.value.setdefault(part, [])
            known = {id(variable) for variable, _ in kept}
            kept += [(v, _copy(v)) for v in variables if id(v) not in known]
            self._name_variables(part)
            self._load_pending(part)
        self._load_former_best()

    def _load_former_best(self) -> None:
        """Loads the best values of an earlier version's file, which has them in order of names."""
        if not self._best.value or _FORMER_BEST not in self._pending:
            return
        former = {new: old for old, new in self._former_names.items()}

        def place(part: str) -> tuple[str, bool, str, str]:
            what, group, kind = _parsed(part)
            return what, group != REST, former.get(group, group), kind

        in_order = sorted(self._best.value, key=place)
        copies = [copy for part in in_order for _, copy in self._best.value[part]]
        _assign(_FORMER_BEST, copies, self._pending.pop(_FORMER_BEST))

    def _best_pairs(self) -> list[tuple[Any, Any]]:
        return [pair for pairs in self._best.value.values() for pair in pairs]

    def remember(self) -> None:
        """Keeps the values of now as the best."""
        for variable, copy in self._best_pairs():
            copy.assign(variable)

    def recall(self) -> None:
        """Brings back the best values."""
        for variable, copy in self._best_pairs():
            variable.assign(copy)

    def save_own_variables(self, store: Any) -> None:
        """Saves the state under the names of the groups, so that a missing group is no mismatch."""
        for part, variables in self._state().items():
            for i, variable in enumerate(variables):
                store[_entry(part, i)] = variable.numpy()
        for part, values in self._pending.items():  # loaded, and not yet asked for
            for i, value in enumerate(values):
                store[_entry(part, i)] = value
        schedule = self.schedule or self._saved_schedule
        if schedule is not None:
            store[_SCHEDULE] = _as_bytes(schedule)
        if self.history.value:
            store[_HISTORY] = _as_bytes(self.history.value)

    def load_own_variables(self, store: Any) -> None:
        """Restores the state; that of a group which is still unknown waits until it is added.

        Raises:
            ValueError: If the state belongs to another schedule or another model.
        """
        saved: dict[str, dict[int, Any]] = {}
        for key in list(store.keys()):
            if key in (_SCHEDULE, _HISTORY):
                found = json.loads(np.asarray(store[key]).tobytes())
                if key == _SCHEDULE:
                    self._check_schedule(found)
                else:
                    self.history.value = found
                    self.loaded_history = [(epoch, logs) for epoch, logs in found]
                continue
            part, _, i = key.rpartition(":")
            saved.setdefault(self._renamed(part.replace("|", "/")), {})[int(i)] = store[key]
        state = self._state()
        for part, values in saved.items():
            ordered = [ops.convert_to_numpy(values[i]) for i in range(len(values))]
            if part not in state or not state[part]:
                self._pending[part] = ordered
                continue
            _assign(part, state[part], ordered)
        self._load_former_best()

    def _check_schedule(self, saved: Any) -> None:
        self._saved_schedule = saved
        if self.schedule is not None:
            self.adopt_schedule(self.schedule)

    def adopt_schedule(self, schedule: Any) -> None:
        """Takes note of the schedule that it steps under.

        Args:
            schedule: Plain values, as JSON has them: for all phases, then for each.

        Raises:
            ValueError: If what was loaded belongs to another schedule; the message says what
                differs.
        """
        differences = _differences(self._saved_schedule, schedule)
        if differences:
            raise ValueError(
                "What was saved belongs to another schedule: "
                + "; ".join(differences)
                + ". Go on with the schedule that it was saved under, or compile the model again "
                "to begin another."
            )
        self.schedule, self._saved_schedule = schedule, None

    def _state(self) -> dict[str, list[keras.Variable]]:
        """All variables, by the names under which they are saved."""
        return {
            "": list(self._variables),
            **{f"scale/{group}": [scale] for group, scale in self._scales.value.items()},
            **{group: inner.variables for group, inner in self._inner.items()},
            **{part: [copy for _, copy in pairs] for part, pairs in self._best.value.items()},
        }

    def scale_of(self, group: str) -> keras.Variable:
        """Returns the scale of a group, made now if there is none."""
        scales = self._scales.value
        if group not in scales:
            with tf.init_scope():
                scales[group] = keras.Variable(1.0, trainable=False, name="scale")
            self._name_variables(f"scale/{group}")
            self._load_pending(f"scale/{group}")
        return scales[group]

    def get_config(self) -> dict[str, Any]:
        """Returns the optimizers copied for each block, and where each group's variables stand."""
        rate = keras.optimizers.Optimizer.get_config(self)["learning_rate"]
        first, *others = (kind.config for kind in self._kinds.value)
        return {
            "optimizer": {**first, "config": {**first["config"], "learning_rate": rate}},
            "name": self.name,
            "others": others,
            "active": self.active,
            "positions": self._current_positions(),
            "schedule": self.schedule or self._saved_schedule,
        }

    def _current_positions(self) -> dict[str, list[int]]:
        if self._model.value is None:
            return {group: list(places) for group, places in self._positions.items()}
        positions: dict[str, list[int]] = {}
        for place, variable in enumerate(self._model.value.trainable_weights):
            group = self._group_of.get(self._var_key(variable), REST)
            if group != REST:
                positions.setdefault(group, []).append(place)
        return positions

    def know(self, model: keras.Model) -> None:
        """Tells the model, in whose trainable weights a saved optimizer finds its groups again."""
        self._model = Opaque(model)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the optimizer again; `build` finds the groups."""
        config = dict(config)
        config["optimizer"] = deserialized(config["optimizer"], custom_objects)
        config["others"] = [deserialized(other, custom_objects) for other in config["others"]]
        return cls(**config)


class _GroupRate(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of a group, whatever its own step."""

    def __init__(self, owner: BlockwiseOptimizer, group: str) -> None:
        self.owner = owner
        self.group = group

    def __call__(self, step: Any) -> Any:
        return self.owner.rate(self.group)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("Save the BlockwiseOptimizer, not one that belongs to it.")


class _Scales(MutableMapping):
    """Group name to scale, held in variables so that a step that is traced sees a change."""

    def __init__(self, owner: BlockwiseOptimizer) -> None:
        self._owner = owner

    def __getitem__(self, group: str) -> Any:
        return self._owner.scale_of(group).value

    def __setitem__(self, group: str, scale: float) -> None:
        self._owner.scale_of(group).assign(scale)

    def __delitem__(self, group: str) -> None:
        self[group] = 1.0

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner.group_names)

    def __len__(self) -> int:
        return len(self._owner.group_names)


def _copy(variable: keras.Variable) -> keras.Variable:
    # Of an array: Keras takes another variable's value for its own. `numpy` also reads what is
    # spread over devices.
    return keras.Variable(variable.numpy(), trainable=False, dtype=variable.dtype)


def _key(group: str, kind: int) -> str:
    """The name of a group's state under one of the optimizers."""
    return f"{group}@{kind}" if kind else group


def _assign(part: str, variables: Sequence[Any], values: Sequence[Any]) -> None:
    if len(values) != len(variables):
        raise ValueError(
            f"The saved optimizer has {len(values)} variables for group '{part}', this one "
            f"{len(variables)}. Expected the same model, schedule and optimizer."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _parsed(part: str) -> tuple[str, str, str]:
    """Splits the name of a part of the state into prefix, group and suffix."""
    what = next((what for what in ("scale/", _BEST_SLOTS, _BEST) if part.startswith(what)), "")
    group, at, kind = part.removeprefix(what).partition("@")
    return what, group, at + kind


def _as_bytes(plain: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(plain).encode(), "uint8")


def _entry(part: str, i: int) -> str:
    """The name of a variable in a file, where "/" would make a group of HDF5."""
    return f"{part.replace('/', '|')}:{i}"


def _differences(saved: Any, schedule: Any) -> list[str]:
    if saved is None:
        return []
    found = []
    if len(saved) != len(schedule):
        found.append(f"it had {len(saved) - 1} phases, this one has {len(schedule) - 1}")
    for number, (old, new) in enumerate(zip(saved, schedule, strict=False)):
        passed_over: set[str] = set()
        if TRAINED not in old:  # saved by an earlier version, or what holds for all phases
            passed_over = {TRAINED}
        elif old[TRAINED] == new[TRAINED]:  # in whatever words
            passed_over = {"which", "freeze"}
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in passed_over and old.get(key) != new.get(key):
                which = f"phase {number}" if number else "it"
                found.append(f"{which} had {key}={old.get(key)!r}, this one has {new.get(key)!r}")
    return found
