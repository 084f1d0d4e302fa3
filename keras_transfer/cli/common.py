"""Helpers of all commands: output for scripts, arguments, exit codes."""

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from keras_transfer.search.state.disk_full import is_disk_full
from keras_transfer.utils.console import escape_all
from keras_transfer.utils.exit_codes import BAD_INPUT, DISK_FULL, INTERRUPTED


@contextlib.contextmanager
def only_json() -> Iterator[Callable[[str], None]]:
    """Sends all that is printed within a block to standard error, but for what it says itself.

    That holds for whatever libraries and child processes print, too.

    Returns:
        What puts a text on standard output.

    Example:
        >>> with only_json() as say:
        ...     print("Reading photos/")  # goes to standard error
        ...     say((output / "summary.json").read_text())
    """
    out = sys.stdout
    out.flush()
    kept = os.dup(1)

    def say(text: str) -> None:
        sys.stderr.flush()
        if _is_file_1(out):
            with os.fdopen(os.dup(kept), "w", encoding="utf-8") as file:
                file.write(text)
        else:  # someone has replaced sys.stdout, as tests do
            out.write(text)
            out.flush()

    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield say
    finally:
        out.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _is_file_1(out: object) -> bool:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        return out.fileno() == 1  # type: ignore[attr-defined]
    return False


def number_from(lowest: int, highest: int = 10**6) -> Callable[[str], int]:
    """Returns what turns an argument into a whole number of a range, or refuses it."""

    def number(text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {lowest} to {highest}")
        return int(text)

    return number


def minutes_from(least: float) -> Callable[[str], float]:
    """Returns what turns an argument into minutes, or refuses it."""

    def minutes(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes from {least} on")
        return value

    return minutes


def warn_as(program: str) -> Callable[..., None]:
    """Returns a `warnings.showwarning` that prints one line, without the place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"{program}: warning: {message}", file=sys.stderr)

    return show


def exit_status(
    program: str, work: Callable[[], int], if_disk_full: Callable[[], str] = lambda: "Make room."
) -> int:
    """Runs what a command does, with warnings and errors as one line each.

    Args:
        program: The name of the command.
        work: What it does.
        if_disk_full: Says what to do when a disk is full.

    Returns:
        Its exit status; `BAD_INPUT` after an error that the user can put right, `DISK_FULL`, or
        `INTERRUPTED`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    escape_all()
    warnings.showwarning = warn_as(program)
    try:
        return work()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if is_disk_full(error):
            why = str(error).strip().partition("\n")[0]
            told = f"no room is left on the disk ({why}). {if_disk_full()}"
            print(f"{program}: error: {told}", file=sys.stderr)
            return DISK_FULL
        if not isinstance(error, ValueError | ImportError | OSError):
            raise
        print(f"{program}: error: {error}", file=sys.stderr)
        return BAD_INPUT


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into `SystemExit` within a block, so that it can clean up.

    A signal that this process ignores, as under nohup, stays ignored.
    """

    def end(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    taken = [one for one in numbers if signal.getsignal(one) == signal.SIG_DFL]
    for one in taken:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)


def image_directory(given: Path | None) -> Path:
    """Returns the folder of images that was named, or that of the demo data.

    Raises:
        ValueError: If it is no folder.
        ImportError: If the demo data is not installed.
    """
    if given is None:
        from keras_transfer.search.demo_data import elpv_folder

        return elpv_folder()
    if not given.is_dir():
        raise ValueError(
            f"{str(given)!r} is no folder. Expected one that holds a folder of images for each "
            "class."
        )
    return given
