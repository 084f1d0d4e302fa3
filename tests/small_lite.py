"""A few layers in the place of the embedded backbone, for what does not hang on its weights."""

import sys

import keras
from keras import layers

from keras_transfer.backbones import efficientnet_lite


def small_lite(**kwargs) -> keras.Model:
    """Five layers with the names of EfficientNet-Lite0, random but the same each time."""

    def conv(filters: int, name: str, activation: str | None = None) -> layers.Layer:
        # The seed is the layer's own: a global one would hide what fails in unseeded processes.
        initializer = keras.initializers.GlorotUniform(seed=filters)
        return layers.Conv2D(
            filters, 3, 2, "same", activation=activation, kernel_initializer=initializer, name=name
        )

    x = inputs = keras.Input((None, None, 3))
    x = conv(6, "stem_conv", "relu")(x)
    x = conv(8, "block7a_conv")(x)
    x = layers.BatchNormalization(name="block7a_bn")(x)
    x = conv(16, "top_conv")(x)
    x = layers.ReLU(6, name="top_activation")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def main() -> int:
    """Runs a search on it with the arguments of this process."""
    from keras_transfer.cli import search

    efficientnet_lite.EfficientNetLite0 = small_lite
    return search.main()


if __name__ == "__main__":
    sys.exit(main())
