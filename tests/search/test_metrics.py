import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset, tiny_backbone
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from keras_transfer import TransferModel
from keras_transfer.search import metrics
from keras_transfer.search.metrics import (
    AUC,
    F1,
    Objective,
    balanced_class_weight,
    compile_metrics,
    objective,
)

RANDOM = np.random.default_rng(0)


def case(classes, count=97, ties=False, absent=None):
    """Labels and scores that go with them a little."""
    labels = RANDOM.integers(0, classes, count)
    if absent is not None:
        labels[labels == absent] = (absent + 1) % classes
    logits = RANDOM.normal(size=(count, classes)) + np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = np.round(scores, 1) if ties else scores
    return labels.astype("int32"), scores.astype("float32")[:, 1:] if classes == 2 else scores


CASES = {
    "two": case(2),
    "two, ties": case(2, ties=True),
    "two, all equal": (np.arange(20) % 2, np.full((20, 1), 0.5, "float32")),
    "two, hardly apart": (np.arange(20) % 2, np.linspace(0.9999, 1, 20, dtype="float32")[:, None]),
    "three": case(3),
    "three, ties": case(3, ties=True),
    "three, one absent": case(3, absent=1),
    "three, all taken for one": (np.arange(9) % 3, np.tile([0.1, 0.2, 0.7], (9, 1))),
    "eleven, few of each": case(11, 30),
}


def updated(metric, labels, scores, batch=8, weights=None):
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        weight = None if weights is None else weights[rows]
        metric.update_state(labels[rows], scores[rows], sample_weight=weight)
    return float(metric.result())


def expected_auc(labels, scores, weights=None):
    if scores.shape[1] == 1:
        return roc_auc_score(labels, scores[:, 0], sample_weight=weights)
    present = np.unique(labels)
    areas = [roc_auc_score(labels == c, scores[:, c], sample_weight=weights) for c in present]
    return np.mean(areas)


def expected_f1(labels, scores, weights=None):
    predicted = scores[:, 0] > 0.5 if scores.shape[1] == 1 else scores.argmax(1)
    return f1_score(
        labels,
        predicted.astype(int),
        labels=np.unique(labels),
        average="macro",
        zero_division=0,
        sample_weight=weights,
    )


def of(kind, scores):
    return kind(max(2, scores.shape[1]))


@pytest.mark.parametrize("name", CASES)
def test_auc_is_that_of_scikit_learn_over_all_batches(name):
    labels, scores = CASES[name]
    assert updated(of(AUC, scores), labels, scores) == pytest.approx(
        expected_auc(labels, scores), abs=1e-6
    )


@pytest.mark.parametrize("name", CASES)
def test_f1_is_that_of_scikit_learn_over_all_batches(name):
    labels, scores = CASES[name]
    assert updated(of(F1, scores), labels, scores) == pytest.approx(
        expected_f1(labels, scores), abs=1e-6
    )


@pytest.mark.parametrize("name", ["two, ties", "three"])
def test_both_take_weights_of_rows(name):
    labels, scores = CASES[name]
    weights = RANDOM.uniform(0, 3, len(labels)).astype("float32")
    for kind, expected in ((AUC, expected_auc), (F1, expected_f1)):
        found = updated(of(kind, scores), labels, scores, weights=weights)
        assert found == pytest.approx(expected(labels, scores, weights), abs=1e-6)


@pytest.mark.parametrize("kind", [AUC, F1])
def test_one_hot_labels_and_two_units_are_the_same_classes(kind):
    labels, scores = CASES["three"]
    assert updated(kind(3), np.eye(3)[labels], scores) == updated(kind(3), labels, scores)
    labels, scores = CASES["two"]
    both = np.hstack([1 - scores, scores])
    one = updated(kind(2), labels, scores)
    assert updated(kind(2), labels, both) == pytest.approx(one)
    assert updated(kind(2), labels.astype("float32")[:, None], scores[:, 0]) == one


def test_auc_of_one_class_alone_or_of_nan_is_nan_not_a_number_that_looks_good():
    scores = CASES["two"][1]
    assert np.isnan(updated(AUC(2), np.ones(97, int), scores))
    assert np.isnan(float(AUC(2).result()))
    labels, broken = CASES["two"][0], scores.copy()
    broken[3] = np.nan
    assert np.isnan(updated(AUC(2), labels, broken))


