"""What a comparison came to, as a table in a file, on the screen and in sentences."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_transfer.comparison.recipes import Outcome
    from keras_transfer.search.scoring import Score
    from keras_transfer.utils.confidence_intervals import Estimate

WRONG = ", wrong pixel range"  # behind the name of a recipe


def accuracy(outcomes: Sequence["Outcome"]) -> str:
    """The accuracy and its interval, of the test images or, where there are none, of validation."""
    scores = _scores(outcomes)
    return f"{_kind(outcomes)} {_spread([s.accuracy for s in scores])} ({_interval(scores)})"


def print_table(by_recipe: dict[str, list["Outcome"]]) -> None:
    """Prints a row a recipe, and what its numbers mean."""
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "validation", "test", "95 % interval", "seconds", "trainable")
    for name, outcomes in by_recipe.items():
        first, test = outcomes[0], [o.test for o in outcomes if o.test]
        table.add_row(
            name,
            _spread([o.valid.accuracy for o in outcomes]),
            _spread([score.accuracy for score in test]),
            _interval(test),
            f"{first.seconds:.0f}",
            f"{first.trainable:,}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(
        "Mean over the seeds ± half of their range; interval (Wilson) of that mean; seconds of the"
    )
    print("first seed, which computes what the others find kept.")


def print_weights(by_recipe: dict[str, list["Outcome"]]) -> None:
    """Says which epoch's weights were scored, and what the losses tell, for each training."""
    for name, outcomes in by_recipe.items():
        about = f" ({outcomes[0].about})" if outcomes[0].about else ""
        scored = "; ".join(f"{one.weights} ({one.told})" for one in outcomes)
        print(f"{name}{about}: {scored}")


def print_cost(by_recipe: dict[str, list["Outcome"]]) -> None:
    """Says what the wrong pixel range costs, where it was tried."""
    for name, wrong in by_recipe.items():
        right = by_recipe.get(name.removesuffix(WRONG))
        if right is None or right is wrong:
            continue
        kind = "test" if right[0].test else "valid"
        scores = [[getattr(outcome, kind) for outcome in of_range] for of_range in (right, wrong)]
        print(f"{name.removesuffix(WRONG)}: {cost(kind, *scores)}")


def cost(kind: str, right: Sequence["Score"], wrong: Sequence["Score"]) -> str:
    """A sentence on two means over the seeds, which are of the same images."""
    from keras_transfer.utils.confidence_intervals import difference

    images = right[0].images
    before, after = _mean(right), _mean(wrong)
    cost = difference(before, after)
    became = f"{kind} accuracy {before.value:.1%} became {after.value:.1%}"
    interval = f"95 % interval {100 * cost.low:.1f} to {100 * cost.high:.1f} points"
    if cost.low <= 0 <= cost.high:
        return (
            f"with the wrong pixel range {became}, and on {images} images no difference beyond "
            f"chance is seen ({interval} lost)"
        )
    verb = "costs" if cost.value > 0 else "gains"
    interval = (
        interval
        if cost.value > 0
        else (f"95 % interval {-100 * cost.high:.1f} to {-100 * cost.low:.1f} points")
    )
    return (
        f"the wrong pixel range {verb} {100 * abs(cost.value):.1f} points ({interval}, on {images} "
        f"images): {became}"
    )


def overfitting(by_recipe: Mapping[str, Sequence["Outcome"]]) -> str:
    """Says where overfitting was seen, and whether the weights that were scored have it."""
    recipes = _right(by_recipe)
    outcomes = [one for some in recipes.values() for one in some]
    seen = sum(one.diagnosis.kind == "overfitting" for one in outcomes)
    if not seen:
        return f"No overfitting was seen in this run, in none of {len(outcomes)} trainings."
    late = [
        f"{name} ({count} of {len(some)})"
        for name, some in recipes.items()
        if (count := sum(one.is_overfitted for one in some))
    ]
    of_scored = f"of an overfitted epoch in {', '.join(late)}" if late else "of epochs before it"
    return (
        f"Overfitting was seen in {seen} of {len(outcomes)} trainings; the weights that were "
        f"scored are {of_scored}."
    )


def gap(by_recipe: Mapping[str, Sequence["Outcome"]]) -> str:
    """Says whether chance explains how far the recipes are apart, if there are several."""
    from keras_transfer.utils.confidence_intervals import difference

    recipes = _right(by_recipe)
    scores = {name: _scores(some) for name, some in recipes.items()}
    means = sorted((_mean(some) for some in scores.values()), key=lambda mean: mean.value)
    if len(means) < 2:
        return ""
    kind, images = _kind(*recipes.values()), next(iter(scores.values()))[0].images
    apart = difference(means[-1], means[0])
    verdict = "more than chance explains" if apart.low > 0 else "no difference beyond chance"
    return (
        f"The highest and the lowest {kind} accuracy of the recipes are {100 * apart.value:.1f} "
        f"points apart (95 % interval {100 * apart.low:.1f} to {100 * apart.high:.1f}, on {images} "
        f"images): {verdict}."
    )


def _right(by_recipe: Mapping[str, Sequence["Outcome"]]) -> dict[str, Sequence["Outcome"]]:
    """The recipes with the right pixel range."""
    return {name: some for name, some in by_recipe.items() if not name.endswith(WRONG)}


def _kind(*several: Sequence["Outcome"]) -> str:
    return "test" if all(one.test for some in several for one in some) else "valid"


def _scores(outcomes: Sequence["Outcome"]) -> list["Score"]:
    """On the test images; on the validation images where there are no others."""
    return [one.test or one.valid for one in outcomes]


def _mean(scores: Sequence["Score"]) -> "Estimate":
    """The mean over the seeds; of exact hits: if rounded, its interval might not hold it."""
    from keras_transfer.utils.confidence_intervals import wilson

    return wilson(statistics.fmean(score.correct for score in scores), scores[0].images)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    half = (max(values) - min(values)) / 2
    return f"{statistics.fmean(values):.1%}" + (f" ± {half:.1%}" if len(values) > 1 else "")


def _interval(scores: Sequence["Score"]) -> str:
    if not scores:
        return ""
    mean = _mean(scores)
    return f"{mean.low:.1%} to {mean.high:.1%}"


def write_table(by_recipe: dict[str, list["Outcome"]], path: Path) -> None:
    """Writes a row a training into a file, whole or not at all."""
    from keras_transfer.utils.atomic_files import write_rows

    columns = ("recipe", "seed", "valid_accuracy", "test_accuracy", "seconds", "trainable")
    rows: list[tuple[object, ...]] = [(*columns, "epochs", "scored_epoch", "diagnosis")]
    for outcome in (o for of_recipe in by_recipe.values() for o in of_recipe):
        test = outcome.test.accuracy if outcome.test else ""
        facts = (outcome.valid.accuracy, test, round(outcome.seconds, 1), outcome.trainable)
        epochs = (len(outcome.plotter.epochs), outcome.scored + 1, outcome.told)
        rows.append((outcome.recipe, outcome.seed, *facts, *epochs))
    write_rows(path, rows)
