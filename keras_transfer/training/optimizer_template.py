"""OptimizerTemplate: an optimizer's class and config, from which copies are made."""

from dataclasses import dataclass
from typing import Any, Self

import keras

from keras_transfer.utils.keras_internals import weight_decay_exclusions


@dataclass(frozen=True)
class OptimizerTemplate:
    """An optimizer's class and config, from which copies are made.

    Attributes:
        kind: The class.
        config: The serialized optimizer.
        exclusions: What its weight decay leaves out, as attributes.
    """

    kind: type[keras.optimizers.Optimizer]
    config: dict[str, Any]
    exclusions: dict[str, Any]

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer) -> Self:
        """Captures an optimizer's class and config.

        Raises:
            ValueError: If it holds other optimizers, or cannot be copied for each block.
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
        return cls(type(optimizer), serialized(optimizer), weight_decay_exclusions(optimizer))

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the optimizer, a number or a schedule."""
        rate = self.config["config"]["learning_rate"]
        return keras.optimizers.schedules.deserialize(rate) if isinstance(rate, dict) else rate

    @property
    def global_clipnorm(self) -> float | None:
        """The norm to which all gradients together are clipped."""
        return self.config["config"].get("global_clipnorm")

    def copy(self, name: str) -> keras.optimizers.Optimizer:
        """Returns a new optimizer of this class and config, for a group of variables."""
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
