"""OracleService: KerasTuner's service for workers, which also knows which of them are alive."""

import threading
import time
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus

# The service has no public name. It is KerasTuner's own all the same, so that the messages are.
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from keras_transfer.search.oracles.durable_oracle import DurableOracle

TUNER, TRIAL = "tuner-id", "trial-id"  # what a worker says with each call
SECONDS, YOURS, ACCEPTED = "seconds-left", "yours", "accepted"  # what is said to it


class OracleService(OracleServicer):
    """Answers the calls of workers, in threads.

    What travels of a trial is its id and its status: all else is in its folder, exact.

    Every call is a sign of life of the worker that it names. One that has no other reason to call
    asks for the space, once a second, and hears how much time its trial has left, and whether the
    trial still is its own. So no two clocks are compared, and no file system has to tell soon that
    a file has changed, which those that machines share do not.

    Args:
        oracle: The oracle.

    Attributes:
        ready: Whether trials may be given. Until then all that ask are told to ask again.
        pulse: Tuner id to the last sign of life, as `time.monotonic()`.
        told: The tuners that know that there is no trial for them any more.
        stopped: Whether the oracle has no trial any more.
        error: What went wrong here, not in a trial; `None` for nothing.
    """

    def __init__(self, oracle: DurableOracle) -> None:
        super().__init__(oracle)
        self.ready = threading.Event()
        self.pulse: dict[str, float] = {}
        self.told: set[str] = set()
        self.stopped = threading.Event()
        self.error: BaseException | None = None

    def alive(self, silence: float) -> set[str]:
        """Returns the tuners that were heard of within some seconds and have work to do."""
        now = time.monotonic()
        return {t for t, at in list(self.pulse.items()) if now - at <= silence} - self.told

    def GetSpace(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers a sign of life, without waiting for the oracle, or with the space."""
        tuner_id, said = self._sign(context)
        if tuner_id is None:
            return super().GetSpace(request, context)
        running = self.oracle.ongoing_trials.get(tuner_id)
        yours = running is not None and running.trial_id == said.get(TRIAL)
        left = self.oracle.seconds_left()
        context.set_trailing_metadata(((SECONDS, repr(left)), (YOURS, str(int(yours)))))
        return protos.get_service().GetSpaceResponse()

    def CreateTrial(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Gives a trial."""
        self._sign(context)
        self.pulse[request.tuner_id] = time.monotonic()
        if self.ready.is_set():
            trial = self._or_error(lambda: self.oracle.create_trial(request.tuner_id))
        else:
            trial = Trial(HyperParameters(), trial_id="none", status=TrialStatus.IDLE)
        if trial.status == TrialStatus.STOPPED:
            self.stopped.set()
            self.told.add(request.tuner_id)
        return protos.get_service().CreateTrialResponse(trial=lean(trial).to_proto())

    def EndTrial(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Takes what came of a trial, or the trial back from a worker that ends before it."""
        tuner_id, _ = self._sign(context)
        trial = Trial.from_proto(request.trial)
        if trial.status == TrialStatus.IDLE and tuner_id is not None:
            self.oracle.give_back(tuner_id)
            return protos.get_service().EndTrialResponse()
        accepted = self._or_error(lambda: self.oracle.end_trial(trial, tuner_id))
        context.set_trailing_metadata(((ACCEPTED, str(int(accepted))),))
        return protos.get_service().EndTrialResponse()

    def _or_error(self, call: Any) -> Any:
        try:
            return call()
        except BaseException as error:
            self.error = error  # for the chief to end with
            raise

    def _sign(self, context: grpc.ServicerContext) -> tuple[str | None, dict[str, str]]:
        """Who calls, and what else it says; notes that it lives."""
        said = dict(context.invocation_metadata())
        tuner_id = said.get(TUNER)
        if tuner_id is not None:
            self.pulse[tuner_id] = time.monotonic()
        return tuner_id, said


def lean(trial: Trial) -> Trial:
    """Returns a trial without its hyperparameters, some of which KerasTuner prints on the way."""
    return Trial(HyperParameters(), trial_id=trial.trial_id, status=trial.status)
