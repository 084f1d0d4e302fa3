"""EfficientNet-Lite0: the network, its ImageNet weights, and a reader that runs nothing."""

import builtins
import hashlib
import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import keras
import numpy as np
import pytest

from keras_transfer.backbones import efficientnet_lite
from keras_transfer.backbones.efficientnet_lite import EfficientNetLite0
from keras_transfer.backbones.torch_file import read_torch_file

# keras.Variable to numpy, in TensorFlow's own __array__ under numpy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
STORAGE = ("storage", "FloatStorage", "7", "cpu", 6, None)
NUMBERS = np.arange(6, dtype="<f4")


class Tensor:
    """Pickles as torch does: a strided view of a storage named by a persistent id."""

    def __init__(self, size=(2, 3), stride=(1, 2), offset=0, storage=STORAGE):
        self.view = (size, stride, offset)
        self.storage = storage


class Evil:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Storage:
    def __init__(self, pid):
        self.pid = pid


class TorchPickler(pickle._Pickler):
    """The pure Python pickler, so that a global torch need not exist to be named."""

    def persistent_id(self, thing):
        return thing.pid if isinstance(thing, Storage) else None

    def save(self, thing, *args, **kwargs):
        if not isinstance(thing, Tensor):
            return super().save(thing, *args, **kwargs)
        size, stride, offset = thing.view
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
        super().save((Storage(thing.storage), offset, size, stride, False, OrderedDict()))
        self.write(b"R")
        return None


def write_torch_file(path, state, *, magic=MAGIC, system=SYSTEM, keys=("7",), tail=None):
    stream = io.BytesIO()
    for part in (magic, PROTOCOL, system, state, list(keys)):
        TorchPickler(stream, protocol=2).dump(part)
    stream.write(struct.pack("<q", len(NUMBERS)) + NUMBERS.tobytes() if tail is None else tail)
    path.write_bytes(stream.getvalue())
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture(scope="module")
def classifier():
    return EfficientNetLite0(include_top=True)


def sample_image(name):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name))
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    crop = image.crop((left, upper, left + side, upper + side)).resize((224, 224))
    return (np.asarray(crop, "float32")[None] - 127) / 128


# --------------------------------------------------------------------------- the network


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_imagenet_weights_recognize_the_sample_images(classifier, name, label):
    probabilities = classifier.predict(sample_image(name), verbose=0)[0]
    assert probabilities.argmax() == label
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_the_classifier_has_as_many_parameters_as_the_weights_file():
    classifier = EfficientNetLite0(include_top=True, weights=None)
    assert classifier.count_params() == 4_694_024
    moving = sum(int(np.prod(v.shape)) for v in classifier.non_trainable_weights)
    assert moving == 42_016  # statistics of BatchNormalization


def test_layers_are_named_as_in_keras_applications():
    classifier = EfficientNetLite0(include_top=True, weights=None)
    theirs = {layer.name for layer in keras.applications.EfficientNetB0(weights=None).layers}
    ours = {layer.name for layer in classifier.layers if layer.weights}
    assert ours < theirs
    assert {"stem_conv", "block1a_dwconv", "block2a_expand_bn", "block7a_project_bn"} < ours


def test_features_have_a_32nd_of_the_image_side():
    assert EfficientNetLite0(weights=None).output_shape == (None, None, None, 1280)
    model = EfficientNetLite0(weights=None, input_shape=(224, 224, 3))
    assert model.output_shape == (None, 7, 7, 1280)
    assert model.name == "efficientnet_lite0"


@pytest.mark.slow
def test_backbone_and_classifier_have_the_same_features(classifier):
    features = EfficientNetLite0()(sample_image("china.jpg"))
    end = keras.Model(classifier.input, classifier.get_layer("top_activation").output)
    np.testing.assert_array_equal(features, end(sample_image("china.jpg")))


def test_random_weights_need_no_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no_such_package")
    model = EfficientNetLite0(weights=None, include_top=True, classes=3, input_shape=(64, 64, 1))
    assert model.output_shape == (None, 3)
    first, second = (model.get_layer(f"block3{b}_dwconv").get_weights()[0] for b in "ab")
    assert not np.array_equal(first[..., :144, :], second[..., :144, :])


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match=r'pip install "keras_transfer\[demo\]"'):
        EfficientNetLite0()


@pytest.mark.slow
def test_a_saved_model_gives_the_same_outputs(classifier, tmp_path):
    classifier.save(tmp_path / "model.keras")
    image = sample_image("flower.jpg")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(image), classifier(image), rtol=1e-6, atol=1e-7)


