"""FeatureCache: what a frozen part of a backbone makes of the data, computed once."""

import contextlib
import itertools
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from filelock import Timeout

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import AllFlips, Flips, Views
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features import pipelines, runners, spot_check
from keras_transfer.features.cache_folder import CacheFolder
from keras_transfer.features.entry import ARRAY, Entry
from keras_transfer.features.extraction import (
    UNEVEN,
    BatchesRead,
    ExtractionJob,
    FeatureExtraction,
    FrozenPart,
)
from keras_transfer.features.npy_store import FileArray, is_disk_full
from keras_transfer.features.rows import ArrayInMemory, CachedRows, batches, loaded, selected
from keras_transfer.features.storage import (
    check_disk,
    in_memory,
    in_temporary_file,
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
        self._samples: dict[tuple[Any, ...], spot_check.Sample] = {}  # by what made them
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
        self._forget_activations()
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
        _check_frozen(backbone, after)
        if not pipeline.batches:
            raise NotCacheable("there are no rows in it")
        views, frozen = views or Views(), frozen or FrozenPart(backbone)
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
        self._forget_if_stale(job)
        if job.key not in self._entries:
            with warn_of_full_disk():
                rows = self._from_folder_if_usable(job) if job.lasting else None
                self._keep(job, self._for_now(job) if rows is None else rows)
        return self._entries[job.key]

    def _data_key(self, pipeline: pipelines.Pipeline) -> str:
        if isinstance(pipeline.identity, str):
            content = pipeline.content() if self.strict and pipeline.content else ""
            return pipeline.identity + content
        self._alive[id(pipeline.identity)] = pipeline.identity
        return f"object {id(pipeline.identity)} {pipeline.sample}"

    def _forget_if_stale(self, job: ExtractionJob) -> None:
        """Compares some of what is in RAM with the layers, once in a fit for each block."""
        if job.made_by in job.frozen.checked:
            return
        job.frozen.checked.add(job.made_by)
        sample = self._samples.get(job.made_by)
        if sample is not None and sample.is_stale(job):
            job.say("computed anew: what was kept is not what the layers give now")
            self._forget_activations()

    def _forget_activations(self) -> None:
        self._entries.clear()
        self._samples.clear()
        self._runners.clear()

    def _keep(self, job: ExtractionJob, rows: CachedRows) -> None:
        self._entries[job.key] = rows
        if job.made_by not in self._samples:
            images = job.first_images() if rows.first is None else rows.first
            self._samples[job.made_by] = spot_check.Sample(images, job.views, job.view, rows)

    # ---- in the folder

    def _from_folder_if_usable(self, job: ExtractionJob) -> CachedRows | None:
        """Returns the rows from the folder; `None`, with a warning, if it fails twice.

        The second time resumes what an unsteady network has interrupted.
        """
        if (folder := self._folder) is None:
            return None
        for _ in range(2):
            try:
                return self._from_folder(job, folder)
            except OSError as error:
                if is_disk_full(error):
                    raise
                reason = str(error)
        warnings.warn(
            f"FeatureCache({str(folder.path)!r}): the folder cannot be used ({reason}). "
            "Activations are kept for as long as this FeatureCache lives. Expected a folder that "
            "you may write to; what is in it already is found again when you may.",
            stacklevel=2,
        )
        return None

    def _from_folder(self, job: ExtractionJob, folder: CacheFolder) -> CachedRows:
        entry = folder.entry(job.cache_key)
        with _locked(entry, job):
            began = time.monotonic()
            is_begun = entry.is_begun()
            array = self._opened(job, entry)
            if array is None:
                if not is_begun and (miss := folder.nearest_miss(job.cache_key)):
                    job.say(f"computed anew: what {folder.path} keeps is of other {miss}")
                array = self._write(job, entry, folder)
            else:
                text = f"{len(array):,} images from {folder.path}, {readable(array.nbytes)}"
                job.say(f"{text}, {time.monotonic() - began:.1f} s")
        kept = loaded(array) if array.nbytes <= self._budget() else array
        return CachedRows(kept, entry.computed, job.pipeline.columns or ())

    def _opened(self, job: ExtractionJob, entry: Entry) -> FileArray | None:
        """Returns the activations of an entry, `None` if they are not there or stale."""
        array = entry.open()
        if array is None or not spot_check.is_stale(job, array.take, len(array)):
            return array
        path = entry.folder.parent
        job.say(f"computed anew: what {path} keeps is not what the layers give now")
        del array  # some systems remove no file that is open
        entry.discard()
        return None

    def _write(self, job: ExtractionJob, entry: Entry, folder: CacheFolder) -> FileArray:
        began = time.monotonic()
        with entry.writing() as writer:
            # Rows that are run together are so again, which makes them bit for bit the same.
            there = writer.rows - writer.rows % math.lcm(job.pipeline.batch_size, runners.CPU_BATCH)
            if there and spot_check.is_stale(job, writer.take, there):
                job.say("computed from the start: what was there is not what the layers give now")
                there = 0
            writer.keep(there)
            for number, activations in enumerate(self._extraction(job, there).activations):
                if not number:
                    needed = (job.most_rows - there) * self._row_bytes(activations)
                    check_disk(folder.path, needed, self.disk_limit)
                writer.append(self._as_stored(activations), activations.dtype.name)
        folder.make_room(entry.folder)
        before = f", {there:,} of them from before" if there else ""
        job.say(
            f"{writer.rows:,} images{before}, {time.monotonic() - began:.1f} s, "
            f"{readable(writer.nbytes)} in {folder.path}"
        )
        return FileArray(entry.folder / ARRAY)

    # ---- for now

    def _for_now(self, job: ExtractionJob) -> CachedRows:
        """Returns rows in RAM or a temporary file."""
        began = time.monotonic()
        made = self._extraction(job)
        activations = iter(made.activations)
        first = next(activations, np.empty((0,)))
        needed = job.most_rows * self._row_bytes(first)
        rows = (self._as_stored(part) for part in itertools.chain([first], activations))
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
        if made.below is not None:
            return replace(made.below, activations=kept, dtype=first.dtype.name)
        return CachedRows(
            kept,
            first.dtype.name,
            tuple(np.concatenate(column) for column in zip(*made.read.rest, strict=True)),
            None if job.pipeline.ordered else _places(job.pipeline, len(kept)),
            tuple(made.read.sizes),
            None if job.lasting else made.read.first,
        )

    def _budget(self) -> int:
        return memory_budget() if self.memory_limit is None else self.memory_limit

    def _stored(self, activations: np.ndarray) -> np.dtype:
        """The type to keep: NumPy's files know no bfloat16, which float32 holds exactly."""
        bfloat16 = activations.dtype.name == "bfloat16"
        return np.dtype(self.dtype or ("float32" if bfloat16 else activations.dtype))

    def _as_stored(self, activations: np.ndarray) -> np.ndarray:
        stored = self._stored(activations)
        if stored == np.float16 and activations.dtype != stored:
            most = float(np.abs(activations).max(initial=0))
            if float(np.finfo(np.float16).max) < most < np.inf:
                raise NotCacheable(
                    f"activations of up to {most:.3g} do not fit into float16, which ends at 65,504"
                    "; leave `dtype` of the FeatureCache out"
                )
        return activations.astype(stored, copy=False)

    def _row_bytes(self, activations: np.ndarray) -> int:
        return int(np.prod(activations.shape[1:])) * self._stored(activations).itemsize

    # ---- where they come from

    def _extraction(self, job: ExtractionJob, start: int = 0) -> "_Extraction":
        """Begins to make activations from a row on, from the nearest cached ones or the images."""
        read = BatchesRead()
        name, below = self._nearest_below(job)
        inputs: Iterator[Any] = job.images(start, read)
        if below is not None:
            chunks = below.chunks(start, runners.CPU_BATCH)
            inputs = ({f"after:{name}": chunk} for chunk in chunks)
        key = (*sorted(job.frozen.fingerprints()[job.after].items()), job.after, name)
        total = job.most_rows if below is None else len(below)
        run = FeatureExtraction(job, inputs, start, total, self._runners, key)
        return _Extraction(run, read, below)

    def _nearest_below(self, job: ExtractionJob) -> tuple[str, CachedRows | None]:
        names = job.backbone.link_names
        prints = job.frozen.fingerprints()
        for name in reversed(names[: names.index(job.after)]):
            key = {**job.cache_key, "after": name, **prints[name]}
            lower = replace(job, after=name, cache_key=key)
            self._forget_if_stale(lower)
            if lower.key in self._entries:
                return name, self._entries[lower.key]
            if self._folder is not None and lower.lasting:
                with contextlib.suppress(OSError):  # of a folder that cannot be used
                    entry = self._folder.entry(key)
                    if not entry.folder.exists():
                        continue
                    with _locked(entry, lower):
                        if (array := self._opened(lower, entry)) is not None:
                            columns = job.pipeline.columns or ()
                            return name, CachedRows(array, entry.computed, columns)
        return "images", None


@dataclass(frozen=True)
class _Extraction:
    """Activations that are being made batch by batch, and what comes to light meanwhile."""

    activations: Iterable[np.ndarray]
    read: BatchesRead
    below: CachedRows | None


def _places(pipeline: pipelines.Pipeline, rows: int) -> np.ndarray:
    """Returns where each row of a shuffled pipeline is, if that was read for the first time.

    A first pass over a seeded shuffle has the same order as one over its row numbers. Without a
    seed, or if somebody has read the pipeline before, any order is as good as another.
    """
    places = np.argsort(np.concatenate([batch.numpy() for batch in pipeline.indices(rows)]))
    if len(places) != rows:
        raise NotCacheable(UNEVEN)
    return places


@contextlib.contextmanager
def _locked(entry: Entry, job: ExtractionJob) -> Iterator[None]:
    """Holds the lock of an entry; waits while another process has it, and says so."""
    try:
        entry.lock.acquire(blocking=False)
    except Timeout:
        job.say("another process is computing them; waiting for it")
        entry.lock.acquire()
    try:
        yield
    finally:
        entry.lock.release()


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        whole = isinstance(number, Integral) and not isinstance(number, bool)
        if not (whole and number >= 0):
            raise ValueError(f"{name}={number!r}. Expected a whole number of 0 or more.")


def _check_frozen(backbone: FrozenBackbone, after: str) -> None:
    if not isinstance(backbone, FrozenBackbone):
        raise TypeError(
            f"`backbone` is a {type(backbone).__name__}. Expected a FrozenBackbone; a Keras model "
            "becomes one by FrozenBackbone(model, preprocessing=...)."
        )
    names = backbone.link_names
    if after not in names:
        raise ValueError(f"Backbone '{backbone.name}' has no link {after!r}: it has {names}.")
    cut = backbone.border
    if cut is None or names.index(cut) < names.index(after):
        raise ValueError(
            f"What comes after {after!r} changes while training: backbone '{backbone.name}' is "
            f"frozen up to {cut!r} only. Keep activations there, or freeze more blocks."
        )
