"""time_limit: ends what runs in a block when its time is up, as Ctrl-C would end it."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_PAUSE = 1.0  # seconds until the time of a block is looked at again, at most

_postponed: list[None] = []  # an entry for each `uninterrupted` block that runs


class OutOfTime(BaseException):
    """The time of a block is up. No `Exception`, so that nothing takes it for a failure."""


@contextlib.contextmanager
def time_limit(seconds_left: Callable[[], float]) -> Iterator[None]:
    """Interrupts a block as soon as it has no time left, between two instructions of Python.

    A block that goes on all the same, because something has caught the exception, is interrupted
    again a second later. A thread watches the time and sends SIGALRM to the main thread alone. This
    does nothing on Windows, which has no such signal, and outside the main thread.

    Args:
        seconds_left: Returns the seconds that the block has left, infinite for no limit. It is
            called once a second, so a limit can be moved both ways meanwhile.

    Raises:
        OutOfTime: If there is no time left.

    Example:
        >>> with time_limit(lambda: deadline - time.monotonic()):
        ...     model.export("serving/1")
    """
    main = threading.main_thread()
    can_interrupt = hasattr(signal, "pthread_kill") and threading.current_thread() is main
    if not can_interrupt or seconds_left() == math.inf:
        yield
        return
    if seconds_left() <= 0:
        raise OutOfTime

    over, ended = False, threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over and not _postponed and seconds_left() <= 0:
            raise OutOfTime

    def watch() -> None:
        left = seconds_left()
        while not ended.wait(left if 0 < left < _PAUSE else _PAUSE):
            left = seconds_left()
            if left <= 0:
                signal.pthread_kill(main.ident or 0, signal.SIGALRM)

    watcher = threading.Thread(target=watch, name="time limit", daemon=True)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            watcher.start()
            yield
        finally:
            over = True
    finally:  # once more, for the time may be up just before that line
        over = True
        ended.set()
        watcher.join()  # no signal comes any more, so that the handler can go
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Makes `time_limit` wait for the end of a block that must not be left half done.

    Example:
        >>> with uninterrupted():
        ...     journal.append("ended", id="0000")
    """
    _postponed.append(None)
    try:
        yield
    finally:
        _postponed.pop()
