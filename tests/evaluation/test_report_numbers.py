"""The numbers of a report: against cases computed by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from keras_transfer.evaluation.metrics import BINS, report_numbers
from keras_transfer.utils.confidence_intervals import UNKNOWN, difference, f1_interval, wilson


def predictions(classes: int, count: int, seed: int = 0, sure: float = 2.0):
    """True classes, and probabilities that go with them more or less."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), true] += sure
    raised = np.exp(logits)
    return true, raised / raised.sum(1, keepdims=True)


def names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def test_a_wilson_interval_is_that_of_the_textbook():
    # https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval: 9 of 10.
    found = wilson(9, 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.59585, 0.98212), abs=1e-5)


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0.0, 0.16113), (20, 0.83887, 1.0)])
def test_a_wilson_interval_is_not_empty_where_all_or_nothing_is_right(hits, low, high):
    found = wilson(hits, 20)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)
    assert found.low <= found.value <= found.high


def test_nothing_to_count_is_unknown_and_no_number():
    assert not wilson(0, 0).known
    assert wilson(0, 0) is UNKNOWN
    assert math.isnan(f1_interval(0, 0).value)


@pytest.mark.parametrize("interval", ["precision", "recall", "f1"])
def test_95_in_100_intervals_hold_the_truth(interval):
    generator = np.random.default_rng(1)
    shares = np.array([[0.25, 0.1], [0.05, 0.6]])  # of (true, predicted), in the population
    truth = {"precision": 0.6 / 0.7, "recall": 0.6 / 0.65, "f1": 2 * 0.6 / (0.7 + 0.65)}[interval]
    held = 0
    for counts in generator.multinomial(80, shares.ravel(), 2000):
        _, false, lost, hits = counts
        found = {
            "precision": wilson(hits, hits + false),
            "recall": wilson(hits, hits + lost),
            "f1": f1_interval(hits, hits + false + lost),
        }[interval]
        held += found.low <= truth <= found.high
    assert 0.93 < held / 2000 < 0.97


@pytest.mark.slow
def test_95_in_100_intervals_of_the_means_hold_the_truth():
    true, probabilities = predictions(3, 20_000)
    whole = report_numbers(true, probabilities, names(3))
    generator = np.random.default_rng(2)
    held = np.zeros(3)
    for _ in range(100):
        rows = generator.integers(0, len(true), 200)
        found = report_numbers(true[rows], probabilities[rows], names(3))
        for i, name in enumerate(("precision", "recall", "f1")):
            mean = getattr(found, name)
            held[i] += mean.low <= getattr(whole, name).value <= mean.high
    assert (held >= 90).all()


def test_a_wilson_interval_is_that_of_scipy():
    for hits in (0, 1, 7, 20):
        found, expected = wilson(hits, 20), binomtest(hits, 20).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("counts", [(10, 10), (18, 2), (20, 0), (7, 7, 6)])
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_a_mean_over_classes_without_a_mistake_is_not_certain(counts, name):
    true = np.repeat(np.arange(len(counts)), counts)
    found = report_numbers(true, np.eye(len(counts))[true] * 0.8 + 0.1, names(len(counts)))
    mean = getattr(found, name)
    assert (mean.value, mean.high) == (1, 1)
    if len(np.flatnonzero(counts)) == 1:  # of one class alone the mean is that class's number
        assert mean.low == getattr(found.classes[0], name).low
    else:  # no narrower than that of the accuracy, for whose 20 images no class counts more
        assert mean.low <= found.accuracy.low + 1e-9
    if counts == (10, 10) and name == "recall":
        assert mean.low == pytest.approx(1 - 0.27754 / np.sqrt(2), abs=1e-5)


def test_a_mean_over_classes_wholly_right_and_wholly_wrong_is_not_certain():
    true = np.repeat([0, 1], 10)
    recall = report_numbers(true, np.tile([0.9, 0.1], (20, 1)), names(2)).recall
    assert recall.value == 0.5
    assert (recall.low, recall.high) == pytest.approx((0.36123, 0.63877), abs=1e-5)
    never = report_numbers(true, np.eye(3)[[2] * 20], names(3))
    assert [never.precision.value, never.recall.value, never.f1.value] == [0, 0, 0]
    assert 0.1 < never.recall.high < never.precision.high < 1  # no image was taken for either


def test_the_interval_of_a_difference_is_that_of_the_paper():
    # Newcombe, Statistics in Medicine 17, 1998, table II, method 10.
    for one, other, ends in (
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ):
        found = difference(wilson(*one), wilson(*other))
        assert (found.low, found.high) == pytest.approx(ends, abs=5e-5)


