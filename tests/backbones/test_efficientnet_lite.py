"""EfficientNet-Lite0 to Lite2: networks, ImageNet weights, and a reader that runs nothing."""

import dataclasses
import hashlib
import io
import os
import pickle

import keras
import numpy as np
import pytest

from keras_transfer import FrozenBackbone
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.backbones.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)
from keras_transfer.backbones.torch_file import read_torch_file

# keras.Variable to numpy, in TensorFlow's own __array__ under numpy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def pretrained():
    return EfficientNetLite0()


def without_package(monkeypatch):
    lite0 = dataclasses.replace(efficientnet_lite._LITE0, package="no_such_package")
    monkeypatch.setattr(efficientnet_lite, "_LITE0", lite0)


def sample_image(name, size=224):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name))
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    crop = image.crop((left, upper, left + side, upper + side)).resize((size, size))
    return (np.asarray(crop, "float32")[None] - 127) / 128


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "variant", "size", "parameters"),
    [
        # The numbers of parameters are those of the original's classifiers.
        (EfficientNetLite0, efficientnet_lite._LITE0, 224, 4_694_024),
        (EfficientNetLite1, efficientnet_lite._LITE1, 240, 5_470_344),
        (EfficientNetLite2, efficientnet_lite._LITE2, 260, 6_150_168),
    ],
)
def test_imagenet_weights_recognize_the_sample_images(make, variant, size, parameters):
    network = make()
    batch = np.concatenate([sample_image("china.jpg", size), sample_image("flower.jpg", size)])
    features = network(batch).numpy().mean((1, 2))
    tensors = read_torch_file(efficientnet_lite._weights_path(variant), variant.sha256)
    scores = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    # Palace and daisy, a close-up that Lite2 takes for a honeycomb.
    assert list(scores.argmax(1)) == [698, 599 if size == 260 else 985]
    assert network.count_params() + 1281 * 1000 == parameters


@pytest.mark.parametrize("name", ["efficientnet_lite1", "EfficientNet-Lite2"])
def test_the_larger_ones_are_backbones_by_name(name):
    backbone = FrozenBackbone(name, weights=None)
    assert [block.name for block in backbone.blocks] == [
        *("stem", *(f"block{i}" for i in range(1, 8)), "top")
    ]
    assert backbone.compute_output_shape((None, 96, 96, 3)) == (None, 1280)
    assert FrozenBackbone(backbone._source.value.model).preprocessing.offset == pytest.approx(
        -127 / 128
    )


@pytest.mark.slow
def test_layers_are_named_as_in_keras_applications(pretrained):
    theirs = {layer.name for layer in keras.applications.EfficientNetB0(weights=None).layers}
    ours = {layer.name for layer in pretrained.layers if layer.weights}
    assert ours < theirs
    assert {"stem_conv", "block1a_dwconv", "block2a_expand_bn", "block7a_project_bn"} < ours


@pytest.mark.slow
def test_random_weights_need_no_package_and_a_file_of_weights_is_loaded(monkeypatch, tmp_path):
    without_package(monkeypatch)
    model = EfficientNetLite0(weights=None, input_shape=(64, 64, 1))
    assert model.output_shape == (None, 2, 2, 1280)
    first, second = (model.get_layer(f"block3{b}_dwconv").get_weights()[0] for b in "ab")
    assert not np.array_equal(first[..., :144, :], second[..., :144, :])
    model.save_weights(tmp_path / "random.weights.h5")
    loaded = EfficientNetLite0(weights=tmp_path / "random.weights.h5", input_shape=(64, 64, 1))
    for ours, saved in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, saved)


def test_a_missing_package_names_the_extra(monkeypatch):
    without_package(monkeypatch)
    monkeypatch.setattr(efficientnet_lite, "_features", lambda x, variant: x)
    with pytest.raises(ImportError, match=r'pip install "keras_transfer\[demo\]"'):
        EfficientNetLite0()


def test_images_that_do_not_fit_the_weights_are_refused():
    with pytest.raises(ValueError, match=r"3 channels\. Received: input_shape=\(64, 64, 1\)"):
        EfficientNetLite0(input_shape=(64, 64, 1))


class Tensor:
    """Pickles as torch's tensors do: a strided view of a storage with a persistent id."""

    def __init__(self, size, stride, offset=0):
        self.arguments = (("storage", "FloatStorage", "7", "cpu", 6, None), offset, size, stride)


class TorchPickler(pickle._Pickler):
    """The pickler in Python, so that torch need not be there to be named."""

    def save(self, thing, *args, **kwargs):
        if not isinstance(thing, Tensor):
            return super().save(thing, *args, **kwargs)
        pid, *rest = thing.arguments
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
        super().save(pid)
        self.write(b"Q")
        for part in (*rest, False, {}):
            super().save(part)
        self.write(b"tR")
        return None


def torch_file(path, state) -> tuple:
    """Writes a state dict as torch does, and returns the path and the digest."""
    stream = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, state, ["7"]):
        TorchPickler(stream, protocol=2).dump(part)
    stream.write((6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes())
    path.write_bytes(stream.getvalue())
    return path, hashlib.sha256(stream.getvalue()).hexdigest()


def test_tensors_are_strided_views(tmp_path):
    state = {"turned": Tensor((2, 3), (1, 2)), "part": Tensor((2,), (3,), 1)}
    read = read_torch_file(*torch_file(tmp_path / "w.pth", state))
    np.testing.assert_array_equal(read["turned"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(read["part"], [1, 4])
    assert not read["part"].flags.writeable


def test_nothing_in_a_file_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/victim",)

    path, digest = torch_file(tmp_path / "w.pth", {"weight": Evil()})
    with pytest.raises(ValueError, match=r"Refused to read .*w\.pth.*force-reinstall"):
        read_torch_file(path, "0" * 64)
    with pytest.raises(pickle.UnpicklingError, match=r"global (posix|nt)\.system is not allowed"):
        read_torch_file(path, digest)
    assert not (tmp_path / "victim").exists()


def test_a_damaged_or_truncated_package_is_refused(tmp_path, monkeypatch):
    whole = efficientnet_lite._weights_path(efficientnet_lite._LITE0).read_bytes()
    changed = bytearray(whole)
    changed[-1000] ^= 1
    monkeypatch.setattr(efficientnet_lite, "_features", lambda x, variant: x)
    monkeypatch.setattr(efficientnet_lite, "_weights_path", lambda variant: tmp_path / "w.pth")
    for content in (changed, whole[: len(whole) // 2], b"N" * 58):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged or was replaced\. Run: .*force-reinstall"):
            EfficientNetLite0()
