"""Backbones that share what is frozen, and trainings that begin again on the same data."""

import keras
import numpy as np
import pytest
from conftest import SIZE, dataset, identical, images, snapshot, tiny_backbone
from hub_modules import shared

from keras_transfer import FeatureCache, FrozenBackbone, HubModule, TransferModel
from keras_transfer.data.shuffling import begin_again


def test_copied_blocks_are_not_shared_and_the_rest_is():
    backbone = tiny_backbone()
    sharing = backbone.share_blocks(2)
    assert [block.name for block in sharing.blocks] == [block.name for block in backbone.blocks]
    np.testing.assert_array_equal(sharing(images(4)), backbone(images(4)))
    own = {id(weight) for name in ("block3", "block4") for weight in sharing.block_weights(name)}
    shared = {id(weight) for weight in sharing.weights} & {
        id(weight) for weight in backbone.weights
    }
    assert not own & shared
    assert len(shared) == len(backbone.weights) / 2
    assert len(sharing.weights) == len(backbone.weights)


def test_training_copied_blocks_leaves_other_backbones_unchanged():
    backbone = tiny_backbone()
    before, sharing, other = (
        snapshot(backbone),
        backbone.share_blocks("block4"),
        backbone.share_blocks(2),
    )
    sharing.unfreeze("block4")
    for weight in sharing.block_weights("block4"):
        weight.assign_add(keras.ops.ones_like(weight))
    assert (sharing.cut_point, backbone.cut_point, other.cut_point) == (
        "block3",
        "pooling",
        "pooling",
    )
    assert identical(before, backbone)
    assert identical(before, other)
    assert len(sharing.trainable_weights) == len(backbone.block_weights("block4"))


def test_another_pooling_changes_only_the_fingerprint_of_the_pooling():
    backbone = tiny_backbone()
    sharing = backbone.share_blocks(1, pooling="max")
    assert (sharing.pooling, backbone.share_blocks().pooling) == ("max", "avg")
    expected = keras.ops.max(backbone.up_to("block4")(images(2)), (1, 2))
    np.testing.assert_allclose(sharing(images(2)), expected, atol=1e-6)
    prints = backbone.fingerprints(), sharing.fingerprints()
    assert [name for name in prints[0] if prints[0][name] != prints[1][name]] == ["pooling"]


def test_copied_blocks_are_saved_with_their_own_weights(tmp_path):
    sharing = tiny_backbone().share_blocks(1)
    for weight in sharing.block_weights("block4"):
        weight.assign_add(0.1 * keras.ops.ones_like(weight))
    model = TransferModel(sharing, 2)
    model.build((None, SIZE, SIZE, 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.backbone(images(2)), sharing(images(2)), atol=1e-6)


def test_blocks_of_a_backbone_that_trains_cannot_be_shared():
    backbone = tiny_backbone()
    backbone.unfreeze("block3")
    with pytest.raises(ValueError, match="cannot share what trains: block3"):
        backbone.share_blocks(2)
    backbone.freeze()
    with pytest.raises(ValueError, match="matches 'block9'"):
        backbone.share_blocks("block9")


def test_a_module_that_cannot_be_cut_is_copied_as_a_whole():
    backbone = FrozenBackbone(HubModule(shared("small")), preprocessing="unit")
    sharing = backbone.share_blocks(1)
    np.testing.assert_allclose(sharing(images(2)), backbone(images(2)), atol=1e-6)
    name = sharing.blocks[-1].name
    weights = {id(weight) for weight in backbone.weights}
    assert not weights & {id(weight) for weight in sharing.block_weights(name)}


def losses(data, cache, again: bool = False) -> list[float]:
    keras.utils.set_random_seed(1)
    if again:
        begin_again(data)
    model = TransferModel(tiny_backbone(), 2, dropout=0.0, hidden=4, feature_cache=cache)
    model.compile()
    return model.fit(data, epochs=2, verbose=0).history["loss"]


@pytest.mark.slow
def test_a_fit_that_begins_again_sees_the_order_of_the_first_one():
    data, cache = dataset(), FeatureCache(verbose=False)
    first = losses(data, cache)
    assert losses(data, cache) != first  # as fits on the dataset itself do, it goes on
    assert losses(data, cache, again=True) == first
    assert len(cache) == 1
