import json
import pickle
import random
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import SIZE, identical, images, snapshot, tiny_backbone, tiny_network

from keras_transfer import Flips, FrozenBackbone, TransferModel
from keras_transfer.search.averaging import ensemble
from keras_transfer.search.averaging.ensemble import Member, average

PHOTOS = images(6).astype("float32")


def head(classes: int = 1) -> keras.Sequential:
    activation = "sigmoid" if classes == 1 else "softmax"
    layers = [
        keras.layers.Dense(8, activation="relu", kernel_regularizer="l2"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(classes, activation=activation, dtype="float32"),
    ]
    return keras.Sequential(layers, name="head")


def trained(
    backbone, unfreeze: int = 0, *, pooling: str = "avg", name: str = "tiny", seed: int = 0
):
    """A model as a trial leaves it behind, and what is taken down of it."""
    keras.utils.set_random_seed(seed)
    blocks = backbone.select(unfreeze) if unfreeze else ()
    sharing = backbone.share_blocks(blocks, pooling=pooling)
    model = TransferModel(sharing, ["a", "b"], head=head(), augmentation=Flips())
    model.build((None, SIZE, SIZE, 3))
    for block in blocks:
        for weight in sharing.block_weights(block):
            weight.assign_add(keras.random.normal(weight.shape, stddev=0.3))
    return model, Member.of(model, blocks, backbone=name, origin="digest")


def scores(model) -> np.ndarray:
    return model(PHOTOS, training=False).numpy()


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


def same(one: Member, other: Member) -> bool:
    arrays = [
        [*member.head_weights, *(w for block in member.blocks.values() for w in block)]
        for member in (one, other)
    ]
    facts = [
        replace(member, head_weights=(), blocks={}, head=json.loads(json.dumps(member.head)))
        for member in (one, other)
    ]
    return (
        facts[0] == facts[1]
        and list(one.blocks) == list(other.blocks)
        and all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))
    )


@pytest.mark.parametrize(("unfreeze", "pooling"), [(0, "avg"), (2, "max")])
def test_what_is_written_is_read_again_and_gives_the_same_model(
    backbone, tmp_path, unfreeze, pooling
):
    model, member = trained(backbone, unfreeze, pooling=pooling)
    member.write(tmp_path / "member.npz")
    found = Member.read(tmp_path / "member.npz")
    assert same(found, member)
    assert [path.name for path in tmp_path.iterdir()] == ["member.npz"]
    assert (tmp_path / "member.npz").stat().st_size < 20_000
    before = snapshot(backbone)
    np.testing.assert_array_equal(scores(found.model(backbone)), scores(model))
    assert identical(before, backbone)


def test_a_model_that_was_put_together_is_saved_and_loaded(backbone, tmp_path):
    model, member = trained(backbone, 1)
    member.model(backbone).save(tmp_path / "best.keras")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(scores(loaded), scores(model), atol=1e-6)
    assert loaded.class_names == ("a", "b")


@pytest.mark.slow
def test_the_average_is_the_mean_whatever_each_has_unfrozen_and_how_it_pools(backbone):
    kinds = [(2, "avg"), (0, "max"), (1, "avg"), (0, "avg")]
    pairs = [trained(backbone, n, pooling=p, seed=i) for i, (n, p) in enumerate(kinds)]
    model = average({"tiny": backbone}, [member for _, member in pairs])
    expected = np.mean([scores(one) for one, _ in pairs], axis=0)
    np.testing.assert_allclose(scores(model), expected, atol=1e-6)
    assert model.backbone.link_names[-2] == "block2"  # the lowest that all have frozen
    names = [layer.name for layer in model.head.layers]
    # What several have left as it was runs once.
    assert [name for name in names if "block3" in name] == ["member0_block3", "all_block3"]
    blocks = [name for name in names if "block4" in name]
    assert blocks == ["member0_block4", "all_block4", "member2_block4"]


@pytest.mark.slow
def test_heads_alone_are_averaged_on_the_pooled_features(backbone, tmp_path):
    pairs = [trained(backbone, seed=seed) for seed in range(3)]
    model = average({"tiny": backbone}, [member for _, member in pairs])
    assert model.backbone.cut_point == "pooling"
    assert model.head.input_shape == (None, 10)
    expected = np.mean([scores(one) for one, _ in pairs], axis=0)
    np.testing.assert_allclose(scores(model), expected, atol=1e-6)
    model.save(tmp_path / "best.keras")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(scores(loaded), expected, atol=1e-6)


