"""time_limit: ends what runs in a block when its time is up, as Ctrl-C would end it."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SOON = 1e-3
_AGAIN = 1.0  # seconds until a block is interrupted again that has not ended


class OutOfTime(BaseException):
    """The time of a block is up. No `Exception`, so that nothing takes it for a failure."""


@contextlib.contextmanager
def time_limit(seconds_left: Callable[[], float]) -> Iterator[None]:
    """Interrupts a block as soon as it has no time left, between two instructions of Python.

    It needs signals, so it does nothing on Windows and outside the main thread.

    Args:
        seconds_left: Gives the seconds that the block has left, infinite for no limit. It is asked
            again when they have passed, so a limit can be moved meanwhile.

    Raises:
        OutOfTime: If there is no time left.

    Example:
        >>> with time_limit(lambda: deadline - time.monotonic()):
        ...     model.export("serving/1")
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "setitimer") or not in_main_thread or seconds_left() == math.inf:
        yield
        return
    if seconds_left() <= 0:
        raise OutOfTime

    def check(number: int, frame: FrameType | None) -> None:
        left = seconds_left()
        signal.setitimer(signal.ITIMER_REAL, left if left > 0 else _AGAIN)
        if left <= 0:
            raise OutOfTime

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, check)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, max(seconds_left(), _SOON))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # the limit of a block around this one
            rest = outer - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(rest, _SOON))
