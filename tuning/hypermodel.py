"""The search space: a head on a shared frozen backbone, and how far its top is fine-tuned."""

from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner
from ensemble import Member, average

from keras_transfer import (
    BlockUnfreezer,
    FeatureCache,
    Flips,
    FrozenBackbone,
    HistoryPlotter,
    TransferModel,
)

OBJECTIVE = "val_loss"


class TransferHyperModel(keras_tuner.HyperModel):
    """Builds and fits the model of a trial on activations that all trials share.

    The backbone's weights are put back before each trial, so a trial is what it would be with a
    backbone of its own, and `FeatureCache` knows the activations of the frozen part again.

    Args:
        backbone: The backbone of all trials.
        class_names: The classes.
        unfreeze: Top blocks that are fine-tuned in the second half of the epochs; 0 for none.
        epochs: Epochs of a trial.
        flips: The kind of `Flips` to train under, `None` for none.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        class_names: Sequence[str],
        *,
        unfreeze: int,
        epochs: int,
        flips: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = class_names
        self.blocks = backbone.select(unfreeze) if unfreeze else ()
        self.flips = flips
        self.first_epoch = max(1, epochs // 2)
        self.cache = FeatureCache()
        self.model: Any = None
        self.plotter = HistoryPlotter(live=False, monitor=OBJECTIVE)
        self._weights = backbone.get_weights()

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds and compiles the model of a trial."""
        self.backbone.freeze()
        self.backbone.set_weights(self._weights)
        model = TransferModel(
            self.backbone,
            self.class_names,
            hidden=hp.Int("hidden", 32, 512, step=2, sampling="log", default=128),
            dropout=hp.Float("dropout", 0.0, 0.7, step=0.1, default=0.3),
            augmentation=Flips(self.flips) if self.flips else None,
            feature_cache=self.cache,
        )
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=1e-3)
        if self.blocks:
            hp.Float("fine_tuning_learning_rate", 3e-5, 1e-3, sampling="log", default=1e-4)
        model.compile(keras.optimizers.Adam(rate))
        return model

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains the model, and leaves it and its curves behind with the best epoch's weights."""
        # KerasTuner would write the whole model after each epoch that is better than the last.
        # EarlyStopping holds these weights in RAM, and what a later trial goes on from is written
        # once.
        callbacks = kwargs.pop("callbacks", [])
        checkpoints = [c for c in callbacks if type(c).__name__ == "SaveBestEpoch"]
        self.model, self.plotter = model, HistoryPlotter(live=False, monitor=OBJECTIVE)
        mine = [self.plotter, self._keep_best(kwargs["epochs"])]
        if self.blocks and self.first_epoch < kwargs["epochs"]:
            schedule = {self.first_epoch: self.blocks}
            rate = hp.get("fine_tuning_learning_rate")
            # The best epoch of a trial may be one of the head alone.
            mine.append(BlockUnfreezer(schedule, learning_rate=rate, early_stopping="any"))
        others = [c for c in callbacks if c not in checkpoints]
        history = model.fit(*args, callbacks=[*others, *mine], **kwargs)
        if "tuner/trial_id" in hp.values or "tuner/epochs" in hp.values:  # Hyperband goes on
            for checkpoint in checkpoints:
                model.save_weights(checkpoint.filepath)
        return history

    def average(self, members: Sequence[Member]) -> TransferModel:
        """Returns the average of what several trials have trained, as one model."""
        self.backbone.freeze()
        self.backbone.set_weights(self._weights)
        shape = self.model.image_shape
        return average(self.backbone, members, self.class_names, self.blocks, shape)

    @staticmethod
    def _keep_best(epochs: int) -> keras.callbacks.Callback:
        return keras.callbacks.EarlyStopping(OBJECTIVE, patience=epochs, restore_best_weights=True)
