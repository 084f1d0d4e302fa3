"""Rehearsal: measures the end of a search (saving, export, test, report) before its trials."""

import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_transfer.data.augmentation import Flips
from keras_transfer.evaluation.examine import examine
from keras_transfer.models.averaged_views import AveragedViews
from keras_transfer.search.averaging.winner import keep
from keras_transfer.search.budget.limit import OutOfTime, time_limit, uninterrupted
from keras_transfer.search.progress import seconds_text
from keras_transfer.search.report.page import write_search_page
from keras_transfer.search.study import Study

_SHARE = 1 / 3  # of the time left that it may take
_WORTH = 480.0  # seconds left; with fewer, only the least is measured
_SELDOM = 20  # times what it takes until the machine is measured again
# Where they are not measured, times what building, saving and loading a model take.
_EXPORT, _REPORT = 2.0, 1.0
_COSTS = ("keep", "export", "test", "report")  # of a `TimePlan`, in seconds


class Rehearsal:
    """Builds, saves, loads, exports and reports on an untrained model.

    It writes into the plan of a search how long each of these takes, which depends on the machine
    and on what else runs there. In a short search exporting and reporting are estimated. It does
    nothing for a search without `--minutes`.

    Args:
        study: The search.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._model: Any = None  # until all is measured
        plan = study.plan
        if plan.end == math.inf:
            return
        began, most = time.monotonic(), _SHARE * plan.left()
        try:
            with time_limit(lambda: most - (time.monotonic() - began)):
                self._measure(began, in_full=plan.left() >= _WORTH)
        except OutOfTime:  # it takes longer than that; nothing tells how long the test takes
            self._model = None
            for name in _COSTS:
                setattr(plan, name, most / 3)
        seconds = seconds_text(plan.keep + plan.export + plan.test + plan.report)
        print(f"What comes after the trials will take about {seconds}.", flush=True)

    @property
    def _views(self) -> int:
        settings = self._study.settings
        use = settings.average_views and settings.flips != "none"
        return Flips(settings.flips).views if use else 1

    def _measure(self, began: float, in_full: bool) -> None:
        study, plan = self._study, self._study.plan
        settings, data, probe = study.settings, study.data, study.probe()
        self._images = next(iter(data.train.ordered))[0]
        folds = 1 if settings.final_fit else settings.folds or 1
        members = folds * min(settings.average, settings.trials)
        with _scratch(study.output / ".rehearsal") as folder:
            model = study.hypermodel.untrained(members, self._images.shape[1:])
            if self._views > 1:
                model = AveragedViews.of(model, Flips(settings.flips))
            self._model = model = keep(model, folder)
            kept = time.monotonic()
            plan.keep = kept - began
            plan.export, plan.report = _EXPORT * plan.keep, _REPORT * plan.keep
            if in_full:
                model.export(folder / "export", verbose=False)
                exported = time.monotonic()
                seen = examine(model, data.train.ordered.take(1), verbose=0)
                write_search_page(folder, [probe], study.objective, winner=seen)
                plan.export, plan.report = exported - kept, time.monotonic() - exported
        self._of_batch()  # which traces it
        self._seconds = self._of_batch()
        split = "valid" if data.test is None else "test"
        plan.test = self._seconds * len(data.labels[split]) / len(self._images)
        if data.test is not None:  # the probe runs on them, too, without views, and is fitted anew
            plan.test += plan.test / self._views + probe.seconds / max(1, len(probe.folds))

    def _of_batch(self) -> float:
        began = time.monotonic()
        self._model.predict(self._images, verbose=0)
        self._at = time.monotonic()
        return self._at - began

    def renew(self) -> None:
        """Takes into account how busy the machine is by now; seldom, as that takes time, too."""
        if self._model is None or time.monotonic() - self._at < _SELDOM * self._seconds:
            return
        before, self._seconds = self._seconds, self._of_batch()
        plan, slower = self._study.plan, self._seconds / before
        for name in _COSTS:
            setattr(plan, name, slower * getattr(plan, name))


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
