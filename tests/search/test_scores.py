import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from keras_transfer.search.metrics import AUC, F1
from keras_transfer.search.scoring import columns, macro_area, measures, paired
from keras_transfer.utils.confidence_intervals import UNKNOWN

RANDOM = np.random.default_rng(0)


def case(classes, count, strength=1.0, generator=RANDOM):
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + strength * np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, scores[:, 1:] if classes == 2 else scores


# ---- measures


@pytest.mark.parametrize("classes", [2, 4])
def test_numbers_are_those_that_keras_would_log(classes):
    labels, scores = case(classes, 150)
    found = measures(labels, scores)
    kind = "binary" if classes == 2 else "sparse_categorical"
    expected = {
        "val_loss": keras.losses.get(f"{kind}_crossentropy"),
        "val_accuracy": keras.metrics.get(f"{kind}_accuracy"),
    }
    for name, function in expected.items():
        truth = labels[:, None] if classes == 2 else labels
        assert found.logs[name] == pytest.approx(float(np.mean(function(truth, scores))), abs=1e-6)
    for name, metric in (("val_auc", AUC(classes)), ("val_f1", F1(classes))):
        metric.update_state(labels, scores)
        assert found.logs[name] == pytest.approx(float(metric.result()), abs=1e-6)
    assert found.loss == pytest.approx(log_loss(labels, columns(scores)), abs=1e-6)


def test_each_number_lies_in_its_interval_and_more_images_narrow_it():
    widths = []
    for count in (60, 600):
        found = measures(*case(3, count, generator=np.random.default_rng(1)))
        for one in (found.accuracy, found.auc, found.f1):
            assert one.low < one.value < one.high
        widths.append([one.high - one.low for one in (found.accuracy, found.auc, found.f1)])
    assert (np.array(widths[0]) > 2 * np.array(widths[1])).all()


def test_they_are_told_in_one_line():
    text = str(measures(np.array([0, 0, 1, 1]), np.array([[0.1], [0.6], [0.7], [0.9]])))
    assert text.startswith("accuracy 75.0 % (30.1 to 95.4), AUC 100.0 % (")
    assert text.endswith("on 4 images (95 % intervals)")
    one_class = measures(np.ones(3, int), np.full((3, 1), 0.9))
    assert "AUC unknown" in str(one_class)
    assert one_class.auc is UNKNOWN


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [[0.5], [np.nan]], "A probability is NaN: the model has diverged"),
        ([0, 1, 1], [[0.5], [0.5]], "3 labels for 2 rows"),
        ([], np.empty((0, 1)), "0 labels for 0 rows"),
    ],
    ids=str,
)
def test_what_cannot_be_scored_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        measures(np.array(labels, int), np.array(scores))


# ---- the area under the curve


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_that_of_scikit_learn(classes, ties):
    labels, scores = case(classes, 80)
    scores = columns(np.round(scores, 1) if ties else scores)
    areas = [
        roc_auc_score(labels == c, scores[:, c]) for c in range(1 if classes == 2 else 0, classes)
    ]
    expected = areas[0] if classes == 2 else np.mean(areas)
    assert macro_area(labels, scores).value == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_perfect_ranking_of_few_images_is_not_certain(classes):
    labels = np.arange(12) % classes
    found = macro_area(labels, np.eye(classes)[labels])
    assert found.value == found.high == 1
    assert 0.5 < found.low < 0.9


@pytest.mark.parametrize(("classes", "count", "strength"), [(2, 60, 0.8), (2, 60, 3), (3, 90, 1)])
def test_intervals_hold_the_true_area_in_about_95_of_100_cases(classes, count, strength):
    generator = np.random.default_rng(5)
    labels, scores = case(classes, 20_000, strength, generator)
    truth = np.mean([roc_auc_score(labels == c, columns(scores)[:, c]) for c in range(classes)])
    held = 0
    for _ in range(200):
        labels, scores = case(classes, count, strength, generator)
        found = macro_area(labels, columns(scores))
        held += found.low <= truth <= found.high
    assert 180 <= held <= 198


# ---- pairs


def test_two_classifiers_are_compared_on_the_images_that_one_alone_gets_right():
    labels = np.zeros(40, int)
    first, second = np.zeros((40, 1)), np.zeros((40, 1))
    first[:2], second[2:14] = 0.9, 0.9  # wrong there
    assert paired(labels, first, second) == (
        "Only the winner is right on 12 of 40 images, only the probe on 2: p = 0.013 "
        "(exact McNemar test), more than chance would give."
    )
    both = np.hstack([1 - first, first])
    assert "no more than chance may give" in paired(labels, both, np.full((40, 1), 0.2))
    same = paired(labels, first, first, ("A", "B"))
    assert same == "Both, A and B, are right on the same 38 of 40 images."
