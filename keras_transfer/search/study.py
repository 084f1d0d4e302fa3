"""Study: all that a search consists of, made from its command line in whichever process runs it."""

import argparse
import functools
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.data.read_folder import image_folder
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.features.runners import by_keras
from keras_transfer.search.budget.plan import TimePlan
from keras_transfer.search.callbacks import MedianStopping
from keras_transfer.search.distributed.renewal import Growth
from keras_transfer.search.hypermodel import TransferHyperModel
from keras_transfer.search.metrics import Objective, balanced_class_weight, objective
from keras_transfer.search.probe import run_probe
from keras_transfer.search.progress import Sharing
from keras_transfer.search.report.summary import versions, without_paths
from keras_transfer.search.state.files import put_aside, read_json, read_or_put_aside, write_json
from keras_transfer.search.state.outcome import FILE, PREFIX, Begun, Outcome
from keras_transfer.search.state.settings import backbone_names
from keras_transfer.search.trials import FOLDER, Trials

PROBE = "probe"
ACTIVATIONS = "activations"
SHARING = "sharing.json"
_PROBE_AGAIN = "the probe is fitted again"
FEATURES = "pooling"  # the link that the probe is fitted on


@dataclass(frozen=True)
class Study:
    """All that a search consists of.

    Attributes:
        args: Of the command line.
        output: The folder of the search.
        data: The images.
        hypermodel: What builds and fits the models of trials.
        began: When the search began, as `time.monotonic()`.
        plan: What is left of `--minutes`.
    """

    args: argparse.Namespace
    output: Path
    data: ImageFolder
    hypermodel: TransferHyperModel
    began: float
    plan: TimePlan

    @classmethod
    def of(
        cls,
        args: argparse.Namespace,
        directory: Path | ImageFolder,
        output: Path,
        began: float,
        plan: TimePlan,
        before_writing: Callable[[], object] = lambda: None,
    ) -> "Study":
        """Makes a study.

        Args:
            args: Of the command line, with a `Space` as `space`.
            directory: The folder of images, or the images themselves.
            output: The folder of the search.
            began: When the search began.
            plan: What is left of `--minutes`.
            before_writing: Called before anything is written into the folder of the search.

        Raises:
            ValueError: If arguments do not fit each other, the backbone or the images.
            ImportError: If a package is missing.
            OSError: If images or weights cannot be read.
        """
        _quiet()
        backbones = {name: _backbone(args, name) for name in backbone_names(args)}
        data = _images(args, directory)
        before_writing()
        cache = FeatureCache(args.cache or output / ACTIVATIONS, seed=args.seed)
        hypermodel = TransferHyperModel(
            backbones,
            data.class_names,
            space=args.space,
            epochs=args.epochs,
            flips=None if args.flips == "none" else args.flips,
            cache=cache,
            metric=args.metric,
            patience=None if args.no_early_stopping else max(3, args.epochs // 6),
        )
        return cls(args, output, data, hypermodel, began, plan)

    @property
    def objective(self) -> Objective:
        """What makes one trial better than another."""
        return objective(self.args.metric)

    @functools.cached_property
    def folds(self) -> list[tuple[tf.data.Dataset, tf.data.Dataset]] | None:
        """Pairs of training and validation data; `None` without folds."""
        args = self.args
        return None if args.folds is None else self.data.folds(args.folds, seed=args.seed)

    def asked(self) -> dict[str, Any]:
        """Returns all that decides on the trials, as JSON has it."""
        args, data = self.args, self.data
        splits = (data.train, data.valid, data.test)
        return {
            "images": data.counts,
            "data": [part.identity for part in splits if part is not None],
            "classes": list(data.class_names),
            "backbones": {
                name: _digest(backbone) for name, backbone in self.hypermodel.backbones.items()
            },
            "space": args.space.to_dict(),
            **{name: getattr(args, name) for name in _DECISIVE},
            "versions": versions(),
        }

    def trials(
        self,
        on_begin: Callable[[Begun], None] | None = None,
        on_end: Callable[[Outcome], None] | None = None,
        on_epoch: Callable[[], None] = lambda: None,
    ) -> Trials:
        """Returns the trials, those of an earlier run included.

        Args:
            on_begin: As for `Trials`.
            on_end: As for `Trials`.
            on_epoch: Called in the process that runs a trial, after each of its epochs.
        """
        args = self.args
        trials = Trials(
            self.hypermodel,
            args.tuner,
            objective=self.objective,
            count=args.trials,
            epochs=args.epochs,
            seed=args.seed,
            output=self.output,
            deadline=self.plan.deadline,
            folds=self.folds,
            on_begin=on_begin,
            on_end=on_end,
            callbacks=lambda fold: [
                keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch()),
                *self._callbacks(trials, fold),
            ],
            between=Growth(args.most_growth, lambda: self.hypermodel.cache.nbytes).check,
        )
        return trials

    def _callbacks(self, trials: Trials, fold: int) -> list[keras.callbacks.Callback]:
        if self.args.tuner == "hyperband" or self.args.no_early_stopping:
            return []
        warmup = max(1, self.args.epochs // 4)
        others = functools.partial(trials.curves, fold)
        return [MedianStopping(self.objective, others, warmup_epochs=warmup)]

    @property
    def fit_arguments(self) -> dict[str, Any]:
        """What trials are fitted with besides data."""
        if not self.args.balance:
            return {}
        return {"class_weight": balanced_class_weight(self.data.labels["train"])}

    # ---- trial 0

    @property
    def probe_folder(self) -> Path:
        """Where the outcome of the probe lies."""
        return self.output / FOLDER / f"{PREFIX}{PROBE}"

    def probe(self) -> Outcome:
        """Returns the outcome of trial 0, a logistic regression, which is run only once."""
        folder = self.probe_folder
        if folder.exists() and not folder.is_dir():
            put_aside(folder, f"{str(folder)!r} is a file. Expected a folder.", _PROBE_AGAIN)
        found = read_or_put_aside(folder / FILE, lambda _: Outcome.read(folder), _PROBE_AGAIN)
        if found is not None:
            return found
        outcome = self._probed()
        outcome.write(folder)
        return outcome

    def take_share(self) -> None:
        """Computes a share of what the probe needs, in a process other than the one that fits it.

        It returns when all of it is there, or at once if the probe has been fitted.
        """
        try:
            Outcome.read(self.probe_folder)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            try:
                self._extract()
            except NotCacheable as reason:  # which is the chief's to end with
                print(f"No activations are computed here before the trials: {reason}.", flush=True)

    def _extract(self) -> tuple[str, FrozenBackbone]:
        """Has the activations computed that the probe needs; returns the backbone and its name."""
        name, backbone = next(iter(self.hypermodel.backbones.items()))
        border = self.hypermodel.border(name)
        # The images run to the border of what is trained once, and on from there.
        for after in dict.fromkeys((border, FEATURES) if border else (FEATURES,)):
            for part in (self.data.train, self.data.valid):
                if part is not None:
                    self.hypermodel.cache.dataset(backbone, part.ordered, after=after)
        return name, backbone

    def _probed(self) -> Outcome:
        name, backbone = self._extract()
        found = run_probe(
            self.hypermodel.cache,
            backbone,
            self.folds or self.data,
            self.args.seed,
            balance=self.args.balance,
        )
        for note in found.notes:
            warnings.warn(f"The probe: {note}", stacklevel=2)
        scores = [one[self.objective.name] for one in found.folds]
        return Outcome(
            0,
            PROBE,
            "completed",
            found.metrics[self.objective.name],
            found.seconds,
            {"backbone": name, "C": float(np.median(found.C))},
            deviation=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
            metrics=found.metrics,
            seed=self.args.seed,
            folds=found.folds,
        )

    def sharing(self, seconds: float) -> Sharing:
        """Returns what computing activations cost, and would cost in each epoch.

        It is measured once and kept with the probe, for a search that goes on.

        Args:
            seconds: What it took, if that was now.
        """
        parts = (self.data.train, self.data.valid)
        images = sum(len(part.labels) for part in parts if part is not None)
        path = self.probe_folder / SHARING

        def read(path: Path) -> Sharing:
            known = read_json(path)
            return Sharing(float(known["seconds_per_image"]), images, float(known["seconds"]))

        sharing = read_or_put_aside(path, read, "it is measured again")
        if sharing is None:
            sharing = Sharing(self._seconds_per_image(), images, seconds)
            write_json(path, asdict(sharing))
        return sharing

    def _seconds_per_image(self) -> float:
        """What the frozen part takes for an image in Keras, when it has been traced."""
        name, backbone = next(iter(self.hypermodel.backbones.items()))
        run = by_keras(backbone, self.hypermodel.border(name) or FEATURES)
        images = next(iter(self.data.train.ordered))[0]
        run(images)
        began = time.monotonic()
        run(images)
        return (time.monotonic() - began) / len(images)


# What must be the same for a search to go on; the rest decides only on how much of it is run.
_DECISIVE = (
    "tuner",
    "epochs",
    "image_size",
    "batch_size",
    "flips",
    "metric",
    "balance",
    "folds",
    "seed",
    "no_early_stopping",
)


def _quiet() -> None:
    tf.get_logger().setLevel("ERROR")  # it warns of tracing for each new model


def _backbone(args: argparse.Namespace, name: str) -> FrozenBackbone:
    keras.utils.set_random_seed(args.seed)  # of random weights, and of tf.data's shuffles
    weights = None if args.weights == "none" else args.weights
    backbone = FrozenBackbone(name, weights=weights)
    if "://" in name or Path(name).exists():
        print(f"{name} is given pixels of 0..1, as modules of TF-Hub take them.", flush=True)
    if args.space.unfreeze.most:
        backbone.select(args.space.unfreeze.most)
    try:
        backbone.compute_output_shape((None, args.image_size, args.image_size, 3))
    except Exception as error:
        raise ValueError(
            f"--image-size {args.image_size} does not fit backbone {name}: {error}"
        ) from error
    return backbone


def _digest(backbone: FrozenBackbone) -> Mapping[str, str]:
    return backbone.fingerprints()[backbone.link_names[-1]]


def _images(args: argparse.Namespace, data: Path | ImageFolder) -> ImageFolder:
    if not isinstance(data, ImageFolder):
        print(f"Reading {data}", flush=True)
        data = image_folder(
            data, image_size=args.image_size, batch_size=args.batch_size, seed=args.seed
        )
    print(data, flush=True)
    if data.valid is None and args.folds is None:
        raise ValueError("There is no validation split. Give images enough for one, or --folds 5.")
    return data


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what was asked for, as JSON has it, with paths relative to the output folder."""
    left_out = ("space", "show_space", "given", "most_growth")
    asked = {name: value for name, value in vars(args).items() if name not in left_out}
    backbones = ",".join(without_paths(backbone_names(args), args.output))
    asked |= {"backbone": backbones, "space": args.space.to_dict()}
    return without_paths(asked, args.output)
