"""The data of a fit: images at first, kept activations where the backbone is frozen."""

import contextlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.feature_cache import FeatureCache, batches
from keras_transfer.flips import Flips
from keras_transfer.frozen_backbone import FrozenBackbone
from keras_transfer.pipelines import NotKeepable, Pipeline, inspect


@dataclass(frozen=True)
class Part:
    """Training or validation data, in one of the forms that Keras takes.

    Attributes:
        x: A dataset of batches, a `keras.utils.PyDataset`, or an array of images.
        y: Labels of an array, `(n,)` or `(n, 1)` or one-hot.
        sample_weight: Weights of an array, `(n,)`.
        augmentation: What happens to the images before the backbone, if anything.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    augmentation: keras.Layer | None = None

    @property
    def is_array(self) -> bool:
        """Whether rows can be told by their place."""
        return isinstance(self.x, np.ndarray | tf.Tensor)

    @property
    def is_dataset(self) -> bool:
        """Whether batches come from a tf.data pipeline."""
        return isinstance(self.x, tf.data.Dataset)

    @property
    def is_kept(self) -> bool:
        """Whether there are activations in the place of images already."""
        return isinstance(_first(getattr(self.x, "element_spec", self.x)), Mapping)

    def batches(self, batch_size: int) -> int | None:
        """Returns the number of batches, `None` if it is not known."""
        if self.is_array:
            return math.ceil(len(self.x) / batch_size)
        try:
            return len(self.x)
        except TypeError:  # an infinite or unknown number, or data without a length
            return None

    def batch_shape(self) -> Any:
        """Returns the shape of a batch of inputs, `None` if only reading it would tell."""
        spec = getattr(self.x, "element_spec", None)
        if spec is not None:
            return tf.nest.map_structure(lambda s: tuple(s.shape), _first(spec))
        if not hasattr(self.x, "__getitem__"):
            return None
        batch = self.x if self.is_array or self.is_kept else _first(self.x[0])
        return tf.nest.map_structure(lambda a: (None, *np.shape(a)[1:]), batch)

    def some_images(self) -> Any:
        """Returns a few images to look at, `None` where that is not possible or not needed.

        A dataset of integers is not read: to begin it takes one iteration of its shuffle.
        """
        if self.is_array:
            return self.x[:32]
        if self.is_dataset and not self.is_kept and _first(self.x.element_spec).dtype.is_floating:
            return next((_first(batch) for batch in self.x.take(1)), None)
        return None

    def as_tuple(self) -> Any:
        """Returns what `validation_data` takes."""
        if self.y is None:
            return self.x
        return tuple(part for part in (self.x, self.y, self.sample_weight) if part is not None)


def split(
    x: Any, y: Any, sample_weight: Any, validation_split: float, validation_data: Any
) -> tuple[Part, Part]:
    """Returns training and validation data, as `keras.Model.fit` splits them.

    Raises:
        ValueError: If a split is asked of data that is no array.
    """
    train = Part(x, y, sample_weight)
    if validation_data is not None:
        return train, Part(*keras.utils.unpack_x_y_sample_weight(validation_data))
    if not validation_split:
        return train, Part(None)
    if not train.is_array:
        raise ValueError(
            f"`validation_split` needs arrays. Received: data of type {type(x).__name__}. Give "
            "`validation_data` instead."
        )
    at = math.floor(len(x) * (1 - validation_split))
    columns = (x, y, sample_weight)
    train = Part(*(None if column is None else column[:at] for column in columns))
    return train, Part(*(None if column is None else column[at:] for column in columns))


class Keeper:
    """Puts kept activations in the place of images, as far up as a backbone is frozen.

    Args:
        backbone: The backbone.
        feature_cache: As for `TransferModel`.
        will_train: Blocks that are unfrozen later. What lies below them is kept at once, so that
            the images are run through it once only.
        verbose: Whether to show progress, and say why something cannot be kept.
        check_labels: Called with labels, or with the `tf.TensorSpec` of those still to come, before
            anything is trained on them.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        feature_cache: str | FeatureCache | None,
        *,
        will_train: Collection[str] = (),
        verbose: bool = True,
        check_labels: Callable[[Any], None] | None = None,
    ) -> None:
        self._backbone = backbone
        self._cache = FeatureCache(verbose=verbose)
        if isinstance(feature_cache, FeatureCache):
            self._cache = feature_cache
        self._keeps = feature_cache is not None
        self._will_train = will_train
        self._verbose = verbose
        self._check = check_labels
        self._told: set[str] = set()
        self._pipelines: dict[int, Pipeline] = {}
        self._indices: dict[int, tf.data.Dataset] = {}

    def at_border(self, part: Part) -> Part:
        """Returns the data with activations after the last frozen block, where that is possible."""
        if part.x is None:
            return part
        self._check_labels(part)
        if part.is_kept:
            _check_kept(self._backbone, part)
            return part
        if not self._keeps:
            self.check_pixels(part)
            return part
        try:
            return self._kept(part)
        except NotKeepable as reason:
            self._tell(str(reason))
            self.check_pixels(part)
            return part

    def _check_labels(self, part: Part) -> None:
        if self._check is None:
            return
        if part.is_dataset:
            spec = part.x.element_spec
            labels = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
        elif part.is_array or part.is_kept:
            labels = None if part.y is None else keras.ops.convert_to_numpy(part.y)
        else:  # only reading it would tell
            return
        if labels is None:
            raise ValueError("There are no labels. Give `y`, or a dataset of (images, labels).")
        self._check(labels)

    def check_pixels(self, part: Part) -> None:
        """Warns if images are not in the range that the backbone takes."""
        images = part.some_images()
        if images is not None and not part.is_kept:
            self._backbone.check_pixels(images)

    def _kept(self, part: Part) -> Part:
        border = self._backbone.border
        if border is None:
            raise NotKeepable("no block is frozen")
        if not (part.augmentation is None or isinstance(part.augmentation, Flips)):
            raise NotKeepable("under augmentation each epoch sees other images")
        if not (part.is_dataset or part.is_array):
            raise NotKeepable(f"a {type(part.x).__name__} may give other images in each epoch")
        if part.is_array and part.augmentation is not None:
            raise NotKeepable("the views of arrays are not kept; give a tf.data.Dataset")
        keep = self._kept_dataset if part.is_dataset else self._kept_array
        lowest = self._backbone.border_without(self._will_train)
        if lowest not in (None, border):
            with contextlib.suppress(NotKeepable):  # it may be too much; the border may not
                keep(part, lowest)
        return replace(part, x=keep(part, border))

    def _kept_array(self, part: Part, border: str) -> dict[str, np.ndarray]:
        return {f"after:{border}": self._cache.array(self._backbone, part.x, after=border)}

    def _kept_dataset(self, part: Part, border: str) -> tf.data.Dataset:
        # One inspection and one set of row numbers for all phases of a fit: the images of another
        # phase have the same places, and the orders of a shuffle go on.
        key, flips = id(part.x), part.augmentation
        if key not in self._pipelines:
            self._pipelines[key] = inspect(part.x)
        pipeline = self._pipelines[key]
        views = [
            self._cache.rows(self._backbone, pipeline, border, flips=flips, view=view)
            for view in range(flips.views if flips is not None else 1)
        ]
        if self._check is not None:
            self._check(views[0].rest[0])
        if key not in self._indices:
            self._indices[key] = pipeline.order.indices(len(views[0].activations))
        return batches(views, border, self._indices[key])

    def _tell(self, reason: str) -> None:
        if self._verbose and reason not in self._told:
            self._told.add(reason)
            print(f"Training end to end, with nothing kept: {reason}.")


def _first(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch


def _check_kept(backbone: FrozenBackbone, part: Part) -> None:
    names = backbone.link_names
    key = next(iter(_first(getattr(part.x, "element_spec", part.x))), "")
    after = key.removeprefix("after:")
    border = backbone.border
    if after in names and (border is None or names.index(border) < names.index(after)):
        raise ValueError(
            f"The data holds activations {key!r}, which blocks below it would change: backbone "
            f"'{backbone.name}' is frozen up to {border!r} only. Give activations from there, or "
            "images."
        )
