"""Runs a classifier over labelled images once, checks its predictions and computes numbers."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.evaluation.grad_cam import find_backbone
from keras_transfer.evaluation.metrics import ReportNumbers, report_numbers
from keras_transfer.evaluation.page import printable
from keras_transfer.evaluation.predictions import Classified, classify
from keras_transfer.evaluation.report_files import image_names
from keras_transfer.models.outputs import FromLogits
from keras_transfer.utils.keras_internals import dataset_stages
from keras_transfer.utils.name_lists import some
from keras_transfer.utils.supported_keras import check_keras_3


@dataclass(frozen=True, eq=False)
class Examined:
    """A model, and its predictions for the images of a dataset.

    Attributes:
        model: The model.
        found: Its predictions for each image.
        numbers: The numbers of a report on these.
        name: Names a row of the data.
    """

    model: keras.Model
    found: Classified
    numbers: ReportNumbers
    name: Callable[[int], str]


def examine(
    model: keras.Model,
    data: Any,
    *,
    class_names: Sequence[str] | None = None,
    paths: Sequence[str | os.PathLike[str]] | None = None,
    from_logits: FromLogits = "auto",
    pictures: int = 12,
    verbose: Literal["auto", 0, 1] = "auto",
    before: Callable[[], object] = lambda: None,
) -> Examined:
    """Runs a classifier over labelled images, once.

    Args:
        model: As `report` takes it, like all that follows.
        data: Batches of images and labels.
        class_names: The classes.
        paths: A name for each image.
        from_logits: Whether the model gives logits.
        pictures: How many mistakes, and how many right answers, are kept to be shown. Default 12.
        verbose: Whether to show progress.
        before: Called after the data was checked, before the model runs.

    Raises:
        TypeError: If `model` is no Keras model, or `data` no dataset.
        ValueError: If the data, the names or the outputs are not what they must be; see `report`.

    Example:
        >>> examine(model, data.test).numbers.accuracy
        Estimate(value=0.91, low=0.87, high=0.94)
    """
    if isinstance(pictures, bool) or not isinstance(pictures, int) or pictures < 0:
        raise ValueError(f"pictures={pictures!r} is no number of pictures. Pass 0 or more.")
    check_keras_3(model=model)
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"model={model!r:.80} is of type {type(model).__name__}. Expected a Keras model; one "
            "in a file is read by keras.models.load_model."
        )
    data, names = _in_order(data)
    if paths is not None:
        _check_unshuffled(data)
        names = [os.fspath(path) for path in paths]
    before()
    backbone = find_backbone(model)
    found = classify(
        model,
        data,
        lambda count: _class_names(count, class_names, model, data),
        pictures=pictures,
        from_logits=from_logits,
        check=backbone.check_pixels if backbone is not None else lambda images: None,
        show=verbose == 1 or (verbose == "auto" and sys.stdout.isatty()),
    )
    if names is not None and len(names) != len(found.true):
        raise ValueError(
            f"paths holds {len(names)} names, and the data {len(found.true)} images. Give one name "
            "for each image, in the order of the data."
        )
    _check_finite(found, names)
    numbers = report_numbers(found.true, found.probabilities, found.class_names)
    return Examined(model, found, numbers, image_names(names))


def _in_order(data: Any) -> tuple[Any, Sequence[str] | None]:
    """Returns a split in the order of its paths, and the paths; other data as it is."""
    if hasattr(data, "test") and hasattr(data, "class_names"):
        raise TypeError("data is a whole ImageFolder. Pass the split to report on, as data.test.")
    if data is None:
        raise TypeError(
            "data is None. If it is the split of an `image_folder`, there is no such split: give "
            "it a share of the images by test_split=, or a folder of its own."
        )
    if not hasattr(data, "paths"):
        return data, None
    return data.ordered, [str(path) for path in data.paths]


def _check_unshuffled(data: Any) -> None:
    """Refuses shuffled data, whose order no list of paths has."""
    stages = dataset_stages(data) if isinstance(data, tf.data.Dataset) else ()
    if any("Shuffle" in type(stage).__name__ for stage in stages):
        raise ValueError(
            "paths are given, and the data is shuffled, so they would stand under other images. "
            "Pass the data without its shuffle, or leave paths out."
        )


def _class_names(
    count: int, given: Sequence[str] | None, model: keras.Model, data: Any
) -> tuple[str, ...]:
    """Returns the names of the classes: as given, or those of the model, or of the data."""
    count = max(2, count)  # one unit tells two classes apart
    numbers = tuple(map(str, range(count)))
    of_model = tuple(getattr(model, "class_names", ()))
    of_data = tuple(getattr(data, "class_names", ()))
    if of_model and of_data and of_model != numbers and of_model != of_data:
        raise ValueError(
            f"The model knows the classes {some([*map(repr, of_model)])}, the data the classes "
            f"{some([*map(repr, of_data)])}. The same label would mean two things: report on data "
            "with the classes that the model was trained on."
        )
    names = tuple(map(str, given)) if given is not None else ()
    names = names or (of_model if of_model != numbers else ()) or of_data or numbers
    names = tuple(map(printable, names))
    if len(names) != count or len(set(names)) < count:
        raise ValueError(
            f"class_names holds {some([*map(repr, names)])}. Expected {count} names, each "
            "different: the model tells so many classes apart."
        )
    return names


def _check_finite(found: Classified, paths: Sequence[str] | None) -> None:
    rows = np.flatnonzero(np.isnan(found.probabilities).any(1))
    if len(rows):
        names = some([*map(image_names(paths), rows.tolist())], 3)
        raise ValueError(
            f"The model gives NaN or infinity for {len(rows)} of {len(found.true)} images, the "
            f"first of them {names}. No report can be right about that: look for NaN in these "
            "images and in the model's weights; a lower learning rate may keep training finite."
        )
