"""Backbones that share what is frozen, and trainings that begin again on the same data."""

import keras
import numpy as np
import pytest
from conftest import SIZE, dataset, identical, images, labels, snapshot, tiny_backbone
from hub_modules import save_reusable

from keras_transfer import FeatureCache, FrozenBackbone, HubModule, TransferModel
from keras_transfer.row_order import begin_again


def test_a_twin_has_own_copies_of_some_blocks_and_shares_the_rest():
    backbone = tiny_backbone()
    twin = backbone.twin(2)
    assert [block.name for block in twin.blocks] == [block.name for block in backbone.blocks]
    np.testing.assert_array_equal(twin(images(4)), backbone(images(4)))
    own = {id(weight) for name in ("block3", "block4") for weight in twin.block_weights(name)}
    shared = {id(weight) for weight in twin.weights} & {id(weight) for weight in backbone.weights}
    assert not own & shared
    assert len(shared) == len(backbone.weights) / 2
    assert len(twin.weights) == len(backbone.weights)


def test_what_a_twin_trains_is_not_seen_by_others():
    backbone = tiny_backbone()
    before, twin, other = snapshot(backbone), backbone.twin("block4"), backbone.twin(2)
    twin.unfreeze("block4")
    for weight in twin.block_weights("block4"):
        weight.assign_add(keras.ops.ones_like(weight))
    assert (twin.border, backbone.border, other.border) == ("block3", "pooling", "pooling")
    assert identical(before, backbone)
    assert identical(before, other)
    assert len(twin.trainable_weights) == len(backbone.block_weights("block4"))


def test_a_twin_may_pool_in_another_way_and_kept_activations_are_known_again():
    backbone = tiny_backbone()
    twin = backbone.twin(1, pooling="max")
    assert (twin.pooling, backbone.twin().pooling) == ("max", "avg")
    expected = keras.ops.max(backbone.up_to("block4")(images(2)), (1, 2))
    np.testing.assert_allclose(twin(images(2)), expected, atol=1e-6)
    prints = backbone.fingerprints(), twin.fingerprints()
    assert [name for name in prints[0] if prints[0][name] != prints[1][name]] == ["pooling"]


def test_a_twin_is_saved_with_its_own_weights(tmp_path):
    twin = tiny_backbone().twin(1)
    for weight in twin.block_weights("block4"):
        weight.assign_add(0.1 * keras.ops.ones_like(weight))
    model = TransferModel(twin, 2)
    model.build((None, SIZE, SIZE, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.backbone(images(2)), twin(images(2)), atol=1e-6)


def test_a_backbone_that_trains_has_no_twin():
    backbone = tiny_backbone()
    backbone.unfreeze("block3")
    with pytest.raises(ValueError, match="cannot share what trains: block3"):
        backbone.twin(2)
    backbone.freeze()
    with pytest.raises(ValueError, match="matches 'block9'"):
        backbone.twin("block9")


def test_of_a_module_that_cannot_be_cut_a_twin_has_a_copy(tmp_path):
    backbone = FrozenBackbone(HubModule(save_reusable(tmp_path)), preprocessing="unit")
    twin = backbone.twin(1)
    np.testing.assert_allclose(twin(images(2)), backbone(images(2)), atol=1e-6)
    name = twin.blocks[-1].name
    shared = {id(weight) for weight in backbone.weights}
    assert not shared & {id(weight) for weight in twin.block_weights(name)}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.0, 1.0, 3.0, 1.0]])
def test_label_smoothing_is_that_of_keras_in_training_and_none_in_validation(classes, weights):
    model = TransferModel(tiny_backbone(), classes, label_smoothing=0.2)
    model.compile()
    y, scores = labels(6, classes), model(images(6))
    if classes == 2:
        targets, kind = y[:, None].astype("float32"), keras.losses.BinaryCrossentropy
    else:
        targets, kind = keras.ops.one_hot(y, 3), keras.losses.CategoricalCrossentropy
    weights = None if weights is None else keras.ops.convert_to_tensor(weights)
    for training, smoothing in ((True, 0.2), (False, 0.0)):
        found = model.compute_loss(None, y, scores, weights, training=training)
        expected = kind(label_smoothing=smoothing)(targets, scores, weights)
        assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_out_of_range_or_with_a_loss_of_ones_own_is_refused(tmp_path):
    for wrong in (1.0, -0.1, "much"):
        with pytest.raises(ValueError, match="`label_smoothing` must be a share from 0"):
            TransferModel(tiny_backbone(), 2, label_smoothing=wrong)
    model = TransferModel(tiny_backbone(), 2, label_smoothing=0.1)
    with pytest.raises(ValueError, match="`label_smoothing` goes with the losses"):
        model.compile(loss=keras.losses.BinaryCrossentropy())
    model.build((None, SIZE, SIZE, 3))
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").label_smoothing == 0.1


def losses(data, cache, again: bool = False) -> list[float]:
    keras.utils.set_random_seed(1)
    if again:
        begin_again(data)
    model = TransferModel(tiny_backbone(), 2, dropout=0.0, hidden=4, feature_cache=cache)
    model.compile()
    return model.fit(data, epochs=2, verbose=0).history["loss"]


def test_a_fit_that_begins_again_sees_the_order_of_the_first_one():
    data, cache = dataset(), FeatureCache(verbose=False)
    first = losses(data, cache)
    assert losses(data, cache) != first  # as fits on the dataset itself do, it goes on
    assert losses(data, cache, again=True) == first
    assert len(cache) == 1
