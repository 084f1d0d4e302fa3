"""Grad-CAM shows where a class was seen, also when the model is very sure."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, images, tiny_backbone

from keras_transfer import AveragedViews, Flips, FrozenBackbone, TransferModel
from keras_transfer.evaluation.grad_cam import NoFeatureMap, grad_cam
from keras_transfer.search.averaging.ensemble import Member, average


def transfer(classes=3, **kwargs) -> TransferModel:
    model = TransferModel(tiny_backbone(), classes, hidden=4, **kwargs)
    model.build((None, SIZE, SIZE, 3))
    return model


def by_hand(model: TransferModel, pixels: np.ndarray, number: int) -> np.ndarray:
    """The formula of the paper, from kept activations and the weights of the last layer."""
    kept = tf.constant(model.backbone.activations(pixels, after="block4")["after:block4"])
    hidden, last = model.head.layers[0], model.head.layers[-1]
    with tf.GradientTape() as tape:
        tape.watch(kept)
        x = hidden(tf.reduce_mean(kept, axis=(1, 2)))
        logits = tf.matmul(x, last.kernel) + last.bias
        score = logits[:, number] if logits.shape[1] > 1 else logits[:, 0] * (2 * number - 1)
    alpha = tf.reduce_mean(tape.gradient(score, kept), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(alpha * kept, -1)).numpy()
    heat = tf.image.resize(heat[..., None], (SIZE, SIZE))[..., 0].numpy()
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("number", [0, 1])
def test_the_maps_are_those_of_the_formula(classes, number):
    model, pixels = transfer(classes), images(10)
    found = grad_cam(model, pixels, [number] * 10)
    assert found.block == "block4"
    assert found.size == (3, 3)
    np.testing.assert_allclose(found.maps, by_hand(model, pixels, number), atol=1e-5)
    assert found.maps.max() == pytest.approx(1)


def spot_model(**last) -> tuple[keras.Model, np.ndarray]:
    """A backbone that sees brightness, and images with one bright spot."""
    looker = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 2, strides=2, activation="relu", name="block1_conv"),
        ]
    )
    looker.layers[0].set_weights([np.full((2, 2, 3, 2), 0.1), np.zeros(2)])
    head = keras.layers.Dense(2, **{"activation": "softmax", **last})
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), FrozenBackbone(looker, preprocessing=None), head]
    )
    head.set_weights([np.array([[1.0, -1.0], [1.0, -1.0]]), np.zeros(2)])
    pixels = np.zeros((2, 16, 16, 3), "float32")
    pixels[0, 2:4, 2:4], pixels[1, 12:14, 10:12] = 255, 255
    return model, pixels


def test_the_heat_lies_where_the_class_is_seen():
    model, pixels = spot_model()
    maps = grad_cam(model, pixels, [0, 0]).maps
    places = [np.unravel_index(one.argmax(), one.shape) for one in maps]
    assert [abs(a - b) <= 1 for (a, _), b in zip(places, (3, 13), strict=True)] == [True] * 2
    assert [abs(a - b) <= 1 for (_, a), b in zip(places, (3, 11), strict=True)] == [True] * 2


def test_what_speaks_against_a_class_is_cold():
    model, pixels = spot_model()
    assert not grad_cam(model, pixels, [1, 1]).maps.any()


@pytest.mark.parametrize("units", [1, 2])
def test_a_model_that_is_sure_has_a_map_none_the_less(units):
    model, pixels = spot_model()
    sure = keras.layers.Dense(units, activation="sigmoid" if units == 1 else "softmax")
    model = keras.Sequential([model.layers[0], sure])
    model.build((None, 16, 16, 3))
    sure.set_weights([np.array([[500.0, -500.0]] * 2)[:, :units], np.zeros(units)])
    number = 1 if units == 1 else 0
    outputs = model(pixels).numpy()
    assert (outputs[:, 0] == 1).all()  # a gradient of exactly zero behind the activation
    assert grad_cam(model, pixels, [number] * 2).maps.max() == pytest.approx(1)


def test_logits_give_the_map_of_the_probabilities():
    model, pixels = spot_model()
    linear, _ = spot_model(activation=None)
    expected = grad_cam(model, pixels, [0, 0]).maps
    np.testing.assert_allclose(
        grad_cam(linear, pixels, [0, 0], logits=True).maps, expected, atol=1e-6
    )


def test_a_last_layer_without_known_logits_gives_a_map_from_the_probability():
    model, pixels = spot_model()
    shifted = keras.Sequential([model, keras.layers.Rescaling(0.999)])
    pixels = pixels / 255
    np.testing.assert_allclose(
        grad_cam(shifted, pixels, [0, 0]).maps, grad_cam(model, pixels, [0, 0]).maps, atol=1e-5
    )


def test_a_backbone_is_found_at_any_depth():
    model, pixels = spot_model()
    inner = keras.Input((16, 16, 3))
    deep = keras.Sequential([keras.Input((16, 16, 3)), keras.Model(inner, model(inner))])
    np.testing.assert_array_equal(
        grad_cam(deep, pixels, [0, 0]).maps, grad_cam(model, pixels, [0, 0]).maps
    )


def test_nothing_moves_and_nothing_watches_afterwards():
    model = transfer()
    before = [weight.numpy().copy() for weight in model.weights]
    grad_cam(model, images(4), [0] * 4)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))
    seen = []
    with pytest.raises(RuntimeError, match="stop"), model.backbone.watched(seen.append):
        raise RuntimeError("stop")
    model(images(2))
    assert not seen


def test_augmentation_leaves_the_map_alone():
    plain, turned = transfer(), transfer(augmentation=keras.layers.RandomFlip())
    turned.set_weights(plain.get_weights()[: len(turned.weights)])
    assert grad_cam(turned, images(2), [0, 1]).maps.shape == (2, SIZE, SIZE)


def test_a_model_without_feature_map_is_refused_with_the_reason():
    plain = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    with pytest.raises(NoFeatureMap, match="does not hold one FrozenBackbone"):
        grad_cam(plain, np.zeros((1, 4, 4, 3)), [0])
    flat = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), plain.layers[0]])
    backbone = FrozenBackbone(flat, preprocessing=None)
    model = keras.Sequential([keras.Input((4, 4, 3)), backbone, keras.layers.Dense(2)])
    with pytest.raises(NoFeatureMap, match="no block of the backbone gives a feature map"):
        grad_cam(model, np.zeros((1, 4, 4, 3)), [0])


def test_a_backbone_that_runs_twice_is_refused():
    looker = tiny_backbone()
    left = keras.Input((SIZE, SIZE, 3))
    both = keras.layers.Concatenate()([looker(left), looker(left)])
    model = keras.Model(left, keras.layers.Dense(2, activation="softmax")(both))
    with pytest.raises(NoFeatureMap, match="runs its backbone 2 times"):
        grad_cam(model, images(1), [0])


@pytest.mark.slow
def test_an_average_whose_blocks_lie_in_its_head_has_the_mean_of_their_maps():
    """Of trainings that differ, as a search ends with, and of their views: as they are."""
    backbone, members, single = tiny_backbone(), [], []
    for seed, unfreeze in enumerate((1, 4)):
        keras.utils.set_random_seed(seed)
        blocks = backbone.select(unfreeze)
        model = TransferModel(backbone.share_blocks(blocks), 2, hidden=4)
        model.build((None, SIZE, SIZE, 3))
        for weight in (w for name in blocks for w in model.backbone.block_weights(name)):
            weight.assign_add(keras.random.normal(weight.shape, stddev=0.3))
        members.append(Member.of(model, blocks, backbone="tiny"))
        single.append(grad_cam(model, images(4), [1] * 4).maps)
    model = average({"tiny": backbone}, members)
    found = grad_cam(model, images(4), [1] * 4)
    assert (found.block, found.size) == ("block4", (3, 3))
    # Each is weighted by its own gradient; of the probabilities' mean that is nearly their mean.
    expected = np.mean(single, axis=0)
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-30)
    np.testing.assert_allclose(found.maps, expected, atol=1e-4)
    views = AveragedViews.of(model, Flips("mirror"))
    np.testing.assert_allclose(grad_cam(views, images(4), [1] * 4).maps, found.maps, atol=1e-6)
