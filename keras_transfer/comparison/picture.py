"""The picture of a comparison: the curves of each recipe's first seed, and what they show."""

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
        title: Title of the figure.

    Returns:
        A figure that pyplot does not know.
    """
    from keras_transfer.plotting.comparison import compare_figure
    from keras_transfer.plotting.curves import is_rate

    firsts = {f"{name}: {accuracy(some)}": some[0] for name, some in by_recipe.items()}
    return compare_figure(
        {
            name: {key: log for key, log in one.plotter.history.items() if not is_rate(key)}
            for name, one in firsts.items()
        },
        epochs={name: one.plotter.epochs for name, one in firsts.items()},
        kept={name: one.scored for name, one in firsts.items()},
        notes={
            name: "\n".join(filter(None, (f"{one.choice}; {one.verdict}", one.about)))
            for name, one in firsts.items()
        },
        title=title,
        footnotes=[
            _meaning(next(iter(by_recipe.values()))),
            *filter(None, (gap(by_recipe), overfitting(by_recipe))),
        ],
    )


def _meaning(outcomes: Sequence["Outcome"]) -> str:
    """Says what the numbers of the legend mean."""
    first, seeds = outcomes[0], len(outcomes)
    images = f"{first.test.images} test" if first.test else f"{first.valid.images} validation"
    return (
        "Accuracies are of the weights of the ringed epochs, in brackets their 95 % interval "
        f"(Wilson), on {images} images."
    ) + (
        f" They are means over the seeds, ± half of the range over {seeds} seeds; curves and "
        "epochs are of the first seed."
        if seeds > 1
        else ""
    )
