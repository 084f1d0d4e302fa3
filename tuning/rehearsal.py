"""Rehearsal: measures, before the first trial, what comes after the last one."""

import math
import tempfile
import time
from pathlib import Path

from keras import Model
from sharing import seconds_text
from study import Study
from time_limit import OutOfTime, time_limit
from winner import keep

from keras_transfer import AveragedViews, Flips

_SHARE = 1 / 3  # of the time left that it may take
_SELDOM = 20  # times what it takes until the machine is measured again


class Rehearsal:
    """Builds, saves, loads, exports and runs a model that is trained on nothing.

    It notes in the plan of a search how long each takes: on a machine that others use, too,
    nothing else tells. It does nothing for a search without `--minutes`.

    Args:
        study: The search.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._model: Model | None = None
        if study.plan.end == math.inf:
            return
        began, most = time.monotonic(), _SHARE * study.plan.left()
        try:
            with time_limit(lambda: most - (time.monotonic() - began)):
                self._measure(began)
        except OutOfTime:  # it takes longer than that
            study.plan.keep = study.plan.export = most / 2
        plan = study.plan
        seconds = seconds_text(plan.keep + plan.export + plan.test + plan.report)
        print(f"What comes after the trials will take about {seconds}.", flush=True)

    def _measure(self, began: float) -> None:
        study, plan = self._study, self._study.plan
        args, data = study.args, study.data
        self._images = next(iter(data.train.ordered))[0]
        members = args.folds or 1
        if not args.final_fit:
            members *= min(args.average, args.trials)
        with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=study.output) as folder:
            model = study.hypermodel.untrained(members, self._images.shape[1:])
            if args.average_views and args.flips != "none":
                model = AveragedViews.of(model, Flips(args.flips))
            model = keep(model, Path(folder))
            kept = time.monotonic()
            model.export(Path(folder) / "export", verbose=False)
        model.predict(self._images, verbose=0)  # which traces it
        plan.keep, plan.export = kept - began, time.monotonic() - kept
        self._model = model
        self._seconds = self._of_batch()
        split = "valid" if data.test is None else "test"
        plan.test = self._seconds * len(data.labels[split]) / len(self._images)

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
        plan.keep, plan.export, plan.test = (
            slower * cost for cost in (plan.keep, plan.export, plan.test)
        )
