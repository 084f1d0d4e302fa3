import warnings

import keras
import numpy as np
import pytest
from conftest import images, tiny_backbone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from keras_transfer import FeatureCache, image_folder
from keras_transfer.features import runners
from keras_transfer.search.probing import probe
from keras_transfer.search.probing.probe import features_of, probe_on_test, run_probe
from keras_transfer.search.scoring import measures


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Classes that differ in brightness, less than their images do."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, name in enumerate("abc"):
        (root / name).mkdir()
        for i in range(20):
            pixels = images(1, 16, seed=100 * number + i)[0] * generator.uniform(0.3, 1)
            pixels = np.clip(pixels + 60 * number, 0, 255)
            keras.utils.save_img(root / name / f"{i:02}.png", pixels, scale=False)
    return root


@pytest.fixture(scope="module")
def data(photos):
    return image_folder(photos, image_size=16, batch_size=8, verbose=0)


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def cache():
    return FeatureCache(verbose=False)


@pytest.mark.slow
def test_it_is_scikit_learns_logistic_regression_on_the_features(data, cache, backbone):
    result = run_probe(cache, backbone, data)
    pixels = [np.concatenate([x for x, _ in one.ordered]) for one in (data.train, data.valid)]
    train, valid = (np.asarray(backbone(part)) for part in pixels)
    scaler = StandardScaler().fit(train)
    expected = LogisticRegression(C=result.C[0], max_iter=1000, tol=1e-3)
    expected.fit(scaler.transform(train), data.train.labels)
    scores = expected.predict_proba(scaler.transform(valid))
    logs = measures(data.valid.labels, scores).logs
    assert list(result.metrics) == ["val_loss", "val_accuracy", "val_auc", "val_f1"]
    assert result.metrics == pytest.approx(logs, abs=1e-3)
    assert result.metrics["val_accuracy"] > 0.5
    assert (result.folds, result.notes) == ((), ())
    assert result.seconds > 0


@pytest.mark.slow
def test_two_runs_agree_to_the_last_digit(data):
    results = [run_probe(FeatureCache(verbose=False), tiny_backbone(), data) for _ in range(2)]
    assert results[0].metrics == results[1].metrics
    assert results[0].C == results[1].C


@pytest.mark.slow
def test_over_folds_it_gives_the_numbers_of_each_and_their_mean(data, cache, monkeypatch, backbone):
    passes = []
    make = FeatureCache._extraction
    monkeypatch.setattr(FeatureCache, "_extraction", lambda *a: passes.append(a) or make(*a))
    result = run_probe(FeatureCache(verbose=False), backbone, data.folds(3))
    assert len(result.folds) == len(result.C) == 3
    assert result.folds[0] != result.folds[1]
    for name, mean in result.metrics.items():
        assert mean == np.mean([fold[name] for fold in result.folds])
    assert len(passes) == 2  # of train and of valid


@pytest.mark.slow
def test_what_is_chosen_depends_on_the_training_images_alone(data, cache, monkeypatch, backbone):
    """Other images to validate on change the score, not the classifier."""
    first = run_probe(cache, backbone, data)
    other = run_probe(cache, backbone, [(data.train, data.test)])
    assert first.C == other.C
    expected = measures(data.test.labels, probe_on_test(cache, backbone, data)).logs
    assert other.metrics == expected


def test_c_is_the_one_of_the_least_loss_and_rises_no_further_than_that(monkeypatch):
    losses = {0.0001: 0.5, 0.001: 0.4, 0.01: 0.3, 0.1: 0.35}
    monkeypatch.setattr(probe, "_loss", lambda x, y, splits, options: losses[options["C"]])
    y = np.arange(12) % 2
    assert probe._best_strength(np.zeros((12, 3)), y, 0, {}) == (0.01, [])


