"""The folder that a command writes its results into."""

import argparse
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path


def output_folder(args: argparse.Namespace, prefix: str = "", goes_on: Sequence[str] = ()) -> Path:
    """Returns the folder for results, new or empty, after a check that it can be written.

    Args:
        args: With `output`, and `directory` for the folder's name if there is no `output`.
        prefix: Of that name.
        goes_on: Files; a folder with one of them may be continued.

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
    folder = output.resolve()
    taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if taken and not any((folder / name).exists() for name in goes_on):
        raise ValueError(f"--output {output} is there already. Name a new or an empty folder.")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return output
    except OSError as error:
        raise OSError(f"--output {output} cannot be written: {error}. Name another.") from error