def test_a_small_case_is_as_computed_by_hand():
    true = np.array([0, 0, 0, 1, 1])
    second = np.array([0.1, 0.2, 0.7, 0.9, 0.4])  # right, right, wrong, right, wrong
    found = report_numbers(true, np.stack([1 - second, second], 1), ["cat", "dog"])
    assert found.confusion.tolist() == [[2, 1], [1, 1]]
    assert found.accuracy.value == 0.6
    assert found.most_common == 0.6
    cat, dog = found.classes
    assert (cat.images, cat.predicted, dog.images, dog.predicted) == (3, 3, 2, 2)
    assert (cat.precision.value, cat.recall.value, cat.f1.value) == pytest.approx((2 / 3,) * 3)
    assert (dog.precision.value, dog.recall.value, dog.f1.value) == pytest.approx((0.5,) * 3)
    # Of the 6 pairs of a dog and a cat, the dog scores higher in 0.9 > all, 0.4 > 0.1 and 0.2.
    assert found.roc.area == pytest.approx(5 / 6)
    # By falling score: dog (1/1), cat, dog (2/3): the mean of the precisions at each dog.
    assert found.precision_recall.area == pytest.approx((1 + 2 / 3) / 2)
    assert found.confidence == pytest.approx((0.9 + 0.8 + 0.7 + 0.9 + 0.6) / 5)
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.8, 0.3, 0.9, 0.4]).mean())


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_numbers_are_those_of_scikit_learn(classes):
    true, probabilities = predictions(classes, 40 * classes)
    predicted = probabilities.argmax(1)
    found = report_numbers(true, probabilities, names(classes))
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(true, predicted))
    assert (found.confusion == metrics.confusion_matrix(true, predicted)).all()
    each = metrics.precision_recall_fscore_support(true, predicted, zero_division=np.nan)
    for i, one in enumerate(found.classes):
        got = (one.precision.value, one.recall.value, one.f1.value, one.images)
        assert got == pytest.approx(tuple(column[i] for column in each), nan_ok=True)
        assert one.roc.area == pytest.approx(metrics.roc_auc_score(true == i, probabilities[:, i]))
    macro = metrics.precision_recall_fscore_support(
        true, predicted, average="macro", zero_division=0
    )
    assert (found.precision.value, found.recall.value, found.f1.value) == pytest.approx(macro[:3])
    assert found.log_loss == pytest.approx(metrics.log_loss(true, probabilities))
    if classes == 2:
        auc = metrics.roc_auc_score(true, probabilities[:, 1])
        average = metrics.average_precision_score(true, probabilities[:, 1])
    else:
        auc = metrics.roc_auc_score(true, probabilities, multi_class="ovr")
        average = metrics.average_precision_score(np.eye(classes)[true], probabilities)
    assert (found.roc.area, found.precision_recall.area) == pytest.approx((auc, average))


def test_means_are_over_the_classes_that_occur():
    true = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    found = report_numbers(true, probabilities, names(3))
    absent = found.classes[2]
    assert (absent.images, absent.predicted) == (0, 1)
    assert not absent.recall.known
    assert (absent.precision.value, absent.roc) == (0, None)
    assert found.recall.value == 0.75


def test_an_estimate_lies_within_its_interval():
    for seed in range(5):
        true, probabilities = predictions(4, 12, seed, sure=4.0)
        found = report_numbers(true, probabilities, names(4))
        estimates = [found.accuracy, found.precision, found.recall, found.f1]
        estimates += [getattr(c, n) for c in found.classes for n in ("precision", "recall", "f1")]
        assert all(0 <= e.low <= e.value <= e.high <= 1 for e in estimates if e.known)


def test_images_of_one_class_only_give_no_curves():
    true = np.zeros(5, int)
    found = report_numbers(true, np.tile([0.6, 0.4], (5, 1)), ["a", "b"])
    assert found.roc is None
    assert found.precision_recall is None
    assert found.accuracy.value == 1


def test_the_mean_curve_of_equal_curves_is_the_same_curve():
    true = np.array([0, 1] * 20)
    generator = np.random.default_rng(0)
    second = np.clip(0.5 + (true - 0.5) * 0.3 + generator.normal(0, 0.2, 40), 0.01, 0.99)
    two = report_numbers(true, np.stack([1 - second, second], 1), names(2))
    x = two.classes[1].precision_recall.x
    mean = report_numbers(true, np.stack([1 - second, second, 0 * second], 1), names(3))
    assert mean.roc.area == pytest.approx(two.roc.area)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(mean.precision_recall.x) >= 0).all()


def test_calibration_is_as_computed_by_hand():
    # Two stretches: confidence 0.6, half right; confidence 0.9, all right.
    confidence = np.array([0.6, 0.6, 0.9, 0.9])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    found = report_numbers(np.array([0, 1, 0, 0]), probabilities, names(2))
    assert [one.images for one in found.bins] == [2, 2]
    assert [one.right.value for one in found.bins] == [0.5, 1]
    assert found.calibration_error == pytest.approx((0.1 + 0.1) / 2)


def test_stretches_of_confidence_hold_each_image_once():
    true, probabilities = predictions(5, 300)
    probabilities[0] = [1, 0, 0, 0, 0]
    probabilities[1] = [0.2] * 5
    found = report_numbers(true, probabilities, names(5))
    assert sum(one.images for one in found.bins) == 300
    for one in found.bins:
        assert one.high - one.low == pytest.approx(1 / BINS)
        assert one.low < one.confidence <= one.high + 1e-12


def test_confusions_that_recur_are_listed_the_most_frequent_first():
    pairs = [(0, 1)] * 3 + [(2, 0)] * 2 + [(1, 2)] + [(0, 0)] * 7 + [(2, 2)] * 2
    true = np.array([pair[0] for pair in pairs])
    probabilities = np.full((len(pairs), 3), 0.1)
    probabilities[np.arange(len(pairs)), [pair[1] for pair in pairs]] = 0.8
    found = report_numbers(true, probabilities, ["a", "b", "c"]).confusions
    assert [(c.true, c.predicted, c.count, c.share) for c in found] == [
        ("a", "b", 3, 0.3),
        ("c", "a", 2, 0.5),
    ]
    assert found[0].confidence == pytest.approx(0.8)
