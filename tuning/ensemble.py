"""The average of several trials as one model that runs what they share once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import keras
import numpy as np

from keras_transfer import FrozenBackbone, TransferModel


@dataclass(frozen=True)
class Part:
    """A trained model without the graph that it was trained in.

    Attributes:
        config: What it is made from.
        weights: Its weights.
    """

    kind: type[keras.Model]
    config: Mapping[str, Any]
    weights: Sequence[np.ndarray]

    @classmethod
    def of(cls, model: keras.Model) -> Self:
        """Takes down a model as it is now."""
        return cls(type(model), model.get_config(), model.get_weights())

    def __call__(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies a new model with these weights."""
        model = self.kind.from_config({**self.config, "name": name})
        outputs = model(x)
        model.set_weights(self.weights)
        return outputs


@dataclass(frozen=True)
class Member:
    """What a trial has trained.

    Attributes:
        head: Its head.
        blocks: The blocks that it could fine-tune, lowest first.
    """

    head: Part
    blocks: tuple[Part, ...]

    def __call__(self, x: keras.KerasTensor, backbone: FrozenBackbone, number: int) -> Any:
        """Goes on from the activations that all members share."""
        for i, block in enumerate(self.blocks):
            x = block(x, f"member{number}_block{i}")
        return self.head(backbone.pool(x) if self.blocks else x, f"member{number}_head")


def member(model: TransferModel, blocks: Sequence[str]) -> Member:
    """Takes down what a model has trained, before its backbone goes on to the next trial."""
    parts = (Part.of(model.backbone.block(name)) for name in blocks)
    return Member(Part.of(model.head), tuple(parts))


def average(
    backbone: FrozenBackbone,
    members: Sequence[Member],
    class_names: Sequence[str],
    blocks: Sequence[str],
    image_shape: tuple[int, int, int],
) -> TransferModel:
    """Returns a compiled model that gives the mean of the members' probabilities.

    Averaging the best models of a search costs nothing more to train and errs less than its
    winner (Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004).

    Args:
        backbone: The backbone of all members, with the weights that it began with, frozen.
        members: What each has trained.
        class_names: The classes.
        blocks: The blocks that the members could fine-tune, lowest first; not all that there are.
        image_shape: Height, width and channels of the images.
    """
    border = backbone.border_without(blocks)
    if border is None:
        raise ValueError("The members share no block, so there is nothing to average them on.")
    lower = backbone.up_to(border)
    shared = keras.Input(lower.compute_output_shape((None, None, None, 3))[1:])
    scores = [one(shared, backbone, number) for number, one in enumerate(members)]
    head = keras.Model(shared, keras.layers.Average(dtype="float32")(scores), name="average")
    model = TransferModel(lower, class_names, head=head)
    model.build((None, *image_shape))
    model.compile()
    model.optimizer.build(model.trainable_variables)  # loading expects its variables
    return model
