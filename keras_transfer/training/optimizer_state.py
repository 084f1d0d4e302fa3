"""Kind: what an optimizer is, apart from its variables, to make copies of it."""

from dataclasses import dataclass
from typing import Any, Self

import keras
import tensorflow as tf
from keras import ops

# What `exclude_from_weight_decay` leaves behind, which no config and no public name holds.
_EXCLUSIONS = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")


class Opaque:
    """Keeps Keras from tracking what is inside."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class Kind:
    """What copies of an optimizer are made from.

    Attributes:
        kind: Its class.
        config: The serialized optimizer.
        exclusions: What its weight decay leaves out, by the names of its attributes.
    """

    kind: type[keras.optimizers.Optimizer]
    config: dict[str, Any]
    exclusions: dict[str, Any]

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer) -> Self:
        """Takes down an optimizer.

        Raises:
            ValueError: If it holds other optimizers.
        """
        if hasattr(optimizer, "optimizers") or hasattr(optimizer, "group_names"):
            raise ValueError(
                "Expected an optimizer that steps all variables alike, such as Adam. Received: "
                f"{type(optimizer).__name__}, which holds several already."
            )
        if optimizer.global_clipnorm and optimizer.gradient_accumulation_steps:
            raise ValueError(
                "global_clipnorm together with gradient_accumulation_steps cannot be kept apart by "
                "block. Use clipnorm, or larger batches in the place of accumulation."
            )
        exclusions = {n: getattr(optimizer, n) for n in _EXCLUSIONS if hasattr(optimizer, n)}
        return cls(type(optimizer), serialized(optimizer), exclusions)

    @property
    def learning_rate(self) -> Any:
        """The rate that it came with, a number or a schedule."""
        rate = self.config["config"]["learning_rate"]
        if isinstance(rate, dict):
            return keras.optimizers.schedules.deserialize(rate)
        return rate

    @property
    def global_clipnorm(self) -> float | None:
        """The norm to which all gradients together are clipped."""
        return self.config["config"].get("global_clipnorm")

    def copy(self, name: str) -> keras.optimizers.Optimizer:
        """Returns a new optimizer of this kind."""
        config = {**self.config["config"], "learning_rate": 0.0}
        config["name"] = f"{config['name']}_{name.replace('@', '_').replace('/', '_')}"
        optimizer = self.kind.from_config(config)
        for attribute, value in self.exclusions.items():
            setattr(optimizer, attribute, value)
        return optimizer


def serialized(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns the config of an optimizer, without the name that Keras makes up for each."""
    config = keras.saving.serialize_keras_object(optimizer)
    return {**config, "config": {**config["config"], "name": config["class_name"].lower()}}


def deserialized(config: dict[str, Any], custom_objects: Any = None) -> Any:
    """Returns the optimizer of a config."""
    # Not `keras.optimizers.deserialize`, whose table of names lacks Lamb in Keras 3.15.1.
    return keras.saving.deserialize_keras_object(config, custom_objects)


def steps_of(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns how many batches an optimizer has seen, also where it is spread over devices."""
    with tf.init_scope():  # also while a step is traced
        return int(optimizer._iterations.numpy())


class _Held:
    """A number that is held in a variable."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, state: Any, owner: type | None = None) -> Any:
        return self if state is None else state.variables.value[self.name].numpy().item()

    def __set__(self, state: Any, value: float) -> None:
        state.variables.value[self.name].assign(value)


class ScheduleState:
    """How far a schedule has come.

    Args:
        optimizer: The optimizer that saves it.

    Attributes:
        phase: How many phases have begun.
        epoch: The last epoch that has ended, -1 for none.
        wait: Epochs since the monitored metric was best in this phase.
        best: Its best value in this phase; infinite as long as there is none.
        begun_at: The step at which the phase began.
        warmup: Steps over which its rate rises.
    """

    phase = _Held()
    epoch = _Held()
    wait = _Held()
    best = _Held()
    begun_at = _Held()
    warmup = _Held()

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self._optimizer = optimizer
        names = ("phase", "epoch", "wait", "begun_at", "warmup")
        held = {name: optimizer.add_variable((), dtype="int32", name=name) for name in names}
        held["best"] = optimizer.add_variable((), dtype="float32", name="best")
        self.variables = Opaque(held)
        self.epoch, self.best = -1, float("inf")

    def restart(self, phase: int, epoch: int, warmup: int) -> None:
        """Begins the counts of a phase.

        Args:
            phase: How many phases have begun.
            epoch: The epoch that comes next.
            warmup: Steps over which its rate rises.
        """
        self.phase, self.epoch = phase, epoch - 1
        self.wait, self.best = 0, float("inf")
        self.begun_at, self.warmup = steps_of(self._optimizer), warmup

    def warmed_up(self) -> Any:
        """The part of the phase's warm-up that is over at this step, 0 to 1."""
        held = self.variables.value
        steps = ops.cast(self._optimizer.iterations - held["begun_at"] + 1, "float32")
        warmup = ops.cast(held["warmup"], "float32")
        part = ops.minimum(steps / ops.maximum(warmup, 1.0), 1.0)
        return ops.where(warmup > 0, part, ops.ones_like(part))
