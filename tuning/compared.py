"""What a comparison came to, as a table in a file, on the screen and in sentences."""

import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes import Outcome
    from scores import Score

WRONG = ", wrong pixel range"  # behind the name of a recipe


def accuracy(outcomes: Sequence["Outcome"]) -> str:
    """The accuracy on the test images; on the validation images where there are no others."""
    test = [outcome.test.accuracy for outcome in outcomes if outcome.test]
    return (
        f"test {_spread(test)}"
        if test
        else f"valid {_spread([o.valid.accuracy for o in outcomes])}"
    )


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
    """Says which epoch's weights were scored, for each recipe and seed."""
    for name, outcomes in by_recipe.items():
        about = f" ({outcomes[0].about})" if outcomes[0].about else ""
        scored = "; ".join(dict.fromkeys(one.weights for one in outcomes))
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
    from keras_transfer.intervals import difference, wilson

    images = right[0].images
    before, after = (
        wilson(statistics.fmean(score.correct for score in scores), images)
        for scores in (right, wrong)
    )
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


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    half = (max(values) - min(values)) / 2
    return f"{statistics.fmean(values):.1%}" + (f" ± {half:.1%}" if len(values) > 1 else "")


def _interval(scores: Sequence["Score"]) -> str:
    """The interval of the mean, of exact hits: rounded to whole images it would not hold it."""
    from keras_transfer.intervals import wilson

    if not scores:
        return ""
    mean = wilson(statistics.fmean(score.correct for score in scores), scores[0].images)
    return f"{mean.low:.1%} to {mean.high:.1%}"


def write_table(by_recipe: dict[str, list["Outcome"]], path: Path) -> None:
    """Writes a row a training into a file, whole or not at all."""
    from keras_transfer.whole_files import written_whole

    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ("recipe", "seed", "valid_accuracy", "test_accuracy", "seconds", "trainable")
        writer.writerow((*columns, "epochs", "scored_epoch"))
        for outcome in (o for of_recipe in by_recipe.values() for o in of_recipe):
            test = outcome.test.accuracy if outcome.test else ""
            facts = (outcome.valid.accuracy, test, round(outcome.seconds, 1), outcome.trainable)
            epochs = (len(outcome.plotter.epochs), outcome.scored + 1)
            writer.writerow((outcome.recipe, outcome.seed, *facts, *epochs))
