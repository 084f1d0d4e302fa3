"""A process whose memory has grown ends between two trials, and its command begins anew.

TensorFlow never gives back the functions that it has traced (tensorflow#62854), in plain Keras
either. What a search has done lies in files, so nothing is lost.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import psutil

MOST_GROWTH = 2**30  # bytes: dozens of fine-tuned trials, against some seconds for a new process
_BEGAN = "KERAS_TRANSFER_BEGAN"


class GrownError(Exception):
    """The process takes so much more memory than at first that a new one should go on."""


class Growth:
    """Watches how much more memory this process takes than after its first trial.

    Args:
        most: Bytes that it may grow by; `None` for any number.
        held: Called for the bytes that are kept on purpose, such as activations.

    Example:
        >>> growth = Growth(2**30, held=lambda: cache.nbytes)
        >>> Trials(hypermodel, "random", ..., between=growth.check)
    """

    def __init__(self, most: int | None, held: Callable[[], int] = lambda: 0) -> None:
        self.most = most
        self.held = held
        self._first: int | None = None

    def check(self) -> None:
        """Compares the memory of now with that of the first call.

        Raises:
            GrownError: If it has grown by more than it may.
        """
        now = psutil.Process().memory_info().rss - self.held()
        if self._first is None:
            self._first = now
        elif self.most is not None and now - self._first > self.most:
            raise GrownError(
                f"TensorFlow has kept {(now - self._first) / 1e9:.1f} GB of trials that have "
                "ended. A new process goes on."
            )


def process_began() -> float:
    """Returns when this process was started, as `time.monotonic()`: before Python itself was."""
    return time.monotonic() - (time.time() - psutil.Process().create_time())


def began(now: float) -> float:
    """Returns when the command was begun at first, as `time.monotonic()`.

    Args:
        now: The time to return if this is that first process.
    """
    return float(os.environ.pop(_BEGAN, now))


def begin_again(began: float, output: Path) -> NoReturn:
    """Puts a new process of the same command in the place of this one, under its process id.

    Args:
        began: When the command was begun at first.
        output: The folder of its search.
    """
    os.environ[_BEGAN] = repr(began)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = with_option(sys.orig_argv[1:], "--output", str(output))
    os.execv(sys.executable, [sys.executable, *arguments])


def with_option(arguments: Sequence[str], *option: str) -> list[str]:
    """Adds an option to arguments; it wins over the same option given before.

    Example:
        >>> with_option(["--output", "a", "--", "photos"], "--output", "b")
        ['--output', 'a', '--output', 'b', '--', 'photos']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], *option, *arguments[end:]]