def test_f1_of_one_class_alone_and_before_the_first_row():
    assert updated(F1(2), np.ones(4, int), np.full((4, 1), 0.9)) == 1
    assert updated(F1(2), np.ones(4, int), np.full((4, 1), 0.1)) == 0
    assert float(F1(3).result()) == 0


@pytest.mark.parametrize("kind", [AUC, F1])
def test_reset_forgets_all_rows(kind):
    labels, scores = CASES["two"]
    metric = kind(2)
    first = updated(metric, labels, scores)
    metric.reset_state()
    assert updated(metric, labels, scores) == first


@pytest.mark.parametrize("kind", [AUC, F1])
def test_scores_of_other_classes_are_refused(kind):
    with pytest.raises(ValueError, match=r"is of 3 classes\. Received: scores of shape \(2, 4\)"):
        kind(3).update_state(np.zeros(2), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"classes=1\. Expected 2 or more"):
        kind(1)


@pytest.mark.parametrize(
    ("metric", "classes"), [("auc", 2), ("auc", 3), ("f1", 2), ("f1", 3)], ids=str
)
@pytest.mark.slow
def test_the_logs_of_a_fit_hold_it_for_the_whole_split(metric, classes, monkeypatch):
    monkeypatch.setattr(metrics, "_SHOWN", 8)  # of what a graph sees, the logs must hold more
    keras.utils.set_random_seed(0)
    model = TransferModel(tiny_backbone(), classes, hidden=4)
    model.compile(metrics=compile_metrics(metric, classes))
    data = dataset(46, classes=classes, shuffle=False)
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    labels = np.concatenate([y for _, y in data])
    scores = model.predict(data, verbose=0)
    expected = expected_auc(labels, scores) if metric == "auc" else expected_f1(labels, scores)
    assert list(history) == [
        *("accuracy", metric, "loss"),
        *("val_accuracy", f"val_{metric}", "val_loss"),
    ]
    assert history[objective(metric).name][-1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [AUC, F1])
def test_they_are_saved_with_what_makes_them(kind):
    config = keras.saving.serialize_keras_object(kind(5))
    again = keras.saving.deserialize_keras_object(config)
    assert (type(again), again.classes, again.name) == (kind, 5, kind(5).name)


def test_objectives_say_what_is_better():
    assert objective("loss") == Objective("val_loss", "min")
    assert [objective(name).mode for name in ("accuracy", "auc", "f1")] == ["max"] * 3
    with pytest.raises(ValueError, match=r"Unknown metric 'recall'\. Expected one of 'loss', "):
        objective("recall")
    with pytest.raises(ValueError, match=r"Unknown metric 'recall'"):
        compile_metrics("recall", 2)


def test_accuracy_comes_first_and_nothing_that_is_not_asked_for():
    assert [compile_metrics(name, 2)[0] for name in metrics.OBJECTIVES] == ["accuracy"] * 4
    assert compile_metrics("loss", 2) == compile_metrics("accuracy", 3) == ["accuracy"]


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [2, 2, 0, 1, 1, 1, 1], [0, 3, 3], [1]], ids=str)
def test_class_weights_are_those_of_scikit_learn(labels):
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    weights = balanced_class_weight(np.array(labels))
    assert list(weights) == present.tolist()
    assert list(weights.values()) == pytest.approx(expected)
    assert all(type(key) is int and type(value) is float for key, value in weights.items())


def test_no_labels_have_no_weights():
    with pytest.raises(ValueError, match="no labels to balance"):
        balanced_class_weight(np.array([], "int32"))


@pytest.mark.traced
def test_in_a_graph_auc_is_of_the_latest_rows_so_that_a_batch_costs_the_same_in_any_epoch():
    metric, scores = AUC(2), np.linspace(0, 1, 5000)[:, None]
    metric.update_state(np.arange(5000) >= 2500, scores)
    metric.update_state(np.arange(metrics._SHOWN) % 2, np.zeros((metrics._SHOWN, 1)))
    assert float(tf.function(metric.result)()) == 0.5
    assert float(metric.result()) > 0.6
