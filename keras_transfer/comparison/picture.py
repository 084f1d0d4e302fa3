"""The picture of a comparison: the curves of each recipe's first seed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_transfer.comparison.results import accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_transfer.comparison.recipes import RecipeResult


def compared_picture(by_recipe: Mapping[str, Sequence["RecipeResult"]], title: str) -> "Figure":
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
        title=title,
    )
