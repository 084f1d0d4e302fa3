"""LocalWorkers: processes on this machine that run the trials of a chief, and end with it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from keras_transfer.utils.exit_codes import (
    ALL_FAILED,
    BAD_INPUT,
    CHIEF_LOST,
    DISK_FULL,
    DONE,
    INTERRUPTED,
)
from keras_transfer.utils.processors import processors

MOST_RESTARTS = 3  # of each worker
_PARENT = "KERAS_TRANSFER_PARENT"
_GRACE = 5.0  # seconds that a worker has to end when it is told to
# What the same command would end with again.
_FOR_GOOD = (DONE, ALL_FAILED, BAD_INPUT, CHIEF_LOST, DISK_FULL, INTERRUPTED)


class LocalWorkers:
    """Starts a command several times, as workers of a chief, and starts those again that die.

    What they print goes into `workers/` in the output folder.

    Args:
        command: Program and arguments of a worker.
        count: How many, from 1 on.
        output: The folder of the search.
        restarts: How often each is started again at most.
        devices: GPUs by the names that CUDA_VISIBLE_DEVICES takes; each worker gets one of them in
            turn. None, the default, leaves that variable as it is.

    Raises:
        ValueError: If there is to be none.

    Example:
        >>> workers = LocalWorkers(["keras-transfer", "search", "photos"], 4, output)
        >>> serve(trials, address="127.0.0.1:0", workers=workers)
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        output: Path,
        restarts: int = MOST_RESTARTS,
        devices: Sequence[str] = (),
    ) -> None:
        if count < 1:
            raise ValueError(f"count={count}. Expected 1 worker or more.")
        self.command = [str(part) for part in command]
        self.count = count
        self.folder = output / "workers"
        self.restarts = restarts
        self.devices = devices
        self._address = ""
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._starts = [0] * count

    def start(self, address: str) -> None:
        """Starts all.

        Args:
            address: Host and port of the chief.

        Raises:
            OSError: If the command cannot be started.
        """
        self._address = address
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for number in range(self.count):
                self._start(number)
        except BaseException:
            self.stop()
            raise

    def _start(self, number: int) -> None:
        host, _, port = self._address.rpartition(":")
        cores = max(1, processors() // self.count)
        environment = {
            "TF_NUM_INTRAOP_THREADS": str(cores),
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # the chief and other workers may use the same
            **os.environ,
            "KERASTUNER_TUNER_ID": f"worker-{number + 1}",
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
            _PARENT: str(os.getpid()),
        }
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[number % len(self.devices)]
        self._starts[number] += 1
        with self._log(number).open("ab") as log:
            self._running[number] = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the chief, which ends them
            )

    def _log(self, number: int) -> Path:
        return self.folder / f"worker-{number + 1}.log"

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return [process.pid for process in self._running.values()]

    def check(self) -> int:
        """Starts those again that have died, unless they have too often; returns how many run."""
        for number, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[number]
            if code != DONE:
                self._tell(number, code)
            if code not in _FOR_GOOD and self._starts[number] <= self.restarts:
                self._start(number)
        return len(self._running)

    def _tell(self, number: int, code: int) -> None:
        lines = self._log(number).read_text(errors="replace").strip().splitlines()
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        again = code not in _FOR_GOOD and self._starts[number] <= self.restarts
        print(
            f"worker-{number + 1} has ended with {why}"
            + (f": {lines[-1]}" if lines else "")
            + (". It is started again." if again else f". See {self._log(number)}."),
            file=sys.stderr,
            flush=True,
        )

    def stop(self) -> None:
        """Ends all that are left: they are asked to, and after some seconds made to."""
        for process in self._running.values():
            process.terminate()
        until = time.monotonic() + _GRACE
        for process in self._running.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def with_options(arguments: Sequence[str], *options: str) -> list[str]:
    """Adds options to arguments; they win over the same options given before.

    Example:
        >>> with_options(["--output", "a", "--", "photos"], "--output", "b")
        ['--output', 'a', '--output', 'b', '--', 'photos']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], *options, *arguments[end:]]


def end_with_parent() -> None:
    """Ends this process when the one that has started it as a worker ends, however that ends.

    Call it first of all in a process that may be a worker; in another it does nothing.
    """
    parent = int(os.environ.get(_PARENT, "0"))
    if parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(CHIEF_LOST)  # at once: all that matters is in whole files
