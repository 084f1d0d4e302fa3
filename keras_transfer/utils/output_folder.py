"""The folder that a command writes its results into."""

import argparse
import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path


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
