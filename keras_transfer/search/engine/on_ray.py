"""OnRay: runs trials as tasks of Ray, on this machine or on a cluster."""

import contextlib
import os
import uuid
from collections.abc import Callable
from typing import Any, Self

from keras_transfer.search.budget.limit import uninterrupted
from keras_transfer.search.engine.request import MOST_DEATHS, TrialRequest, TrialResult
from keras_transfer.search.trial_runner import failed
from keras_transfer.utils.optional_imports import require
from keras_transfer.utils.processors import processors

Runner = Callable[[TrialRequest], TrialResult]

_TRIALS_PER_PROCESS = 25  # TensorFlow keeps memory of each traced step (tensorflow#62854)
_LOOK = 1.0  # seconds between two looks for a signal


class OnRay:
    """Runs trials as tasks of Ray: a task whose process or node dies is run again elsewhere.

    Args:
        make_runner: Makes what runs trials, in each process that does. It travels there, so that
            it and what it holds can be pickled.
        workers: Trials at a time. Default: as many as the cluster has cores.
        address: `"local"` for processes of this machine, which end with this one; `"auto"` or an
            address for a cluster that runs already.
        gpus_per_trial: GPUs that Ray keeps for each trial. Default 0.

    Raises:
        ImportError: If Ray is not installed.

    Example:
        >>> engine = OnRay(functools.partial(runner_of, settings, "photos/"), workers=4)
        >>> Trials(hypermodel, "random", ..., engine=engine).run()
    """

    def __init__(
        self,
        make_runner: Callable[[], Runner],
        workers: int | None = None,
        address: str = "local",
        gpus_per_trial: float = 0,
    ) -> None:
        self.slots = 1  # until Ray has started
        self._workers = workers
        self.address = address
        self._make_runner = make_runner
        self._gpus = gpus_per_trial
        self._id = uuid.uuid4().hex
        self._running: dict[Any, TrialRequest] = {}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anyone
        self._ray = require("ray", extra="cluster", purpose="Running several trials at a time")

    def __enter__(self) -> Self:
        ray, local = self._ray, self.address == "local"
        cores = processors()
        workers = self._workers or (cores if local else None)
        variables = {
            # A core each on a cluster, where nobody knows the machines.
            "TF_NUM_INTRAOP_THREADS": str(max(1, cores // workers) if local and workers else 1),
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        own = {
            "num_cpus": workers,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
        ray.init(
            address=self.address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": variables},
            **(own if local else {}),
        )
        resources = ray.cluster_resources()
        if resources.get("GPU", 0) < self._gpus:
            ray.shutdown()
            raise ValueError(
                f"--gpus-per-trial {self._gpus:g}. Expected at most {resources.get('GPU', 0):g}, "
                "the GPUs that Ray sees."
            )
        is_capped = local or not workers  # by Ray, which has no more cores
        workers = workers or max(1, int(resources.get("CPU", 1)))
        # Some wait with Ray, so that nobody idles while an oracle thinks, up to 1.6 s.
        self.slots = workers + (1 + workers // 8 if is_capped else 0)
        self._task = ray.remote(
            num_cpus=1,
            num_gpus=self._gpus,
            max_retries=MOST_DEATHS - 1,
            max_calls=_TRIALS_PER_PROCESS,
        )(_run)
        return self

    def __exit__(self, *error: object) -> None:
        with uninterrupted():
            for task in self._running:
                with contextlib.suppress(Exception):  # the cluster may be gone
                    self._ray.cancel(task, force=True)
            self._running.clear()
            self._ray.shutdown()

    def submit(self, request: TrialRequest) -> None:
        """Takes a trial to run."""
        self._running[self._task.remote(self._id, self._make_runner, request)] = request

    def wait(self) -> tuple[TrialRequest, TrialResult]:
        """Returns a trial that has ended, as soon as one has.

        Raises:
            OSError: If the disk is full where it ran, or the cluster is lost.
        """
        ended: list[Any] = []
        while not ended:
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK)
        request = self._running.pop(ended[0])
        try:
            return request, self._ray.get(ended[0])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except _deaths(self._ray) as error:
            text = f"{MOST_DEATHS} processes died while they ran this trial."
            text += " Did they run out of memory?"
            return request, TrialResult(failed(request, 0.0, f"{error}\n{text}"))
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConnectionError(
                f"Ray cannot run trials any more ({reason}). Trials that have ended are kept; see "
                "`ray status`, and the same command goes on."
            ) from error


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """Returns the errors that tell of the death of a trial's process; others end the search."""
    kinds = ray.exceptions
    return kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.OutOfMemoryError


_runners: dict[str, Runner] = {}  # of this process, by engine


def _run(engine: str, make_runner: Callable[[], Runner], request: TrialRequest) -> TrialResult:
    """Runs a trial in a process of Ray, which makes its runner once."""
    if engine not in _runners:
        _runners[engine] = make_runner()
    return _runners[engine](request)
