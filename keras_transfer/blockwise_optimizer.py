"""BlockwiseOptimizer: one inner optimizer for each block, so that a late block starts fresh."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import keras
from keras import ops

REST = "rest"


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
        positions: For loading: group name to places among the trainable variables.

    Attributes:
        learning_rate: The base rate, readable and settable, or a schedule. A group's rate is the
            base rate times its scale.
        scales: Group name to scale, 1.0 unless set.
        phase: How many phases of a schedule have begun; saved with the state.
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
        positions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if isinstance(optimizer, BlockwiseOptimizer | keras.optimizers.MultiOptimizer):
            raise ValueError(
                "Expected an optimizer that steps all variables alike, such as Adam. Received: "
                f"{type(optimizer).__name__}, which holds several already."
            )
        config = keras.saving.serialize_keras_object(optimizer)
        super().__init__(learning_rate=_learning_rate(config), name=name)
        self.loss_scale_factor = optimizer.loss_scale_factor
        self._template = _Opaque(config)
        self._iterations.assign(optimizer.iterations)
        self._clips_globally = optimizer.global_clipnorm
        self._groups = _Opaque({REST: self._follow(optimizer, REST)})
        self._group_of: dict[Any, str] = {}
        self._pending: dict[str, list[Any]] = {}
        self._built_on = _Opaque([])
        self.holds_averages = False
        self._positions = dict(positions or {})
        self._model = _Opaque(None)
        self.scales = dict.fromkeys(self._positions, 1.0)
        self._phase = self.add_variable((), dtype="int32", name="phase")
        if optimizer.built:  # what it has slots for has no public name
            for variable in optimizer._trainable_variables:
                self._group_of[self._var_key(variable)] = REST

    def _follow(self, optimizer: keras.optimizers.Optimizer, group: str) -> Any:
        """Lets an inner optimizer take its rate from here, and leaves global clipping to here."""
        optimizer.learning_rate = _GroupRate(self, group)
        optimizer.global_clipnorm = None
        return optimizer

    @property
    def compiled_learning_rate(self) -> float | None:
        """The learning rate that the model was compiled with; `None` for a schedule."""
        rate = self._template.value["config"]["learning_rate"]
        return None if isinstance(rate, dict) else rate

    @property
    def phase(self) -> int:
        """How many phases have begun."""
        return int(self._phase)

    @phase.setter
    def phase(self, value: int) -> None:
        self._phase.assign(value)

    @property
    def _inner(self) -> Mapping[str, Any]:
        # Behind a proxy, since saving walks through dicts of optimizers and would number them.
        return MappingProxyType(self._groups.value)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The blocks that have an optimizer, and `"rest"` for the variables of no block."""
        return tuple(self._inner)

    def group(self, name: str) -> keras.optimizers.Optimizer:
        """Returns the inner optimizer of a group, to look at its slots and step count."""
        return self._inner[name]

    @property
    def variables(self) -> list[keras.Variable]:
        """The own variables (steps, base rate, phase), then those of each group."""
        return [*self._variables, *(v for inner in self._inner.values() for v in inner.variables)]

    def add_groups(self, groups: Mapping[str, Sequence[keras.Variable]]) -> None:
        """Makes an optimizer with slots for each group of variables that has none yet.

        Args:
            groups: Name to variables. Variables known to another group stay there.
        """
        for group, variables in groups.items():
            own = [v for v in variables if self._var_key(v) not in self._group_of]
            if own and group not in self._inner:
                self._add_group(group, own)

    def _add_group(self, group: str, variables: Sequence[keras.Variable]) -> None:
        if group not in self._inner:
            config = {**self._template.value["config"], "learning_rate": 0.0}
            config["name"] = f"{config['name']}_{group}"
            copy = _deserialized({**self._template.value, "config": config})
            self._groups.value[group] = self._follow(copy, group)
        for variable in variables:
            self._group_of[self._var_key(variable)] = group
        self._inner[group].build(list(variables))
        for variable, value in zip(
            self._inner[group].variables, self._pending.pop(group, ()), strict=False
        ):
            variable.assign(value)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the slots of all variables that have none, in the group `"rest"`.

        A loaded optimizer finds its groups by the variables' places.
        """
        for group, places in self._positions.items():
            self.add_groups({group: [variables[place] for place in places]})
        rest = [v for v in variables if self._var_key(v) not in self._group_of]
        if rest:
            self._add_group(REST, rest)
        super().build([])
        self._built_on = _Opaque(list(variables))

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
                self._inner[group].apply(*map(list, zip(*grads_and_variables, strict=True)))
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
        if self._clips_globally is None:
            return grads
        squares = [ops.sum(ops.square(grad)) for grad in grads if grad is not None]
        norm = ops.sqrt(sum(squares))
        scale = self._clips_globally / ops.maximum(norm, self._clips_globally)
        return [None if grad is None else grad * ops.cast(scale, grad.dtype) for grad in grads]

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Sets the variables that have trained to their moving average, where one is kept."""
        if self.holds_averages:
            return
        for group, inner in self._inner.items():
            own = [v for v in var_list if self._group_of.get(self._var_key(v)) == group]
            if own and int(inner.iterations) > 0:
                inner.finalize_variable_values(own)

    def save_own_variables(self, store: Any) -> None:
        """Saves the state under the names of the groups, so that a missing group is no mismatch."""
        for group, variables in self._state().items():
            for i, variable in enumerate(variables):
                store[f"{group}:{i}"] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Restores the state; that of a group which is still unknown waits until it is added."""
        state = self._state()
        saved: dict[str, dict[int, Any]] = {}
        for key in list(store.keys()):
            group, _, i = key.rpartition(":")
            saved.setdefault(group, {})[int(i)] = store[key]
        for group, values in saved.items():
            ordered = [values[i] for i in range(len(values))]
            if group not in state:
                self._pending[group] = [ops.convert_to_numpy(value) for value in ordered]
                continue
            if len(ordered) != len(state[group]):
                raise ValueError(
                    f"The saved optimizer has {len(ordered)} variables for group '{group}', this "
                    f"one {len(state[group])}. Expected the same model, schedule and optimizer."
                )
            for variable, value in zip(state[group], ordered, strict=True):
                variable.assign(value)

    def _state(self) -> dict[str, list[keras.Variable]]:
        inner = {group: inner.variables for group, inner in self._inner.items()}
        return {"": list(self._variables), **inner}

    def get_config(self) -> dict[str, Any]:
        """Returns the optimizer copied for each block, and where each group's variables stand."""
        rate = keras.optimizers.Optimizer.get_config(self)["learning_rate"]
        template = self._template.value
        optimizer = {**template, "config": {**template["config"], "learning_rate": rate}}
        return {"optimizer": optimizer, "name": self.name, "positions": self._current_positions()}

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
        self._model = _Opaque(model)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the optimizer again; `build` finds the groups."""
        config = dict(config)
        config["optimizer"] = _deserialized(config["optimizer"], custom_objects)
        return cls(**config)


class _GroupRate(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of a group, whatever its own step: the base rate times the group's scale."""

    def __init__(self, owner: BlockwiseOptimizer, group: str) -> None:
        self.owner = owner
        self.group = group

    def __call__(self, step: Any) -> Any:
        return self.owner.learning_rate * self.owner.scales.get(self.group, 1.0)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("Save the BlockwiseOptimizer, not one that belongs to it.")


class _Opaque:
    """Keeps Keras from tracking what is inside."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _deserialized(config: dict[str, Any], custom_objects: Any = None) -> Any:
    # Not `keras.optimizers.deserialize`, whose table of names lacks Lamb in Keras 3.15.1.
    return keras.saving.deserialize_keras_object(config, custom_objects)


def _learning_rate(config: dict[str, Any]) -> Any:
    rate = config["config"]["learning_rate"]
    if isinstance(rate, dict):
        return keras.optimizers.schedules.deserialize(rate)
    return rate
