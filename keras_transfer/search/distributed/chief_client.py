"""ChiefClient: where a worker gets its trials from."""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos  # no public name, see oracle_service.py

from keras_transfer.search.distributed.oracle_service import (
    ACCEPTED,
    SECONDS,
    TRIAL,
    TUNER,
    YOURS,
    lean,
)
from keras_transfer.search.state.outcome import TrialFolder

BEAT = 1.0  # seconds between two signs of life
CALL = 10.0  # seconds for one call, after which it is said again
_FAREWELL = 2.0  # seconds for the last call of a worker that ends
CHIEF_WAIT = 120.0  # seconds that a worker waits for a chief that is gone
_SHARED_WAIT = 10.0  # seconds until a file that another machine has written must be seen
_CHANNEL = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class ChiefLost(ConnectionError):
    """Nothing has been heard of the chief for too long."""


class ChiefClient:
    """Gets trials from a chief, and tells it once a second that this worker lives.

    What a trial is, is read from its file, so a worker on another machine needs the same folder.

    Args:
        address: Host and port of the chief.
        tuner_id: Of this worker, and of no other process.
        trials: The folder of the trials.
        wait: Seconds to wait for a chief that is gone.

    Example:
        >>> with ChiefClient("10.0.0.1:5000", "worker-1", Path("/shared/run/trials")) as chief:
        ...     trials.work(chief, "worker-1", data.train, data.valid)
    """

    def __init__(self, address: str, tuner_id: str, trials: Path, wait: float = CHIEF_WAIT) -> None:
        self.address = address
        self.tuner_id = tuner_id
        self.trials = trials
        self.wait = wait
        self._trial = ""
        self._deadline = math.inf
        self._ended = threading.Event()

    def __enter__(self) -> "ChiefClient":
        self._channel = grpc.insecure_channel(self.address, options=_CHANNEL)
        self._stub = protos.get_service_grpc().OracleStub(self._channel)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._channel.close()

    # ---- as an oracle

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial, as it stands in its file.

        Raises:
            ChiefLost: If the chief cannot be reached.
            FileNotFoundError: If the file is not there.
        """
        request = protos.get_service().CreateTrialRequest(tuner_id=tuner_id)
        response, _ = self._call(self._stub.CreateTrial, request)
        trial = Trial.from_proto(response.trial)
        if trial.status != TrialStatus.RUNNING:
            return trial
        self._trial, self._deadline = trial.trial_id, math.inf
        return self._from_file(trial.trial_id)

    def end_trial(self, trial: Trial, tuner_id: str | None = None) -> bool:
        """Tells that a trial has ended; returns whether what came of it was accepted.

        Raises:
            ChiefLost: If the chief cannot be reached.
        """
        request = protos.get_service().EndTrialRequest(trial=lean(trial).to_proto())
        _, said = self._call(self._stub.EndTrial, request)
        self._trial, self._deadline = "", math.inf
        return said.get(ACCEPTED) == "1"

    def give_back(self, tuner_id: str) -> None:
        """Tells the chief that this worker ends before its trial, if the chief can be reached."""
        if not self._trial:
            return
        trial = Trial(HyperParameters(), trial_id=self._trial, status=TrialStatus.IDLE)
        request = protos.get_service().EndTrialRequest(trial=trial.to_proto())
        with contextlib.suppress(grpc.RpcError):
            self._once(self._stub.EndTrial, request, _FAREWELL)

    def seconds_left(self) -> float:
        """Returns the seconds that the trial has left: none if another worker has it now."""
        return self._deadline - time.monotonic()

    # ---- calls

    def _call(self, method: Any, request: Any) -> tuple[Any, dict[str, str]]:
        until = time.monotonic() + self.wait
        while True:
            try:
                return self._once(method, request, CALL)
            except grpc.RpcError as error:
                if error.code() not in _GONE:
                    raise ChiefLost(f"The chief has failed: {error.details()}") from error
                if time.monotonic() > until:
                    raise ChiefLost(
                        f"Nothing was heard of the chief at {self.address} for {self.wait:.0f} s "
                        f"({error.code().name}). Either the search is over, or the chief has "
                        f"another --output than {self.trials.parent}, or it has died: then start "
                        "it again with the same command, then this worker."
                    ) from error
            time.sleep(BEAT / 2)

    def _once(self, method: Any, request: Any, timeout: float) -> tuple[Any, dict[str, str]]:
        said = ((TUNER, self.tuner_id), (TRIAL, self._trial))
        response, call = method.with_call(request, timeout=timeout, metadata=said)
        return response, dict(call.trailing_metadata())

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            trial = self._trial
            try:
                request = protos.get_service().GetSpaceRequest()
                _, said = self._once(self._stub.GetSpace, request, CALL)
            except (grpc.RpcError, ValueError):  # it is gone for now, or the channel is closed
                continue
            if trial and trial == self._trial:
                left = float(said[SECONDS]) if said[YOURS] == "1" else -math.inf
                self._deadline = time.monotonic() + left

    def _from_file(self, trial_id: str) -> Trial:
        folder = TrialFolder(self.trials, trial_id)
        trial = _soon(lambda: folder.read_trial() if folder.path.exists() else None)
        if trial is None:
            raise FileNotFoundError(
                f"The chief has given trial {trial_id}, which is not in {str(self.trials)!r}. "
                "Expected the same --output folder for chief and workers, which all can read and "
                "write."
            )
        return trial


def _soon(read: Callable[[], Any]) -> Any:
    """What is there now or in some seconds; `None` if it is not."""
    until = time.monotonic() + _SHARED_WAIT
    while (found := read()) is None and time.monotonic() < until:
        time.sleep(0.1)
    return found
