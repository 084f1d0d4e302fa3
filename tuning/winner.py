"""Winner: the model that a search ends with, and what it is worth on images never seen."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
from ensemble import Member
from outcome import Outcome
from probe import probe_on_test
from scores import Measures, measures, paired
from study import Study
from trial_run import seed_of
from trials import Trials

from keras_transfer import AveragedViews, Flips, TransferModel
from keras_transfer.whole_files import written_whole

MODEL = "best.keras"


@dataclass(frozen=True)
class Winner:
    """The model that a search ends with.

    Attributes:
        model: The average of what the best trials have trained, or that of the best.
        trials: Their numbers, the best first.
        trained_again: On how many images, training and validation together, they were trained
            again after the search; `None` without `--final-fit`.
    """

    model: TransferModel
    trials: tuple[int, ...]
    trained_again: int | None = None

    def __str__(self) -> str:
        told = f"trial {self.trials[0]}"
        if len(self.trials) > 1:
            told = f"average of trials {', '.join(map(str, self.trials))}"
        again = self.trained_again
        return f"{told}, trained again on {again:,} images" if again else told


@dataclass(frozen=True)
class OnTest:
    """What a model is worth on the test split, which is looked at once.

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

    With folds, what a trial has trained on each of them is averaged, too. With `--final-fit` the
    best trials are trained again, on training and validation images together, for as many epochs
    as were best for each.
    """
    best = [one for one in trials.ranked if not one.failed and _is_whole(trials, one)]
    if not best:
        raise ValueError("What the trials have trained is lost. Start a search in another folder.")
    best = best[: study.args.average]
    model, numbers = _averaged(study, trials, best)
    if study.args.average_views and study.args.flips != "none":
        model = AveragedViews.of(model, Flips(study.args.flips))
    again = len(study.data.train_and_valid.labels) if study.args.final_fit else None
    return Winner(model, numbers, again)


def _averaged(
    study: Study, trials: Trials, best: Sequence[Outcome]
) -> tuple[TransferModel, tuple[int, ...]]:
    members: list[Member] = []
    numbers: list[int] = []
    for outcome in best:
        found = _again(study, outcome) if study.args.final_fit else _kept(trials, outcome)
        members += found
        numbers += [outcome.trial] * len(found)
    if len(members) == 1:
        return study.hypermodel.model_of(members[0]), (numbers[0],)
    try:
        model, places = study.hypermodel.average(members)
    except ValueError as error:  # all blocks were fine-tuned, so there is nothing to run once
        fold = ", as trained on fold 1," if best[0].folds else ""
        warnings.warn(
            f"The best trials are not averaged: {error} best.keras is trial {numbers[0]}{fold} "
            "alone. Let `unfreeze` leave a block frozen to have the average.",
            stacklevel=2,
        )
        return study.hypermodel.model_of(members[0]), (numbers[0],)
    return model, tuple(dict.fromkeys(numbers[place] for place in places))


def _is_whole(trials: Trials, outcome: Outcome) -> bool:
    """Whether what a trial has trained can be read; a warning tells of what cannot."""
    try:
        _kept(trials, outcome)
    except (OSError, ValueError) as error:
        warnings.warn(
            f"Trial {outcome.trial} is left out: {error} Remove {trials.folder(outcome)}, and the "
            "same command runs the trial again.",
            stacklevel=2,
        )
        return False
    return True


def _kept(trials: Trials, outcome: Outcome) -> list[Member]:
    return [trials.member(outcome, fold) for fold in range(max(1, len(outcome.folds)))]


def _again(study: Study, outcome: Outcome) -> list[Member]:
    hp = keras_tuner.HyperParameters()
    hp.values = dict(outcome.hyperparameters)
    keras.utils.set_random_seed(seed_of(study.args.seed, outcome.trial, 0))
    data, epochs = study.data.train_and_valid, outcome.epoch or study.args.epochs
    return [study.hypermodel.refit(hp, data, epochs, **study.fit_arguments)]


def keep(model: TransferModel, output: Path) -> TransferModel:
    """Writes a model as best.keras, whole or not at all, and returns it as it is loaded."""
    with written_whole(output / MODEL) as temporary:
        unfinished = temporary.with_name(f"{temporary.name}.keras")  # Keras asks for the suffix
        model.save(unfinished)
        unfinished.replace(temporary)
    # This process has just written it; the safe mode would refuse the graph of a TF-Hub module.
    return keras.saving.load_model(output / MODEL, safe_mode=False)


def on_test(study: Study, labels: np.ndarray, probabilities: np.ndarray) -> OnTest:
    """Scores the winner and the probe on the test split.

    Args:
        study: The search.
        labels: Of the images.
        probabilities: That the winner gives.
    """
    args = study.args
    backbone = next(iter(study.hypermodel.backbones.values()))
    of_probe = probe_on_test(
        study.hypermodel.cache,
        backbone,
        study.data,
        args.seed,
        balance=args.balance,
        final_fit=args.final_fit,
    )
    return OnTest(
        measures(labels, probabilities),
        measures(labels, of_probe),
        paired(labels, probabilities, of_probe),
    )
