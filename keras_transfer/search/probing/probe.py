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
_MOST = 3000  # training images to choose C by
# Of the solver: a rough solution tells which C is best, in a fifth of the time of an exact one.
_ROUGH, _EXACT = 1e-2, 1e-3
_STEPS = 1000
_NEVER = -30.0  # the bias of a class that is not among the training images

Pair = tuple[tf.data.Dataset, tf.data.Dataset]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear classifier of features as they are, not scaled.

    Attributes:
        kernel: `(features, units)`; as in a head, one unit for two classes, else one for each.
        bias: `(units,)`.
        strength: scikit-learn's C.
        notes: What there is to know.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    notes: tuple[str, ...] = ()

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns a column for each class, also for one that is not among the training images."""
        logits = features @ self.kernel + self.bias
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class ProbeResult:
    """How a linear classifier does on the features of a frozen backbone.

    Attributes:
        metrics: `val_loss`, `val_accuracy`, `val_auc` and `val_f1`; means over the folds.
        folds: The same for each fold; empty without folds.
        seconds: What fitting took; features that were not kept yet are counted too.
        C: scikit-learn's inverse strength of regularization that was chosen, for each fold, or the
            one alone.
        fits: The classifier of each fold, or the one alone.
        notes: What there is to know, such as a fit that did not converge; empty if nothing.
    """

    metrics: dict[str, float]
    folds: tuple[dict[str, float], ...]
    seconds: float
    C: tuple[float, ...]
    fits: tuple[LinearFit, ...] = ()
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
    scores, fits, notes = [], [], []
    for train, valid in pairs:
        if valid is None:
            raise ValueError(
                "There is no validation split to score the probe on. Give image_folder a "
                "`validation_split`, or pass folds: data.folds(5)."
            )
        fitted = fit_probe(cache, backbone, train, seed, balance=balance)
        probabilities = fitted.probabilities(features_of(cache, backbone, valid))
        scores.append(measures(valid.labels, probabilities).logs)
        fits.append(fitted)
        notes += [note for note in fitted.notes if note not in notes]
    means = {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}
    folds = () if isinstance(data, ImageFolder) else tuple(scores)
    strengths = tuple(one.strength for one in fits)
    seconds = time.monotonic() - began
    return ProbeResult(means, folds, seconds, strengths, tuple(fits), tuple(notes))


def probe_on_test(
    cache: FeatureCache,
    backbone: FrozenBackbone,
    data: ImageFolder,
    seed: int = 0,
    *,
    balance: bool = False,
    final_fit: bool = False,
    fitted: LinearFit | None = None,
) -> np.ndarray:
    """Returns what the probe gives on the test split: call it once, when the search is over.

    Args:
        cache: As for `run_probe`.
        backbone: As for `run_probe`.
        data: Its `train` and `test`.
        seed: As for `run_probe`.
        balance: As for `run_probe`.
        final_fit: Whether to fit on `train` and `valid` together.
        fitted: What was fitted before, if it was kept.

    Returns:
        Probabilities `(images, classes)` in path order.

    Raises:
        ValueError: If there is no test split.
    """
    if data.test is None:
        raise ValueError("There is no test split. Give image_folder a `test_split`.")
    if fitted is None:
        train = data.train_and_valid if final_fit else data.train
        fitted = fit_probe(cache, backbone, train, seed, balance=balance)
    return fitted.probabilities(features_of(cache, backbone, data.test))


def fit_probe(
    cache: FeatureCache,
    backbone: FrozenBackbone,
    train: tf.data.Dataset,
    seed: int = 0,
    *,
    balance: bool = False,
) -> LinearFit:
    """Returns a logistic regression on the frozen features of a dataset of `image_folder`.

    Args:
        cache: As for `run_probe`.
        backbone: As for `run_probe`.
        train: What to fit it on.
        seed: As for `run_probe`.
        balance: As for `run_probe`.

    Raises:
        ValueError: If there are fewer than two classes in it.
    """
    features, classes = features_of(cache, backbone, train), len(train.class_names)
    return _fitted(features, train.labels, classes, seed, balance=balance)


def features_of(cache: FeatureCache, backbone: FrozenBackbone, data: tf.data.Dataset) -> np.ndarray:
    """Returns the features of a dataset of `image_folder`, `(images, channels)`, in path order."""
    batches = cache.dataset(backbone, data.ordered).as_numpy_iterator()
    features = np.concatenate([x["after:pooling"] for x, *_ in batches]).astype("float32")
    if features.ndim > 2 and backbone.pooling is None:
        features = features.mean(axis=tuple(range(1, features.ndim - 1)))
    return features.reshape(len(features), -1)


def loss_of_each(
    features: np.ndarray, labels: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-validated log loss of each image, and whether it is classified rightly.

    Args:
        features: `(images, features)`.
        labels: Of the images, each class twice at least.
        seed: Decides the parts.
    """
    from sklearn.model_selection import StratifiedKFold

    fewest = int(np.unique(labels, return_counts=True)[1].min())
    parts = StratifiedKFold(min(_PARTS, fewest), shuffle=True, random_state=seed)
    of_true, right = np.zeros(len(labels)), np.zeros(len(labels), bool)
    classes = int(labels.max()) + 1
    for train, rest in parts.split(features, labels):
        fit = _fitted(features[train], labels[train], classes, seed, balance=False)
        probabilities = fit.probabilities(features[rest])
        of_true[rest] = probabilities[np.arange(len(rest)), labels[rest]]
        right[rest] = probabilities.argmax(1) == labels[rest]
    return -np.log(np.maximum(of_true, 1e-9)), right


