"""search.json: what a search was asked for, so that only the same search goes on in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from state_files import read_json, write_json

FILE = "search.json"


def begin(output: Path, asked: Mapping[str, Any]) -> bool:
    """Writes what a search is asked for, unless its folder holds the same search already.

    Args:
        output: The folder.
        asked: All that decides on its trials, as JSON has it.

    Returns:
        Whether the search goes on from what the folder holds.

    Raises:
        ValueError: If the folder holds another search; the message says what differs.
        OSError: If it cannot be written.
    """
    try:
        before = read_json(output / FILE)
    except FileNotFoundError:
        write_json(output / FILE, asked)
        return False
    except ValueError as error:
        raise ValueError(
            f"{error} It says what the search was asked for. If that was the same as now, remove "
            "the file to go on; otherwise name another folder."
        ) from None
    differing = [
        f"{name} was {_short(before.get(name))} and is {_short(asked.get(name))}"
        for name in dict.fromkeys((*before, *asked))
        if before.get(name) != asked.get(name)
    ]
    if differing:
        raise ValueError(
            f"--output {output} holds another search: {'; '.join(differing)}. Ask for the same to "
            "go on with it, or name another folder."
        )
    return True


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
