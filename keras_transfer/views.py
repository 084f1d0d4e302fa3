"""Views: what an augmentation makes of an image, as a set that activations can be kept of."""

import functools
import warnings
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from keras_transfer.fingerprints import of_layer
from keras_transfer.flips import Flips


class Views(Protocol):
    """Some views of each image, by number.

    Attributes:
        count: How many.
    """

    count: int

    @property
    def layers(self) -> str:
        """A key for the layers that make the views; empty if no user's code makes them."""

    def key(self, index: int) -> str:
        """Returns what stands for a view; empty for the images as they are."""

    def view(self, images: Any, index: int, row: int) -> Any:
        """Returns a view of images, the first of which is in a row of the data."""

    def repeats(self, images: Any) -> bool:
        """Returns whether the same view of images comes out each time."""


class AsTheyAre:
    """One view: the images."""

    count, layers = 1, ""

    def key(self, index: int) -> str:
        """Returns an empty key."""
        return ""

    def view(self, images: Any, index: int, row: int) -> Any:
        """Returns the images."""
        return images

    def repeats(self, images: Any) -> bool:
        """Returns True: images stay as they are."""
        return True


class AllFlips:
    """All views that `Flips` makes, exactly."""

    layers = ""

    def __init__(self, flips: Flips) -> None:
        self._flips, self.count = flips, flips.views

    def key(self, index: int) -> str:
        """Returns the number of the flip; that of no flip is empty."""
        return f"flip {index}" if index else ""

    def view(self, images: Any, index: int, row: int) -> Any:
        """Returns one flip of all images."""
        return self._flips.view(images, index)

    def repeats(self, images: Any) -> bool:
        """Returns True: a flip is always the same."""
        return True


class DrawnViews:
    """A number of views drawn from any augmentation.

    What is drawn for an image depends on the seed, the number of the view, and the row of the first
    image of its batch: so an interrupted computation goes on with the same. Layers must draw from a
    `keras.random.SeedGenerator` for that, as those of Keras do; their random state is left as it
    was.

    Args:
        augmentation: A layer that takes images and `training`.
        count: How many views.
        seed: Decides what is drawn.
    """

    def __init__(self, augmentation: keras.Layer, count: int, seed: int) -> None:
        self._augmentation, self.count, self._seed = augmentation, count, seed

    @functools.cached_property
    def layers(self) -> str:
        """A key for the augmentation, as it was before it was built, and for the seed."""
        what = of_layer(self._augmentation, without=seed_states(self._augmentation))
        return f"{what}, seed {self._seed}"

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
        once, again = (np.asarray(self._drawn(images, 0, 0)) for _ in range(2))
        return np.array_equal(once, again)

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
