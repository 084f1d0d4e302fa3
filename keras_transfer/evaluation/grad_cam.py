"""Grad-CAM: where in an image a class was seen (Selvaraju et al., 2017, arXiv:1610.02391)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.backbones.layers import LevelPooling
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.utils.keras_internals import layers_of, logits_of

_POOLINGS = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D, LevelPooling)
_TOGETHER = 8  # images at a time: activations and gradients of a whole backbone are large


class NoFeatureMap(Exception):
    """Raised with the reason why a model has no feature map to look at."""


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Grad-CAM of some images.

    Attributes:
        block: The block whose feature map it was computed on.
        size: Height and width of that map.
        maps: `(n, height, width)`, 0..1, at the images' size; 1 at the hottest place, or all zero
            where nothing in the feature map speaks for the class.
    """

    block: str
    size: tuple[int, int]
    maps: np.ndarray


def find_backbone(model: keras.Model) -> FrozenBackbone | None:
    """Returns the one `FrozenBackbone` of a model, at any depth; None if there is none or more."""
    found = [layer for layer in layers_of(model) if isinstance(layer, FrozenBackbone)]
    return found[0] if len(found) == 1 else None


def grad_cam(
    model: keras.Model, images: np.ndarray, classes: Sequence[int], *, logits: bool = False
) -> HeatMaps:
    """Computes Grad-CAM at the backbone's last block that gives a feature map.

    Of an average of several trainings, whose upper blocks lie in its head, it is the mean over what
    each pools. Views are not averaged: the map is that of the images as they are.

    Args:
        model: A classifier that holds one `FrozenBackbone`, at any depth.
        images: As the model takes them, `(n, height, width, channels)`.
        classes: For each image the class to look for.
        logits: Whether the model gives logits. Default False.

    Raises:
        NoFeatureMap: If the model holds no such backbone, several, or one without feature maps.

    Example:
        >>> grad_cam(model, images, [1, 0]).maps.shape
        (2, 96, 96)
    """
    backbone = find_backbone(model)
    if backbone is None:
        raise NoFeatureMap("the model does not hold one FrozenBackbone, whose blocks are known")
    names = [block.name for block in backbone.blocks if len(block.output_shape) == 4]
    if not names:
        raise NoFeatureMap("no block of the backbone gives a feature map")
    if isinstance(model, TransferModel) and (pooled := _pooled_in(model.head)):
        return _of_average(model, pooled, images, classes, logits)
    maps, size = [], (0, 0)
    for start in range(0, len(images), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        found = _heat(model, backbone, names[-1], images[part], classes[part], logits)
        size = (int(found.shape[1]), int(found.shape[2]))
        maps.append(tf.image.resize(found[..., None], images.shape[1:3])[..., 0].numpy())
    return HeatMaps(names[-1], size, _peaked(np.concatenate(maps)))


def _pooled_in(head: keras.Layer) -> dict[str, Any]:
    """Returns the feature maps that a head pools, by the names of the layers that pool them."""
    if not isinstance(head, keras.Model) or isinstance(head, keras.Sequential):
        return {}
    given = {layer.name: layer.input for layer in head.layers if isinstance(layer, _POOLINGS)}
    last = {name: x[-1] if isinstance(x, list | tuple) else x for name, x in given.items()}
    return {name: x for name, x in last.items() if len(x.shape) == 4}


def _is_block(layer: keras.Layer) -> bool:
    is_model = isinstance(layer, keras.Model) and not isinstance(layer, keras.Sequential)
    return is_model and not layer.name.endswith("_head")


def _of_average(
    model: TransferModel,
    pooled: dict[str, Any],
    images: np.ndarray,
    classes: Sequence[int],
    logits: bool,
) -> HeatMaps:
    """The mean of the maps at all places where a head pools, each with the same peak."""
    head = keras.Model(model.head.inputs, [*pooled.values(), model.head.outputs[0]])
    maps, size = [], (0, 0)
    for start in range(0, len(images), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        features = model.backbone(tf.constant(images[part]))
        with tf.GradientTape() as tape:
            tape.watch(features)
            *seen, outputs = head(features, training=False)
            score = tf.reduce_sum(_scores(outputs, classes[part], logits))
        heats = map(_weighted, tape.gradient(score, seen), seen)
        scaled = [_resized(heat, images.shape[1:3]) for heat in heats]
        maps.append(np.mean(scaled, axis=0))
        size = (int(seen[0].shape[1]), int(seen[0].shape[2]))
    # Named as in `search.averaging.ensemble`: "member0_block7", "all_top".
    blocks = [one.name.partition("_")[2] for one in model.head.layers if _is_block(one)]
    return HeatMaps(
        blocks[-1] if blocks else next(iter(pooled)), size, _peaked(np.concatenate(maps))
    )


def _resized(heat: tf.Tensor, size: tuple[int, int]) -> np.ndarray:
    return _peaked(tf.image.resize(heat[..., None], size)[..., 0].numpy())


def _peaked(heat: np.ndarray) -> np.ndarray:
    peaks = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(peaks > 0, peaks, 1)


def _heat(
    model: keras.Model,
    backbone: FrozenBackbone,
    block: str,
    images: np.ndarray,
    classes: Sequence[int],
    logits: bool,
) -> tf.Tensor:
    seen: list[Any] = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def watch(name: str, tensor: Any) -> None:
            if name == block:
                tape.watch(tensor)
                seen.append(tensor)

        with backbone.watched(watch):
            outputs = model(tf.constant(images), training=False)
        if len(seen) != 1:
            raise NoFeatureMap(f"the model runs its backbone {len(seen)} times for an image")
        score = tf.reduce_sum(_scores(outputs, classes, logits))
    gradient = tape.gradient(score, seen[0])
    if gradient is None:
        raise NoFeatureMap("the model's output does not depend on the backbone by a gradient")
    return _weighted(gradient, seen[0])


def _weighted(gradient: tf.Tensor, feature_map: tf.Tensor) -> tf.Tensor:
    weights = tf.reduce_mean(tf.cast(gradient, "float32"), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * tf.cast(feature_map, "float32"), axis=-1))


def _scores(outputs: Any, classes: Sequence[int], logits: bool) -> tf.Tensor:
    """Returns the score of each image's class before softmax or sigmoid, as in the paper.

    The gradient of a probability close to 1 is lost in float32, just where a mistake is worst.
    Behind other last layers the logarithm of the probability serves.
    """
    before = outputs if logits else logits_of(outputs)
    values = tf.cast(outputs if before is None else before, "float32")
    if len(values.shape) == 1:
        values = values[:, None]
    if values.shape[1] == 1 and before is not None:
        values = tf.concat([-values, values], axis=1)
    elif values.shape[1] == 1:
        values = tf.math.log(tf.concat([1 - values, values], axis=1) + 1e-30)
    elif before is None:
        values = tf.math.log(values + 1e-30)
    return tf.gather(values, tf.constant(classes), axis=1, batch_dims=1)
