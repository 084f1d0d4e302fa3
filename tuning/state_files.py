"""JSON files that hold the state of a search: written whole, kept through a power cut, readable."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_transfer.whole_files import written_whole

TORN = ".torn"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file under another name, waits until the disk has it, and puts it in place.

    Numbers that JSON does not know (NaN, infinity) become `null`.

    Raises:
        OSError: If it cannot be written; what was there before stays.

    Example:
        >>> write_json(Path("search.json"), {"seed": 0})
    """
    text = json.dumps(_plain(content), indent=1, allow_nan=False)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it


def read_json(path: Path) -> dict[str, Any]:
    """Reads such a file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is torn, or no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(path)!r} is torn: {error}. Expected a JSON object.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} holds a JSON {type(content).__name__}. Expected an object."
        )
    return content


def put_aside(path: Path, reason: object, next_step: str) -> None:
    """Renames a torn file to `<name>.torn`, and warns.

    Args:
        path: The file.
        reason: What is wrong with it, naming the file.
        next_step: What happens now, as the end of the warning.
    """
    path.replace(path.with_name(path.name + TORN))
    warnings.warn(f"{reason} It was put aside as {path.name + TORN}; {next_step}.", stacklevel=2)


def _plain(value: Any) -> Any:
    """A value as JSON knows it; NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
