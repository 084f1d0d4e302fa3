"""compare.html, the page of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_transfer.comparison import results
from keras_transfer.evaluation.page import Chart, Fact, render_page
from keras_transfer.evaluation.report import Report
from keras_transfer.search.progress import seconds_text
from keras_transfer.utils.atomic_files import write_together

if TYPE_CHECKING:
    from keras_transfer.comparison.recipes import RecipeResult

PAGE = "compare.html"
_SECTIONS = {"curves": "Curves", "recipes": "Recipes", "trainings": "Trainings"}


def write_comparison_page(
    folder: Path,
    by_recipe: Mapping[str, Sequence["RecipeResult"]],
    best: "RecipeResult",
    report: Report,
    title: str,
) -> Path:
    """Writes the page of a comparison, whose curves are in the folder as compare.png.

    Args:
        folder: The output folder.
        by_recipe: The outcomes of each recipe, one a seed.
        best: The best on validation.
        report: The report on it, in the folder.
        title: Title of the page.

    Returns:
        The page.
    """
    mistakes = next((path for path in report.pictures if path.name == "mistakes.png"), None)
    seconds = sum(outcome.seconds for some in by_recipe.values() for outcome in some)
    recipe = by_recipe[best.recipe]
    page = render_page(
        "comparison/templates/comparison.html",
        title=title,
        lead=f"Best on validation: {best.recipe}, seed {best.seed}.",
        sections=_SECTIONS,
        facts=[
            Fact(
                "How good",
                results.accuracy(recipe),
                f"{best.recipe}. Its mean over the seeds, with the 95 % interval.",
            ),
            Fact(
                "How sure",
                "A real difference" if results.differs(by_recipe) else "Not told apart",
                results.gap(by_recipe) or "There is no other recipe to compare with.",
            ),
            Fact(
                "What it cost",
                seconds_text(seconds),
                f"for all trainings; {seconds_text(recipe[0].seconds)} for the first of this "
                f"recipe, which trains {best.trainable:,} parameters.",
            ),
        ],
        next_steps=_next_steps(by_recipe, best),
        wrong=report.numbers.images - int(report.numbers.confusion.trace()),
        images=report.numbers.images,
        mistakes=mistakes
        and Chart(
            mistakes.relative_to(folder).as_posix(), mistakes.read_bytes(), "the worst mistakes"
        ),
        report=report.path.relative_to(folder).as_posix(),
        curves=Chart("compare.png", (folder / "compare.png").read_bytes(), "curves of the recipes"),
        columns=results.COLUMNS,
        rows=list(results.rows(by_recipe)),
        meaning=results.MEANING,
        sentences=[results.overfitting(by_recipe), *results.costs(by_recipe)],
        trainings=list(results.weights(by_recipe)),
    )
    return write_together(folder, {PAGE: page.encode()})[0]


def _next_steps(
    by_recipe: Mapping[str, Sequence["RecipeResult"]], best: "RecipeResult"
) -> list[str]:
    steps = [f"Take {best.recipe}, and look at its mistakes."]
    if not results.differs(by_recipe):
        recipes = results.right_range(by_recipe).values()
        cheapest = min(recipes, key=lambda some: some[0].seconds)[0]
        steps = [
            f"Take the cheapest, {cheapest.recipe} ({seconds_text(cheapest.seconds)}), or compare "
            "on more test images: these do not tell the recipes apart."
        ]
    if best.is_overfitted:
        steps.append("The best weights are of an overfitted epoch: stop earlier, or add dropout.")
    return [*steps, "Run keras-transfer search on these images: it also tries other heads."]
