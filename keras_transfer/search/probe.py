"""Trial 0: a logistic regression on frozen features, which a search has to do better than."""

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.search.scoring import measures

_STRENGTHS = 10.0 ** np.arange(-4, 3)  # scikit-learn's C, of features of unit variance
_PARTS = 3  # of the training features, to choose C by
_STEPS = 1000  # in which the solver should converge; a last attempt takes ten times as many

Pair = tuple[tf.data.Dataset, tf.data.Dataset]


@dataclass(frozen=True)
class ProbeResult:
    """How a linear classifier does on the features of a frozen backbone.

    Attributes:
        metrics: `val_loss`, `val_accuracy`, `val_auc` and `val_f1`; means over the folds.
        folds: The same for each fold; empty without folds.
        seconds: What fitting took; features that were not kept yet are counted too.
        C: scikit-learn's inverse strength of regularization that was chosen, for each fold, or the
            one alone.
        notes: What there is to know, such as a fit that did not converge; empty if nothing.
    """

    metrics: dict[str, float]
    folds: tuple[dict[str, float], ...]
    seconds: float
    C: tuple[float, ...]
    notes: tuple[str, ...] = ()


def run_probe(
    cache: FeatureCache,
    backbone: FrozenBackbone,
    data: ImageFolder | Sequence[Pair],
    seed: int = 0,
    *,
    balance: bool = False,
) -> ProbeResult:
    """Fits a logistic regression on frozen features, and scores it on what a trial is scored on.

    Features are scaled to unit variance. The strength of regularization is chosen by
    cross-validation on the training images alone.

    Args:
        cache: Where features are kept.
        backbone: What makes them. All of it must be frozen.
        data: Its `train` and `valid`; or folds, pairs of datasets from `ImageFolder.folds`.
        seed: Decides the parts of the cross-validation. Defaults to 0.
        balance: Whether all classes count the same in the loss.

    Raises:
        ValueError: If there is no validation split, or fewer than two classes to train on.

    Example:
        >>> run_probe(FeatureCache(), FrozenBackbone("efficientnet_lite0"), data).metrics
        {'val_loss': 0.31, 'val_accuracy': 0.87, 'val_auc': 0.93, 'val_f1': 0.86}
    """
    began = time.monotonic()
    pairs = [(data.train, data.valid)] if isinstance(data, ImageFolder) else list(data)
    scores, strengths, notes = [], [], []
    for train, valid in pairs:
        if valid is None:
            raise ValueError(
                "There is no validation split to score the probe on. Give image_folder a "
                "`validation_split`, or pass folds: data.folds(5)."
            )
        fitted = _fitted(features_of(cache, backbone, train), train, seed, balance)
        probabilities = fitted.probabilities(features_of(cache, backbone, valid))
        scores.append(measures(valid.labels, probabilities).logs)
        strengths.append(fitted.strength)
        notes += [note for note in fitted.notes if note not in notes]
    means = {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}
    folds = () if isinstance(data, ImageFolder) else tuple(scores)
    return ProbeResult(means, folds, time.monotonic() - began, tuple(strengths), tuple(notes))


def probe_on_test(
    cache: FeatureCache,
    backbone: FrozenBackbone,
    data: ImageFolder,
    seed: int = 0,
    *,
    balance: bool = False,
    final_fit: bool = False,
) -> np.ndarray:
    """Returns what the probe gives on the test split: call it once, when the search is over.

    Args:
        cache: As for `run_probe`.
        backbone: As for `run_probe`.
        data: Its `train` and `test`.
        seed: As for `run_probe`.
        balance: As for `run_probe`.
        final_fit: Whether to fit on `train` and `valid` together.

    Returns:
        Probabilities `(images, classes)` in path order.

    Raises:
        ValueError: If there is no test split.
    """
    if data.test is None:
        raise ValueError("There is no test split. Give image_folder a `test_split`.")
    train = data.train_and_valid if final_fit else data.train
    fitted = _fitted(features_of(cache, backbone, train), train, seed, balance)
    return fitted.probabilities(features_of(cache, backbone, data.test))


