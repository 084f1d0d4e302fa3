"""SharedFunctions: trainings of equal shape run on the functions that the first one has traced."""

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_transfer.models.transfer_model import TransferModel

_KEPT = 4  # models: the graphs of each take megabytes


class SharedFunctions:
    """Lends models that have traced their train and test steps to others that are built alike.

    Tracing takes longer than a few epochs of a head. What a step computes follows from how the
    model was built and from its variables, so another model with the same values in them trains the
    same, bit by bit. That is so between folds, executions, the rounds of Hyperband, and trials that
    differ in the learning rate only; other hyperparameters are constants in the graph.

    The backbone must be frozen: unfreezing traces anew.
    """

    def __init__(self) -> None:
        self._models: dict[Hashable, TransferModel] = {}

    @contextlib.contextmanager
    def in_place_of(self, model: TransferModel, key: Hashable) -> Iterator[TransferModel]:
        """Gives the model to fit in the place of a new one, whose weights are its own afterwards.

        Args:
            model: One that is compiled, and not trained yet under this optimizer.
            key: Equal for models whose steps are the same but for the values of variables.
        """
        lent = self._models.pop(key, None)
        if lent is None:
            yield model
            self._keep(key, model)
            return
        if not model.built:
            model.build((None, *lent.image_shape))
        held = _values(_own(lent))
        try:
            _assign(_own(lent), _values(_own(model)))
            _restart(lent.optimizer, model.optimizer)
            yield lent
            _assign(_own(model), _values(_own(lent)))
        finally:
            _assign(_own(lent), held)  # it is what an earlier trial has left behind
        self._keep(key, lent)

    def _keep(self, key: Hashable, model: TransferModel) -> None:
        self._models[key] = model
        if len(self._models) > _KEPT:
            self._models.pop(next(iter(self._models)))


def _own(model: TransferModel) -> list[keras.Variable]:
    """All variables but those of the backbone: weights of the head, states of what draws."""
    shared = {id(variable) for variable in model.backbone.variables}
    layers = [model.head, *([model.augmentation] if model.augmentation is not None else [])]
    found = [variable for layer in layers for variable in layer.variables]
    return [variable for variable in found if id(variable) not in shared]


def _restart(optimizer: Any, like: Any) -> None:
    """Makes an optimizer what a new one is: all steps and moments 0."""
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    optimizer.learning_rate = like.learning_rate.numpy()


def _values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
