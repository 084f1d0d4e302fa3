"""The results of a comparison as a table on the screen and in a file, and in sentences."""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_transfer.utils.confidence_intervals import Estimate, difference, wilson

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_transfer.comparison.recipes import RecipeResult

WRONG = ", wrong pixel range"  # behind the name of a recipe
COLUMNS = ("recipe", "validation", "test", "95 % interval", "seconds", "trainable")
MEANING = (
    "Mean over the seeds ± half of their range; interval (Wilson) of that mean; seconds of the "
    "first seed, which computes what the others find kept."
)


@dataclass(frozen=True)
class Score:
    """The accuracy of a model on the images of a split.

    Attributes:
        correct: Number of images classified rightly.
        images: Number of all images.
    """

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly, 0..1."""
        return self.correct / self.images


def score_of(model: "keras.Model", data: Any, labels: "np.ndarray") -> Score:
    """Scores a model on batches of images or of kept activations, in the order of the labels."""
    from keras_transfer.search.scoring import columns

    predicted = columns(model.predict(data, verbose=0)).argmax(axis=1)
    return Score(int((predicted == labels).sum()), len(predicted))


def accuracy(outcomes: Sequence["RecipeResult"]) -> str:
    """Formats the accuracy on the test images, or else on the validation images."""
    scores = _scores(outcomes)
    return f"{_kind(outcomes)} {_spread(scores)} ({_interval(scores)})"


def rows(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> Iterator[tuple[str, ...]]:
    """Yields a row for each recipe, under `COLUMNS`."""
    for name, outcomes in by_recipe.items():
        test = [outcome.test for outcome in outcomes if outcome.test]
        yield (
            name,
            _spread([outcome.valid for outcome in outcomes]),
            _spread(test),
            _interval(test),
            f"{outcomes[0].seconds:.0f}",
            f"{outcomes[0].trainable:,}",
        )


def print_table(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> None:
    """Prints a row for each recipe, and what its numbers mean."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, caption=MEANING, caption_justify="left")
    for row in rows(by_recipe):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def weights(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> Iterator[str]:
    """Yields for each recipe which epochs' weights were scored, and what the losses show."""
    for name, outcomes in by_recipe.items():
        about = f" ({outcomes[0].about})" if outcomes[0].about else ""
        scored = "; ".join(f"{outcome.weights} ({outcome.verdict})" for outcome in outcomes)
        yield f"{name}{about}: {scored}"


def costs(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> Iterator[str]:
    """Yields what the wrong pixel range costs, for each recipe with which it was tried."""
    for name, wrong in by_recipe.items():
        right = by_recipe.get(name.removesuffix(WRONG))
        if right is not None and right is not wrong:
            kind, (before, after) = _kind(right), map(_scores, (right, wrong))
            yield (
                f"{name.removesuffix(WRONG)}: with the wrong pixel range {kind} accuracy "
                f"{_mean(before).value:.1%} became {_mean(after).value:.1%}, "
                f"{_difference(before, after)}"
            )


def overfitting(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> str:
    """Says where overfitting was seen, and whether the weights that were scored have it."""
    recipes = right_range(by_recipe)
    outcomes = [outcome for of_recipe in recipes.values() for outcome in of_recipe]
    seen = sum(outcome.diagnosis.kind == "overfitting" for outcome in outcomes)
    if not seen:
        return f"No overfitting was seen in this run, in none of {len(outcomes)} trainings."
    late = [
        f"{name} ({count} of {len(of_recipe)})"
        for name, of_recipe in recipes.items()
        if (count := sum(outcome.is_overfitted for outcome in of_recipe))
    ]
    of_scored = f"of an overfitted epoch in {', '.join(late)}" if late else "of epochs before it"
    return (
        f"Overfitting was seen in {seen} of {len(outcomes)} trainings; the weights that were "
        f"scored are {of_scored}."
    )


def gap(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> str:
    """Says whether chance explains how far the recipes are apart, if there are several."""
    recipes = right_range(by_recipe)
    ordered = sorted(map(_scores, recipes.values()), key=lambda scores: _mean(scores).value)
    if len(ordered) < 2:
        return ""
    kind, apart = _kind(*recipes.values()), _difference(ordered[-1], ordered[0])
    return f"Between the highest and the lowest {kind} accuracy of the recipes lie {apart}"


def differs(by_recipe: Mapping[str, Sequence["RecipeResult"]]) -> bool:
    """Whether chance does not explain how far the recipes are apart."""
    return gap(by_recipe).endswith("more than chance explains.")


def _difference(first: Sequence[Score], second: Sequence[Score]) -> str:
    """Describes how far two means over the seeds are apart, which are of the same images."""
    apart = difference(_mean(first), _mean(second))
    value, low, high = (100 * end for end in (apart.value, apart.low, apart.high))
    beyond = apart.low > 0 or apart.high < 0
    verdict = "more than chance explains" if beyond else "no difference beyond chance"
    return (
        f"{value:z.1f} points (95 % interval {low:z.1f} to {high:z.1f}, on {first[0].images} "
        f"images): {verdict}."
    )


def right_range(
    by_recipe: Mapping[str, Sequence["RecipeResult"]],
) -> dict[str, Sequence["RecipeResult"]]:
    """Returns the recipes with the right pixel range."""
    return {name: some for name, some in by_recipe.items() if not name.endswith(WRONG)}


def _kind(*several: Sequence["RecipeResult"]) -> str:
    return "test" if all(one.test for some in several for one in some) else "validation"


def _scores(outcomes: Sequence["RecipeResult"]) -> list[Score]:
    return [outcome.test or outcome.valid for outcome in outcomes]


def _mean(scores: Sequence[Score]) -> Estimate:
    """Returns the mean over the seeds, of exact hits: rounded, its interval might not hold it."""
    return wilson(statistics.fmean(score.correct for score in scores), scores[0].images)


def _spread(scores: Sequence[Score]) -> str:
    values = [score.accuracy for score in scores]
    if not values:
        return ""
    half = (max(values) - min(values)) / 2
    return f"{statistics.fmean(values):.1%}" + (f" ± {half:.1%}" if len(values) > 1 else "")


def _interval(scores: Sequence[Score]) -> str:
    if not scores:
        return ""
    mean = _mean(scores)
    return f"{mean.low:.1%} to {mean.high:.1%}"


def write_table(by_recipe: Mapping[str, Sequence["RecipeResult"]], path: Path) -> None:
    """Writes a row for each training into a file, whole or not at all."""
    from keras_transfer.utils.atomic_files import write_rows

    columns = ("recipe", "seed", "valid_accuracy", "test_accuracy", "seconds", "trainable")
    table: list[tuple[object, ...]] = [(*columns, "epochs", "scored_epoch", "diagnosis")]
    for outcome in (o for of_recipe in by_recipe.values() for o in of_recipe):
        test = outcome.test.accuracy if outcome.test else ""
        facts = (outcome.valid.accuracy, test, round(outcome.seconds, 1), outcome.trainable)
        epochs = (len(outcome.plotter.epochs), outcome.scored + 1, outcome.verdict)
        table.append((outcome.recipe, outcome.seed, *facts, *epochs))
    write_rows(path, table)
