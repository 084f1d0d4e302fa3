"""The chief of a search: has the oracle, gives trials to workers, and knows when it is over."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import grpc
from keras_tuner.src import protos  # no public name, see oracle_service.py

from keras_transfer.search.budget.limit import OutOfTime, uninterrupted
from keras_transfer.search.distributed.oracle_service import OracleService
from keras_transfer.search.oracles.durable_oracle import DurableOracle
from keras_transfer.search.state.lock import alone
from keras_transfer.search.trials import Trials
from keras_transfer.utils.exit_codes import ALL_FAILED, DONE, INTERRUPTED, NO_WORKERS

# A worker says once a second that it lives, from a thread of its own. Ten are more than TensorFlow
# or a busy machine ever holds that thread up.
SILENCE = 10.0
_PAUSE = 0.25
_CALLS = 64  # that wait or are answered at a time


@dataclass(frozen=True)
class Patience:
    """How long a chief waits, in seconds.

    Attributes:
        silence: After so long without a sign of life a worker is taken for dead.
        first: For the first worker, which reads its data before.
        next: For another one, when all have died, or for one that begins anew.
    """

    silence: float = SILENCE
    first: float = 600.0
    next: float = 180.0


class Workers(Protocol):
    """Workers that belong to the chief."""

    def start(self, address: str) -> None:
        """Starts them."""

    def check(self) -> int:
        """Starts those again that have died; returns how many there are."""

    def stop(self) -> None:
        """Ends those that are left."""


def serve(
    trials: Trials,
    *,
    address: str | None = None,
    workers: Workers | None = None,
    patience: Patience | None = None,
    first: Callable[[], None] = lambda: None,
) -> int:
    """Lets workers run all trials, and returns when they have, or when nobody is left who could.

    Args:
        trials: The trials. The process must not run them itself.
        address: Host and port, 0 for any port; from KerasTuner's environment variables unless
            given.
        workers: Workers to start, and to end when it is over; `None` for those that come.
        patience: How long to wait for workers.
        first: What to do before any trial is given. Workers that come meanwhile wait, or do a part
            of it.

    Returns:
        `DONE`, `ALL_FAILED`, `NO_WORKERS` or `INTERRUPTED` of exit_codes.py.

    Raises:
        OSError: If the port is in use, another process runs this search, or its state cannot be
            written.

    Example:
        >>> serve(trials, address="127.0.0.1:0", workers=LocalWorkers(command, 4, output))
    """
    try:
        with alone(trials.output):
            trials.oracle.adopt()
            service = OracleService(trials.oracle)
            with _server(service, address or _address()) as bound:
                code = _until_over(trials, service, bound, workers, patience or Patience(), first)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == DONE and trials.best is None:
        return ALL_FAILED
    return code


def check_address() -> None:
    """Checks that the chief that KerasTuner's variables name could serve there, before long work.

    Raises:
        OSError: If the port is in use, or is none of this machine.
    """
    host, _, port = _address().rpartition(":")
    _check_free(host, port)


def _address() -> str:
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


@contextlib.contextmanager
def _server(service: OracleService, address: str) -> Iterator[str]:
    """Serves within a block; gives the address with the port that it is."""
    host, _, port = address.rpartition(":")
    _check_free(host, port)
    # Two servers may share a port unless told otherwise, and workers would find either.
    options = [("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(_CALLS), options=options)
    protos.get_service_grpc().add_OracleServicer_to_server(service, server)
    bound = server.add_insecure_port(address)
    server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        service.oracle.close()
        server.stop(grace=1.0).wait()


def _check_free(host: str, port: str) -> None:
    """Refuses a port that is in use, of which gRPC says less."""
    try:
        socket.create_server((host.strip("[]"), int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        raise OSError(
            f"Port {port} of {host} cannot be used ({error}). Is another search running? Give "
            "KERASTUNER_ORACLE_PORT another port, and KERASTUNER_ORACLE_IP an address of this "
            "machine."
        ) from error


def _until_over(
    trials: Trials,
    service: OracleService,
    address: str,
    workers: Workers | None,
    wait: Patience,
    first: Callable[[], None],
) -> int:
    if trials.oracle.exhausted():
        first()
        return DONE
    with _started(workers, address, trials.oracle):
        with _checked(workers):
            first()
        service.ready.set()
        return _watch(trials, service, workers, wait)


@contextlib.contextmanager
def _started(workers: Workers | None, address: str, oracle: DurableOracle) -> Iterator[None]:
    """Has workers at work within a block, if there are to be any.

    Trials that the end of the block cuts short are given back, so that this is no death of theirs.
    """
    nobody_goes_on = workers is not None
    try:
        if workers is not None:
            workers.start(address)
        yield
    except OutOfTime:
        nobody_goes_on = True  # those that came by themselves find no chief any more
        raise
    finally:
        with uninterrupted():
            if workers is not None:
                workers.stop()
            for tuner_id in list(oracle.ongoing_trials) if nobody_goes_on else ():
                oracle.give_back(tuner_id)


@contextlib.contextmanager
def _checked(workers: Workers | None) -> Iterator[None]:
    """Has those workers started again that die within a block, which keeps this thread busy."""
    ended = threading.Event()

    def check() -> None:
        with contextlib.suppress(OSError):  # met again by who checks them afterwards
            while workers is not None and not ended.wait(_PAUSE):
                workers.check()

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(trials: Trials, service: OracleService, workers: Workers | None, wait: Patience) -> int:
    oracle, began = trials.oracle, time.monotonic()
    latest = began  # when somebody was alive
    while True:
        if service.error is not None:
            raise service.error
        _release_the_dead(trials, service, began, wait.silence)
        alive, now = service.alive(wait.silence), time.monotonic()
        latest = now if alive else latest
        over = oracle.exhausted() or (service.stopped.is_set() and not oracle.ongoing_trials)
        if over and not alive:
            return DONE
        if not over and not alive and _none_to_come(workers, service, now - latest, wait):
            return NO_WORKERS
        time.sleep(_PAUSE)


def _none_to_come(
    workers: Workers | None, service: OracleService, alone: float, wait: Patience
) -> bool:
    if workers is not None:  # which may read their data for as long as they like
        return workers.check() == 0
    return alone > (wait.next if service.pulse else wait.first)


def _release_the_dead(trials: Trials, service: OracleService, began: float, silence: float) -> None:
    now = time.monotonic()
    for tuner_id in list(trials.oracle.ongoing_trials):
        if now - service.pulse.get(tuner_id, began) > silence:
            trial = trials.oracle.release(tuner_id)
            if trial is not None and trial.status == "RUNNING":
                print(
                    f"{tuner_id} has been silent for {silence:.0f} s. Trial "
                    f"{int(trial.trial_id) + 1} goes to another worker.",
                    flush=True,
                )
