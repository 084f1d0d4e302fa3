"""Flips, whose few outcomes can all be kept, and the views of images that are kept."""

import warnings
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_transfer.data.fingerprints import of_layer

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
        """Number of views of an image."""
        return KINDS[self.kind]

    def view(self, images: Any, index: int) -> Any:
        """Returns one view of all images; view 0 is the images as they are."""
        if index & 4:
            height, width = images.shape[1:3]
            if height != width:
                raise ValueError(
                    "Flips('dihedral') turns images by a quarter, so they must be square. "
                    f"Received: images of {height} x {width}. Use Flips('flips'), or resize them."
                )
            images = ops.transpose(images, (0, 2, 1, 3))
        axes = [axis for bit, axis in ((1, 2), (2, 1)) if index & bit]
        return ops.flip(images, axes) if axes else images

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Draws a view for each image."""
        if not training:
            return inputs
        count = ops.shape(inputs)[0]
        drawn = keras.random.randint((count,), 0, self.views, seed=self.seed_generator)
        views = ops.stack([self.view(inputs, index) for index in range(self.views)])
        return ops.take_along_axis(views, ops.reshape(drawn, (1, -1, 1, 1, 1)), axis=0)[0]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same layer."""
        return {**super().get_config(), "kind": self.kind, "seed": self.seed}


class Views:
    """Some views of each image, by number. This class has one: the images as they are.

    Attributes:
        count: Number of views.
        layers: A key for the layers that make the views; empty if no user's code makes them.
    """

    count = 1
    layers = ""

    def key(self, index: int) -> str:
        """Returns a key for a view; empty for the images as they are."""
        return ""

    def view(self, images: Any, index: int, row: int) -> Any:
        """Returns a view of a batch of images.

        Args:
            images: The batch.
            index: The number of the view.
            row: The row number of its first image.
        """
        return images

    def repeats(self, images: Any) -> bool:
        """Returns whether the same view of images comes out each time."""
        return True


class AllFlips(Views):
    """All views that `Flips` makes, exactly."""

    def __init__(self, flips: Flips) -> None:
        self._flips, self.count = flips, flips.views

    def key(self, index: int) -> str:
        """Returns the number of the flip; that of no flip is empty."""
        return f"flip {index}" if index else ""

    def view(self, images: Any, index: int, row: int) -> Any:
        """Returns one flip of all images."""
        return self._flips.view(images, index)


# Keys of augmentations as they were before they were built, which changes many a config.
_KEYS: weakref.WeakKeyDictionary[keras.Layer, str] = weakref.WeakKeyDictionary()


class DrawnViews(Views):
    """A number of views drawn from any augmentation.

    What is drawn for an image depends on the seed, the number of the view, and the row of the first
    image of its batch: so an interrupted computation is resumed with the same. Layers must draw
    from a `keras.random.SeedGenerator` for that, as those of Keras do; their random state is left
    as it was.

    Args:
        augmentation: A layer that takes images and `training`.
        count: Number of views.
        seed: Decides what is drawn.

    Raises:
        NotCacheable: If the augmentation has no config.
    """

    def __init__(self, augmentation: keras.Layer, count: int, seed: int) -> None:
        self._augmentation, self.count, self._seed = augmentation, count, seed
        if augmentation not in _KEYS:
            _KEYS[augmentation] = of_layer(augmentation, without=seed_states(augmentation))
        self.layers = f"{_KEYS[augmentation]}, seed {seed}"

    def key(self, index: int) -> str:
        """Returns the augmentation, its seed and the number of the view."""
        return f"{self.layers}, view {index} of {self.count}"

    def view(self, images: Any, index: int, row: int) -> Any:
        """Returns one view of all images, as floating point numbers."""
        images = ops.cast(images, "float32")
        if not self._augmentation.built:
            self._augmentation.build(images.shape)
        if not (index or row) and not self.repeats(images[:2]):
            warnings.warn(
                f"The augmentation '{self._augmentation.name}' draws from something else than a "
                "keras.random.SeedGenerator of its own, so no seed decides what its views show: "
                "another run keeps others. Let its layers draw from one.",
                stacklevel=2,
            )
        return self._drawn(images, index, row)

    def repeats(self, images: Any) -> bool:
        """Returns whether the seed decides what is drawn."""
        images = ops.cast(images, "float32")
        first, second = (np.asarray(self._drawn(images, 0, 0)) for _ in range(2))
        return np.array_equal(first, second)

    def _drawn(self, images: Any, index: int, row: int) -> Any:
        states = seed_states(self._augmentation)
        before = [np.array(state) for state in states]
        drawn = np.random.SeedSequence([self._seed, index, row]).generate_state(2 * len(states))
        try:
            for state, words in zip(states, drawn.reshape(-1, 2), strict=True):
                state.assign(words % 2**31)
            return self._augmentation(images, training=True)
        finally:
            for state, value in zip(states, before, strict=True):
                state.assign(value)


def seed_states(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the state of each random generator of a layer and the layers in it.

    Keras has no public list of them; this name is what `SeedGenerator` gives its variable.
    """
    return [v for v in layer.non_trainable_variables if v.name == "seed_generator_state"]
