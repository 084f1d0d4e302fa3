"""Predictions from kept activations, of the images as they are or averaged over their views."""

import numpy as np
import tensorflow as tf

from keras_transfer import FeatureCache, Flips, TransferModel


def probabilities(
    model: TransferModel,
    data: tf.data.Dataset,
    cache: FeatureCache | None = None,
    *,
    flips: str | None = None,
) -> np.ndarray:
    """Returns what a model gives for images; under `flips` the mean over all views of each.

    What the frozen part of the backbone makes of each view is kept, so that only a first call runs
    it. A model that was trained under `Flips` has seen all of these views.

    Args:
        model: The model.
        data: A dataset of `image_folder`.
        cache: Where activations are kept; a new `FeatureCache` unless given.
        flips: `"mirror"`, `"flips"` or `"dihedral"`, as for `Flips`; `None` for the images alone.

    Returns:
        Probabilities `(images, 1)` for two classes, else `(images, classes)`, in path order.

    Raises:
        ValueError: If the kind of views is unknown, or quarter turns meet oblong images.

    Example:
        >>> probabilities(model, data.test, cache, flips="mirror").shape
        (656, 1)
    """
    views = Flips(flips) if flips is not None else None
    cache = FeatureCache(verbose=False) if cache is None else cache
    count = 1 if views is None else views.views
    of_each = [
        model.predict(_view(model, data.ordered, cache, views, number), verbose=0)
        for number in range(count)
    ]
    return np.mean(of_each, axis=0)


def _view(
    model: TransferModel,
    data: tf.data.Dataset,
    cache: FeatureCache,
    flips: Flips | None,
    number: int,
) -> tf.data.Dataset:
    border = model.backbone.border
    if border is not None:
        return cache.dataset(model.backbone, data, after=border, flips=flips, view=number)
    if flips is None:
        return data
    return data.map(lambda images, labels: (flips.view(images, number), labels))
