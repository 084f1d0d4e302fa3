"""Checks the image layout, and that objects are of Keras 3."""

import inspect
from typing import Any

import keras


def check_channels_last(image_shape: Any = None) -> None:
    """Checks that images are `(batch, height, width, channels)`.

    Args:
        image_shape: The shape of the images that a model takes.

    Raises:
        ValueError: If Keras is set to the layout with channels first, or the shape is of it.
    """
    if (layout := keras.config.image_data_format()) != "channels_last":
        raise ValueError(
            "keras_transfer takes images of shape (batch, height, width, channels). Received: "
            f"keras.config.image_data_format() is {layout!r}. Call "
            "keras.config.set_image_data_format('channels_last') first, or change "
            "`image_data_format` in ~/.keras/keras.json."
        )
    shape = tuple(image_shape or ())
    if len(shape) == 4 and shape[1] in (1, 3) and shape[-1] not in (1, 2, 3, 4):
        raise ValueError(
            f"The model takes images of shape {shape}, with channels first. Expected (batch, "
            "height, width, channels). Make it with data_format='channels_last'; the weights of "
            "convolutions fit both."
        )


def check_keras_3(**arguments: Any) -> None:
    """Checks that no argument is, or holds in lists and dicts, an object of Keras 2.

    Raises:
        TypeError: If one does. The message names it.
    """
    for name, value in arguments.items():
        for leaf in keras.tree.flatten(value):
            if (kind := _kind_of_keras_2(leaf)) is not None:
                raise TypeError(
                    f"`{name}` is of Keras 2. Received: {kind}. Expected an object of Keras 3: "
                    "import it from `keras`, not from `tf_keras`, and not from `tf.keras` while "
                    "TF_USE_LEGACY_KERAS is set."
                )


def _kind_of_keras_2(value: Any) -> str | None:
    """Names the class or function of Keras 2 that a value is, or is an instance of."""
    is_code = inspect.isclass(value) or inspect.isfunction(value)
    kind = value if is_code else type(value)
    for base in kind.__mro__ if inspect.isclass(kind) else (kind,):
        module = str(base.__module__)
        if module.split(".")[0] == "tf_keras" or module.startswith("tensorflow.python.keras."):
            return f"{base.__module__}.{base.__qualname__}"
    return None