@pytest.mark.slow
def test_the_test_split_is_read_by_its_own_function_only(data, cache, monkeypatch, backbone):
    read = []
    monkeypatch.setattr(
        probe, "features_of", lambda c, b, d: read.append(d) or features_of(c, b, d)
    )
    run_probe(cache, backbone, data)
    assert read == [data.train, data.valid]
    probabilities = probe_on_test(cache, backbone, data, final_fit=True)
    assert read[2:] == [data.train_and_valid, data.test]
    assert probabilities.shape == (len(data.test.labels), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_balancing_raises_the_rare_class(photos, cache, backbone):
    data = image_folder(photos, image_size=16, verbose=0, validation_split=0.5)
    few = data.train_and_valid.labels < 2
    features = features_of(cache, backbone, data.train_and_valid)
    rows = np.flatnonzero(few)[:24]  # 17 of one class, 7 of the other
    labels = data.train_and_valid.labels[rows]
    means = [
        probe._fitted(features[rows], labels, 2, 0, balance=balance)
        .probabilities(features[rows])
        .mean(axis=0)
        for balance in (False, True)
    ]
    assert means[1][1] > means[0][1]


@pytest.mark.slow
def test_features_without_pooling_are_averaged(data, cache, backbone):
    flat = features_of(cache, tiny_backbone(pooling=None), data.valid)
    np.testing.assert_allclose(flat, features_of(cache, backbone, data.valid), atol=1e-6)
    assert features_of(cache, tiny_backbone(pooling="flatten"), data.valid).ndim == 2


def test_a_class_with_one_training_image_is_told(data, cache):
    y = np.array([0, 0, 0, 1])
    fitted = probe._fitted(np.eye(4), y, 3, 0, balance=False)
    assert fitted.strength == 0.01
    assert "one training image" in fitted.notes[0]
    assert fitted.probabilities(np.eye(4))[:, 2].max() < 1e-12  # a class of which was none


@pytest.mark.slow
def test_a_fit_that_does_not_converge_is_told(data, cache, monkeypatch, backbone):
    x, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 2
    assert not probe._fit(x, y, {"max_iter": 1})[1]
    assert probe._fit(x, y, {})[1]
    fit = probe._fit
    monkeypatch.setattr(probe, "_fit", lambda x, y, o: (fit(x, y, o)[0], False))
    with pytest.warns(UserWarning, match="did not converge in 1,000 steps"):
        result = run_probe(cache, backbone, data)
    assert "did not converge in 1,000 steps" in result.notes[0]


def test_other_warnings_of_the_solver_are_passed_on(monkeypatch):
    def fit(self, x, y):
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)
        return self

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    with pytest.warns(RuntimeWarning, match="overflow"):
        probe._fit(np.eye(2), np.arange(2), {})


def test_without_the_split_that_is_asked_for_it_is_refused(photos, cache, backbone):
    data = image_folder(photos, image_size=16, verbose=0, validation_split=0, test_split=0)
    with pytest.raises(ValueError, match="no validation split to score the probe on"):
        run_probe(cache, backbone, data)
    with pytest.raises(ValueError, match="no test split"):
        probe_on_test(cache, backbone, data)
    with pytest.raises(ValueError, match=r"images of two classes.*Received: one class"):
        probe._fitted(np.eye(4), np.ones(4, int), 2, 0, balance=False)


@pytest.mark.slow
def test_nothing_is_computed_where_features_are_kept(data, cache, monkeypatch, backbone):
    run_probe(cache, backbone, data)
    monkeypatch.setattr(runners, "by_keras", None)
    run_probe(cache, backbone, data, seed=1)
    run_probe(cache, backbone, data.folds(2))


def test_a_class_that_is_not_among_the_images_is_never_expected():
    y = np.array([0, 0, 2, 2, 2, 0] * 4)
    x = np.random.default_rng(0).normal(size=(24, 3)) + y[:, None]
    fitted = probe._fitted(x, y, 4, 0, balance=False)
    assert fitted.kernel.shape == (3, 4)
    found = fitted.probabilities(x)
    assert found[:, [1, 3]].max() < 1e-9
    assert (found.argmax(1) == y).mean() > 0.8
    two = LogisticRegression(C=fitted.strength).fit(StandardScaler().fit_transform(x), y)
    expected = two.predict_proba(StandardScaler().fit_transform(x))
    np.testing.assert_allclose(found[:, [0, 2]], expected, atol=1e-2)


def test_the_loss_of_each_image_is_that_of_a_fit_without_it():
    generator = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = generator.normal(size=(60, 4))
    x[:, 0] += 3 * y
    losses, right = probe.loss_of_each(x, y)
    assert losses.shape == right.shape == (60,)
    assert right.mean() > 0.8
    assert losses[right].mean() < losses[~right].mean()
    noise, _ = probe.loss_of_each(generator.normal(size=(60, 4)), y)
    assert noise.mean() > losses.mean()
