"""The answer that the page of a search opens with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_transfer.evaluation.examine import Examined
from keras_transfer.evaluation.page import Fact, interval
from keras_transfer.evaluation.report_page import next_steps, size_text
from keras_transfer.plotting.curves import is_number
from keras_transfer.plotting.trials import trials_text, values_of, varied
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.metrics import Objective
from keras_transfer.search.progress import seconds_text
from keras_transfer.search.report.leaderboard import (
    as_trials,
    best_of,
    probe_of,
    ranked,
    score_text,
    trials_of,
)
from keras_transfer.search.scoring import Gain, alike, gains, macro_area
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.confidence_intervals import DASH, percent

_VALUES = 5  # of a hyperparameter, at least, to say that the best lie at its edge
_BEST = 3  # trials that lie at an edge together


@dataclass(frozen=True, eq=False)
class SearchAnswer:
    """The outcome of a search, in sentences and in numbers.

    Attributes:
        outcomes: The outcomes of all trials.
        objective: What the search aimed at.
        winner: The winner on a split.
        split: Name of that split.
        made_of: The trials that the winner is made of.
        looks: How often the split was used, this time included.
        images: Number of images of a validation without folds.
    """

    outcomes: Sequence[Outcome]
    objective: Objective
    winner: Examined | None
    split: str
    made_of: Composition
    looks: int
    images: int | None

    @property
    def best(self) -> Outcome | None:
        """The best trial, of those whose weights are not lost; the probe if there was none."""
        whole = [one for one in self.outcomes if one.trial not in self.made_of.lost]
        found = best_of(whole, self.objective)
        return found if trials_of(self.outcomes) else probe_of(self.outcomes)

    @property
    def gains(self) -> list[Gain]:
        """What the best trial gained over the probe."""
        probe = probe_of(self.outcomes)
        if self.best is None or probe is None or probe.failed or self.best is probe:
            return []
        return gains(self.best, probe, self.objective, self.images)

    @property
    def sentence(self) -> str:
        """The most important in one sentence."""
        best, count = self.best, trials_text(len(trials_of(self.outcomes)))
        if best is None:
            return f"None of {count} has a score: all failed."
        which = f"trial {best.trial}" if best.trial else "the probe"
        if self.made_of.lost:
            count += f" (without {self.made_of.lost_text})"
        text = f"Best of {count}: {which}, {self.objective.name} {score_text(best)}"
        if self.winner is not None:
            numbers = self.winner.numbers
            text += (
                f". On {numbers.images:,} {self.split} images {self.made_of.within} gets "
                f"{percent(numbers.accuracy.value)} right (95 % interval "
                f"{interval(numbers.accuracy)} %)"
            )
        return text + "."

    @property
    def who(self) -> str:
        """Says which model on which images, as a sentence."""
        assert self.winner is not None  # noqa: S101 - for mypy
        who = f"{self.made_of.within[0].upper()}{self.made_of.within[1:]}"
        return f"{who} on the {self.winner.numbers.images:,} {self.split} images."

    @property
    def facts(self) -> list[Fact]:
        """How good the winner is, how sure that is, and what the search cost."""
        trials = trials_of(self.outcomes)
        failed = sum(outcome.failed for outcome in trials)
        stopped = sum(outcome.status == "stopped" for outcome in trials)
        cost = f"for {trials_text(len(trials))}: {failed} failed, {stopped} stopped early."
        gained = "".join(
            f" Gain in {gain.metric} over the probe: {gain.value:+z.4f}." for gain in self.gains[:1]
        )
        if self.winner is not None:
            accuracy = self.winner.numbers.accuracy
            cost += f" The winner has {size_text(self.winner.model.count_params())}."
            common = percent(self.winner.numbers.most_common)
            good = Fact(
                "How good",
                f"{percent(accuracy.value)} right",
                f"{self.who} Always naming the most common class would get {common}.{gained}",
            )
            sure = Fact(
                "How sure",
                f"{interval(accuracy)} %",
                "95 % interval of the share that is right. " + self._caution(),
            )
        else:
            score = DASH if self.best is None else score_text(self.best)
            good = Fact("How good", score, f"{self.objective.name} of the best trial.{gained}")
            sure = Fact("How sure", DASH, "No images were kept apart to find out.")
        seconds = seconds_text(sum(outcome.seconds for outcome in self.outcomes))
        return [good, sure, Fact("What it cost", seconds, cost)]

    def _caution(self) -> str:
        if self.split != "test":
            return (
                f"There is no test split. Trials were chosen by the {self.split} images, so these "
                "numbers are too good."
            )
        often = "once," if self.looks == 1 else f"{self.looks} times, now"
        return f"The test images were used {often} for {self.made_of}."

    @property
    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The search in numbers, each with its 95 % interval where there is one."""
        if self.best is not None:
            yield f"best {self.objective.name}", score_text(self.best), ""
        for gain in self.gains:
            ends = DASH if gain.low is None else f"{gain.low:+z.4f} to {gain.high:+z.4f}"
            yield f"{gain.metric} of the probe", f"{gain.probe:z.4f}", ""
            yield f"gain in {gain.metric} over the probe", f"{gain.value:+z.4f}", ends
        if self.winner is not None:
            numbers, seen = self.winner.numbers, self.winner.found
            worth = {
                "accuracy": numbers.accuracy,
                "macro F1": numbers.f1,
                "AUC": macro_area(seen.true, seen.probabilities),
            }
            for name, number in worth.items():
                if number.known:
                    yield f"{name}, {self.split}", percent(number.value), f"{interval(number)} %"

    @property
    def remarks(self) -> list[str]:
        """Sentences below the numbers."""
        probe = probe_of(self.outcomes)
        return [
            *(f"Gain in {gain.metric}: {gain.how}." for gain in self.gains),
            *self.made_of.left_out(),
            *([self.alike] if self.alike else []),
            *(["There is no probe to compare with."] if probe is None else []),
        ]

    @property
    def alike(self) -> str:
        """How many others may be as good as the best."""
        if self.best is None:
            return ""
        others = [one for one in self.outcomes if not one.failed and one is not self.best]
        return alike(self.best, others, self.objective, self.images)

    @property
    def next_steps(self) -> list[str]:
        """What to do next, the most important first."""
        trials, best = trials_of(self.outcomes), self.best
        if best is None:
            return ["All trials failed: mend the cause of the first traceback below."]
        if not best.trial:
            return ["There was no time for a trial: give more --minutes."]
        steps = []
        if self.gains and self.gains[0].value <= 0:
            steps.append(
                "No trial is better than the probe: the search gained nothing over it. Unfreeze "
                "more blocks, or let it run longer."
            )
        if failed := sum(outcome.failed for outcome in trials):
            steps.append(f"{failed} of {trials_text(len(trials))} failed: see the first traceback.")
        fine_tuned = best.hyperparameters.get("unfreeze", 0)
        if best.epochs is not None and best.epoch == best.epochs and not fine_tuned:
            steps.append(f"Trial {best.trial} was best in its last epoch: give more --epochs.")
        steps += self._edges()
        if len(trials) >= 8 and best.trial > 0.75 * len(trials):
            steps.append(
                f"The best trial, {best.trial}, came late: run the same command with more --trials."
            )
        return [*steps, *(next_steps(self.winner.numbers)[:3] if self.winner else [])] or [
            "Nothing stands out. Try best.keras on new images."
        ]

    def _edges(self) -> Iterator[str]:
        """Names hyperparameters whose best values lie at the edge of those that were tried."""
        trials = as_trials(self.outcomes)
        best = as_trials(ranked(self.outcomes, self.objective)[:_BEST])
        for name in varied(trials):
            values = values_of(trials, name)
            if not all(map(is_number, values)) or len(set(values)) < _VALUES:
                continue
            low, high = np.quantile(values, [0.15, 0.85])
            top = values_of(best, name)
            for edge, lies_there in (("lowest", [v <= low for v in top]),
                                     ("highest", [v >= high for v in top])):  # fmt: skip
                if len(top) == _BEST and all(lies_there):
                    yield (
                        f"The best {_BEST} trials have {name} among the {edge} that were tried: "
                        "widen its range in --space."
                    )
