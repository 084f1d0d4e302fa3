"""Flips: an augmentation with so few outcomes that activations of all of them can be kept."""

from typing import Any

import keras
from keras import ops

KINDS = {"mirror": 2, "flips": 4, "dihedral": 8}


@keras.saving.register_keras_serializable(package="keras_transfer")
class Flips(keras.layers.Layer):
    """Turns each image into one of its mirror images, drawn anew each time, in training only.

    What it makes of an image is one of a small set, exactly. So `TransferModel` can keep the
    activations of the whole set, and draw among them in each epoch.

    Args:
        kind: `"mirror"`: as it is or left to right (2 views). `"flips"`: also upside down (4).
            `"dihedral"`: also transposed, which makes all flips and quarter turns (8); for square
            images only.
        seed: As for any Keras layer that draws.
        **kwargs: As for any Keras layer.

    Input: Images `(batch, height, width, channels)` of any type.
    Output: The same shape and type.

    Raises:
        ValueError: If the kind is unknown, or `"dihedral"` meets images that are not square.

    Example:
        >>> model = TransferModel("efficientnet_lite0", 2, augmentation=Flips("mirror"))
    """

    def __init__(self, kind: str = "mirror", *, seed: int | None = None, **kwargs: Any) -> None:
        if kind not in KINDS:
            raise ValueError(
                f"Unknown kind {kind!r}. Expected one of {', '.join(map(repr, KINDS))}."
            )
        super().__init__(autocast=False, **kwargs)
        self.kind = kind
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def views(self) -> int:
        """How many views of an image there are."""
        return KINDS[self.kind]

    def view(self, images: Any, index: int) -> Any:
        """Returns one view of all images; view 0 is the images as they are."""
        if index & 4:
            _check_square(images)
            images = ops.transpose(images, (0, 2, 1, 3))
        axes = [axis for bit, axis in ((1, 2), (2, 1)) if index & bit]
        return ops.flip(images, axes) if axes else images

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Draws a view for each image."""
        if not training:
            return inputs
        count = ops.shape(inputs)[0]
        drawn = keras.random.randint((count,), 0, self.views, seed=self.seed_generator)
        return self.choose([self.view(inputs, index) for index in range(self.views)], drawn)

    @staticmethod
    def choose(views: list[Any], drawn: Any) -> Any:
        """Returns for each row the one of its views that was drawn.

        Args:
            views: Arrays of the same shape, row for row.
            drawn: Which view to take, `(rows,)`.
        """
        chosen = views[0]
        for index, view in enumerate(views[1:], 1):
            mask = ops.reshape(drawn == index, (-1,) + (1,) * (len(view.shape) - 1))
            chosen = ops.where(mask, view, chosen)
        return chosen

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same layer."""
        return {**super().get_config(), "kind": self.kind, "seed": self.seed}


def _check_square(images: Any) -> None:
    height, width = images.shape[1:3]
    if height != width:
        raise ValueError(
            "Flips('dihedral') turns images by a quarter, so they must be square. Received: images "
            f"of {height} x {width}. Use Flips('flips'), or resize them."
        )
