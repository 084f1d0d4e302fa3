"""JSON files that hold the state of a search: written whole, kept through a power cut, readable."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from keras_transfer.utils.atomic_files import written_whole

TORN = ".torn"
Content = TypeVar("Content")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file under another name, waits until the disk has it, and puts it in place.

    Numbers that JSON does not know (NaN, infinity) become `null`.

    Raises:
        OSError: If it cannot be written; what was there before stays.

    Example:
        >>> write_json(Path("search.json"), {"seed": 0})
    """
    text = as_json(content, indent=1)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it


def as_json(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Returns a JSON text; numbers that JSON does not know become `null`."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def read_json(path: Path) -> dict[str, Any]:
    """Reads such a file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is torn, no JSON object, or a folder.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise ValueError(f"{str(path)!r} is torn: {error}. Expected a JSON object.") from None
    except IsADirectoryError:
        raise ValueError(
            f"{str(path)!r} is a folder. Expected a file with a JSON object."
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} holds a JSON {type(content).__name__}. Expected an object."
        )
    return content


def read_or_put_aside(
    path: Path, read: Callable[[Path], Content], next_step: str
) -> Content | None:
    """Reads a file of a search, which goes on without one that is damaged.

    Args:
        path: The file.
        read: Reads it. What it raises other than `OSError` says that the file is damaged.
        next_step: What happens without the file, as the end of the warning.

    Returns:
        What was read; `None` if there is no file, or a damaged one, which is put aside.

    Raises:
        OSError: If the file cannot be read for another reason.

    Example:
        >>> read_or_put_aside(Path("search.json"), read_json, "it is written anew")
    """
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        reason = f"{str(path)!r} is a folder. Expected a file."
    except ValueError as error:  # which names the file
        reason = str(error)
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"{str(path)!r} is not what a search writes ({error!r})."
    put_aside(path, reason, next_step)
    return None


def put_aside(path: Path, reason: str, next_step: str) -> None:
    """Renames a damaged file, or a folder in the place of a file, to `<name>.torn`, and warns.

    Args:
        path: The file.
        reason: What is wrong with it, naming the file.
        next_step: What happens now, as the end of the warning.
    """
    aside = path.with_name(path.name + TORN)
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{TORN}-{number}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another worker has put it aside
        return
    warnings.warn(f"{reason} It was put aside as {aside.name}; {next_step}.", stacklevel=2)


def _plain(value: Any) -> Any:
    """A value as JSON knows it; NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
