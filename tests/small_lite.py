"""A few layers in the place of the embedded backbone, for what does not hang on its weights."""

import sys

import keras
from keras import layers

from keras_transfer import efficientnet_lite


def small_lite(**kwargs) -> keras.Model:
    """Five layers with the names of EfficientNet-Lite0, random but the same each time."""
    keras.utils.set_random_seed(7)
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="stem_conv")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="block7a_conv")(x)
    x = layers.BatchNormalization(name="block7a_bn")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="top_conv")(x)
    x = layers.ReLU(6, name="top_activation")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def main() -> int:
    """Runs a search on it with the arguments of this process."""
    import search

    efficientnet_lite.EfficientNetLite0 = small_lite
    return search.main()


if __name__ == "__main__":
    sys.exit(main())
