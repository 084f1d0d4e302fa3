"""report writes what a classifier makes of labelled images, whole or not at all."""

import functools
import html
import re

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, images, labels, tiny_backbone
from PIL import Image
from white_charts import leave_figures_white

from keras_transfer import FeatureCache, TransferModel, image_folder, report
from keras_transfer.models.outputs import takes_logits

PNGS = ("classes.png", "confusion.png", "curves.png", "calibration.png")
SHOTS = ("mistakes.png", "uncertain.png")


def reader(classes: int = 3, activation: str | None = "softmax", **compiled) -> keras.Model:
    """A model that reads its logits off the image: pixel `(0, i)` is that of class i."""
    inputs = keras.Input((2, classes, 3))
    logits = inputs[:, 0, :, 0]
    if classes == 2 and activation == "sigmoid":
        logits = logits[:, 1:] - logits[:, :1]
    last = keras.layers.Dense(logits.shape[-1], activation=activation, use_bias=False)
    model = keras.Model(inputs, last(logits), name="reader")
    last.set_weights([np.eye(logits.shape[-1])])
    if compiled:
        model.compile(**compiled)
    return model


def written(probabilities) -> np.ndarray:
    """The images of some probabilities."""
    probabilities = np.asarray(probabilities, "float32")
    pixels = np.zeros((len(probabilities), 2, probabilities.shape[1], 3), "float32")
    pixels[:, 0] = np.log(probabilities)[..., None]
    return pixels


PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.1, 0.8, 0.1],
        [0.05, 0.05, 0.9],
        [0.5, 0.3, 0.2],
        [0.02, 0.97, 0.01],
        [0.3, 0.3, 0.4],
    ]
)
TRUE = np.array([0, 1, 2, 1, 0, 2])


def batched(x, y, size: int = 4) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def small() -> tf.data.Dataset:
    return batched(written(PROBABILITIES), TRUE)