def features_of(cache: FeatureCache, backbone: FrozenBackbone, data: tf.data.Dataset) -> np.ndarray:
    """Returns the features of a dataset of `image_folder`, `(images, channels)`, in path order."""
    batches = cache.dataset(backbone, data.ordered).as_numpy_iterator()
    features = np.concatenate([x["after:pooling"] for x, *_ in batches]).astype("float32")
    if features.ndim > 2 and backbone.pooling is None:
        features = features.mean(axis=tuple(range(1, features.ndim - 1)))
    return features.reshape(len(features), -1)


@dataclass(frozen=True)
class _Fitted:
    """A classifier of features."""

    scaler: Any
    classifier: Any
    classes: int
    strength: float
    notes: tuple[str, ...]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """A column for each class, also for one that is not among the training images."""
        probabilities = np.zeros((len(features), self.classes))
        scaled = self.scaler.transform(features)
        probabilities[:, self.classifier.classes_] = self.classifier.predict_proba(scaled)
        return probabilities


def _fitted(features: np.ndarray, train: tf.data.Dataset, seed: int, balance: bool) -> _Fitted:
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train.labels)) < 2:
        raise ValueError("The probe needs images of two classes to train on. Received: one class.")
    scaler = StandardScaler()
    x, y = scaler.fit_transform(features), train.labels
    options = {"class_weight": "balanced" if balance else None, "max_iter": _STEPS}
    strength, notes = _best_strength(x, y, seed, options)
    classifier, converged = _fit(x, y, {**options, "C": strength})
    if not converged:
        classifier, converged = _fit(x, y, {**options, "C": strength, "max_iter": 10 * _STEPS})
    if not converged:
        notes.append(
            f"The logistic regression of the probe did not converge in {10 * _STEPS:,} steps: it "
            "may score less than it could."
        )
        warnings.warn(notes[-1], stacklevel=3)
    return _Fitted(scaler, classifier, len(train.class_names), strength, tuple(notes))


def _best_strength(
    x: np.ndarray, y: np.ndarray, seed: int, options: dict[str, Any]
) -> tuple[float, list[str]]:
    """The C of the least log loss, rising until it gets worse, and what there is to know."""
    from sklearn.model_selection import StratifiedKFold

    fewest = int(np.unique(y, return_counts=True)[1].min())
    if fewest < 2:
        note = "A class has one training image, too few to choose the probe's C by: it is 0.01."
        return 0.01, [note]
    parts = StratifiedKFold(min(_PARTS, fewest), shuffle=True, random_state=seed)
    splits, losses, unfinished = list(parts.split(x, y)), [], 0
    for strength in _STRENGTHS:
        loss, failed = _loss(x, y, splits, {**options, "C": float(strength)})
        unfinished += failed
        losses.append(loss)
        if len(losses) > 1 and loss > losses[-2]:
            break
    notes = []
    if unfinished:
        notes.append(
            f"{unfinished} of {len(losses) * len(splits)} fits to choose the probe's C by did not "
            f"converge in {_STEPS:,} steps."
        )
    return float(_STRENGTHS[int(np.argmin(losses))]), notes


def _loss(
    x: np.ndarray, y: np.ndarray, splits: Iterable[Any], options: dict[str, Any]
) -> tuple[float, int]:
    """Mean log loss over the splits, and how many fits did not converge."""
    from sklearn.metrics import log_loss

    losses, failed = [], 0
    for train, valid in splits:
        classifier, converged = _fit(x[train], y[train], options)
        failed += not converged
        scores = classifier.predict_proba(x[valid])
        losses.append(log_loss(y[valid], scores, labels=classifier.classes_))
    return float(np.mean(losses)), failed


def _fit(x: np.ndarray, y: np.ndarray, options: dict[str, Any]) -> tuple[Any, bool]:
    """A fitted classifier, and whether it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = LogisticRegression(**options).fit(x, y)
    for one in caught:
        if not issubclass(one.category, ConvergenceWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return classifier, not any(issubclass(one.category, ConvergenceWarning) for one in caught)
