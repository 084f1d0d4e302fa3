"""time_limit: ends what runs in a block when its time is up, as Ctrl-C would end it."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SOON = 1e-3
_PAUSE = 1.0  # seconds until the time of a block is looked at again, at most

_postponed: list[None] = []  # an entry for each `uninterrupted` block that runs


class OutOfTime(BaseException):
    """The time of a block is up. No `Exception`, so that nothing takes it for a failure."""


@contextlib.contextmanager
def time_limit(seconds_left: Callable[[], float]) -> Iterator[None]:
    """Interrupts a block as soon as it has no time left, between two instructions of Python.

    A block that goes on all the same, because something has caught the exception, is interrupted
    again a second later. This needs signals, so it does nothing on Windows and outside the main
    thread.

    Args:
        seconds_left: Gives the seconds that the block has left, infinite for no limit. It is called
            once a second, so a limit can be moved both ways meanwhile.

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

    over = False

    def check(number: int, frame: FrameType | None) -> None:
        if over:  # a signal that was on its way when the block ended
            return
        left = seconds_left()
        signal.setitimer(signal.ITIMER_REAL, left if _SOON < left < _PAUSE else _PAUSE)
        if left <= 0 and not _postponed:
            raise OutOfTime

    began, (outer, _) = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)
    before = signal.signal(signal.SIGALRM, check)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, _SOON)
            yield
        finally:
            over = True
    finally:  # once more, for the time may be up just before that line
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # the limit of a block around this one
            rest = outer - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(rest, _SOON))


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Has `time_limit` wait for the end of a block that must not be left half done.

    Example:
        >>> with uninterrupted():
        ...     workers.stop()
    """
    _postponed.append(None)
    try:
        yield
    finally:
        _postponed.pop()
