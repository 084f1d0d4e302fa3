"""find_learning_rate: a sweep over learning rates, after which the model is restored."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.model_blocks import is_wholly_built
from keras_transfer.plotting.figure_files import save_figure
from keras_transfer.plotting.learning_rate import rate_figure
from keras_transfer.training.blockwise_optimizer import BlockwiseOptimizer
from keras_transfer.utils.supported_keras import check_keras_3

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WINDOWS = 10  # of a sweep; the loss is smoothed over about the batches of one
_LEAST_STEPS = 20
# What the smoothed loss must fall by: a part of its start, and standard deviations of its noise.
_LEAST_FALL, _LEAST_NOISES = 0.01, 5


@dataclass(frozen=True)
class RateFinding:
    """The result of a sweep over learning rates.

    Attributes:
        suggestion: The learning rate at which the smoothed loss falls fastest.
        rates: The learning rate of each batch.
        losses: The smoothed loss after each batch, on which the suggestion is based.
        batch_losses: The loss of each batch itself.
    """

    suggestion: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    batch_losses: tuple[float, ...]

    def figure(self) -> Figure:
        """Draws the losses against the learning rates, with the suggestion ringed."""
        return rate_figure(self.rates, self.losses, self.batch_losses, self.suggestion)

    def save(self, path: str | Path) -> Path:
        """Saves the figure; `path` ends with `.png`, `.svg` or `.pdf`."""
        return save_figure(self.figure(), path)


def find_learning_rate(
    model: keras.Model,
    data: Any,
    y: Any = None,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    diverged: float = 4.0,
    batch_size: int | None = None,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
) -> RateFinding:
    """Trains for some batches at rising learning rates, and suggests one.

    The learning rate rises exponentially from batch to batch (Smith 2015, arXiv:1506.01186), until
    the smoothed loss diverges. Suggested is the rate at which the smoothed loss falls fastest.
    The sweep is a `fit` of the model's own, so a `TransferModel` trains on cached activations.

    Afterwards weights, random layers, metrics, and the optimizer's state are as they were, also if
    the sweep fails or is interrupted. A model or optimizer that is not built is built. The data are
    read as by a `fit`, so a shuffle goes on to its next order.

    Args:
        model: A compiled model, with a learning rate that is a number.
        data: As `x` of `keras.Model.fit`: a dataset of batches, a `keras.utils.PyDataset`, or an
            array. It is repeated where it has fewer than `steps` batches.
        y: Labels of an array.
        lowest: The first learning rate. Default 1e-7.
        highest: The last learning rate, unless the loss diverges before. Default 1.0.
        steps: The number of batches, 20 or more. Default 100.
        diverged: The sweep stops when the smoothed loss is this many times its best. Default 4.0.
        batch_size: As for `keras.Model.fit`.
        class_weight: As for `keras.Model.fit`.
        sample_weight: As for `keras.Model.fit`.

    Returns:
        The suggestion, and the rates and losses that it is based on.

    Raises:
        TypeError: If the data can be read only once, as a generator.
        ValueError: If an argument is impossible, the model is not compiled or its learning rate
            cannot be set, the loss did not fall, or it was not finite from the start.

    Example:
        >>> finding = find_learning_rate(model, train)
        >>> model.optimizer.learning_rate = finding.suggestion
        >>> finding.save("rates.png")
    """
    _check_numbers(lowest, highest, steps, diverged)
    check_keras_3(model=model)
    if getattr(model, "optimizer", None) is None:
        raise ValueError(f"Model '{model.name}' has no optimizer. Call `model.compile(...)` first.")
    if not isinstance(getattr(model.optimizer, "learning_rate", None), keras.Variable):
        raise ValueError(
            f"Model '{model.name}' was compiled with a learning rate schedule or several rates, so "
            "no rate can be set. Compile it with a number for the sweep, such as "
            "keras.optimizers.Adam(1e-3), and afterwards with a schedule made from the suggestion."
        )
    if hasattr(data, "__next__"):
        raise TypeError(
            f"`data` is a {type(data).__name__}, whose batches the sweep would use up. Give a "
            "tf.data.Dataset, a keras.utils.PyDataset or an array."
        )
    if not is_wholly_built(model):
        model(_one_batch(data))
    rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
    sweep = _Sweep(rates, diverged)
    with _restored(model):
        model.fit(
            data,
            y,
            batch_size=batch_size,
            epochs=steps,  # an epoch has one batch at least; the sweep stops by itself
            verbose=0,
            callbacks=[sweep],
            shuffle=not isinstance(data, tf.data.Dataset),
            class_weight=class_weight,
            sample_weight=sample_weight,
        )
    return sweep.finding()


@contextlib.contextmanager
def _restored(model: keras.Model) -> Iterator[None]:
    """Restores a model after a sweep within a block, also if it fails or is interrupted."""
    with model.distribute_strategy.scope():
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    # `model.variables` includes the state of random layers, and not the metrics.
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    values = [np.array(variable.numpy()) for variable in variables]
    names = ("history", "stop_training", "steps_per_execution")
    attributes = {name: getattr(model, name, None) for name in names}
    model.train_function, model.steps_per_execution = None, 1
    try:
        yield
    finally:
        model.train_function = None  # it has the number of steps built in
        for name, value in attributes.items():
            setattr(model, name, value)
        model.reset_metrics()  # those that saw their first batch within the block
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _one_batch(data: Any) -> Any:
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
        batch = data[0] if isinstance(data, keras.utils.PyDataset) else next(iter(data))
        return batch[0] if isinstance(batch, tuple) else batch
    return keras.tree.map_structure(lambda part: part[:1], data)


class _Sweep(keras.callbacks.Callback):
    """Sets the rate before each batch and notes the loss after it."""

    def __init__(self, rates: Sequence[float], diverged: float) -> None:
        super().__init__()
        self._rates = rates
        self._width = len(rates) // _WINDOWS
        self._diverged = diverged
        self._losses: list[float] = []
        self._smoothed: list[float] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if isinstance(optimizer, BlockwiseOptimizer):
            optimizer.state.warmup = 0  # the sweep is one itself

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.model.optimizer.learning_rate = self._rates[len(self._losses)]
        self.model.reset_metrics()  # or Keras would give the mean loss of the epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if "loss" not in (logs or {}):
            raise ValueError(
                f"The training step of model '{self.model.name}' logs {sorted(logs or {})}. "
                "Expected a 'loss' among them; let `train_step` return it."
            )
        self._losses.append(float(logs["loss"]))  # type: ignore[index]
        self._smoothed = _smooth(self._losses, self._width)
        if len(self._losses) == len(self._rates) or self._has_diverged():
            self.model.stop_training = True

    def _has_diverged(self) -> bool:
        if not math.isfinite(self._losses[-1]):
            return True
        if len(self._losses) < self._width:
            return False
        best = min(self._smoothed)
        return self._smoothed[-1] > best + (self._diverged - 1) * abs(best)

    def finding(self) -> RateFinding:
        finite = [i for i, loss in enumerate(self._losses) if math.isfinite(loss)]
        if 0 not in finite:
            raise ValueError(
                f"The loss of the first batch, at learning rate {self._rates[0]:g}, was "
                f"{self._losses[0] if self._losses else 'never computed: there are no batches'}. "
                "Expected a finite number. Check the data, the labels, and that the loss fits "
                "the model's output."
            )
        losses, rates = self._losses[: len(finite)], self._rates[: len(finite)]
        smoothed = _smooth(losses, self._width)
        place = _steepest(losses, smoothed, self._width)
        if place is None:
            raise ValueError(
                f"The loss did not fall between learning rates {rates[0]:g} and {rates[-1]:g}: "
                f"from {smoothed[0]:.4g} in the first batch to {min(smoothed):.4g} at its best, "
                "smoothed. Expected it to fall by more than its noise. Give a wider range "
                "(`lowest`, `highest`), more `steps` or larger batches, and check that something "
                "trains."
            )
        return RateFinding(rates[place], tuple(rates), tuple(smoothed), tuple(losses))


def _smooth(losses: Sequence[float], width: int) -> list[float]:
    """Returns the moving average over about `width` losses, corrected for its start at zero."""
    memory, smoothed, average = 1 - 1 / width, [], 0.0
    for count, loss in enumerate(losses, 1):
        average = memory * average + (1 - memory) * loss
        smoothed.append(average / (1 - memory**count))
    return smoothed


def _steepest(losses: Sequence[float], smoothed: Sequence[float], width: int) -> int | None:
    """Returns where the smoothed loss falls most over `width` batches, before its minimum.

    `None` if it does not fall by more than noise. The first batches do not count, since there the
    smoothed loss is the mean of very few.
    """
    lowest = int(np.argmin(smoothed))
    if lowest < 2 * width:
        return None
    start = float(np.mean(losses[: 2 * width]))
    # From the difference of neighbouring batches, by its median since high rates make a few jumps,
    # to the smoothed loss, which is as steady as a mean of 2 * width - 1.
    difference = 1.48 * float(np.median(np.abs(np.diff(losses[:lowest]))))
    noise = difference / math.sqrt(2 * (2 * width - 1))
    if start - smoothed[lowest] < max(_LEAST_NOISES * noise, _LEAST_FALL * abs(start)):
        return None
    ends = range(2 * width, lowest + 1)
    return max(ends, key=lambda end: smoothed[end - width] - smoothed[end]) - width // 2


def _check_numbers(lowest: Any, highest: Any, steps: Any, diverged: Any) -> None:
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            "`lowest` and `highest` must be positive numbers, the lowest first. Received: "
            f"lowest={lowest!r}, highest={highest!r}. For example 1e-7 and 1.0."
        )
    if not isinstance(steps, Integral) or int(steps) < _LEAST_STEPS:
        raise ValueError(
            f"`steps` must be a whole number, {_LEAST_STEPS} or more. Received: {steps!r}."
        )
    if not diverged > 1:
        raise ValueError(f"`diverged` must be a number above 1. Received: {diverged!r}.")
