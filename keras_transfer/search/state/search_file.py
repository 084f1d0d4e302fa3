"""search.json: the settings of a search, so that only the same search is resumed in its folder."""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_transfer.search.state.files import read_json, read_or_put_aside, write_json

FILE = "search.json"
IMAGES = "images.json"  # of which images, to tell what has changed since
_OF_DATA = ("data", "images")
_DECIDE_ON_DATA = ("image_size", "seed", "classes")  # what its identity follows from, besides files
_DIGEST = re.compile(r"[0-9a-f]{32,}")

Stamps = Mapping[str, tuple[int, int]]


def begin(output: Path, settings: Mapping[str, Any], images: Stamps) -> bool:
    """Writes what a search is asked for, unless its folder holds the same search already.

    Args:
        output: The folder.
        settings: All that decides on its trials, as JSON has it.
        images: Path below the folder of images to size and time of change, as in
            `ImageFolder.stamps`.

    Returns:
        Whether the search goes on from what the folder holds.

    Raises:
        ValueError: If the folder holds another search; the message says what differs.
        OSError: If it cannot be written.
    """

    def read(path: Path) -> dict[str, Any]:
        content = read_json(path)
        if not content.keys() & settings.keys():
            raise ValueError(f"{str(path)!r} does not say what a search was asked for.")
        return content

    file, trials = output / FILE, any((output / "trials").glob("trial_*"))
    lost = (
        "it is written anew. If the trials there were not asked for the same as now, name another "
        "folder"
    )
    if trials and not file.exists():
        warnings.warn(f"{str(file)!r} is missing; {lost}.", stacklevel=2)
    if (output / "trials" / "oracle.json").exists():
        raise ValueError(
            f"--output {output} holds a search of an earlier version, which cannot be resumed. "
            "Name another folder."
        )
    before = read_or_put_aside(file, read, lost)
    if before is None:
        write_json(file, settings)
        write_json(output / IMAGES, images)
        return trials
    differing = [*_differing(before, settings), *_differing_data(output, before, settings, images)]
    if differing:
        raise ValueError(
            f"--output {output} holds another search: {'; '.join(differing)}. Ask for the same to "
            "go on with it, or name another folder."
        )
    if not (output / IMAGES).exists():  # a search of an earlier version
        write_json(output / IMAGES, images)
    return True


def check(output: Path, settings: Mapping[str, Any]) -> None:
    """Checks that a folder holds the search of some settings, as each of its processes does.

    Raises:
        ValueError: If something differs, as where images were added meanwhile.
        OSError: If the folder cannot be read, as where a machine does not share it.
    """
    before = read_json(output / FILE)
    differing = list(_differing(before, settings))
    differing += [f"{name} differ" for name in _OF_DATA if before.get(name) != settings.get(name)]
    if differing:
        raise ValueError(
            f"A worker sees another search than --output {output} holds: {'; '.join(differing)}. "
            "All machines need the same images and packages."
        )


def _differing(
    before: Mapping[str, Any], settings: Mapping[str, Any], of: str = ""
) -> Iterator[str]:
    for name in dict.fromkeys((*before, *settings)):
        was, is_now = before.get(name), settings.get(name)
        if was == is_now or (not of and name in _OF_DATA):
            continue
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from _differing(was, is_now, f"{of}{name} ")
        elif all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in (was, is_now)):
            yield f"{of}{name} differs"
        else:
            yield f"{of}{name} was {_short(was)} and is {_short(is_now)}"


def _differing_data(
    output: Path, before: Mapping[str, Any], settings: Mapping[str, Any], images: Stamps
) -> Iterator[str]:
    """Yields how the images differ, where they do and not only what is done with them."""
    if all(before.get(name) == settings.get(name) for name in _OF_DATA):
        return
    explained = any(before.get(name) != settings.get(name) for name in _DECIDE_ON_DATA)
    try:
        changes = _changes(read_json(output / IMAGES), images)
    except (FileNotFoundError, ValueError):  # of an earlier version
        changes = ""
    if changes or not explained:
        yield changes or "the images differ"


def _changes(before: Mapping[str, Any], images: Stamps) -> str:
    """How many images have changed, come and gone, and one of each; empty if none has."""
    there = before.keys() & images.keys()
    paths = {
        "changed": [path for path in there if before[path] != list(images[path])],
        "came": [path for path in images if path not in before],
        "went": [path for path in before if path not in images],
    }
    texts = [f"{len(p)} {change} (first {min(p)})" for change, p in paths.items() if p]
    return f"of {len(before):,} images {', '.join(texts)}" if texts else ""


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
