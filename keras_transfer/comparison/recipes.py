"""The recipes that `keras-transfer compare` compares, each on one split of one data set."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.comparison.results import Score, score_of
from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.plotting.diagnosis import Diagnosis, diagnose
from keras_transfer.training.block_unfreezer import BlockUnfreezer
from keras_transfer.training.history_plotter import HistoryPlotter
from keras_transfer.training.schedule import Phase


@dataclass(frozen=True)
class Settings:
    """What the recipes of a preset have in common; the defaults are those of cats and dogs.

    Attributes:
        hidden: Units of the hidden layer.
        dropout: Rate before the last layer.
        rate: Learning rate of the head (Adam).
        epochs: Epochs of the head, and as many of fine-tuning.
        fine_tuning_rate: Learning rate of fine-tuning (RMSprop).
        pooling: Of the backbone.
        top: Blocks to unfreeze, from the top.
    """

    hidden: int = 128
    dropout: float = 0.5
    rate: float = 1e-4
    epochs: int = 20
    fine_tuning_rate: float = 1e-5
    pooling: str = "flatten"
    top: int = 1


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe came to.

    Attributes:
        recipe: Its name.
        seed: Its seed.
        valid: On the validation split.
        test: On the test split, `None` if there is none.
        seconds: Of the whole phase, what is computed once included.
        trainable: Trainable parameters.
        plotter: Its curves.
        scored: The epoch whose weights were scored, counted from 0.
        choice: Why these.
        about: What its curves do not tell of it, or nothing.
        model: For images. It may be trained further once the outcome was yielded; `None` where it
            was not kept.
    """

    recipe: str
    seed: int
    valid: Score
    test: Score | None
    seconds: float
    trainable: int
    plotter: HistoryPlotter
    scored: int
    choice: str
    about: str
    model: Any

    @property
    def val_loss(self) -> float:
        """The validation loss of the weights that were scored."""
        return float(self.plotter.history["val_loss"][self.plotter.epochs.index(self.scored)])

    @property
    def weights(self) -> str:
        """Which weights were scored, in words."""
        return f"weights of epoch {self.scored + 1}, {self.choice}"

    @property
    def diagnosis(self) -> Diagnosis:
        """What its losses tell."""
        return diagnose(self.plotter.history, self.plotter.epochs)

    @property
    def is_overfitted(self) -> bool:
        """Whether the weights that were scored are of an epoch in which it overfits."""
        since = self.diagnosis.epoch if self.diagnosis.kind == "overfitting" else None
        return since is not None and self.scored > since

    @property
    def verdict(self) -> str:
        """The diagnosis of its losses in words, and whether it holds for the weights scored."""
        later = self.diagnosis.kind == "overfitting" and not self.is_overfitted
        return self.diagnosis.sentence + (", after these weights" if later else "")


@dataclass(frozen=True)
class Bench:
    """What a recipe is run on.

    Attributes:
        data: The splits.
        make: Makes the backbone afresh, with the weights that it came with.
        settings: What the recipes have in common.
        seed: Decides on initial weights, dropout and shuffles.
        cache: Shared by the seeds of a recipe.
    """

    data: ImageFolder
    make: Callable[[], FrozenBackbone]
    settings: Settings
    seed: int
    cache: FeatureCache | None

    def begin(self) -> "tuple[Bench, TransferModel]":
        """Begins a recipe as the seed decides, whatever was run before.

        Returns:
            This bench with the order of the training images as before their first epoch, which
            takes in the seed, too; and the head on the frozen backbone, compiled, with the initial
            weights of the seed.
        """
        keras.utils.set_random_seed(self.seed)
        return replace(self, data=self.data.afresh(self.seed)), self._model()

    def _model(self) -> TransferModel:
        model = TransferModel(
            self.make(),
            self.data.class_names,
            hidden=self.settings.hidden,
            dropout=self.settings.dropout,
            feature_cache=self.cache,
        )
        model.compile(keras.optimizers.Adam(self.settings.rate))
        return model

    def outcome(
        self, recipe: str, run: "_Run", model: keras.Model, trainable: int, about: str = ""
    ) -> RecipeResult:
        """Scores a model."""
        data, plotter = self.data, run.plotter
        valid = score_of(model, data.valid, data.labels["valid"])
        test = score_of(model, data.test, data.labels["test"]) if data.test is not None else None
        facts = (recipe, self.seed, valid, test, run.seconds, trainable, plotter)
        return RecipeResult(*facts, run.kept, run.choice, about, model)


