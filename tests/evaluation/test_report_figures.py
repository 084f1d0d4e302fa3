"""The pictures of a report: what they show, and that they can be read with 2 to 100 classes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_plots import assert_readable
from test_report_numbers import predictions

from keras_transfer.evaluation.figures.calibration import calibration_figure, calibration_sentence
from keras_transfer.evaluation.figures.classes import class_figure
from keras_transfer.evaluation.figures.confusion import confusion_figure
from keras_transfer.evaluation.figures.scores import score_figure
from keras_transfer.evaluation.image_grid import Shown, pictures_figure
from keras_transfer.evaluation.metrics import report_numbers
from keras_transfer.plotting.layout import lacks_letters

X = "x" * 30
LONG = "a class whose name is longer than any picture can show in one line, number {}"


def numbers(classes: int, count: int | None = None, name: str = "class {}", **kwargs):
    true, probabilities = predictions(classes, count or 20 * classes, **kwargs)
    return report_numbers(true, probabilities, [name.format(i) for i in range(classes)])


NUMBERS = {
    "two classes": lambda: numbers(2),
    "five classes": lambda: numbers(5),
    "ten classes": lambda: numbers(10, name="a class, number {}"),
    "thirty classes": lambda: numbers(30, name=LONG),
    "a hundred classes": lambda: numbers(100, name="species {}"),
    "two long names": lambda: numbers(2, name=LONG),
    "one image": lambda: numbers(3, 1),
    "nothing wrong": lambda: numbers(3, sure=50.0),
    "nothing right": lambda: numbers(3, sure=-50.0),
    "letters of other scripts": lambda: numbers(4, name="Größe Ж $x_{}$"),
}


@pytest.fixture(scope="module")
def found():
    return {case: make() for case, make in NUMBERS.items()}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if "hundred" in case else ()) for case in NUMBERS],
)
@pytest.mark.parametrize("kind", ["classes", "confusion", "curves", "calibration"])
@pytest.mark.slow
def test_texts_neither_overlap_nor_leave_the_figure(found, case, kind):
    of = found[case]
    if kind == "curves" and of.roc is None:
        with pytest.raises(ValueError, match="All images are of one class"):
            score_figure(of)
        return
    figure = {
        "classes": lambda: class_figure(of),
        "confusion": lambda: confusion_figure(of.confusion, of.class_names),
        "curves": lambda: score_figure(of),
        "calibration": lambda: calibration_figure(of),
    }[kind]()
    assert_readable(figure)
    assert plt.get_fignums() == []


def test_a_confusion_matrix_shows_each_count_and_each_name():
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 12345]])
    axes = confusion_figure(confusion, ["cat", "dog", "owl"]).axes[0]
    counts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "9", (2, 2): "12345"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "owl"]
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn, [[0.8, 0.2, 0], [0.1, 0.9, 0], [0, 0, 1]])


@pytest.mark.slow
def test_a_hundred_classes_have_each_its_name_beside_its_row():
    figure = confusion_figure(np.eye(100, dtype=int), [f"species {i}" for i in range(100)])
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [f"species {i}" for i in range(100)]
    assert min(label.get_size() for label in labels) >= 7


@pytest.mark.slow
def test_of_more_than_a_hundred_classes_those_with_the_most_mistakes_are_drawn():
    true = np.repeat(np.arange(130), 2)
    probabilities = np.eye(130)[np.where(true >= 120, 0, true)]  # ten classes are taken for 0
    of = report_numbers(true, probabilities, [f"class {i}" for i in range(130)])
    drawn = confusion_figure(of.confusion, of.class_names).axes[0]
    assert len(drawn.get_images()[0].get_array()) == 100
    shown = [label.get_text() for label in drawn.get_yticklabels()]
    assert {"class 0", *(f"class {i}" for i in range(120, 130))} < set(shown)
    assert drawn.get_images()[0].get_array()[shown.index("class 125"), 0] == 1
    rows = [label.get_text() for label in class_figure(of).axes[0].get_yticklabels()]
    assert len(rows) == 100
    assert set(rows[:10]) == {f"class {i}" for i in range(120, 130)}
    assert len(score_figure(of).axes[0].get_lines()) <= 5


@pytest.mark.slow
def test_long_names_are_cut_so_that_they_still_differ():
    for names in (
        [f"class number {i} of the whole" for i in range(10, 20)],
        ["a", *(f"{X}{i}{'y' * 40}{k}{'y' * 40}{i}{X}" for i in "bc" for k in "01")],
    ):
        of = np.eye(len(names), dtype=int)
        numbers = report_numbers(np.arange(len(names)), of * 1.0, names)
        for figure in (confusion_figure(of, names), class_figure(numbers)):
            labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
            assert len(set(labels)) == len(names)
            assert_readable(figure)


def test_a_row_without_images_is_blank_and_no_number():
    drawn = confusion_figure(np.array([[0, 0], [1, 3]]), ["a", "b"]).axes[0].images[0]
    assert drawn.get_array().tolist() == [[0, 0], [0.25, 0.75]]


def test_each_class_is_drawn_at_its_numbers_the_lowest_f1_first():
    of = numbers(5)
    figure = class_figure(of)
    ranked = sorted(of.classes, key=lambda one: one.f1.value)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [one.name for one in ranked]
    for axes, key in zip(figure.axes, ("precision", "recall", "f1"), strict=True):
        points = axes.lines[-1]
        assert list(points.get_xdata()) == [getattr(one, key).value for one in ranked]
        ends = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
        assert ends == [[getattr(one, key).low, getattr(one, key).high] for one in ranked]
        mean = getattr(of, key).value
        assert axes.lines[0].get_xdata()[0] == mean
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first at the top


def labelled(axes):
    return {line.get_label(): line for line in axes.lines}


def test_curves_of_two_classes_are_those_of_the_second():
    of = numbers(2, 60)
    roc, precision = score_figure(of).axes
    lines = labelled(roc)
    assert set(lines) == {"class 1", "chance"}
    assert list(lines["class 1"].get_ydata()) == list(of.classes[1].roc.y)
    assert list(labelled(precision)["class 1"].get_ydata()) == list(of.precision_recall.y)
    share = of.classes[1].images / of.images
    assert list(labelled(precision)["chance"].get_ydata()) == [share, share]


def test_up_to_six_classes_differ_in_colour_and_their_mean_is_drawn():
    lines = labelled(score_figure(numbers(6)).axes[0])
    assert set(lines) == {*(f"class {i}" for i in range(6)), "mean of the classes", "chance"}
    assert len({line.get_color() for line in lines.values()}) == 8


@pytest.mark.slow
def test_of_many_classes_the_three_worst_are_drawn():
    of = numbers(100, name="species {}")
    figure = score_figure(of)
    worst = sorted(of.classes, key=lambda one: one.precision_recall.area)[:3]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    named = [f"{one.name} (average precision {one.precision_recall.area:.2f})" for one in worst]
    assert legend == [*named, "mean of the classes", "chance"]
    assert len(labelled(figure.axes[0])) == 5


def test_calibration_is_drawn_at_its_numbers():
    of = numbers(5, 300)
    curve, counts = calibration_figure(of).axes
    points = labelled(curve)["right"]
    assert list(points.get_xdata()) == [one.confidence for one in of.bins]
    assert list(points.get_ydata()) == [one.right.value for one in of.bins]
    assert [bar.get_height() for bar in counts.patches] == [one.images for one in of.bins]


def test_a_sentence_says_whether_the_model_is_too_sure():
    assert calibration_sentence(numbers(3, sure=-50.0)).startswith("too sure of itself")
    probabilities = np.tile([0.6, 0.4], (300, 1))
    modest = report_numbers(np.zeros(300, int), probabilities, ["a", "b"])
    assert calibration_sentence(modest).startswith("less sure than right")
    fair = report_numbers(np.array([0, 0, 0, 1, 1] * 9), probabilities[:45], ["a", "b"])
    assert calibration_sentence(fair).startswith("as sure as right")


@pytest.mark.parametrize(("count", "height", "width"), [(1, 9, 9), (7, 24, 90), (12, 90, 24)])
@pytest.mark.slow
def test_captions_of_pictures_can_be_read(count, height, width):
    view = np.zeros((height, width, 3), "uint8")
    path = "photos/a folder/with a long path/" * 4
    lines = ("true " + LONG.format(3), "predicted dog, 97.2 %")
    shown = [Shown(f"{path}{i}.jpg", lines, (view, view)) for i in range(count)]
    figure = pictures_figure(shown, "the worst mistakes")
    assert_readable(figure)
    assert len(figure.axes) == 2 * count
    assert plt.get_fignums() == []
    texts = [text.get_text() for text in figure.texts]
    assert sum(text.endswith(f"{count - 1}.jpg") for text in texts)  # cut in the middle


def test_letters_that_the_font_lacks_are_noticed():
    assert not lacks_letters("Größe Ж")
    assert lacks_letters("猫")
