"""AveragedViews: a trained classifier that averages its predictions over views of an image."""

from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from keras_transfer.data.augmentation import Flips
from keras_transfer.models.transfer_model import TransferModel


@keras.saving.register_keras_serializable(package="keras_transfer")
class AveragedViews(TransferModel):
    """A trained `TransferModel` that gives the mean probabilities over all views of each image.

    The views are those that `Flips` makes, and prediction costs as many times as much. It is saved,
    evaluated and exported as any TransferModel; the export averages, too. Cached activations are of
    one view each and are classified as they are. It shares its weights with the model that it was
    made from, and is not trained itself.

    Args:
        *args: As for `TransferModel`.
        **kwargs: As for `TransferModel`; `augmentation` must be a `Flips`.

    Raises:
        ValueError: If `augmentation` is no `Flips`.

    Example:
        >>> averaged = AveragedViews.of(model, Flips("mirror"))
        >>> averaged.evaluate(data.test)
        >>> averaged.export("serving/1")
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        flips = kwargs.get("augmentation")
        if not isinstance(flips, Flips):
            raise ValueError(
                f"`augmentation` must be a Flips, whose views are averaged. Received: {flips!r}. "
                "For example AveragedViews.of(model, Flips('mirror'))."
            )
        super().__init__(*args, **kwargs)

    @classmethod
    def of(cls, model: TransferModel, flips: Flips | None = None) -> Self:
        """Returns the average of a trained model over views, compiled.

        Args:
            model: The model; it must give probabilities.
            flips: The layer that makes the views; the model's own augmentation by default.

        Raises:
            ValueError: If the model is not built or not known to give probabilities, or there are
                no flips.
        """
        if not model.built:
            raise ValueError(
                "The model is not built, so it has nothing to average. Train it first."
            )
        averaged = cls(
            model.backbone,
            model.class_names,
            head=model.head,
            augmentation=model.augmentation if flips is None else flips,
        )
        averaged.build((None, *model.image_shape))
        averaged.compile()
        averaged.optimizer.build(averaged.trainable_variables)  # loading expects its variables
        return averaged

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Classifies all views of images, or cached activations as they are."""
        if isinstance(inputs, Mapping):
            return super().call(inputs)
        flips: Any = self.augmentation
        images = ops.cast(inputs, "float32")
        views = (flips.view(images, number) for number in range(flips.views))
        scores = [self.head(self.backbone(view), training=False) for view in views]
        return ops.mean(ops.stack(scores), axis=0)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses to train.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "AveragedViews is not trained itself. Train the TransferModel, under "
            "augmentation=Flips(...), and average that: AveragedViews.of(model)."
        )