def shown(path) -> list[str]:
    """The names under the pictures."""
    return re.findall(r'<span class="path">(.*?)</span>', html.unescape(path.read_text()))


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """Leaves the figures white, which take most of the time, where a test is not about them."""
    if "drawn" not in request.fixturenames:
        leave_figures_white(monkeypatch)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with its figures."""
    folder = tmp_path_factory.mktemp("drawn") / "a" / "b"
    return report(reader(), small(), folder, class_names=["cat", "dog", "owl"])


@pytest.mark.slow
def test_a_report_is_a_page_and_pictures_and_numbers(drawn):
    found = drawn
    assert found.path.name == "report.html"
    assert {path.name for path in found.pictures} == {*PNGS, *SHOTS}
    assert {path.name for path in found.path.parent.iterdir()} == {"report.html", *PNGS, *SHOTS}
    for path in found.pictures:
        Image.open(path).verify()
    assert found.numbers.accuracy.value == pytest.approx(4 / 6)
    assert found.numbers.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert found.numbers.class_names == ("cat", "dog", "owl")
    assert "66.7 % of 6 images of 3 classes right" in found.path.read_text()
    assert plt.get_fignums() == []


def test_the_worst_come_first_and_are_named(tmp_path):
    names = [f"{i}.jpg" for i in range(6)]
    found = report(reader(), small(), tmp_path, paths=names, pictures=2)
    # Wrong: 4 (its class got 0.02), then 3 (0.3). Right: least sure 5 (0.4), then 0 (0.7).
    assert shown(found.path) == ["4.jpg", "3.jpg", "5.jpg", "0.jpg"]
    page = found.path.read_text()
    assert "true 0, 2.0 %" in page
    assert "predicted 1, 97.0 %" in page


def test_batches_of_any_size_keep_the_same_pictures(tmp_path):
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1, 1, 1], 40)
    x, y = written(probabilities), generator.integers(0, 3, 40)
    orders = [
        shown(report(reader(), batched(x, y, size), tmp_path, pictures=5).path) for size in (1, 40)
    ]
    assert orders[0] == orders[1]
    of_true = probabilities[np.arange(40), y]
    wrong = probabilities.argmax(1) != y
    worst = [row for row in np.argsort(of_true) if wrong[row]][:5]
    assert orders[0][:5] == [f"row {row}" for row in worst]


SAID = {
    "probabilities": (lambda: reader(), "auto", "The outputs are probabilities"),
    "logits by the last layer": (
        lambda: reader(activation=None),
        "auto",
        "logits, since the last layer has no activation",
    ),
    "logits by the loss": (
        lambda: reader(
            activation="tanh",
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ),
        "auto",
        "logits, as the model&#39;s loss says",
    ),
    "logits by the loss of the one output": (
        lambda: reader(
            activation="tanh",
            loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True)],
        ),
        "auto",
        "logits, as the model&#39;s loss says",
    ),
    "logits by the argument": (lambda: reader(activation=None), True, "as from_logits=True says"),
}


class Subclassed(keras.Model):
    """Whose last layer is not the last that it calls."""

    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(1)
        self.sigmoid = keras.layers.Activation("sigmoid")

    def call(self, inputs):
        return self.last(inputs)


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
LOSSES = {
    "object": BINARY,
    "list": [BINARY],
    "dict": {"one": BINARY},
    "partial": functools.partial(keras.losses.binary_crossentropy, from_logits=True),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["plain", "no activation known", "subclassed"])
def test_logits_within_0_and_1_are_logits_where_the_loss_says_so(kind, loss):
    inputs = keras.Input((4,), name="images")
    layer = keras.layers.LayerNormalization(name="one") if kind != "plain" else None
    outputs = keras.layers.Dense(1, name="dense" if layer else "one")(inputs)
    model = keras.Model(inputs, layer(outputs) if layer else outputs)
    if kind == "subclassed":
        model = Subclassed()
    model.compile(loss=LOSSES[loss])
    logits, told = takes_logits(model, "auto")
    assert logits
    assert told == "The outputs are logits, as the model's loss says."


def test_only_where_nothing_else_tells_the_range_of_outputs_does():
    sequential = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1)])
    sequential.add(keras.layers.GlobalAveragePooling2D())
    assert takes_logits(sequential, "auto") == (
        True,
        "The outputs are logits, since the last layer has no activation.",
    )
    sequential.add(keras.layers.LayerNormalization())
    logits, told = takes_logits(sequential, "auto")
    assert not logits
    assert "neither the model's loss nor its last layer tells" in told


@pytest.mark.parametrize("case", SAID)
def test_the_page_says_how_outputs_were_taken(tmp_path, case):
    make, from_logits, sentence = SAID[case]
    found = report(make(), small(), tmp_path, from_logits=from_logits, pictures=0)
    assert sentence in found.path.read_text()
    assert found.numbers.accuracy.value == pytest.approx(4 / 6)
    if not case.startswith("logits by the loss"):
        expected = -np.log(PROBABILITIES[np.arange(6), TRUE]).mean()
        assert found.numbers.log_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", None])
def test_one_unit_and_two_give_the_same_report(tmp_path, activation):
    second = np.array([0.1, 0.9, 0.45, 0.3, 0.97, 0.6])
    two, true = np.stack([1 - second, second], 1), np.array([0, 1, 1, 1, 0, 1])
    found = report(reader(2, activation), batched(written(two), true), tmp_path, pictures=1)
    assert found.numbers.roc.area == 0.5  # of 8 pairs, 4 are in order
    assert found.numbers.confusion.tolist() == [[1, 1], [2, 2]]
    expected = -np.log(two[np.arange(6), true]).mean()
    assert found.numbers.log_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["int64", "uint8", "column", "one-hot", "weighted"])
def test_labels_of_any_form_give_the_same_report(tmp_path, kind):
    y = {
        "column": TRUE[:, None].astype("float32"),
        "one-hot": np.eye(3, dtype="float32")[TRUE],
        "weighted": TRUE,
    }.get(kind, TRUE.astype(kind if kind in ("int64", "uint8") else "int32"))
    data = batched(written(PROBABILITIES), y)
    if kind == "weighted":
        data = data.map(lambda x, y: (x, y, tf.ones_like(y)))
    found = report(reader(), data, tmp_path, pictures=0)
    assert found.numbers.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert ("sample weights are not used" in found.path.read_text()) == (kind == "weighted")


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        rows = slice(3 * number, 3 * number + 3)
        return written(PROBABILITIES)[rows], TRUE[rows]


def unknown_size() -> tf.data.Dataset:
    def rows():
        yield from zip(written(PROBABILITIES), TRUE, strict=True)

    spec = (tf.TensorSpec((2, 3, 3)), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(rows, output_signature=spec).batch(4)


@pytest.mark.parametrize("make", [Sequence, unknown_size])
def test_any_dataset_will_do(tmp_path, make, capsys):
    found = report(reader(), make(), tmp_path, pictures=1, verbose=1)
    assert found.numbers.images == 6
    assert found.numbers.accuracy.value == pytest.approx(4 / 6)


BAD_DATA = {
    "no labels": (lambda: small().map(lambda x, y: x), ValueError, "The data has no labels"),
    "a tuple of images": (lambda: small().map(lambda x, y: (x,)), ValueError, "has no labels"),
    "no batches": (lambda: small().unbatch(), ValueError, r"single images.*pass data\.batch\(32\)"),
    "no split": (lambda: None, TypeError, "data is None.*test_split="),
    "arrays": (
        lambda: (written(PROBABILITIES), TRUE),
        TypeError,
        "of type tuple. Expected a dataset of batches.*from_tensor_slices",
    ),
    "endless": (lambda: small().repeat(), ValueError, r"The data never ends.*data.take\(10\)"),
    "empty": (lambda: small().take(0), ValueError, "The data is empty"),
    "a label too high": (
        lambda: batched(written(PROBABILITIES), TRUE + 1),
        ValueError,
        "Labels must be positions in the 3 classes '0', '1', '2', 0 to 2.*the label 3",
    ),
    "a negative label": (
        lambda: batched(written(PROBABILITIES), TRUE - 1),
        ValueError,
        "the label -1. Number them from 0",
    ),
    "a fraction": (
        lambda: batched(written(PROBABILITIES), TRUE * 0.5),
        ValueError,
        "the label 0.5",
    ),
    "names": (
        lambda: batched(written(PROBABILITIES), TRUE.astype(str)),
        ValueError,
        "labels of type object. Give whole numbers",
    ),
    "two classes at once": (
        lambda: batched(written(PROBABILITIES), np.ones((6, 3))),
        ValueError,
        "not one 1 among zeros",
    ),
    "a matrix": (
        lambda: batched(written(PROBABILITIES), np.ones((6, 2))),
        ValueError,
        r"labels of shape \(4, 2\)",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_reported_on_is_refused_and_nothing_written(tmp_path, case):
    make, kind, match = BAD_DATA[case]
    with pytest.raises(kind, match=match):
        report(reader(), make(), tmp_path / "new" / "report")
    assert not list(tmp_path.iterdir())


def two_outputs() -> keras.Model:
    model = reader()
    return keras.Model(model.input, [model.output, model.output])


def many_labels() -> keras.Model:
    return reader(activation="sigmoid")


BAD_MODELS = {
    "two outputs": (two_outputs, {}, "The model gives 2 outputs. A report is of one classifier"),
    "several classes at once": (many_labels, {}, "with sums from .* may be of several classes"),
    "no probabilities": (
        lambda: reader(activation="relu"),
        {},
        "with sums from|values from .* pass from_logits=True",
    ),
    "said wrongly": (
        lambda: reader(activation=None),
        {"from_logits": False},
        "The model's outputs are values from -.* If they are logits, pass from_logits=True",
    ),
    "unknown argument": (reader, {"from_logits": "yes"}, "from_logits='yes' is unknown"),
    "too few names": (reader, {"class_names": ["a", "b"]}, "Expected 3 names, each different"),
    "equal names": (reader, {"class_names": ["a", "b", "b"]}, "Expected 3 names, each different"),
    "too few paths": (reader, {"paths": ["a.jpg"]}, "paths holds 1 names, and the data 6 images"),
    "no number": (reader, {"pictures": -1}, "pictures=-1 is no number of pictures"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path, case):
    make, arguments, match = BAD_MODELS[case]
    with pytest.raises(ValueError, match=match):
        report(make(), small(), tmp_path / "report", **arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(TypeError, match=r"model='x' is of type str\. Expected a Keras model"):
        report("x", small(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_predictions_that_are_not_finite_are_refused_with_the_first_images(tmp_path):
    pixels = written(PROBABILITIES)
    pixels[[1, 4]] = np.nan
    names = [f"{i}.jpg" for i in range(6)]
    with pytest.raises(ValueError, match=r"NaN or infinity for 2 of 6 images, .* 1.jpg, 4.jpg"):
        report(reader(), batched(pixels, TRUE), tmp_path, paths=names)


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_refused_before_the_model_runs(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is, or lies under, a file"):
        report(keras.layers.Dense(1), small(), tmp_path / where)  # has no predict_on_batch


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "confusion.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"confusion\.png' is a folder"):
        report(keras.layers.Dense(1), small(), tmp_path)


def test_a_report_that_fails_leaves_the_one_before_as_it_was(tmp_path, monkeypatch):
    report(reader(), small(), tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    writes = []

    def full(path, content):
        writes.append(path)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")
        with path.open("wb") as file:
            file.write(content)

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        report(reader(), small(), tmp_path, title="another")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pictures_of_an_earlier_report_do_not_stay(tmp_path):
    report(reader(), small(), tmp_path)
    (tmp_path / "mine.png").write_text("mine")
    right = batched(written(PROBABILITIES), PROBABILITIES.argmax(1))
    found = report(reader(), right, tmp_path)
    assert not (tmp_path / "mistakes.png").exists()
    assert (tmp_path / "mine.png").exists()
    assert "There is no mistake." in found.path.read_text()


@pytest.mark.slow
def test_the_same_data_gives_the_same_bytes(drawn, tmp_path):
    again = report(reader(), small(), tmp_path, class_names=drawn.numbers.class_names)
    assert again.path.read_bytes() == drawn.path.read_bytes()


def test_images_of_one_class_only_are_reported_on_without_curves(tmp_path):
    data = batched(written(PROBABILITIES), np.ones(6, int))
    found = report(reader(), data, tmp_path)
    assert "All images are of one class" in found.path.read_text()
    assert not (tmp_path / "curves.png").exists()


def test_one_image_is_enough(tmp_path):
    found = report(reader(), small().unbatch().take(1).batch(1), tmp_path)
    assert found.numbers.accuracy.low < 0.3
    assert "100.0 % of 1 image of 3 classes right" in found.path.read_text()


@pytest.mark.slow
def test_a_hundred_classes(tmp_path):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 100, 300)
    logits = generator.normal(size=(300, 100))
    logits[np.arange(300), y] += 3
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = [f"species {i}" for i in range(100)]
    found = report(
        reader(100), batched(written(probabilities), y), tmp_path, class_names=names, pictures=0
    )
    page = found.path.read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in names)
    assert "No picture is shown" in page


def test_a_thousand_classes_are_taken_and_sentences_stay_short(tmp_path):
    data = batched(written(np.full((2, 1000), 1 / 1000)), [0, 999])
    found = report(reader(1000), data, tmp_path)
    assert len(found.numbers.classes) == 1000
    page = found.path.read_text()
    assert "Of 1,000 classes, figures show 100" in page
    assert "so without curves: 1, 2, 3, 4" in page
    assert "and 978 more." in page
    sentences = re.findall(r"<p[^>]*>([^<]*)</p>|<li>([^<]*)</li>", page)
    assert max(len(text) for both in sentences for text in both) < 500


def test_inputs_that_are_no_images_are_reported_on_without_pictures(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    found = report(model, batched(np.log(PROBABILITIES), TRUE), tmp_path)
    assert "holds no images, so there are no pictures" in found.path.read_text()
    assert not (tmp_path / "mistakes.png").exists()
    assert found.numbers.accuracy.value == pytest.approx(4 / 6)


def test_a_plain_model_has_no_grad_cam_and_the_page_says_so(tmp_path):
    page = report(reader(), small(), tmp_path).path.read_text()
    assert "There is no Grad-CAM: the model does not hold one FrozenBackbone" in page
    assert "shown from black to white" in page  # its values are no pixels


def test_paths_are_refused_for_shuffled_data(tmp_path):
    names = [f"{i}.jpg" for i in range(6)]
    shuffled = small().unbatch().shuffle(6).batch(2).map(lambda x, y: (x, y)).prefetch(1)
    with pytest.raises(ValueError, match="paths are given, and the data is shuffled"):
        report(reader(), shuffled, tmp_path, paths=names)
    assert report(reader(), shuffled, tmp_path, pictures=0).numbers.images == 6


# --- Models and data of this package ---


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for label, name in enumerate(("cat & <dog>", "Größe 猫")):
        (root / name).mkdir()
        for i in range(12):
            pixels = generator.integers(0, 120, (30, 30, 3)) + 120 * label
            Image.fromarray(pixels.astype("uint8")).save(root / name / f'{i} "x" & <y>.png')
    return image_folder(root, image_size=SIZE, batch_size=5, test_split=0.5, verbose=0)


@pytest.fixture(scope="module")
def model(photos):
    keras.utils.set_random_seed(0)
    model = TransferModel(tiny_backbone(), photos.class_names, hidden=4)
    model.compile()
    model.build((None, SIZE, SIZE, 3))
    return model


@pytest.mark.slow
def test_a_transfer_model_is_reported_on_as_it_evaluates(tmp_path, model, photos):
    found = report(model, photos.test, tmp_path)
    assert found.numbers.class_names == photos.class_names
    _, accuracy = model.evaluate(photos.test, verbose=0)
    assert found.numbers.accuracy.value == pytest.approx(accuracy)
    page = found.path.read_text()
    assert "On the right Grad-CAM at block &#39;block4&#39; (3 by 3 places)" in page
    assert "not in the font of the figures" in page


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_of_a_split_go_by_their_paths(tmp_path, model, photos, split):
    data = getattr(photos, split)
    found = report(model, data, tmp_path, pictures=100)
    paths, true = photos.paths[split], photos.labels[split]
    second = model.predict(data.ordered, verbose=0)[:, 0]
    of_true = np.where(true == 1, second, 1 - second)
    wrong = (second > 0.5) != true
    ranked = [[row for row in np.argsort(of_true) if wrong[row] == kind] for kind in (True, False)]
    expected = [str(paths[row]) for rows in ranked for row in rows]
    assert shown(found.path) == expected


def test_names_and_paths_are_escaped(tmp_path, model, photos):
    page = report(model, photos.test, tmp_path, title="<script>alert(1)</script>").path.read_text()
    assert "cat &amp; &lt;dog&gt;" in page
    assert "&#34;x&#34; &amp; &lt;y&gt;.png" in page
    assert "Größe 猫" in page
    assert "<dog>" not in page
    assert "<y>" not in page
    assert "<script" not in page


def test_names_that_no_page_can_hold_are_marked(tmp_path):
    names = ["caf\udce9", "two\nlines", "owl"]
    found = report(reader(), small(), tmp_path, class_names=names)
    assert found.numbers.class_names == (
        "caf\N{REPLACEMENT CHARACTER}",
        "two\N{REPLACEMENT CHARACTER}lines",
        "owl",
    )


def test_a_whole_folder_is_refused_with_the_next_step(tmp_path, model, photos):
    with pytest.raises(TypeError, match=r"a whole ImageFolder. Pass the split .* data.test"):
        report(model, photos, tmp_path)


def test_classes_that_mean_something_else_are_refused(tmp_path, photos):
    other = TransferModel(tiny_backbone(), photos.class_names[::-1], hidden=0)
    with pytest.raises(ValueError, match="The same label would mean two things"):
        report(other, photos.test, tmp_path)
    unnamed = TransferModel(tiny_backbone(), 2, hidden=0)
    found = report(unnamed, photos.test, tmp_path, pictures=0)
    assert found.numbers.class_names == photos.class_names


def test_pixels_of_the_wrong_range_are_warned_of(tmp_path, model):
    data = dataset(8, shuffle=False).map(lambda x, y: (tf.cast(x, "float32") / 255, y))
    with pytest.warns(UserWarning, match="0..255"):
        report(model, data, tmp_path, pictures=0)


def test_kept_activations_give_the_numbers_of_their_images(tmp_path, model):
    data = dataset(16, shuffle=False)
    kept = FeatureCache().dataset(model.backbone, data)
    found = report(model, kept, tmp_path / "kept")
    assert "holds no images" in found.path.read_text()
    expected = report(model, data, tmp_path / "images", pictures=1).numbers
    assert found.numbers.log_loss == pytest.approx(expected.log_loss, rel=1e-5)


def test_a_model_stays_as_it_was(tmp_path, model, photos):
    before = [weight.numpy().copy() for weight in model.weights]
    trainable = [block.frozen for block in model.backbone.blocks]
    report(model, photos.test, tmp_path, pictures=2)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))
    assert [block.frozen for block in model.backbone.blocks] == trainable


@pytest.mark.slow
def test_images_of_several_sizes_are_shown_each_as_it_is(tmp_path, model):
    def batches():
        yield images(4), labels(4)
        yield images(4, size=32), labels(4)

    spec = (tf.TensorSpec((None, None, None, 3), tf.uint8), tf.TensorSpec((None,), tf.int32))
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    found = report(model, data, tmp_path)
    assert len(shown(found.path)) == 8
