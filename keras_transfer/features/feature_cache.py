"""FeatureCache: what a frozen part of a backbone makes of the data, computed once."""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import AllFlips, Flips, Views
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features import pipelines, runners, spot_check
from keras_transfer.features.cache_folder import CacheFolder
from keras_transfer.features.extraction import BatchesRead, ExtractionJob, FrozenPart, extract
from keras_transfer.features.folder_rows import rows_from_folder, rows_if_there
from keras_transfer.features.npy_store import FileArray
from keras_transfer.features.rows import ArrayInMemory, CachedRows, batches, selected
from keras_transfer.features.storage import (
    as_stored,
    check_disk,
    in_memory,
    in_temporary_file,
    row_bytes,
    warn_of_full_disk,
)
from keras_transfer.utils.memory import memory_budget, readable


class FeatureCache:
    """Keeps activations at any place of a backbone, so that what is frozen runs once.

    They are found again by what they were made of: the data, the frozen part with its weights, the
    augmentation, and the block. Then the layers compute a few rows again, so that a layer whose
    code has changed, or a value that it looks up elsewhere, is noticed, too; everything is computed
    anew in that case. Activations are kept in RAM while they take at most `memory_limit`, beyond
    that in `.npy` files.

    Args:
        directory: A folder to keep activations in between runs, of data that can be recognized:
            from `image_folder`, or arrays. Processes may share it: while one computes activations,
            others that need the same wait for it. `None` for no such folder.
        memory_limit: Bytes that each set of activations may take in RAM: of one part of the data,
            after one block, of one view. A quarter of the free memory unless given.
        disk_limit: Bytes that the folder may take; the least recently used activations are
            removed. No limit unless given.
        dtype: `"float16"` to keep activations in half the space, rounded; `None` as they are.
        views: How many augmented views of each image to keep under an `augmentation` other than
            `Flips`, whose views are kept in any case; each epoch draws among them. 0 for none:
            training runs end to end then.
        seed: Decides what the views show.
        strict: Whether to recognize image files by their content, too, not by path, size and time
            of change alone.
        verbose: Whether to show progress on a terminal, and to say what was computed.

    Raises:
        NotADirectoryError: If the directory is a file.
        PermissionError: If it cannot be written.
        ValueError: If it has the format of a newer version, or an argument is out of range.

    Example:
        >>> cache = FeatureCache("cache/")
        >>> backbone = FrozenBackbone("vgg16", input_shape=(150, 150, 3), pooling="flatten")
        >>> head.fit(cache.dataset(backbone, data.train).map(lambda x, y: (x["after:pooling"], y)))
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        memory_limit: int | None = None,
        disk_limit: int | None = None,
        dtype: str | None = None,
        views: int = 0,
        seed: int = 0,
        strict: bool = False,
        verbose: bool = True,
    ) -> None:
        limits = {"memory_limit": memory_limit, "disk_limit": disk_limit}
        _check_numbers(views=views, seed=seed, **{k: n for k, n in limits.items() if n is not None})
        if not (directory is None or (isinstance(directory, str | os.PathLike) and str(directory))):
            raise TypeError(f"directory={directory!r}. Expected the path of a folder, or None.")
        if dtype not in (None, "float16", "float32"):
            raise ValueError(f"dtype={dtype!r}. Expected 'float16', 'float32' or None.")
        self.directory = directory
        self.memory_limit = memory_limit
        self.disk_limit = disk_limit
        self.dtype = dtype
        self.views = views
        self.seed = seed
        self.strict = strict
        self.verbose = verbose
        self._folder = None if directory is None else CacheFolder(directory, disk_limit)
        self._entries: dict[tuple[Any, ...], CachedRows] = {}
        self._runners: dict[Any, runners.Runner | None] = {}
        self._alive: dict[int, Any] = {}  # so that no id is given to another object

    def dataset(
        self,
        backbone: FrozenBackbone,
        data: tf.data.Dataset,
        *,
        after: str = "pooling",
        flips: Flips | None = None,
        view: int = 0,
    ) -> tf.data.Dataset:
        """Returns the batches of a dataset with activations in place of images.

        Order, batches and reshuffling are those of the dataset.

        Args:
            backbone: What makes the activations. It must be frozen up to `after`.
            data: Batches of `(images, labels)` or `(images, labels, sample_weights)`. A map that
                comes after its batching must treat each row by itself.
            after: A block's name, or `"pooling"` for the features.
            flips: What makes views of the images, if not the images as they are are wanted.
            view: Which of its views, 0 (the images as they are) to `flips.views - 1`.

        Returns:
            Batches of `({"after:<block>": activations}, labels, ...)`.

        Raises:
            NotCacheable: If the rows are random, their number unknown, or the activations too many
                for the disk; the message says why.
            ValueError: If `after` lies above a block that is not frozen, or is unknown, or there is
                no such view.
        """
        views = AllFlips(flips) if flips is not None else Views()
        if not 0 <= view < views.count:
            raise ValueError(f"view={view!r}. Expected 0 to {views.count - 1}.")
        if not isinstance(data, tf.data.Dataset):
            raise TypeError(
                f"`data` is a {type(data).__name__}. Expected a tf.data.Dataset of batches; for an "
                "array of images there is `array`."
            )
        pipeline = pipelines.inspect(data)
        rows = self.rows(backbone, pipeline, after, views=views, view=view)
        return batches([rows], after, pipeline.indices(len(rows)))

    def array(self, backbone: FrozenBackbone, images: Any, *, after: str = "pooling") -> np.ndarray:
        """Returns the activations of an array of images `(n, height, width, 3)`, row for row."""
        pipeline = pipelines.of_array(np.asarray(images), runners.CPU_BATCH)
        return self.rows(backbone, pipeline, after).read(0, len(images))

    def __len__(self) -> int:
        """How many sets of activations this object holds or has open."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """How many bytes of RAM these take."""
        arrays = [rows.activations for rows in self._entries.values()]
        return sum(array.nbytes for array in arrays if isinstance(array, ArrayInMemory))

    def __bool__(self) -> bool:
        return True  # or an empty one would be none to `cache or FeatureCache()`

    def clear(self) -> None:
        """Forgets all that is kept, and empties the folder of all activations in it."""
        self._entries.clear()
        self._runners.clear()
        self._alive.clear()
        if self._folder is not None:
            self._folder.clear()

    def rows(
        self,
        backbone: FrozenBackbone,
        pipeline: pipelines.Pipeline,
        after: str,
        *,
        views: Views | None = None,
        view: int = 0,
        verbose: bool = True,
        frozen: FrozenPart | None = None,
    ) -> CachedRows:
        """Returns the cached rows of a pipeline, computed now if there are none.

        Args:
            backbone: What makes the activations.
            pipeline: The data.
            after: A block's name, or `"pooling"`.
            views: The views that the images are made to; `None` for the images as they are.
            view: Which of these.
            verbose: Whether to show progress, unless the cache does not.
            frozen: The frozen part of the backbone as it is during a fit, so that its digests are
                made once, and what is in RAM is compared with its layers once.
        """
        views, frozen = views or Views(), frozen or FrozenPart(backbone)
        frozen.check(after)
        if not pipeline.batches:
            raise NotCacheable("there are no rows in it")
        if pipeline.places is not None:
            options: dict[str, Any] = {
                "views": views,
                "view": view,
                "verbose": verbose,
                "frozen": frozen,
            }
            parts = [self.rows(backbone, part, after, **options) for part in pipeline.parts]
            return selected(parts, pipeline.places)
        key = {
            "data": self._data_key(pipeline),
            "view": views.key(view),
            "after": after,
            "dtype": self.dtype or "as computed",
            **frozen.fingerprints()[after],
        }
        job = ExtractionJob(frozen, pipeline, after, views, view, key, verbose and self.verbose)
        if (rows := self._in_memory(job)) is None:
            with warn_of_full_disk():
                if self._folder is not None and job.lasting:
                    rows = rows_from_folder(
                        job,
                        self._folder,
                        lambda start: self._extraction(job, start)[0],
                        dtype=self.dtype,
                        budget=self._budget(),
                    )
                rows = self._for_now(job) if rows is None else rows
            self._entries[job.key] = rows
            frozen.checked.add(job.key)
        return rows

    def _data_key(self, pipeline: pipelines.Pipeline) -> str:
        if isinstance(pipeline.identity, str):
            content = pipeline.content() if self.strict and pipeline.content else ""
            return pipeline.identity + content
        self._alive[id(pipeline.identity)] = pipeline.identity
        return f"object {id(pipeline.identity)} {pipeline.sample}"

    def _in_memory(self, job: ExtractionJob) -> CachedRows | None:
        """Returns rows that are in RAM, compared with the layers once in a fit."""
        rows = self._entries.get(job.key)
        if rows is not None and job.key not in job.frozen.checked:
            job.frozen.checked.add(job.key)
            if spot_check.is_stale_in_memory(job, rows):
                job.say("computed anew: what was kept is not what the layers give now")
                self._entries.clear()
                self._runners.clear()
                return None
        return rows

    def _for_now(self, job: ExtractionJob) -> CachedRows:
        """Returns rows in RAM or a temporary file."""
        began = time.monotonic()
        activations, read, below = self._extraction(job)
        first = next(activations, np.empty((0,)))
        needed = job.most_rows * row_bytes(first, self.dtype)
        rows = (as_stored(part, self.dtype) for part in itertools.chain([first], activations))
        kept: ArrayInMemory | FileArray
        if needed <= self._budget():
            where, kept = "RAM", in_memory(rows, job.most_rows)
        else:
            folder = Path(tempfile.gettempdir())
            if self._folder is not None and os.access(self._folder.path, os.W_OK):
                folder = self._folder.path
            check_disk(folder, needed, None)
            where, kept = "a temporary file", in_temporary_file(rows, folder)
        job.say(
            f"{len(kept):,} images, {time.monotonic() - began:.1f} s, "
            f"{readable(kept.nbytes)} in {where}"
        )
        if below is not None:
            return replace(below, activations=kept, dtype=first.dtype.name)
        return CachedRows(
            kept,
            first.dtype.name,
            tuple(np.concatenate(column) for column in zip(*read.rest, strict=True)),
            job.pipeline.row_places(len(kept)),
            tuple(read.sizes),
            None if job.lasting else read.first,
        )

    def _budget(self) -> int:
        return memory_budget() if self.memory_limit is None else self.memory_limit

    def _extraction(
        self, job: ExtractionJob, start: int = 0
    ) -> tuple[Iterator[np.ndarray], BatchesRead, CachedRows | None]:
        """Begins to make activations from a row on, from the nearest cached ones or the images.

        Returns:
            Batches of activations, notes that are made meanwhile, and the nearest cached ones.
        """
        read = BatchesRead()
        name, below = self._nearest_below(job)
        inputs: Iterator[Any] = job.images(start, read)
        if below is not None:
            chunks = below.chunks(start, runners.CPU_BATCH)
            inputs = ({f"after:{name}": chunk} for chunk in chunks)
        key = (*sorted(job.frozen.fingerprints()[job.after].items()), job.after, name)
        total = job.most_rows if below is None else len(below)
        run = extract(job, inputs, start=start, total=total, fast_runners=self._runners, key=key)
        return run, read, below

    def _nearest_below(self, job: ExtractionJob) -> tuple[str, CachedRows | None]:
        names = job.backbone.link_names
        prints = job.frozen.fingerprints()
        for name in reversed(names[: names.index(job.after)]):
            key = {**job.cache_key, "after": name, **prints[name]}
            lower = replace(job, after=name, cache_key=key)
            rows = self._in_memory(lower)
            if rows is None and self._folder is not None and lower.lasting:
                rows = rows_if_there(lower, self._folder)
            if rows is not None:
                return name, rows
        return "images", None


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        whole = isinstance(number, Integral) and not isinstance(number, bool)
        if not (whole and number >= 0):
            raise ValueError(f"{name}={number!r}. Expected a whole number of 0 or more.")
