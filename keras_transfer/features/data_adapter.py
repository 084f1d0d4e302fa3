"""FeatureDataAdapter: cached activations in place of the images that `fit` is given."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import AllFlips, DrawnViews, Flips, Views
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.data.fit_data import FitData, first_of, single
from keras_transfer.data.shuffling import lasting_order
from keras_transfer.features.extraction import FrozenPart
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.features.pipelines import Pipeline, inspect, of_array, of_py_dataset
from keras_transfer.features.rows import CachedBatches, CachedRows, batches
from keras_transfer.features.runners import CPU_BATCH
from keras_transfer.utils.console import say
from keras_transfer.utils.keras_internals import array_batches


class FeatureDataAdapter:
    """Puts cached activations in the place of images, as far up as a backbone is frozen.

    Args:
        backbone: The backbone.
        feature_cache: As for `TransferModel`.
        will_train: Blocks that are unfrozen later. Activations below them are cached at once, so
            that the images are run through these blocks once only.
        verbose: Whether to show progress, and say why something cannot be cached.
        check_labels: Called with labels, or with the `tf.TensorSpec` of those still to come, before
            anything is trained on them.
        own_methods: The methods of a user's own that take what the model is trained on.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        feature_cache: str | FeatureCache | None,
        *,
        will_train: Collection[str] = (),
        verbose: bool = True,
        check_labels: Callable[[Any], None] | None = None,
        own_methods: Sequence[str] = (),
    ) -> None:
        self._backbone, self._frozen = backbone, FrozenPart(backbone)
        self._cache = FeatureCache(verbose=verbose)
        if isinstance(feature_cache, FeatureCache):
            self._cache = feature_cache
        self._caches = feature_cache is not None
        self._will_train = will_train
        self._verbose = verbose
        self._check = check_labels
        self._own_methods = own_methods
        self._hint = ""
        self._printed: set[str] = set()
        self._checked: set[int] = set()
        self._pipelines: dict[int, Pipeline] = {}
        self._orders: dict[int, tf.data.Dataset] = {}

    def __call__(self, data: FitData, **loop: Any) -> FitData:
        """Returns the data with activations after the last frozen block, where that is possible.

        Args:
            data: The data.
            **loop: How Keras would go through arrays: `batch_size`, `steps`, `shuffle` and
                `class_weight`.
        """
        if data.x is None:
            return data
        self._check_labels(data)
        if data.is_cached:
            _check_cached(self._backbone, data)
            return data
        if self._caches:
            try:
                cached = self._cached(data, loop)
                self._note_own_methods()
                return cached
            except NotCacheable as reason:
                self._print(f"Training end to end, with nothing kept: {reason}.")
        self.check_pixels(data)
        return data

    def _check_labels(self, data: FitData) -> None:
        if self._check is None:
            return
        if data.is_dataset:
            spec = data.x.element_spec
            labels = single(spec[1]) if isinstance(spec, tuple) and len(spec) > 1 else None
        elif data.is_array or data.is_cached:
            labels = np.asarray(data.y) if hasattr(data.y, "shape") else data.y
        else:  # only reading it would tell
            return
        if labels is None:
            raise ValueError("There are no labels. Give `y`, or a dataset of (images, labels).")
        self._check(labels)

    def check_pixels(self, data: FitData) -> None:
        """Warns, once, if images are not in the range that the backbone takes."""
        if id(data.x) in self._checked:
            return
        self._checked.add(id(data.x))
        images = data.some_images()
        if images is not None:
            self._backbone.check_pixels(images)

    def _cached(self, data: FitData, loop: Mapping[str, Any]) -> FitData:
        cut = self._backbone.cut_point
        if cut is None:
            self._frozen = FrozenPart(self._backbone)  # blocks may train until it is frozen again
            raise NotCacheable(self._why_nothing())
        if not (data.is_dataset or data.is_array or data.is_py_dataset):
            raise NotCacheable(f"a {type(data.x).__name__} may give other images in each epoch")
        if data.is_array and loop.get("shuffle") == "batch":
            raise NotCacheable("shuffle='batch' is Keras' own way through files of arrays")
        views, pipeline = self._views(data.augmentation), self._pipeline(data)
        lowest = self._backbone.cut_point_without(self._will_train)
        if lowest not in (None, cut):
            with contextlib.suppress(NotCacheable):  # it may be too much; the cut point may not
                self._rows(pipeline, lowest, views)
        rows = self._rows(pipeline, cut, views)
        if self._check is not None and rows[0].rest:
            self._check(rows[0].rest[0])
        if data.is_py_dataset:
            return FitData(CachedBatches(rows, cut))
        if data.is_array:  # shuffled anew in each phase, as Keras itself would
            numbers = np.arange(len(rows[0]))
            indices = array_batches(numbers, data.y, data.sample_weight, **loop)
        else:
            indices = self._order(data, pipeline, len(rows[0]))
        return FitData(batches(rows, cut, indices))

    def _why_nothing(self) -> str:
        if not self._backbone.blocks[0].frozen:
            return "no block is frozen"
        if self._backbone.pooling == "levels":
            return "a block trains, and its features are of all levels (pooling='levels')"
        return "part of its module trains, and a module cannot be cut"

    def _rows(self, pipeline: Pipeline, after: str, views: Views) -> list[CachedRows]:
        options: dict[str, Any] = {"views": views, "verbose": self._verbose, "frozen": self._frozen}
        return [
            self._cache.rows(self._backbone, pipeline, after, view=view, **options)
            for view in range(views.count)
        ]

    def _views(self, augmentation: keras.Layer | None) -> Views:
        if augmentation is None:
            return Views()
        if isinstance(augmentation, Flips):
            return AllFlips(augmentation)
        if not self._cache.views:
            raise NotCacheable(
                "under augmentation each epoch sees other images (feature_cache="
                "FeatureCache(views=8) would keep 8 views of each)"
            )
        return DrawnViews(augmentation, self._cache.views, self._cache.seed)

    def _pipeline(self, data: FitData) -> Pipeline:
        """One inspection for all phases of a fit."""
        key = id(data.x)
        if key not in self._pipelines:
            if data.is_dataset:
                pipeline = inspect(data.x)
            elif data.is_py_dataset:
                pipeline = of_py_dataset(data.x)
            else:
                pipeline = of_array(_floats(np.asarray(data.x)), CPU_BATCH)
            self._pipelines[key] = replace(pipeline, read=self._with_checked_labels(pipeline.read))
        return self._pipelines[key]

    def _with_checked_labels(self, read: Callable[..., Iterable[Any]]) -> Any:
        def checked(batch: Any) -> Any:
            if self._check is not None and isinstance(batch, tuple) and len(batch) > 1:
                labels = batch[1]
                self._check(labels if isinstance(labels, Mapping) else np.asarray(labels))
            return batch

        return lambda start, stop: map(checked, read(start, stop))

    def _order(self, data: FitData, pipeline: Pipeline, rows: int) -> tf.data.Dataset:
        """Batches of row numbers, whose order continues from phase to phase and from fit to fit."""
        key = id(data.x)
        if key not in self._orders:
            order = self._orders[key] = lasting_order(
                data.x, "train", lambda: pipeline.indices(rows)
            )
            if not pipeline.ordered:
                iter(order)  # takes an order, as `check_pixels` takes one of the dataset itself
        return self._orders[key]

    def _note_own_methods(self) -> None:
        if self._own_methods:
            self._hint = (
                f"Given to {', '.join(self._own_methods)}: kept activations, {{'after:"
                f"{self._backbone.cut_point}': ...}}, in place of images. Where that does not fit, "
                "pass feature_cache=None to the model."
            )
            self._print(self._hint)

    @contextlib.contextmanager
    def hinting(self) -> Iterator[None]:
        """Adds to errors within a block that methods of a user's own got cached activations."""
        try:
            yield
        except Exception as error:
            if self._hint:
                error.add_note(self._hint)
            raise

    def _print(self, line: str) -> None:
        if self._verbose and line not in self._printed:
            self._printed.add(line)
            say(line)


def _check_cached(backbone: FrozenBackbone, data: FitData) -> None:
    names = backbone.link_names
    key = next(iter(first_of(getattr(data.x, "element_spec", data.x))), "")
    after = key.removeprefix("after:")
    cut = backbone.cut_point
    if after in names and (cut is None or names.index(cut) < names.index(after)):
        raise ValueError(
            f"The data holds activations {key!r}, which blocks below it would change: backbone "
            f"'{backbone.name}' is frozen up to {cut!r} only. Give activations from there, or "
            "images."
        )


def _floats(images: np.ndarray) -> np.ndarray:
    """As Keras takes arrays: in no larger floating point type than its own."""
    return images.astype(keras.config.floatx()) if images.dtype.kind == "f" else images