def test_weights_load_from_a_file(tmp_path):
    saved = EfficientNetLite0(weights=None)
    saved.save_weights(tmp_path / "random.weights.h5")
    loaded = EfficientNetLite0(weights=tmp_path / "random.weights.h5")
    for ours, theirs in zip(loaded.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include_top": True, "classes": 2}, "classes=2 does not fit"),
        ({"input_shape": (64, 64, 1)}, "has 1 channels"),
        ({"input_shape": (None, 64, 64, 3)}, "has 4 entries"),
        ({"weights": "imagnet"}, "'imagnet' is neither 'imagenet' nor None"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite0(**arguments)


# --------------------------------------------------------------------------- torch to Keras


def pretrained_tensors():
    return read_torch_file(efficientnet_lite._weights_path())


def test_the_file_has_296_tensors():
    assert len(pretrained_tensors()) == 296


def test_a_missing_tensor_is_an_error():
    tensors = pretrained_tensors()
    del tensors["_blocks.3._bn1.bias"]
    with pytest.raises(ValueError, match=r"no tensor '_blocks.3._bn1.bias', which .*beta"):
        efficientnet_lite._assign_weights(EfficientNetLite0(weights=None), tensors)


def test_a_tensor_left_over_is_an_error():
    tensors = pretrained_tensors() | {"_blocks.3._se_reduce.weight": np.zeros(1)}
    with pytest.raises(ValueError, match=r"1 tensor\(s\) .* lacks: .*_se_reduce"):
        efficientnet_lite._assign_weights(EfficientNetLite0(weights=None), tensors)


def test_a_tensor_of_another_shape_is_an_error():
    tensors = pretrained_tensors() | {"_conv_stem.weight": np.zeros((32, 1, 3, 3))}
    with pytest.raises(ValueError, match=r"'_conv_stem.weight' .*\(3, 3, 1, 32\); .*\(3, 3, 3, 32"):
        efficientnet_lite._assign_weights(EfficientNetLite0(weights=None), tensors)


# --------------------------------------------------------------------------- reading torch files


def test_tensors_are_strided_views(path):
    state = {"turned": Tensor(), "part": Tensor(size=(2,), stride=(3,), offset=1)}
    read = read_torch_file(write_torch_file(path, OrderedDict(state)))
    np.testing.assert_array_equal(read["turned"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(read["part"], [1, 4])
    assert not read["part"].flags.writeable


def evil_calls(victim):
    return [
        (os.system, f"touch {victim}"),
        (builtins.eval, f"open({str(victim)!r}, 'w')"),
        (builtins.exec, f"open({str(victim)!r}, 'w')"),
        (builtins.getattr, "os", "system"),
    ]


@pytest.mark.parametrize("call", range(4))
@pytest.mark.parametrize("place", ["state", "value", "persistent id", "magic", "system", "keys"])
def test_nothing_in_the_file_runs(path, tmp_path, place, call):
    victim = tmp_path / "victim"
    evil = Evil(*evil_calls(victim)[call])
    parts = {
        "state": {"state": evil},
        "value": {"state": {"weight": evil}},
        "persistent id": {"state": {"w": Tensor(storage=(*STORAGE[:5], evil))}},
        "magic": {"state": {}, "magic": evil},
        "system": {"state": {}, "system": {"little_endian": evil}},
        "keys": {"state": {}, "keys": [evil]},
    }[place]
    name = r"posix\.system|nt\.system|__builtin__\.(eval|exec|getattr)"
    write_torch_file(path, **parts)
    with pytest.raises(ValueError, match=rf"{path.name}: it asks for the global ({name})\. "):
        read_torch_file(path)
    assert not victim.exists()


def test_the_crafted_pickles_would_run_elsewhere(tmp_path):
    victim = tmp_path / "victim"
    pickle.loads(pickle.dumps(Evil(*evil_calls(victim)[1]))).close()
    assert victim.exists()


@pytest.mark.parametrize(
    "view",
    [
        {"size": (7,), "stride": (1,)},
        {"size": (2, 3), "stride": (1, 3)},
        {"size": (1,), "stride": (1,), "offset": 6},
        {"size": (1,), "stride": (1,), "offset": -1},
        {"size": (2,), "stride": (-1,), "offset": 3},
        {"size": (2,), "stride": (2**62,)},
        {"size": (2**62,), "stride": (0,)},
        {"size": (-1,), "stride": (1,)},
        {"size": (2,), "stride": ()},
        {"size": (2.0,), "stride": (1,)},
        {"size": 2, "stride": 1},
    ],
    ids=str,
)
def test_a_view_beyond_its_storage_is_refused(path, view):
    write_torch_file(path, {"fine": Tensor(), "weight": Tensor(**view)})
    with pytest.raises(ValueError, match="its tensor 'weight' lies outside its storage"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "pid",
    [
        ("module", *STORAGE[1:]),
        ("storage", "DoubleStorage", *STORAGE[2:]),
        (*STORAGE[:4], -6, None),
        (*STORAGE[:5], ("7", 0, 6)),
        "storage",
    ],
    ids=str,
)
def test_an_unknown_persistent_id_is_refused(path, pid):
    write_torch_file(path, {"weight": Tensor(storage=pid)})
    with pytest.raises(ValueError, match="it has the persistent id"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"magic": 1}, "its header is 1, 1001"),
        ({"system": {"little_endian": False}}, "not that of a little-endian"),
        ({"system": "big"}, "not that of a little-endian"),
        ({"keys": ["7", "8"]}, "lists 2 storages, and its tensors name 1"),
        ({"tail": struct.pack("<q", 5) + bytes(24)}, "storage 7 has 5 numbers.* expect 6"),
        ({"state": {"weight": 3.0}}, "its entry 'weight' is a float, not a tensor"),
        ({"state": [Tensor()]}, "it holds a list, not a dict"),
    ],
)
def test_a_file_of_another_kind_is_refused(path, parts, message):
    write_torch_file(path, **({"state": {"weight": Tensor()}} | parts))
    with pytest.raises(ValueError, match=message):
        read_torch_file(path)


def test_one_storage_with_two_lengths_is_refused(path):
    other = Tensor(storage=(*STORAGE[:4], 600, None))
    write_torch_file(path, {"a": Tensor(), "b": other})
    with pytest.raises(ValueError, match="lists 1 storages, and its tensors name 2"):
        read_torch_file(path)


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    whole = write_torch_file(path, {"weight": Tensor()}).read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=f"Refused to read .*{path.name}"):
            read_torch_file(path)