def _fitted(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int, *, balance: bool
) -> LinearFit:
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels)) < 2:
        raise ValueError("The probe needs images of two classes to train on. Received: one class.")
    scaler = StandardScaler()
    x, y = scaler.fit_transform(features), labels
    options = {"class_weight": "balanced" if balance else None, "max_iter": _STEPS}
    strength, notes = _best_strength(x, y, seed, {**options, "tol": _ROUGH})
    classifier, converged = _fit(x, y, {**options, "C": strength, "tol": _EXACT})
    if not converged:
        notes.append(
            f"The logistic regression of the probe did not converge in {_STEPS:,} steps: it may "
            "score less than it could."
        )
        warnings.warn(notes[-1], stacklevel=3)
    kernel = (classifier.coef_ / scaler.scale_).T
    bias = classifier.intercept_ - scaler.mean_ @ kernel
    return LinearFit(*_for_all(kernel, bias, classifier.classes_, classes), strength, tuple(notes))


def _for_all(
    kernel: np.ndarray, bias: np.ndarray, known: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the classes that are not among the training images weights, too."""
    if classes == 2:
        return kernel, bias
    if len(known) == 2:  # of which scikit-learn gives the logit of the second
        kernel, bias = np.hstack([0 * kernel, kernel]), np.hstack([0 * bias, bias])
    all_kernel, all_bias = np.zeros((len(kernel), classes)), np.full(classes, _NEVER)
    all_kernel[:, known], all_bias[known] = kernel, bias
    return all_kernel, all_bias


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
    splits = [(train[:_MOST], valid[:_MOST]) for train, valid in _shuffled(parts.split(x, y), seed)]
    losses: list[float] = []
    for strength in _STRENGTHS:
        losses.append(_loss(x, y, splits, {**options, "C": float(strength)}))
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break
    return float(_STRENGTHS[int(np.argmin(losses))]), []


def _shuffled(splits: Iterable[Any], seed: int) -> Iterable[Any]:
    """Yields the rows of each split in a random order, so that the first are of all classes."""
    generator = np.random.default_rng(seed)
    for split in splits:
        yield tuple(generator.permutation(rows) for rows in split)


def _loss(x: np.ndarray, y: np.ndarray, splits: Iterable[Any], options: dict[str, Any]) -> float:
    """Mean log loss over the splits."""
    from sklearn.metrics import log_loss

    losses = []
    for train, valid in splits:
        classifier, _ = _fit(x[train], y[train], options)
        seen = np.isin(y[valid], classifier.classes_)  # a class of one image may not be
        scores = classifier.predict_proba(x[valid][seen])
        losses.append(log_loss(y[valid][seen], scores, labels=classifier.classes_))
    return float(np.mean(losses))


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