class _Run:
    """Times a fit, and keeps its curves and the weights of its best epoch.

    Args:
        epochs: How many are planned.
        stop: Decides on the best epoch. Default: the lowest validation loss of all epochs.
    """

    def __init__(self, epochs: int, stop: keras.callbacks.EarlyStopping | None = None) -> None:
        self.plotter = HistoryPlotter(live=False)
        self._stop = stop or keras.callbacks.EarlyStopping(
            "val_loss", patience=epochs, restore_best_weights=True
        )
        self.callbacks: list[Any] = [self.plotter, self._stop]
        self._began = time.monotonic()

    def fit(self, model: keras.Model, train: Any, valid: Any, **kwargs: Any) -> None:
        """Fits, and notes the seconds since this object was made."""
        kwargs.update(validation_data=valid, callbacks=self.callbacks, verbose=0)
        # The data has its own shuffle; Keras warns of its default whenever `fit` gets a dataset.
        model.fit(train, shuffle=False, **kwargs)
        self.seconds = time.monotonic() - self._began

    @property
    def kept(self) -> int:
        """The epoch whose weights the model has after the fit, counted from 0."""
        return self._stop.best_epoch if self._stop.restore_best_weights else self.plotter.epochs[-1]

    @property
    def choice(self) -> str:
        """Why that epoch."""
        count = len(self.plotter.epochs)
        if not self._stop.restore_best_weights:
            return f"the last of {count}"
        if self._stop.stopped_epoch:
            return f"restored when EarlyStopping ended it at epoch {count}"
        return f"the best of {count} by val_loss"


def features_once(bench: Bench) -> Iterator[RecipeResult]:
    """Features extracted once, and a plain Keras head trained on them."""
    settings, run = bench.settings, _Run(bench.settings.epochs)
    bench, model = bench.begin()
    cache = FeatureCache(verbose=False) if bench.cache is None else bench.cache
    train, valid = (
        cache.dataset(model.backbone, part).map(lambda x, y: (x["after:pooling"], y))
        for part in (bench.data.train, bench.data.valid)
    )
    head = model.head
    head.compile(keras.optimizers.Adam(settings.rate), model.loss, metrics=["accuracy"])
    run.fit(head, train, valid, epochs=settings.epochs)
    yield bench.outcome("a. head on features extracted once", run, model, _count(head))


def end_to_end(bench: Bench) -> Iterator[RecipeResult]:
    """The same head on the frozen backbone, then with the top of it unfrozen."""
    settings, run = bench.settings, _Run(bench.settings.epochs)
    bench, model = bench.begin()
    data = bench.data
    run.fit(model, data.train, data.valid, epochs=settings.epochs)
    how = "in each epoch anew" if bench.cache is None else "once, and kept"
    same = (
        f"the frozen part is computed {how}; either way it gives what a. extracts: the same curve"
    )
    yield bench.outcome("b. same head on the frozen backbone", run, model, _count(model), same)

    top = model.backbone.select(settings.top)
    phase = Phase(
        top,
        at_epoch=settings.epochs,
        learning_rate=settings.fine_tuning_rate,
        optimizer=keras.optimizers.RMSprop(settings.fine_tuning_rate),
    )
    start = f"begins at epoch {settings.epochs + 1} with b's weights of epoch {run.kept + 1}"
    run = _Run(settings.epochs)
    run.callbacks.append(BlockUnfreezer([phase]))
    run.fit(
        model, data.train, data.valid, initial_epoch=settings.epochs, epochs=2 * settings.epochs
    )
    name = f"c. after b, {' and '.join(top)} unfrozen"
    yield bench.outcome(name, run, model, _count(model), start)


def overfitting(bench: Bench) -> Iterator[RecipeResult]:
    """A small head for 30 epochs: it overfits."""
    yield from _small(replace(bench, settings=replace(bench.settings, dropout=0.0)), cured=False)


def cured(bench: Bench) -> Iterator[RecipeResult]:
    """The same with dropout, ended when the validation loss no longer falls."""
    yield from _small(bench, cured=True)


def _small(bench: Bench, *, cured: bool) -> Iterator[RecipeResult]:
    settings = bench.settings
    stop = keras.callbacks.EarlyStopping(
        "val_loss",
        min_delta=0.001,
        patience=5 if cured else settings.epochs,
        restore_best_weights=cured,  # the original keeps the last epoch
    )
    run = _Run(settings.epochs, stop)
    bench, model = bench.begin()
    run.fit(model, bench.data.train, bench.data.valid, epochs=settings.epochs)
    cure = f"with Dropout({settings.dropout}) and EarlyStopping" if cured else "alone"
    yield bench.outcome(f"Dense({settings.hidden}) {cure}", run, model, _count(model))


def _count(model: keras.Model) -> int:
    return int(sum(np.prod(weight.shape) for weight in model.trainable_weights))
