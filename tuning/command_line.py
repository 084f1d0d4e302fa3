"""What the commands of this folder share: numbers, folders and warnings as people meet them."""

import argparse
import contextlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from light import without_keras

with without_keras():
    from keras_transfer.console import escape_all


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


def exit_status(program: str, work: Callable[[], int]) -> int:
    """Runs what a command does, with warnings and errors as one line each.

    Returns:
        Its exit status; 2 after an error that the user can put right, 130 if interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    escape_all()
    warnings.showwarning = warn_as(program)
    try:
        return work()
    except (ValueError, ImportError, OSError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def with_options(arguments: Sequence[str], *options: str) -> list[str]:
    """Returns arguments with further options, which win over the same ones given before.

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
        from demo_data import elpv_folder

        return elpv_folder()
    if not args.directory.is_dir():
        raise ValueError(
            f"{str(args.directory)!r} is no folder. Expected one that holds a folder of images for "
            "each class."
        )
    return args.directory


def output_folder(args: argparse.Namespace, prefix: str = "", goes_on: str | None = None) -> Path:
    """Returns the folder for results, new or empty, which is known to be writable.

    Args:
        args: With `output`, and `directory` for the name that it gets otherwise.
        prefix: Of that name.
        goes_on: The file by which a folder is known that a run may go on in; `None` for none.

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
    if taken and not (goes_on and (output / goes_on).is_file()):
        raise ValueError(f"--output {output} is there already. Name a new or an empty folder.")
    made: list[Path] = []
    try:
        _make_folders(output, made)
        (output / ".writable").touch()
        (output / ".writable").unlink()
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
