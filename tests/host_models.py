"""Models that users build around a backbone, one of each kind."""

import keras
from conftest import SIZE, images
from keras import layers


@keras.saving.register_keras_serializable(package="host_models")
class Subclassed(keras.Model):
    """A user's model around a backbone, written the imperative way."""

    def __init__(self, backbone, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.head = layers.Dense(1, activation="sigmoid")

    def call(self, inputs, training=None):
        return self.head(self.backbone(inputs, training=training))

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {**super().get_config(), "backbone": backbone}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("backbone")), **config)


def sequential(backbone):
    return keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), backbone, layers.Dense(1, activation="sigmoid")]
    )


def functional(backbone):
    inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(backbone(inputs)))


def subclassed(backbone):
    model = Subclassed(backbone)
    model(images(1))
    return model
