"""Winner: the model that a search ends with, and its scores on the test split."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_transfer.data.augmentation import Flips
from keras_transfer.models.averaged_views import AveragedViews
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.averaging.ensemble import Member
from keras_transfer.search.averaging.members import to_average, without_heads
from keras_transfer.search.metrics import chance
from keras_transfer.search.probing.probe import LinearFit, probe_on_test
from keras_transfer.search.report.leaderboard import ranked
from keras_transfer.search.scoring import Measures, measures, paired
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.search.study import Study
from keras_transfer.search.trial_runner import seed_of
from keras_transfer.search.trials import Trials
from keras_transfer.utils.atomic_files import written_whole

MODEL = "best.keras"


@dataclass(frozen=True)
class Winner:
    """The model that a search ends with.

    Attributes:
        model: The average of what the best trials have trained, or that of the best.
        made_of: The trials in it.
        best: The outcome of the best of them.
    """

    model: TransferModel
    made_of: Composition
    best: Outcome


@dataclass(frozen=True)
class OnTest:
    """The scores of a model on the test split, which is used once.

    Attributes:
        measures: Of the winner.
        probe: Of the probe.
        paired: How the two compare, in a sentence.
    """

    measures: Measures
    probe: Measures
    paired: str

    def facts(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        accuracy = self.measures.accuracy
        return {
            "images": self.measures.images,
            "correct": round(accuracy.value * self.measures.images),
            "accuracy": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            **{name: asdict(getattr(self.measures, name)) for name in ("auc", "f1")},
            "loss": self.measures.loss,
            "probe_accuracy": self.probe.accuracy.value,
            "against_probe": self.paired,
        }


def winner_of(study: Study, trials: Trials) -> Winner:
    """Returns the average of the best trials, which errs less than the one that happened to win.

    `to_average` selects them. With folds, the models of all folds are averaged. With `--final-fit`
    the best trials are trained again, on training and validation images together, each for the
    number of epochs that was best.
    """
    settings, data = study.settings, study.data.train_and_valid
    nothing = chance(settings.metric, data.labels)
    lost: list[int] = []
    outcomes = ranked([study.probe(), *trials.outcomes], study.objective, probe=True)
    images = sum(len(valid.labels) for _, valid in study.pairs)
    outcomes, heads = without_heads(outcomes, images)
    whole = _whole(outcomes, trials, lost)
    options: dict[str, Any] = {"chance": nothing, "most": settings.average}
    chosen = to_average(whole, study.objective, **options)
    if heads and not chosen.trials:  # the weights of all others are lost
        chosen, heads = to_average(_whole(heads, trials, lost), study.objective, **options), []
    if not chosen.trials:
        raise ValueError("The weights of all trials are lost. Start a search in another folder.")
    best = [outcome for outcome, _ in chosen.trials]
    refitted = _refitted(study, trials, best)
    model = _averaged(study, chosen.trials, refitted)
    if settings.average_views and settings.flips != "none":
        model = AveragedViews.of(model, Flips(settings.flips))
    made_of = Composition(
        tuple(outcome.trial for outcome in best),
        trained_again=len(data.labels) if settings.final_fit else None,
        added=refitted[0].trial if refitted else None,
        too_bad=tuple(one.trial for one in chosen.too_bad),
        heads=tuple(one.trial for one in heads),
        lost=tuple(lost),
    )
    return Winner(model, made_of, best[0])


def best_tuned(trials: Trials) -> Outcome | None:
    """Returns the best trial that has fine-tuned blocks; None if there is none."""
    whole = (one for one in trials.ranked if not one.failed)
    return next((one for one in whole if one.hyperparameters.get("unfreeze")), None)


def _refitted(
    study: Study, trials: Trials, chosen: Sequence[Outcome]
) -> tuple[Outcome, list[Member]] | None:
    """Trains the best fine-tuning again on all images, if it is chosen and there is time."""
    tuned, plan = best_tuned(trials) if study.refits else None, study.plan
    if tuned not in chosen or tuned is None or not plan.final_fit:
        return None
    after = plan.keep + plan.export + plan.test + plan.report
    members = plan.in_time("another training", lambda: _again(study, tuned, 1), after=after)
    return None if members is None else (tuned, members)


def _averaged(
    study: Study,
    trials: Sequence[tuple[Outcome, list[Member]]],
    refitted: tuple[Outcome, list[Member]] | None,
) -> TransferModel:
    again = study.settings.final_fit
    members = [m for outcome, kept in trials for m in (_again(study, outcome) if again else kept)]
    members += refitted[1] if refitted else []
    if len(members) == 1:
        return study.hypermodel.model_of(members[0])
    return study.hypermodel.average(members)


def _whole(
    outcomes: Sequence[Outcome], trials: Trials, lost: list[int]
) -> Iterator[tuple[Outcome, list[Member]]]:
    """Yields what has a score, in the same order, and its members, where all are whole."""
    for outcome in outcomes:
        folds = range(max(1, len(outcome.folds)))
        members = [trials.member(outcome, fold) for fold in folds]
        whole = [member for member in members if member is not None]
        if len(whole) == len(members):
            yield outcome, whole
            continue
        lost.append(outcome.trial)
        warnings.warn(
            f"The weights of trial {outcome.trial} are damaged or missing, so it is not in "
            f"{MODEL}.",
            stacklevel=2,
        )


def _again(study: Study, outcome: Outcome, run: int = 0) -> list[Member]:
    if outcome.trial == 0:
        return [study.linear(study.data.train_and_valid)]
    hp = keras_tuner.HyperParameters()
    hp.values = dict(outcome.hyperparameters)
    keras.utils.set_random_seed(seed_of(study.settings.seed, outcome.trial, run))
    data, epochs = study.data.train_and_valid, outcome.epoch or study.settings.epochs
    return [study.hypermodel.refit(hp, data, epochs, **study.fit_arguments)]


def _kept_probe(study: Study, trials: Trials) -> LinearFit | None:
    member = trials.member(study.probe())
    if member is None:
        return None
    kernel, bias = member.head_weights
    return LinearFit(kernel, bias, math.nan)


def keep(model: TransferModel, output: Path) -> TransferModel:
    """Saves a model as best.keras, whole or not at all, and returns it as loaded from there."""
    with written_whole(output / MODEL) as temporary:
        unfinished = temporary.with_name(f"{temporary.name}.keras")  # Keras asks for the suffix
        try:
            model.save(unfinished)
            unfinished.replace(temporary)
        finally:
            unfinished.unlink(missing_ok=True)
    # This process has just written it; the safe mode would refuse the graph of a TF-Hub module.
    return keras.saving.load_model(output / MODEL, safe_mode=False)


def on_test(study: Study, trials: Trials, labels: np.ndarray, probabilities: np.ndarray) -> OnTest:
    """Scores the winner and the probe on the test split.

    Args:
        study: The search.
        trials: Its trials.
        labels: Of the images.
        probabilities: That the winner gives.
    """
    settings = study.settings
    name = next(iter(study.hypermodel.backbones))
    of_probe = probe_on_test(
        study.hypermodel.cache,
        study.hypermodel.all_levels(name),
        study.data,
        settings.seed,
        balance=settings.balance,
        final_fit=bool(settings.final_fit),
        fitted=None if settings.final_fit or settings.folds else _kept_probe(study, trials),
    )
    return OnTest(
        measures(labels, probabilities),
        measures(labels, of_probe),
        paired(labels, probabilities, of_probe),
    )
