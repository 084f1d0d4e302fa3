"""Rehearsal: measures the end of a search (saving, export, test, report) before its trials."""

import contextlib
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.data.augmentation import Flips
from keras_transfer.evaluation.examine import examine
from keras_transfer.models.averaged_views import AveragedViews
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.averaging.winner import keep
from keras_transfer.search.budget.limit import OutOfTime, time_limit, uninterrupted
from keras_transfer.search.progress import seconds_text
from keras_transfer.search.report.page import write_search_page
from keras_transfer.search.study import Study

_SHARE = 1 / 3  # of the time left that it may take
_WORTH = 1000.0  # seconds left; with fewer, nothing is measured
# Where they are not measured: seconds for each second that the search took to begin, and those that
# each further member of the average adds.
_ESTIMATES = {"keep": (0.6, 0.1), "export": (0.8, 0.5), "report": (0.9, 0.0)}
_COSTS = ("keep", "export", "test", "report")  # of a `TimePlan`, in seconds


class Rehearsal:
    """Builds, saves, loads, exports and reports on an untrained model.

    It writes into the plan of a search how long each of these takes, which depends on the machine
    and on what else runs there. In a short search that is estimated. It does nothing for a search
    without a time limit.

    Args:
        study: The search.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._slower = 1.0  # the machine, than when all was measured
        self._measured = study.plan.left() >= _WORTH
        plan = study.plan
        if plan.end == math.inf:
            return
        began, most = time.monotonic(), _SHARE * plan.left()
        try:
            with time_limit(lambda: most - (time.monotonic() - began)):
                (self._measure if self._measured else self._estimate)(began)
        except OutOfTime:  # it takes longer than that; nothing tells how long the test takes
            for name in _COSTS:
                setattr(plan, name, most / 3)
        seconds = seconds_text(plan.keep + plan.export + plan.test + plan.report)
        print(f"What comes after the trials will take about {seconds}.", flush=True)

    @property
    def _views(self) -> int:
        settings = self._study.settings
        use = settings.average_views and settings.flips != "none"
        return Flips(settings.flips).views if use else 1

    def _estimate(self, began: float) -> None:
        study, plan = self._study, self._study.plan
        members = [x for x in study.hypermodel.recommended() if study.costs.fits(x, plan.left())]
        self._estimate_for(members[:1])

    def _estimate_for(self, members: Sequence[Mapping[str, Any]]) -> None:
        study, plan = self._study, self._study.plan
        for name, (first, more) in _ESTIMATES.items():
            setattr(plan, name, plan.startup * (first + more * max(0, len(members) - 1)))
        split = "valid" if study.data.test is None else "test"
        images = len(study.data.labels[split])
        plan.test = images * self._views * study.costs.prediction(members)
        if study.data.test is not None:  # the probe runs on them, too
            plan.test += images * study.costs.prediction(())
        self._slower = 1.0

    def _measure(self, began: float) -> None:
        study, plan = self._study, self._study.plan
        settings, data, probe = study.settings, study.data, study.probe()
        images = next(iter(data.train.ordered))[0]
        folds = 1 if settings.final_fit else settings.folds or 1
        members = folds * min(settings.average, 1 + self._expected_trials()) + study.refits
        with _scratch(study.output / ".rehearsal") as folder:
            model = study.hypermodel.untrained(members, images.shape[1:])
            if self._views > 1:
                model = AveragedViews.of(model, Flips(settings.flips))
            model = keep(model, folder)
            kept = time.monotonic()
            plan.keep = kept - began
            model.export(folder / "export", verbose=False)
            exported = time.monotonic()
            seen = examine(model, data.train.ordered.take(1), verbose=0)
            write_search_page(
                folder, [probe], study.objective, winner=seen, made_of=Composition((0,))
            )
            plan.export, plan.report = exported - kept, time.monotonic() - exported
            model.predict(images, verbose=0)  # which traces it
            began = time.monotonic()
            model.predict(images, verbose=0)
            seconds = time.monotonic() - began
        split = "valid" if data.test is None else "test"
        plan.test = seconds * len(data.labels[split]) / len(images)
        if data.test is not None:  # the probe runs on them, too, without views, and is fitted anew
            plan.test += plan.test / self._views + probe.seconds / max(1, len(probe.folds))

    def _expected_trials(self) -> int:
        """How many trials like the first there is time for."""
        study = self._study
        first = study.hypermodel.recommended()[:1]
        if not first:
            return study.settings.trials
        fitting = study.plan.left() // study.costs.seconds(first[0])
        return int(max(1, min(fitting, study.settings.trials)))

    def renew(self, members: Sequence[Mapping[str, Any]] = ()) -> None:
        """Takes into account how busy the machine is by now, and what will be averaged.

        Args:
            members: The hyperparameters of the trials in the average, and of the one that comes
                next; none for what there was.
        """
        if members and not self._measured:
            self._estimate_for(members)
        slower = self._study.costs.slowdown()
        plan, self._slower, before = self._study.plan, slower, self._slower
        for name in _COSTS:
            setattr(plan, name, slower / before * getattr(plan, name))


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Makes a folder for a block, and removes it afterwards, as one that a killed process left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        with uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)
