"""TransferHyperModel: builds and trains the models of trials, on activations that all share."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.augmentation import Flips
from keras_transfer.data.shuffling import begin_again
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.averaging.ensemble import average as average_of
from keras_transfer.search.callbacks import BestEpoch
from keras_transfer.search.cosine import CosineRate
from keras_transfer.search.metrics import compile_metrics, objective
from keras_transfer.search.space.space import LEVELS, Space
from keras_transfer.search.trace_cache import SharedFunctions
from keras_transfer.training.block_unfreezer import BlockUnfreezer
from keras_transfer.training.history_plotter import HistoryPlotter


@dataclass(frozen=True)
class Trained:
    """What a trial leaves behind, with the weights of its best epoch.

    Attributes:
        metrics: All logs of that epoch.
        epoch: That epoch, from 1.
        plotter: The curves.
        member: What was trained, to write to a file or to average.
        model: The model. It keeps its weights whatever later trials do.
    """

    metrics: dict[str, float]
    epoch: int
    plotter: HistoryPlotter
    member: Member
    model: TransferModel


# Biases and the scales and offsets of normalizations are few and cannot overfit much, and a scale
# that is drawn to 0 switches its channel off (He et al., Bag of Tricks, CVPR 2019).
_NOT_DECAYED = ["bias", "gamma", "beta"]

# Steps from one return to Python to the next. A step of a head takes less time than that: with 32
# an epoch of 50 steps took half as long, and the weights are the same, bit by bit.
_STEPS = 32
# Those of fine-tuning take longer, and a training can only be stopped in time between them.
_FINE_TUNING_STEPS = 4


class TransferHyperModel(keras_tuner.HyperModel):
    """Builds and fits the model of a trial on activations that all trials share.

    The backbones stay as they are: a trial trains copies of the blocks that it unfreezes. So it is
    what it would be with a backbone of its own, whatever was tried before, and `FeatureCache` knows
    the activations of the frozen part again. Any tuner of KerasTuner takes it; what that writes of
    a trial is what the trial trains, without the backbone.

    Args:
        backbones: Name to backbone. Their blocks are frozen.
        class_names: The classes.
        space: What hyperparameters are chosen from.
        epochs: Epochs of a trial.
        flips: The kind of `Flips` to train under, `None` for none.
        cache: What keeps activations; one of its own unless given.
        metric: What decides which epoch is the best: as for `metrics.objective`.
        patience: A trial ends after so many epochs without a better one, counted from the first
            with all its blocks unfrozen; `None`, the default, for never.

    Attributes:
        trained: What the last trial has left behind, `None` before it has.
        until: When a fine-tuning should be over, as `time.time()`; infinite, the default, for no
            limit.

    Raises:
        TypeError: If a backbone is no `FrozenBackbone`.
        ValueError: If there is no backbone, one has fewer blocks than may be unfrozen, or nothing
            would ever be unfrozen though it may be.

    Example:
        >>> hypermodel = TransferHyperModel(
        ...     {"efficientnet_lite0": FrozenBackbone()}, data.class_names, epochs=10)
        >>> tuner = keras_tuner.RandomSearch(hypermodel, objective="val_loss", max_trials=10)
        >>> tuner.search(data.train, validation_data=data.valid, epochs=10)
    """

    def __init__(
        self,
        backbones: Mapping[str, FrozenBackbone],
        class_names: Sequence[str],
        *,
        space: Space | None = None,
        epochs: int,
        flips: str | None = None,
        cache: FeatureCache | None = None,
        metric: str = "loss",
        patience: int | None = None,
    ) -> None:
        super().__init__()
        if not backbones:
            raise ValueError("`backbones` is empty. Expected {name: FrozenBackbone(name)}.")
        for name, backbone in backbones.items():
            if not isinstance(backbone, FrozenBackbone):
                raise TypeError(
                    f"backbones[{name!r}] is of type {type(backbone).__name__}. Expected a "
                    f"FrozenBackbone, such as FrozenBackbone({name!r})."
                )
        self.backbones = dict(backbones)
        self.class_names = tuple(class_names)
        self.space = space or Space()
        self.epochs = epochs
        self.flips = flips
        self.cache = FeatureCache() if cache is None else cache
        self.metric = metric
        self.patience = patience
        self.objective = objective(metric)
        self.trained: Trained | None = None
        self.until = math.inf
        self.space.check_epochs(epochs)
        names = self.space.backbones(list(self.backbones))
        self._may_train = {name: self._top(name, self.space.unfreeze.most) for name in names}
        for name in names:
            self.backbones[name].freeze()
        self._functions = SharedFunctions()
        self._origins: dict[str, str] = {}
        self._sharing: dict[tuple[str, str], FrozenBackbone] = {}

    def cut_point(self, backbone: str) -> str | None:
        """Returns the link that no trial trains anything below; `None` if there is none.

        Args:
            backbone: The name of a backbone.
        """
        return self.backbones[backbone].cut_point_without(self._may_train[backbone])

    def _top(self, backbone: str, count: float) -> tuple[str, ...]:
        """The blocks from the top, of which there is given the number or the share."""
        if not count:
            return ()
        blocks = len(self.backbones[backbone].blocks)
        whole = count if isinstance(count, int) else max(1, round(count * blocks))
        return self.backbones[backbone].select(whole)

    def blocks(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the blocks that a trial unfreezes, first to last.

        Args:
            values: Its hyperparameters.
        """
        name = values.get("backbone", next(iter(self.backbones)))
        return self._top(name, values.get("unfreeze", 0))

    def recommended(self) -> list[dict[str, Any]]:
        """Returns the values of the trials to begin with."""
        return self.space.recommended(list(self.backbones))

    def build(self, hp: keras_tuner.HyperParameters) -> TransferModel:
        """Builds and compiles the model of a trial."""
        chosen = self.space.declare(hp, list(self.backbones))
        model = TransferModel(
            self._backbone(chosen),
            self.class_names,
            head=self._head(chosen),
            augmentation=Flips(self.flips) if self.flips else None,
            feature_cache=self.cache,
            label_smoothing=chosen["label_smoothing"],
        )
        model.will_train = self._may_train[chosen["backbone"]]
        optimizer = keras.optimizers.AdamW(
            chosen["learning_rate"], weight_decay=chosen["weight_decay"]
        )
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
        model.compile(
            optimizer,
            metrics=compile_metrics(self.metric, len(self.class_names)),
            steps_per_execution=self._steps(chosen),
            # On a GPU Keras chooses XLA, under which the rows that the AUC keeps cannot grow.
            jit_compile=False if self.metric == "auc" else "auto",
        )
        parts = _Parts(model, self.blocks(chosen))
        model.load_weights = parts.load  # KerasTuner loads what `fit` has written
        return model

    def _steps(self, chosen: Mapping[str, Any]) -> int:
        """How many steps run from one return to Python to the next."""
        if tf.distribute.has_strategy():  # a tuner's, under which Keras refuses several
            return 1
        return _FINE_TUNING_STEPS if self.blocks(chosen) else _STEPS

    def _backbone(self, chosen: Mapping[str, Any]) -> FrozenBackbone:
        name, pooling = chosen["backbone"], chosen["pooling"]
        if blocks := self.blocks(chosen):
            sharing = self.backbones[name].share_blocks(blocks, pooling=pooling)
            sharing.batch_norm = chosen["batch_norm"]
            return sharing
        if (name, pooling) not in self._sharing:
            self._sharing[name, pooling] = self.backbones[name].share_blocks(pooling=pooling)
        return self._sharing[name, pooling]

    def _head(self, chosen: Mapping[str, Any]) -> keras.Sequential:
        levels = chosen["pooling"] == LEVELS  # which differ in scale
        layers: list[keras.Layer] = []
        layers += [keras.layers.BatchNormalization(name="scaling")] if levels else []
        if not chosen["depth"]:
            layers.append(keras.layers.Dropout(chosen["dropout"], name="dropout"))
        for number in range(1, chosen["depth"] + 1):
            hidden = keras.layers.Dense(chosen["hidden"], activation="relu", name=f"hidden{number}")
            layers += [hidden, keras.layers.Dropout(chosen["dropout"], name=f"dropout{number}")]
        return keras.Sequential([*layers, self._last_layer()], name="head")

    def _last_layer(self) -> keras.Layer:
        units = 1 if len(self.class_names) == 2 else len(self.class_names)
        activation = "sigmoid" if units == 1 else "softmax"
        # Probabilities in float32 also under mixed precision, as Keras' guide asks.
        return keras.layers.Dense(units, activation=activation, dtype="float32", name="classes")

    def linear(
        self, backbone: str, weights: Sequence[np.ndarray], image_shape: Sequence[int | None]
    ) -> Member:
        """Returns a linear classifier of the features of all levels as what a trial has trained.

        Args:
            backbone: The name of the backbone.
            weights: Kernel and bias.
            image_shape: Height, width and channels of the images.
        """
        model = TransferModel(
            self.all_levels(backbone),
            self.class_names,
            head=keras.Sequential([self._last_layer()], name="head"),
        )
        model.build((None, *image_shape))
        model.head.set_weights(list(weights))
        return Member.of(model, backbone=backbone, origin=self._origin(backbone))

    def all_levels(self, backbone: str) -> FrozenBackbone:
        """Returns a backbone that shares its blocks with one of these, and pools all of them."""
        return self._backbone({"backbone": backbone, "pooling": LEVELS, "unfreeze": 0})

    def fit(
        self, hp: keras_tuner.HyperParameters, model: TransferModel, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains the model, and leaves it and its curves behind with the best epoch's weights.

        Args:
            hp: The hyperparameters that it was built with.
            model: The model.
            *args: As for `keras.Model.fit`.
            **kwargs: As for `keras.Model.fit`.

        Raises:
            FailedTrialError: If the objective never was a finite number.
            FatalValueError: If it is not logged.
        """
        self.trained = None
        chosen = self.space.declare(hp, list(self.backbones))
        kwargs["epochs"] = self._epochs(chosen, kwargs.get("epochs", self.epochs))
        callbacks = list(kwargs.pop("callbacks", None) or [])
        # KerasTuner would write the whole model after each epoch that is better than the last.
        checkpoints = [one for one in callbacks if type(one).__name__ == "SaveBestEpoch"]
        others = [one for one in callbacks if one not in checkpoints]
        data = args[0] if args else kwargs.get("x")
        if isinstance(data, tf.data.Dataset):
            begin_again(data)
        blocks, name = self.blocks(chosen), chosen["backbone"]
        with self._fitted(model, chosen, data) as fitted:
            mine = self._callbacks(fitted, chosen, kwargs["epochs"])
            history = fitted.fit(*args, **{**kwargs, "callbacks": [*mine, *others]})
        plotter, best = mine[:2]
        for checkpoint in checkpoints:
            _Parts(model, blocks).save(checkpoint, best.logs)
        member = Member.of(model, blocks, backbone=name, origin=self._origin(name))
        self.trained = Trained(best.logs, best.epoch + 1, plotter, member, model)
        return history

    def refit(
        self, hp: keras_tuner.HyperParameters, data: tf.data.Dataset, epochs: int, **kwargs: Any
    ) -> Member:
        """Trains a model anew for a given number of epochs, with nothing to validate on.

        Args:
            hp: The hyperparameters.
            data: What to train on.
            epochs: How long; fine-tuning begins when it would in a whole trial.
            **kwargs: As for `keras.Model.fit`.

        Returns:
            What was trained.
        """
        chosen, model = self.space.declare(hp, list(self.backbones)), self.build(hp)
        blocks, name = self.blocks(chosen), chosen["backbone"]
        begin_again(data)
        fine_tuning = self._fine_tuning(chosen, blocks, epochs, lambda: math.inf)
        model.fit(data, epochs=epochs, verbose=0, callbacks=fine_tuning, **kwargs)
        return Member.of(model, blocks, backbone=name, origin=self._origin(name))

    @contextlib.contextmanager
    def _fitted(
        self, model: TransferModel, chosen: Mapping[str, Any], data: Any
    ) -> Iterator[TransferModel]:
        """The model to call `fit` of: another with the same steps, where one has traced them."""
        if self.blocks(chosen):
            yield model
            return
        constants = {name: value for name, value in chosen.items() if name != "learning_rate"}
        spec = getattr(data, "element_spec", getattr(data, "shape", ())[1:])
        key = (*sorted(constants.items()), str(spec), keras.config.dtype_policy().name)
        with self._functions.in_place_of(model, key) as fitted:
            yield fitted

    def _epochs(self, chosen: Mapping[str, Any], epochs: int) -> int:
        return min(epochs, chosen["fine_tuning_epochs"]) if self.blocks(chosen) else epochs

    def _callbacks(self, model: TransferModel, chosen: Mapping[str, Any], epochs: int) -> list[Any]:
        goal, blocks = self.objective, self.blocks(chosen)
        until = self.until
        fine_tuning = self._fine_tuning(chosen, blocks, epochs, lambda: until - time.time())
        return [
            HistoryPlotter(live=False, monitor=goal.name, mode=goal.mode),
            BestEpoch(
                goal,
                _Parts(model, blocks).weights,
                patience=None if fine_tuning else self.patience,
                # A rate that falls to 0 makes the last epoch the one to keep.
                keep="last" if fine_tuning else "best",
            ),
            *fine_tuning,
        ]

    def _fine_tuning(
        self,
        chosen: Mapping[str, Any],
        blocks: Sequence[str],
        epochs: int,
        seconds_left: Callable[[], float],
    ) -> list[keras.callbacks.Callback]:
        if not blocks:
            return []
        first = self.space.first_unfrozen(chosen["frozen_epochs"], epochs)
        if first >= epochs:  # Hyperband's short trials
            return []
        rate = chosen["fine_tuning_learning_rate"]
        return [
            BlockUnfreezer({first: blocks}, lr_decay=chosen["lr_decay"], early_stopping="any"),
            CosineRate(rate, epochs, first=first, seconds_left=seconds_left),
        ]

    def _origin(self, name: str) -> str:
        """A digest of a backbone's weights, which do not change."""
        if name not in self._origins:
            backbone = self.backbones[name]
            self._origins[name] = backbone.fingerprints()[backbone.link_names[-1]]["weights"]
        return self._origins[name]

    def untrained(self, count: int, image_shape: Sequence[int]) -> TransferModel:
        """Returns an untrained model such as a search may end with, to measure what it costs.

        Args:
            count: Of how many it is the average: of the probe, and of trials that have fine-tuned
                as many blocks as the space allows.
            image_shape: Height, width and channels of the images.
        """
        name = next(iter(self._may_train))
        blocks = self._may_train[name]
        model = TransferModel(self.backbones[name].share_blocks(blocks), self.class_names)
        model.build((None, *image_shape))
        deep = Member.of(model, blocks, backbone=name, origin=self._origin(name))
        features = self.all_levels(name).compute_output_shape((None, *image_shape))[-1] or 0
        units = model.units
        linear = self.linear(name, (np.zeros((features, units)), np.zeros(units)), image_shape)
        return self.average([linear, *[deep] * (count - 1)])

    def model_of(self, member: Member) -> TransferModel:
        """Returns the whole model that a trial ended with.

        Raises:
            ValueError: If the member is of another backbone.
        """
        return member.model(self._backbone_of(member))

    def average(self, members: Sequence[Member]) -> TransferModel:
        """Returns the average of what several trials have trained; as `ensemble.average`."""
        return average_of({one.backbone: self._backbone_of(one) for one in members}, members)

    def _backbone_of(self, member: Member) -> FrozenBackbone:
        name = member.backbone
        if name not in self.backbones or member.origin != self._origin(name):
            raise ValueError(
                f"This was trained on a backbone {name!r} that is none of "
                f"{', '.join(map(repr, self.backbones))}, or has other weights. Give the backbone "
                "and the weights of that search."
            )
        return self.backbones[name]


class _Parts:
    """What of a model trains: its head, and some blocks."""

    def __init__(self, model: TransferModel, blocks: Sequence[str]) -> None:
        self._model = model
        self._blocks = blocks

    def weights(self) -> list[keras.Variable]:
        backbone = self._model.backbone
        of_blocks = [weight for name in self._blocks for weight in backbone.block_state(name)]
        return [*self._model.head.weights, *of_blocks]

    def save(self, checkpoint: Any, logs: Mapping[str, float]) -> None:
        """Writes them to where KerasTuner's callback would write the model."""
        goal = checkpoint.objective
        if goal.has_value(logs):
            value = goal.get_value(logs)
            if not goal.better_than(value, checkpoint.best_value):
                return  # than an earlier execution of the same trial
            checkpoint.best_value = value
        path = Path(checkpoint.filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished.{path.name}")
        _Holder(self.weights()).save_weights(unfinished)
        unfinished.replace(path)

    def load(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Loads them from there."""
        _Holder(self.weights()).load_weights(path)


class _Holder(keras.Model):
    """Some weights, as a model that Keras saves and loads."""

    def __init__(self, weights: Sequence[keras.Variable]) -> None:
        super().__init__()
        self._held = list(weights)
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        for i, weight in enumerate(self._held):
            store[str(i)] = weight.numpy()

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) != len(self._held):
            raise ValueError(
                f"The checkpoint holds {len(store.keys())} weights, this trial trains "
                f"{len(self._held)}. Expected one that a trial of the same shape has written."
            )
        for i, weight in enumerate(self._held):
            weight.assign(store[str(i)])