def test_a_truncated_package_is_refused(path, monkeypatch):
    content = efficientnet_lite._weights_path().read_bytes()
    path.write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(efficientnet_lite, "_weights_path", lambda: path)
    with pytest.raises(ValueError, match=rf"{path.name}: it is truncated: .*force-reinstall"):
        EfficientNetLite0()


def test_one_bit_of_the_package_that_changed_is_refused(tmp_path, monkeypatch):
    whole = efficientnet_lite._weights_path()
    content = bytearray(whole.read_bytes())
    content[-1000] ^= 1
    (tmp_path / whole.name).write_bytes(content)
    monkeypatch.setattr(efficientnet_lite, "_weights_path", lambda: tmp_path / whole.name)
    with pytest.raises(ValueError, match=r"its name says 57934424, .* damaged.*force-reinstall"):
        EfficientNetLite0()


def test_the_digits_in_a_name_are_those_of_the_content(tmp_path, path):
    digits = hashlib.sha256(write_torch_file(path, {"weight": Tensor()}).read_bytes()).hexdigest()
    right, wrong = tmp_path / f"lite1-{digits[:8]}.pth", tmp_path / "lite2-00000000.pth"
    path.rename(right)
    assert read_torch_file(right)["weight"].shape == (2, 3)
    right.rename(wrong)
    with pytest.raises(ValueError, match=f"begins with {digits[:8]}, and its name says 00000000"):
        read_torch_file(wrong)


def pickles(state: bytes) -> bytes:
    """A file with a state of which the pickle is given."""
    before = b"".join(pickle.dumps(one, 2) for one in (MAGIC, PROTOCOL, SYSTEM))
    return before + b"\x80\x02" + state + b"." + pickle.dumps([], 2)


LAUGHS = b"]q\x00" + b"".join(
    b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 60)
)  # each list holds the one before it twice


@pytest.mark.parametrize(
    "state",
    [
        b"Nr\xff\xff\xff\x08",  # a place in the memo: an array of as many is allocated
        LAUGHS + b"}U\x01wctorch._utils\n_rebuild_tensor_v2\n(NK\x00h;h;tRs",
        LAUGHS + b"Q",
        b"(U\x07storageU\x0cFloatStorageU\x017U\x03cpu" + b"\x8a\x08" + b"\x7f" * 8 + b"NtQ",
    ],
    ids=["memo", "text of a tensor", "text of an id", "length"],
)
def test_a_file_takes_no_more_memory_than_its_size_allows(path, state):
    path.write_bytes(pickles(state))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"Refused to read .*{path.name}"):
            read_torch_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
