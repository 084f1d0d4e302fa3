"""The sections of a search's page: pure functions from what was found to HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_transfer.evaluation.examine import Examined
from keras_transfer.evaluation.page import (
    Chart,
    bullets,
    chart,
    interval,
    paragraph,
    preformatted,
    table,
)
from keras_transfer.evaluation.report_page import (
    PagePictures,
    classes_part,
    confusions_part,
    mistakes_part,
)
from keras_transfer.plotting.trials import trials_text, varied
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.metrics import Objective
from keras_transfer.search.progress import seconds_text
from keras_transfer.search.report.importance import Importance
from keras_transfer.search.report.leaderboard import (
    as_trials,
    best_of,
    cell,
    epochs_differ,
    probe_of,
    ranked,
    score_text,
    status_of,
    trials_of,
)
from keras_transfer.search.scoring import Gain, gains, macro_area
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.confidence_intervals import DASH, percent

_ROWS = 20  # of the leaderboard that are not folded away

_METHOD = (
    "The winner is the best of many trials on the same validation images, so its validation score "
    "is a little too good, the more so the more trials there were. The test images were not used "
    "to choose anything.",
    "The probe, trial 0, is a logistic regression on the frozen features: what a search has to "
    "beat.",
    "Importance: a random forest learns the rank of the score from the hyperparameters, and one at "
    "a time these are shuffled among the trials; all is measured on trials that a tree has not "
    "seen. Hyperparameters that the tuner never varied far from good values look less important "
    "than they are.",
    "In parallel coordinates, scores far worse than the median stand together at the lower end.",
    "Intervals are 95 %; those of shares are Wilson's.",
)
_AGAIN = (
    "Trained again: the winner, and the probe that it is compared with, learned from training and "
    "validation images together, for as many epochs as were best in the search. Leaderboard and "
    "curves are those of the search."
)


@dataclass(frozen=True, eq=False)
class Found:
    """All that the page tells; see `write_search_page`.

    Attributes:
        outcomes: Those of all trials.
        objective: What the search aimed at.
        importance: How much each hyperparameter mattered.
        charts: Of the search, by name.
        winner: The winner on a split.
        split: Which split that is.
        made_of: What the winner is made of.
        looks: How often the split was looked at, this time included.
        images: How many images a validation without folds is of.
        settings: What the search was asked for, by name.
        pictures: Of the winner.
        notes: Sentences on how the winner's split was read.
    """

    outcomes: Sequence[Outcome]
    objective: Objective
    importance: Importance
    charts: Mapping[str, Chart]
    winner: Examined | None
    split: str
    made_of: Composition
    looks: int
    images: int | None
    settings: Mapping[str, Any]
    pictures: PagePictures | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def best(self) -> Outcome | None:
        """The best trial, of those whose weights are not lost."""
        whole = [one for one in self.outcomes if one.trial not in self.made_of.lost]
        return best_of(whole, self.objective)

    @property
    def gains(self) -> list[Gain]:
        """What the best trial gained over the probe."""
        probe = probe_of(self.outcomes)
        if self.best is None or probe is None or probe.failed:
            return []
        return gains(self.best, probe, self.objective, self.images)

    @property
    def failures(self) -> list[Outcome]:
        """The trials that failed, in order."""
        return [outcome for outcome in self.outcomes if outcome.failed]


def lead_sentence(found: Found) -> str:
    """Says the most important in one sentence."""
    best, count = found.best, trials_text(len(trials_of(found.outcomes)))
    if best is None:
        return f"None of {count} has a score: all failed."
    if found.made_of.lost:
        count += f" (without {found.made_of.lost_text})"
    said = f"Best of {count}: trial {best.trial}, {found.objective.name} {score_text(best)}"
    if found.winner is not None:
        accuracy = found.winner.numbers.accuracy
        said += (
            f". On {found.winner.numbers.images:,} {found.split} images {found.made_of.within} "
            f"gets {percent(accuracy.value)} right (95 % interval {interval(accuracy)} %)"
        )
    return said + "."


def _worth(found: Found) -> list[tuple[str, str, str]]:
    """What the winner is worth on the split: a row for each number."""
    if found.winner is None:
        return []
    numbers = found.winner.numbers
    worth = {"accuracy": numbers.accuracy, "macro F1": numbers.f1}
    seen = found.winner.found
    if (
        np.isfinite(seen.probabilities).all()
        and (area := macro_area(seen.true, seen.probabilities)).known
    ):
        worth["AUC"] = area
    return [
        (f"{name}, {found.split}", percent(number.value), f"{interval(number)} %")
        for name, number in worth.items()
    ]


def _summary(found: Found) -> str:
    trials = trials_of(found.outcomes)
    failed = sum(outcome.failed for outcome in trials)
    stopped = sum(outcome.status == "stopped" for outcome in trials)
    seconds = seconds_text(sum(outcome.seconds for outcome in found.outcomes))
    rows = [("trials", f"{len(trials)}: {failed} failed, {stopped} stopped early", "")]
    rows.append(("time in trials", seconds, ""))
    if found.best is not None:
        rows.append((f"best {found.objective.name}", score_text(found.best), ""))
    for gain in found.gains:
        rows.append((f"{gain.metric} of the probe", f"{gain.probe:.4f}", ""))
        ends = DASH if gain.low is None else f"{gain.low:+.4f} to {gain.high:+.4f}"
        rows.append((f"gain in {gain.metric} over the probe", f"{gain.value:+.4f}", ends))
    rows += _worth(found)
    parts = [table("The search in numbers", ("number", "value", "95 % interval"), rows)]
    parts += [paragraph(f"Gain in {gain.metric}: {gain.how}.") for gain in found.gains]
    return "\n".join((*parts, *map(paragraph, _cautions(found))))


def _cautions(found: Found) -> list[str]:
    said = [*found.made_of.left_out()]
    if found.winner is not None and found.split == "test":
        often = "once," if found.looks == 1 else f"{found.looks} times, now"
        said.append(f"The test images were used {often} for {found.made_of}.")
    elif found.winner is not None:
        said.append(
            f"There is no test split. Trials were chosen by the {found.split} images, so what is "
            "said of them is too good."
        )
    if probe_of(found.outcomes) is None:
        said.append("There is no probe to compare with.")
    elif found.gains and found.gains[0].value <= 0:
        said.append("No trial is better than the probe: the search gained nothing over it.")
    return said


def _leaderboard(found: Found) -> str:
    probe = probe_of(found.outcomes)
    shown = [*([probe] if probe else []), *ranked(found.outcomes, found.objective)]
    names = varied(as_trials(found.outcomes))
    logged = dict.fromkeys(name for one in shown for name in one.metrics if "val_" in name)
    metrics = [name for name in logged if name != found.objective.name]
    granted = ["epochs"] * epochs_differ(shown)
    columns = ["trial", found.objective.name, *metrics, "epoch", *granted, "seconds", *names]
    rows = [_row(one, metrics, granted, names) for one in shown]
    caption = "Best first, with ± the deviation over folds where there are folds"
    parts = [table(caption, columns, rows[:_ROWS])]
    if rest := rows[_ROWS:]:
        inside = table("The rest of the leaderboard", columns, rest)
        said = f"The other {trials_text(len(rest))}"
        parts.append(f"<details>\n<summary>{said}</summary>\n{inside}\n</details>")
    parts.append(paragraph("File leaderboard.csv has all of it."))
    return "\n".join(parts)


def _row(
    outcome: Outcome, metrics: Sequence[str], granted: Sequence[str], names: Sequence[str]
) -> list[str]:
    marks = {"probe": "0 (probe)", "stopped": f"{outcome.trial} (stopped)"}
    return [
        marks.get(status_of(outcome), str(outcome.trial)),
        score_text(outcome),
        *(f"{outcome.metrics[m]:.4f}" if m in outcome.metrics else "" for m in metrics),
        cell(outcome.epoch),
        *(cell(outcome.epochs) for _ in granted),
        f"{outcome.seconds:.1f}",
        *(cell(outcome.hyperparameters.get(name)) for name in names),
    ]


def _search(found: Found) -> str:
    if "search" not in found.charts:
        return ""
    return chart(found.charts["search"], "Scores by trial and by value. File search.png.")


def _parallel(found: Found) -> str:
    if "parallel" not in found.charts:
        return ""
    said = "A line a trial, the best thick; trials without a score are left out. File parallel.png."
    return chart(found.charts["parallel"], said)


def _importance(found: Found) -> str:
    one = found.importance
    if one.reason:
        return paragraph(one.reason)
    ordered = sorted(one.of.items(), key=lambda item: -item[1].value)
    rows = [(name, f"{e.value:.3f}", f"{(e.high - e.low) / 2:.3f}") for name, e in ordered]
    explained = (
        f"From {trials_text(one.trials)} a random forest explains {one.r2:.0%} of the differences "
        "in score (out-of-bag R²); a bar is how much of that is lost when the hyperparameter's "
        "values are shuffled among the trials. About 0 or below: no sign that it matters."
    )
    columns = ("hyperparameter", "R² lost", "standard deviation over shuffles")
    picture = chart(found.charts["importance"], "Importance. File importance.png.")
    return "\n".join((paragraph(explained), picture, table("Importance", columns, rows)))


def _curves(found: Found) -> str:
    if "best_five" not in found.charts:
        return paragraph("No trial left curves.")
    folds = found.best is not None and len(found.best.folds) > 1
    said = " Of each trial the first fold." if folds else ""
    caption = f"The best trials, epoch by epoch.{said} File best_five.png."
    return chart(found.charts["best_five"], caption)


def _of_winner(
    part: Callable[[Any, PagePictures], str],
) -> Callable[[Found], str]:
    """A section of a report on a model, for the winner on its split; nothing without one."""

    def of(found: Found) -> str:
        if found.winner is None or found.pictures is None:
            return ""
        who = f"{found.made_of.within[0].upper()}{found.made_of.within[1:]}"
        said = f"{who} on the {found.winner.numbers.images:,} {found.split} images."
        return f"{paragraph(said)}\n{part(found.winner.numbers, found.pictures)}"

    return of


def _failures(found: Found) -> str:
    if not found.failures:
        return paragraph("No trial failed.")
    first = found.failures[0]
    listed = bullets([f"trial {one.trial}: {one.failure}" for one in found.failures])
    said = f"{trials_text(len(found.failures))} failed. The first traceback is that of trial "
    text = first.traceback.strip() or first.failure
    label = f"Traceback of trial {first.trial}"
    return f"{listed}\n{paragraph(f'{said}{first.trial}:')}\n{preformatted(text, label)}"


def _settings(found: Found) -> str:
    """A row for each setting, and for each part of one that has parts, such as the space."""
    rows: list[tuple[str, str]] = []
    for name, value in found.settings.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        rows += [(f"{name} {part}".rstrip(), _setting(item)) for part, item in parts.items()]
    return table("What was asked for, and what it ran with", ("name", "value"), rows)


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_setting(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_setting, value))}]"
    return DASH if value is None else str(value)


def _method(found: Found) -> str:
    return bullets((*found.notes, *_METHOD, *([_AGAIN] if found.made_of.trained_again else [])))


# Name of a section, its title, and what makes it; one that gives nothing is left out.
PARTS: Mapping[str, tuple[str, Callable[[Found], str]]] = {
    "summary": ("Summary", _summary),
    "leaderboard": ("Leaderboard", _leaderboard),
    "search": ("The search", _search),
    "parallel": ("Parallel coordinates", _parallel),
    "importance": ("Importance of the hyperparameters", _importance),
    "curves": ("Curves of the best five", _curves),
    "classes": ("Each class", _of_winner(classes_part)),
    "confusions": ("Confusions of the winner", _of_winner(confusions_part)),
    "mistakes": ("Worst mistakes of the winner", _of_winner(mistakes_part)),
    "failures": ("Failures", _failures),
    "settings": ("Settings and versions", _settings),
    "method": ("How this was computed", _method),
}