def test_heads_that_pool_in_different_ways_are_averaged_on_the_feature_map(backbone):
    pairs = [trained(backbone, pooling=pooling) for pooling in ("avg", "max")]
    model = average({"tiny": backbone}, [member for _, member in pairs])
    expected = np.mean([scores(one) for one, _ in pairs], axis=0)
    np.testing.assert_allclose(scores(model), expected, atol=1e-6)


def test_heads_on_all_levels_are_averaged_with_each_other(backbone):
    pairs = [trained(backbone, pooling="levels", seed=seed) for seed in range(2)]
    model = average({"tiny": backbone}, [member for _, member in pairs])
    assert model.backbone.cut_point == "pooling"
    expected = np.mean([scores(one) for one, _ in pairs], axis=0)
    np.testing.assert_allclose(scores(model), expected, atol=1e-6)


@pytest.mark.slow
def test_whatever_differs_is_averaged_on_the_images(backbone, tmp_path):
    """All levels beside fine-tuned blocks, all blocks fine-tuned, and another backbone."""
    other = FrozenBackbone(tiny_network(), preprocessing="unit")
    pairs = [
        trained(backbone, pooling="levels"),
        trained(backbone, 2, seed=1),
        trained(backbone, 4, seed=2),
        trained(other, name="other", seed=3),
    ]
    members = [member for _, member in pairs]
    expected = [scores(one) for one, _ in pairs]
    for chosen in ([0, 1], [1, 2], [1, 3], [0, 1, 2, 3]):
        model = average({"tiny": backbone, "other": other}, [members[i] for i in chosen])
        mean = np.mean([expected[i] for i in chosen], axis=0)
        np.testing.assert_allclose(scores(model), mean, atol=1e-6)
    names = [layer.name for layer in model.head.layers if "block1" in layer.name]
    assert names == ["backbone0_block1", "member2_block1", "backbone1_block1"]
    model.save(tmp_path / "best.keras")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(scores(loaded), np.mean(expected, axis=0), atol=1e-6)
    with pytest.warns(UserWarning, match="0..255"):
        model.backbone.check_pixels(PHOTOS / 255)


def test_the_blocks_of_another_network_are_refused(backbone):
    member = trained(backbone, 1)[1]
    wrong = replace(member, blocks={"block3": member.blocks["block4"]})
    with pytest.raises(ValueError, match="weights of other shapes than what was trained on 'tiny'"):
        wrong.model(backbone)


def test_a_torn_file_and_one_of_something_else_are_named(backbone, tmp_path):
    path = tmp_path / "member.npz"
    trained(backbone)[1].write(path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for content in (whole[: len(whole) // 2], b"", b"text", (tmp_path / "other.npz").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"member.npz' is not the whole of what a trial"):
            Member.read(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Member.read(tmp_path / "nowhere.npz")


def test_a_file_of_a_newer_version_is_refused(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "_VERSION", 2)
    trained(backbone)[1].write(tmp_path / "member.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its version is 2, not 1"):
        Member.read(tmp_path / "member.npz")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


def test_nothing_in_a_file_is_unpickled(tmp_path):
    path = tmp_path / "member.npz"
    np.savez(path, facts=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        Member.read(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not the whole of what a trial"):
        Member.read(path)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "config": {}}, "holds code: 'Lambda'"),
        ({"module": "os", "class_name": "system", "config": "true"}, "'system' of 'os', which is"),
        ({"module": None, "class_name": "X", "registered_name": "my>X"}, "neither Keras' own nor"),
        ({"module": "builtins", "class_name": "function", "config": "exec"}, "'builtins'"),
    ],
)
def test_a_config_that_names_other_code_is_refused(backbone, tmp_path, layer, told):
    member = trained(backbone)[1]
    config = json.loads(json.dumps(member.head))
    config["config"]["layers"].append(layer)
    replace(member, head=config).write(tmp_path / "member.npz")
    with pytest.raises(ValueError, match=told):
        Member.read(tmp_path / "member.npz")


def test_whatever_byte_of_a_file_is_damaged_it_is_whole_or_called_torn(tmp_path):
    path, draw = tmp_path / "member.npz", random.Random(0)
    Member("one", "", None, (8, 8, 3), ("a", "b"), {}, (np.ones((4, 5)),), {}).write(path)
    whole, torn = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        place = draw.randrange(len(whole))
        damaged[place : place + draw.choice((0, 1, 40))] = bytes([draw.randrange(256)])
        path.write_bytes(damaged)
        try:
            assert Member.read(path).head_weights[0].shape == (4, 5)
        except ValueError:
            torn += 1
    assert torn > 100
