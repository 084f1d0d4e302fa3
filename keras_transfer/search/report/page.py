"""report.html of a search, a page that needs nothing but itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.evaluation.examine import Examined
from keras_transfer.evaluation.page import render_page
from keras_transfer.evaluation.report_files import report_pictures
from keras_transfer.plotting.trials import trials_text
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.answer import SearchAnswer
from keras_transfer.search.report.charts import CHARTS, search_charts
from keras_transfer.search.report.importance import Importance, importance
from keras_transfer.search.report.leaderboard import as_trials, best_of, board
from keras_transfer.search.report.summary import versions
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.atomic_files import check_folder, write_together
from keras_transfer.utils.confidence_intervals import DASH

PAGE = "report.html"
_OF_WINNER = ("classes", "confusion", "mistakes")
NAMES = (PAGE, *(f"{name}.png" for name in (*CHARTS, *_OF_WINNER)))  # all that may be written
_ROWS = 10  # of the leaderboard that are not folded away
_SECTIONS = {
    "mistakes": "More mistakes of the winner",
    "numbers": "The search in numbers",
    "leaderboard": "Leaderboard",
    "search": "The search",
    "parallel": "Parallel coordinates",
    "importance": "Importance of the hyperparameters",
    "curves": "Curves of the best five",
    "classes": "Each class",
    "confusions": "Confusions of the winner",
    "failures": "Failures",
    "settings": "Settings and versions",
    "method": "How this was computed",
}


def write_search_page(
    folder: Path,
    outcomes: Sequence[Outcome],
    objective: Objective,
    *,
    winner: Examined | None = None,
    split: str = "test",
    made_of: Composition | None = None,
    looks: int = 1,
    images: int | None = None,
    settings: Mapping[str, Any] | None = None,
    title: str = "Hyperparameter search",
) -> Path:
    """Writes `report.html` and its pictures into the output folder of a search.

    The page is one file that needs no network and no JavaScript. It opens with the answer: how good
    the winner is, how sure that is, what the search cost, the worst mistakes and what to do next.
    Below are the leaderboard, the search in pictures, the importance of the hyperparameters, the
    curves of the best five, failures, settings and versions. All is drawn before anything is
    written.

    Args:
        folder: The output folder. An earlier page there is replaced. The curves are those in
            `trials/` there.
        outcomes: The outcomes of all trials, and of the probe if there is one.
        objective: What the search aimed at.
        winner: The winner, as `examine` saw it on a split; None, the default, if there was none.
        split: Name of that split. Default `"test"`; anything else is called too good, because
            trials were chosen by it.
        made_of: The trials that the winner is made of. Default: the best trial alone.
        looks: How often the split was used, this time included. Default 1.
        images: Number of images of a validation without folds, for intervals.
        settings: Settings of the search by name.
        title: Title of the page.

    Returns:
        The page.

    Raises:
        ValueError: If there is no outcome.
        OSError: If the folder cannot be written to; an earlier page there then stays.

    Example:
        >>> winner = examine(model, data.test)
        >>> write_search_page(output, outcomes, Objective("val_loss", "min"), winner=winner)
        PosixPath('runs/photos/report.html')
    """
    if not outcomes:
        raise ValueError("outcomes is empty. Expected at least one; write after the first trial.")
    check_folder(folder, NAMES)
    best = best_of(outcomes, objective)
    made_of = made_of or Composition(() if best is None else (best.trial,))
    answer = SearchAnswer(outcomes, objective, winner, split, made_of, looks, images)
    mattered = importance(as_trials(outcomes))
    charts = search_charts(outcomes, objective, mattered, folder / "trials")
    pictures, files = None, list(charts.values())
    notes: Sequence[str] = ()
    if winner is not None:
        seen = dataclasses.replace(winner.found, uncertain=())
        pictures, notes = report_pictures(winner.model, seen, winner.numbers, winner.name)
        files += [pictures.charts[name] for name in _OF_WINNER if name in pictures.charts]
    known = {**(settings or {}), **{f"version of {k}": v for k, v in versions().items()}}
    left_out = {name for name in ("search", "parallel") if name not in charts}
    if pictures is None:
        left_out |= {"mistakes", "classes", "confusions"}
    elif len(pictures.mistakes) <= 4:  # which the answer shows
        left_out.add("mistakes")
    columns, rows = board(outcomes, objective)
    page = render_page(
        "search/report/templates/search.html",
        title=title,
        lead=answer.sentence,
        sections={name: head for name, head in _SECTIONS.items() if name not in left_out},
        facts=answer.facts,
        next_steps=answer.next_steps,
        answer=answer,
        numbers=None if winner is None else winner.numbers,
        pictures=pictures,
        charts=charts,
        columns=columns,
        rows=rows[:_ROWS],
        folded=rows[_ROWS:],
        folded_text=f"The other {trials_text(len(rows) - _ROWS)}",
        importance=mattered,
        importance_rows=_importance_rows(mattered),
        of_folds=answer.best is not None and len(answer.best.folds) > 1,
        failures=[outcome for outcome in outcomes if outcome.failed],
        settings=_setting_rows(known),
        notes=notes,
    )
    content = {PAGE: page.encode(), **{chart.name: chart.png for chart in files}}
    written, *_ = write_together(folder, content)
    for old in set(NAMES) - set(content):  # of an earlier page
        (folder / old).unlink(missing_ok=True)
    return written


def _importance_rows(mattered: Importance) -> list[tuple[str, str, str]]:
    ordered = sorted(mattered.of.items(), key=lambda item: -item[1].value)
    return [(name, f"{e.value:z.3f}", f"{(e.high - e.low) / 2:.3f}") for name, e in ordered]


def _setting_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns a row for each setting, and for each part of one that has parts, as the space has."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        rows += [(f"{name} {part}".rstrip(), _setting(item)) for part, item in parts.items()]
    return rows


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_setting(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_setting, value))}]"
    return DASH if value is None else str(value)
