"""Standard output for scripts: one JSON object and nothing else."""

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from keras_transfer.search.state.disk_full import is_disk_full
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


with without_keras():
    from keras_transfer.utils.console import escape_all


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


def with_options(arguments: Sequence[str], *options: str) -> list[str]:
    """Adds options to arguments; they win over the same options given before.

    Example:
        >>> with_options(["--output", "a", "--", "photos"], "--output", "b")
        ['--output', 'a', '--output', 'b', '--', 'photos']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], *options, *arguments[end:]]


def backbone_names(args: argparse.Namespace) -> list[str]:
    """Returns the names of the backbones.

    Raises:
        ValueError: If one is empty, or there twice.
    """
    names = [name.strip() for name in args.backbone.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"--backbone {args.backbone!r}. Expected names, each once, with commas.")
    return names


def image_directory(args: argparse.Namespace) -> Path:
    """Returns the folder of images that was named, or that of the demo data.

    Raises:
        ValueError: If it is no folder.
        ImportError: If the demo data is not installed.
    """
    if args.directory is None:
        from keras_transfer.search.demo_data import elpv_folder

        return elpv_folder()
    if not args.directory.is_dir():
        raise ValueError(
            f"{str(args.directory)!r} is no folder. Expected one that holds a folder of images for "
            "each class."
        )
    return args.directory


def output_folder(args: argparse.Namespace, prefix: str = "", goes_on: Sequence[str] = ()) -> Path:
    """Returns the folder for results, new or empty, which is known to be writable.

    Args:
        args: With `output`, and `directory` for the name that it gets otherwise.
        prefix: Of that name.
        goes_on: Files, one of which is in a folder that a run may go on in.

    Raises:
        ValueError: If something is in it.
        OSError: If it cannot be written.
    """
    name = prefix + (args.directory.resolve().name if args.directory else "elpv")
    output = args.output or Path("runs", f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        str(output).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"--output {str(output)!a} is not UTF-8, so no model could be written there. Name "
            "another."
        ) from None
    taken = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if taken and not any((output / name).exists() for name in goes_on):
        raise ValueError(f"--output {output} is there already. Name a new or an empty folder.")
    made: list[Path] = []
    try:
        _make_folders(output, made)
        (output / ".writable").touch()
        (output / ".writable").unlink(missing_ok=True)  # another process may have removed it
    except OSError as error:
        raise OSError(f"--output {output} cannot be written: {error}. Name another.") from error
    finally:
        for folder in reversed(made):  # until there is something to put into them
            with contextlib.suppress(OSError):  # another process may have begun to use it
                folder.rmdir()
    return output


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Makes a folder and those that it lies in, and notes which were not there, the outer first.

    One by one, as the path says: behind a `..` only making a folder tells whether it was there.
    """
    for one in (*reversed(folder.parents), folder):
        if not one.is_dir():
            with contextlib.suppress(FileExistsError):  # a file: it fails as soon as it is used
                one.mkdir()
                made.append(one)
