"""Stream: the batches of a dataset, epoch after epoch, across the phases of a fit."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import AllFlips, AsTheyAre, DrawnViews, Flips, Views
from keras_transfer.data.cacheable import NotKeepable
from keras_transfer.data.fit_data import Part, first_of, single
from keras_transfer.data.shuffling import row_numbers
from keras_transfer.features.extraction import FrozenPart
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.features.pipelines import Pipeline, inspect, of_array, of_py_dataset
from keras_transfer.features.rows import KeptBatches, Rows, array_indices, batches
from keras_transfer.features.runners import CPU_BATCH
from keras_transfer.utils.console import say


class Stream:
    """Gives a dataset's batches pass after pass, and goes on where training stopped.

    What was taken to be ready in time, and not trained on, is given again.

    Args:
        dataset: Batches, of any number.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self.dataset = dataset
        self._live = iter(dataset.repeat())
        self._taken: deque[Any] = deque()
        self._lock, self._readers = threading.Lock(), 0

    def batches(self) -> tf.data.Dataset:
        """Returns what comes next, without end."""
        spec = self.dataset.element_spec
        endless = tf.data.Dataset.from_generator(self._give, output_signature=spec)
        return endless.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _give(self) -> Iterator[Any]:
        with self._lock:
            self._readers += 1
            me, again = self._readers, list(self._taken)
        yield from again
        while True:
            with self._lock:
                if self._readers != me:  # the fit of another phase has begun
                    return
                batch = next(self._live)
                self._taken.append(batch)
            yield batch

    def trained(self, batches: int) -> None:
        """Notes that so many batches more were trained on."""
        with self._lock:
            for _ in range(batches):
                self._taken.popleft()


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
        self._keeps = feature_cache is not None
        self._will_train = will_train
        self._verbose = verbose
        self._check = check_labels
        self._own_methods = own_methods
        self._hint = ""
        self._told: set[str] = set()
        self._looked_at: set[int] = set()
        self._pipelines: dict[int, Pipeline] = {}
        self._owed: dict[int, int] = {}
        self._streams: dict[int, Stream] = {}

    def at_border(self, part: Part, **loop: Any) -> Part:
        """Returns the data with activations after the last frozen block, where that is possible.

        Args:
            part: The data.
            **loop: How Keras would go through arrays: `batch_size`, `steps`, `shuffle` and
                `class_weight`.
        """
        if part.x is None:
            return part
        self._check_labels(part)
        if part.is_kept:
            _check_kept(self._backbone, part)
            return part
        if not self._keeps:
            self.check_pixels(part)
            return self._as_it_is(part, loop.get("steps"))
        try:
            kept = self._kept(part, loop)
            self._note_own_methods()
            return kept
        except NotKeepable as reason:
            self._tell(f"Training end to end, with nothing kept: {reason}.")
            self.check_pixels(part)
            return self._as_it_is(part, loop.get("steps"))

    def _as_it_is(self, part: Part, steps: int | None) -> Part:
        """The data itself, where it would be if it had been trained on from the beginning."""
        if part.is_dataset and self._goes_on(part.x, steps):
            return replace(part, x=self._stream(part.x, part.x).batches())
        for _ in range(self._owed.pop(id(part.x), 0)):
            iter(part.x)  # takes an order from its shuffle, as the epochs before would have
        return part

    def _goes_on(self, dataset: tf.data.Dataset, steps: int | None) -> bool:
        """Whether an epoch begins where the one before ended, and never at the end of the data."""
        if not (self._will_train and steps):
            return False
        count = int(dataset.cardinality())
        return count == tf.data.INFINITE_CARDINALITY or (count > 0 and not count % steps)

    def _stream(self, dataset: tf.data.Dataset, source: tf.data.Dataset) -> Stream:
        """What goes on through the phases; anew where training leaves what is kept."""
        stream = self._streams.get(id(dataset))
        if stream is None or stream.dataset is not source:
            self._streams[id(dataset)] = stream = Stream(source)
        return stream

    def ran(self, part: Part, epochs: int, steps: int | None = None) -> None:
        """Notes how many epochs of the data were trained on, of so many steps if that was given."""
        if id(part.x) in self._streams:
            self._streams[id(part.x)].trained(epochs * (steps or 0))
            return
        pipeline = self._pipelines.get(id(part.x))
        if not steps and part.is_dataset and pipeline is not None and pipeline.order.apart:
            # Keras begins to iterate twice in an epoch: once to train, once to see the end.
            self._owed[id(part.x)] = self._owed.get(id(part.x), 0) + 2 * epochs

    def _check_labels(self, part: Part) -> None:
        if self._check is None:
            return
        if part.is_dataset:
            spec = part.x.element_spec
            labels = single(spec[1]) if isinstance(spec, tuple) and len(spec) > 1 else None
        elif part.is_array or part.is_kept:
            labels = part.y
            if hasattr(labels, "shape"):
                labels = np.asarray(labels)
        else:  # only reading it would tell
            return
        if labels is None:
            raise ValueError("There are no labels. Give `y`, or a dataset of (images, labels).")
        self._check(labels)

    def check_pixels(self, part: Part) -> None:
        """Warns, once, if images are not in the range that the backbone takes."""
        if id(part.x) in self._looked_at:
            return
        self._looked_at.add(id(part.x))
        images = part.some_images()
        if images is not None:
            self._backbone.check_pixels(images)

    def _kept(self, part: Part, loop: Mapping[str, Any]) -> Part:
        border = self._backbone.border
        if border is None:
            raise NotKeepable(self._why_nothing())
        if not (part.is_dataset or part.is_array or part.is_py_dataset):
            raise NotKeepable(f"a {type(part.x).__name__} may give other images in each epoch")
        if part.is_array and loop.get("shuffle") == "batch":
            raise NotKeepable("shuffle='batch' is Keras' own way through files of arrays")
        views, pipeline = self._views(part.augmentation), self._pipeline(part)
        lowest = self._backbone.border_without(self._will_train)
        if lowest not in (None, border):
            with contextlib.suppress(NotKeepable):  # it may be too much; the border may not
                self._rows(pipeline, lowest, views)
        rows = self._rows(pipeline, border, views)
        if self._check is not None and rows[0].rest:
            self._check(rows[0].rest[0])
        if part.is_py_dataset:
            return Part(KeptBatches(rows, border))
        return Part(batches(rows, border, self._indices(part, pipeline, len(rows[0]), loop)))

    def _why_nothing(self) -> str:
        if not self._backbone.blocks[0].frozen:
            return "no block is frozen"
        if self._backbone.pooling == "levels":
            return "a block trains, and its features are of all levels (pooling='levels')"
        return "part of its module trains, and a module cannot be cut"

    def _rows(self, pipeline: Pipeline, after: str, views: Views) -> list[Rows]:
        return [
            self._cache.rows(
                self._backbone,
                pipeline,
                after,
                views=views,
                view=view,
                verbose=self._verbose,
                frozen=self._frozen,
            )
            for view in range(views.count)
        ]

    def _views(self, augmentation: keras.Layer | None) -> Views:
        if augmentation is None:
            return AsTheyAre()
        if isinstance(augmentation, Flips):
            return AllFlips(augmentation)
        if not self._cache.views:
            raise NotKeepable(
                "under augmentation each epoch sees other images (feature_cache="
                "FeatureCache(views=8) would keep 8 views of each)"
            )
        return DrawnViews(augmentation, self._cache.views, self._cache.seed)

    def _pipeline(self, part: Part) -> Pipeline:
        """One inspection for all phases of a fit: images keep their places, shuffles go on."""
        key = id(part.x)
        if key not in self._pipelines:
            if part.is_dataset:
                pipeline = inspect(part.x)
            elif part.is_py_dataset:
                pipeline = of_py_dataset(part.x)
            else:
                pipeline = of_array(_floats(np.asarray(part.x)), CPU_BATCH)
            self._pipelines[key] = replace(pipeline, read=self._checked(key, pipeline))
        return self._pipelines[key]

    def _checked(self, key: int, pipeline: Pipeline) -> Callable[..., Iterable[Any]]:
        """What reads a pipeline, checks its labels, and notes that its shuffle gave an order."""

        def checked(batch: Any) -> Any:
            if self._check is not None and isinstance(batch, tuple) and len(batch) > 1:
                labels = batch[1]
                self._check(labels if isinstance(labels, Mapping) else np.asarray(labels))
            return batch

        def read(start: int, stop: int | None) -> Iterable[Any]:
            if pipeline.order.apart:
                self._owed[key] = self._owed.get(key, 0) - 1
            return map(checked, pipeline.read(start, stop))

        return read

    def _indices(
        self, part: Part, pipeline: Pipeline, rows: int, loop: Mapping[str, Any]
    ) -> tf.data.Dataset:
        if part.is_array:  # anew in each phase, as Keras itself would
            return array_indices(rows, part.y, part.sample_weight, **loop)
        numbers = row_numbers(part.x)
        if numbers.to_train is None:
            numbers.to_train = pipeline.order.indices(rows)
        if self._goes_on(part.x, loop.get("steps")):
            return self._stream(part.x, numbers.to_train).batches()
        return numbers.to_train

    def _note_own_methods(self) -> None:
        if self._own_methods:
            self._hint = (
                f"Given to {', '.join(self._own_methods)}: kept activations, {{'after:"
                f"{self._backbone.border}': ...}}, in place of images. Where that does not fit, "
                "pass feature_cache=None to the model."
            )
            self._tell(self._hint)

    @contextlib.contextmanager
    def hinting(self) -> Iterator[None]:
        """Adds to errors within a block that methods of a user's own got kept activations."""
        try:
            yield
        except Exception as error:
            if self._hint:
                error.add_note(self._hint)
            raise

    def _tell(self, line: str) -> None:
        if self._verbose and line not in self._told:
            self._told.add(line)
            say(line)


def _check_kept(backbone: FrozenBackbone, part: Part) -> None:
    names = backbone.link_names
    key = next(iter(first_of(getattr(part.x, "element_spec", part.x))), "")
    after = key.removeprefix("after:")
    border = backbone.border
    if after in names and (border is None or names.index(border) < names.index(after)):
        raise ValueError(
            f"The data holds activations {key!r}, which blocks below it would change: backbone "
            f"'{backbone.name}' is frozen up to {border!r} only. Give activations from there, or "
            "images."
        )


def _floats(images: np.ndarray) -> np.ndarray:
    """As Keras takes arrays: in no larger floating point type than its own."""
    return images.astype(keras.config.floatx()) if images.dtype.kind == "f" else images
