"""report.html: what a search found, as a page that needs nothing but itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.evaluation.examine import Examined
from keras_transfer.evaluation.page import page, section
from keras_transfer.evaluation.report_files import report_pictures
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.charts import CHARTS, search_charts
from keras_transfer.search.report.importance import importance
from keras_transfer.search.report.leaderboard import as_trials, best_of
from keras_transfer.search.report.sections import PARTS, Found, lead_sentence
from keras_transfer.search.report.summary import versions
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.atomic_files import check_folder, write_together

PAGE = "report.html"
# A leaderboard is wider than a sheet of paper is. Settings are text, which is read from the left.
_STYLE = """
#settings th, #settings td { text-align: left; vertical-align: top; }
#settings td { white-space: normal; overflow-wrap: anywhere; }
#settings .name { width: auto; }
@page leaderboard { size: landscape; margin: 1cm; }
@media print {
  #leaderboard { page: leaderboard; }
  #leaderboard table { font-size: 6pt; }
  #leaderboard th, #leaderboard td { padding: .1rem .25rem; }
}
"""
_WINNER = ("classes", "confusion", "mistakes")
NAMES = (PAGE, *(f"{name}.png" for name in (*CHARTS, *_WINNER)))  # all that may be written


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

    The page is one file that needs no network and no JavaScript: the best trial and what it
    gained over the probe, the leaderboard, the search in pictures, what mattered, the curves of
    the best five, what the winner gets wrong with pictures, failures, settings and versions. All
    is drawn before anything is written.

    Args:
        folder: The output folder. An earlier page there is replaced. The curves are those in
            `trials/` there.
        outcomes: Those of all trials, the probe's if there is one.
        objective: What the search aimed at.
        winner: The winner, as `examine` saw it on a split; None, the default, if there was none.
        split: Which split that was. Default `"test"`; anything else is called too good, because
            trials were chosen by it.
        made_of: What the winner is made of; the best trial alone if left out.
        looks: How often the split was looked at, this time included. Default 1.
        images: How many images a validation without folds is of, for intervals.
        settings: What the search was asked for, by name.
        title: Of the page.

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
    mattered = importance(as_trials(outcomes))
    charts = search_charts(outcomes, objective, mattered, folder / "trials")
    found = Found(
        outcomes=outcomes,
        objective=objective,
        importance=mattered,
        charts=charts,
        winner=winner,
        split=split,
        made_of=made_of or Composition(() if best is None else (best.trial,)),
        looks=looks,
        images=images,
        settings={**(settings or {}), **{f"version of {k}": v for k, v in versions().items()}},
    )
    if winner is not None:
        seen = dataclasses.replace(winner.found, uncertain=())
        pictures, notes = report_pictures(winner.model, seen, winner.numbers, winner.name)
        found = dataclasses.replace(found, pictures=pictures, notes=notes)
        charts = {**charts, **{name: pictures.charts[name] for name in _shown(pictures.charts)}}
    parts = {name: (head, part(found)) for name, (head, part) in PARTS.items()}
    sections = {
        name: (head, section(name, head, inside))
        for name, (head, inside) in parts.items()
        if inside
    }
    text = page(title, lead_sentence(found), sections, style=_STYLE)
    files = {PAGE: text.encode(), **{one.name: one.png for one in charts.values()}}
    written, *_ = write_together(folder, files)
    for old in set(NAMES) - set(files):  # of an earlier page, where this one has no such picture
        (folder / old).unlink(missing_ok=True)
    return written


def _shown(charts: Mapping[str, Any]) -> list[str]:
    return [name for name in _WINNER if name in charts]
