"""The picture of a comparison: the curves of each recipe's first seed, and what they tell."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_transfer.comparison.results import accuracy, gap, overfitting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_transfer.comparison.recipes import Outcome


def compared_picture(by_recipe: Mapping[str, Sequence["Outcome"]], title: str) -> "Figure":
    """Draws the curves of a comparison; rings mark the epochs whose weights were scored.

    Args:
        by_recipe: The outcomes of each recipe, one a seed; the curves are of the first.
        title: Of the figure.

    Returns:
        A figure that no pyplot knows of.
    """
    from keras_transfer.plotting.comparison import compare_figure

    firsts = {f"{name}: {accuracy(some)}": some[0] for name, some in by_recipe.items()}
    return compare_figure(
        {name: _without_rates(one) for name, one in firsts.items()},
        epochs={name: one.plotter.epochs for name, one in firsts.items()},
        kept={name: one.scored for name, one in firsts.items()},
        notes={name: _note(one) for name, one in firsts.items()},
        title=title,
        footnotes=[_reading(next(iter(by_recipe.values()))), *filter(None, _found(by_recipe))],
    )


def _found(by_recipe: Mapping[str, Sequence["Outcome"]]) -> tuple[str, str]:
    return gap(by_recipe), overfitting(by_recipe)


def _reading(outcomes: Sequence["Outcome"]) -> str:
    """What the numbers of the legend mean."""
    first = outcomes[0]
    images = f"{first.test.images} test" if first.test else f"{first.valid.images} validation"
    if len(outcomes) == 1:
        return (
            "Accuracies are of the weights of the ringed epochs, in brackets their 95 % interval "
            f"(Wilson), on {images} images."
        )
    return (
        "Accuracies are of the weights of the ringed epochs, and means over the seeds: "
        f"± is half of the range over {len(outcomes)} seeds, in brackets the 95 % interval "
        f"(Wilson) of their mean, on {images} images; curves and epochs are of the first seed."
    )


def _without_rates(outcome: "Outcome") -> dict[str, list[float]]:
    """Its history, but for the learning rates, which say nothing here."""
    history = outcome.plotter.history
    return {k: v for k, v in history.items() if not k.startswith("learning_rate")}


def _note(outcome: "Outcome") -> str:
    return "\n".join(filter(None, (f"{outcome.choice}; {outcome.told}", outcome.about)))
