"""One pass of a classifier over a dataset, which keeps the worst mistakes as examples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.models.outputs import FromLogits, as_positions, as_probabilities, takes_logits
from keras_transfer.utils.progress import progress

_CHANNELS = (1, 3, 4)  # of what can be shown as a picture


@dataclass(frozen=True, eq=False)
class Example:
    """One image and its prediction.

    Attributes:
        row: Its place in the dataset, counted from 0.
        image: The model's input, `(height, width, channels)`.
        true: Its class.
        predicted: The class with the highest probability.
        confidence: That probability, 0..1.
        true_probability: The probability of `true`, 0..1.
    """

    row: int
    image: np.ndarray
    true: int
    predicted: int
    confidence: float
    true_probability: float


@dataclass(frozen=True, eq=False)
class Classified:
    """The predictions of a model for a dataset.

    Attributes:
        class_names: The classes.
        true: True classes `(n,)`.
        probabilities: `(n, classes)`; NaN where the model's output was not finite.
        worst: The mistakes whose true class got the least probability, the least first.
        uncertain: What is right with the least confidence, the least first.
        logits: Whether the model gives logits.
        notes: Sentences on how the data was read.
    """

    class_names: tuple[str, ...]
    true: np.ndarray
    probabilities: np.ndarray
    worst: tuple[Example, ...]
    uncertain: tuple[Example, ...]
    logits: bool
    notes: tuple[str, ...]


def classify(
    model: keras.Model,
    data: Any,
    names: Callable[[int], tuple[str, ...]],
    *,
    pictures: int,
    from_logits: FromLogits = "auto",
    check: Callable[[Any], None] = lambda images: None,
    show: bool = False,
) -> Classified:
    """Runs a model over a dataset once.

    Args:
        model: A classifier.
        data: A `tf.data.Dataset` or `PyDataset` of batches of inputs and labels.
        names: Gives the class names for the number of classes that the model tells apart.
        pictures: How many examples of each kind to keep.
        from_logits: See `takes_logits`.
        check: Called with the first batch of inputs.
        show: Whether to show progress on a terminal.

    Raises:
        ValueError: If the data has no labels or no images, or labels or outputs are not what they
            must be.
    """
    logits, reason = takes_logits(model, from_logits)
    worst: list[Example] = []
    uncertain: list[Example] = []
    true, probabilities, notes, done = [], [], {reason: None}, 0
    class_names: tuple[str, ...] = ()
    rows = len(data.labels) if hasattr(data, "labels") else None  # where that is known
    with progress("predictions", rows, show=show) as shown:
        for x, y, weights in batches(data):
            if not class_names:
                check(x)
            share = as_probabilities(_outputs(model, x), logits)
            class_names = class_names or names(share.shape[1])
            position = as_positions(y, class_names)
            if len(position) != len(share):
                raise ValueError(
                    f"A batch has {len(position)} labels, and the model gives {len(share)} outputs "
                    "for it. Expected one of each for each image."
                )
            if weights is not None:
                notes["The data's sample weights are not used."] = None
            if len(getattr(x, "shape", ())) == 4 and x.shape[-1] in _CHANNELS:
                for wrong, kept in ((True, worst), (False, uncertain)):
                    kept += _examples(done, x, position, share, wrong=wrong, count=pictures)
                    kept.sort(key=lambda example: example.true_probability)
                    del kept[pictures:]
            else:
                notes["The data holds no images, so there are no pictures."] = None
            true.append(position)
            probabilities.append(share)
            done += len(position)
            shown.update(done)
    if not done:
        raise ValueError("The data is empty. Pass a dataset with at least one batch of images.")
    return Classified(
        class_names,
        np.concatenate(true),
        np.concatenate(probabilities),
        tuple(worst),
        tuple(uncertain),
        logits,
        tuple(notes),
    )


def _outputs(model: keras.Model, x: Any) -> Any:
    # Under a strategy, `predict_on_batch` runs the whole batch on each replica, and returns the
    # outputs of all replicas.
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return model.predict(x, verbose=0)
    return model.predict_on_batch(x)


def batches(data: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Gives batches of inputs, labels and sample weights; the weights may be None.

    Raises:
        TypeError: If the data is no dataset.
        ValueError: If it never ends, has no labels or no batches.
    """
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("The data never ends. Pass so many batches of it: data.take(10).")
        _check_labelled(data.element_spec)
        found: Any = data
    elif isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError("The PyDataset never ends: its __len__ gives None.")
        found = (data[number] for number in range(data.num_batches))
    else:
        raise TypeError(
            f"data is of type {type(data).__name__}. Expected a dataset of batches of images and "
            "labels: a split of `image_folder`, such as data.test, or for arrays "
            "tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)."
        )
    for batch in found:
        _check_labelled(batch)
        yield keras.utils.unpack_x_y_sample_weight(batch)


def _check_labelled(batch: Any) -> None:
    if not (isinstance(batch, tuple | list) and len(batch) in (2, 3) and batch[1] is not None):
        raise ValueError(
            "The data has no labels: it gives batches of "
            f"{'images' if not isinstance(batch, tuple | list) else f'{len(batch)} parts'} alone. "
            "A report compares predictions with labels: pass batches of (images, labels)."
        )
    if getattr(batch[1], "shape", None) == ():
        raise ValueError(
            "The data gives single images, each with its label. Expected batches: pass "
            "data.batch(32)."
        )


def _examples(
    start: int, x: Any, true: np.ndarray, probabilities: np.ndarray, *, wrong: bool, count: int
) -> list[Example]:
    """Returns the examples of a batch whose true class got the least probability.

    Args:
        start: The row of its first image.
        x: Its images.
        true: Their classes.
        probabilities: `(n, classes)`.
        wrong: Whether mistakes are meant, or right answers.
        count: How many at most.
    """
    predicted, of_true = probabilities.argmax(1), probabilities[np.arange(len(true)), true]
    rows = np.flatnonzero((predicted != true) == wrong)
    rows = rows[np.argsort(of_true[rows], kind="stable")][:count]
    images = np.asarray(x) if len(rows) else ()
    return [
        Example(
            start + int(row),
            images[row].copy(),
            int(true[row]),
            int(predicted[row]),
            float(probabilities[row, predicted[row]]),
            float(of_true[row]),
        )
        for row in rows
    ]
