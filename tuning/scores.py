"""Accuracy on a split, with the interval that its number of images allows."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Score:
    """How a model did on the images of a split.

    Attributes:
        correct: Images classified rightly.
        images: All images.
        low: Lower end of the 95 % interval (Wilson) of the accuracy, 0..1.
        high: Upper end of it.
    """

    correct: int
    images: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly, 0..1."""
        return self.correct / self.images

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:.2%} to {self.high:.2%}"
        return f"{self.accuracy:.2%} of {self.images} images ({interval})"


def score_of(model: keras.Model, data: Any, labels: np.ndarray) -> Score:
    """Returns the score of a model on batches of images or of kept activations, in their order."""
    probabilities = model.predict(data, verbose=0)
    if probabilities.shape[1] == 1:
        predicted = (probabilities[:, 0] > 0.5).astype(int)
    else:
        predicted = probabilities.argmax(axis=1)
    return score(int(np.sum(predicted == labels)), len(predicted))


def score(correct: int, images: int) -> Score:
    """Returns a score from two counts."""
    interval = binomtest(correct, images).proportion_ci(method="wilson")
    return Score(correct, images, interval.low, interval.high)
