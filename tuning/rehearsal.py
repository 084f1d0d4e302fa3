"""Rehearsal: measures, before the first trial, what comes after the last one."""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

from search_page import write_search_page
from sharing import seconds_text
from study import Study
from time_limit import OutOfTime, time_limit
from winner import keep

from keras_transfer import AveragedViews, Flips
from keras_transfer.examined import examine

_SHARE = 1 / 3  # of the time left that it may take
_SELDOM = 20  # times what it takes until the machine is measured again


class Rehearsal:
    """Builds, saves, loads, exports and reports on a model that is trained on nothing.

    It notes in the plan of a search how long each takes: on a machine that others use, too,
    nothing else tells. It does nothing for a search without `--minutes`.

    Args:
        study: The search.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._model: Any = None
        if study.plan.end == math.inf:
            return
        began, most = time.monotonic(), _SHARE * study.plan.left()
        try:
            with time_limit(lambda: most - (time.monotonic() - began)):
                self._measure(began)
        except OutOfTime:  # it takes longer than that
            study.plan.keep = study.plan.export = study.plan.report = most / 3
        plan = study.plan
        seconds = seconds_text(plan.keep + plan.export + plan.test + plan.report)
        print(f"What comes after the trials will take about {seconds}.", flush=True)

    def _measure(self, began: float) -> None:
        study, plan = self._study, self._study.plan
        args, data, probe = study.args, study.data, study.probe()
        averaged = args.average_views and args.flips != "none"
        self._views = Flips(args.flips).views if averaged else 1
        self._images = next(iter(data.train.ordered))[0]
        folds = 1 if args.final_fit else args.folds or 1
        members = folds * min(args.average, args.trials)
        with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=study.output) as folder:
            model = study.hypermodel.untrained(members, self._images.shape[1:])
            if self._views > 1:
                model = AveragedViews.of(model, Flips(args.flips))
            model = keep(model, Path(folder))
            kept = time.monotonic()
            model.export(Path(folder) / "export", verbose=False)
            exported = time.monotonic()
            seen = examine(model, data.train.ordered.take(1), verbose=0)
            write_search_page(Path(folder), [probe], study.objective, winner=seen)
        plan.keep, plan.export = kept - began, exported - kept
        plan.report = time.monotonic() - exported
        self._model = model
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
        for name in ("keep", "export", "test", "report"):
            setattr(plan, name, slower * getattr(plan, name))
