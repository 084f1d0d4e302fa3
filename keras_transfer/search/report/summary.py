"""summary.json: the settings and the results of a search, for scripts."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keras_transfer import __version__
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.leaderboard import best_of, probe_of, trials_of
from keras_transfer.search.scoring import gains
from keras_transfer.search.state.files import write_json
from keras_transfer.search.state.outcome import Outcome

_PACKAGES = ("keras", "tensorflow", "keras-tuner", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a search runs with, by name."""
    found = {name: version(name) for name in _PACKAGES}
    return {"keras-transfer": __version__, **found, "python": platform.python_version()}


def without_paths(value: Any, folder: Path) -> Any:
    """Returns a value for files that people share: with paths relative to a folder.

    Within other text, the home folder becomes `~`.

    Args:
        value: What JSON knows, or paths, also within mappings and lists.
        folder: What paths are made relative to: the folder of the file with the value.

    Example:
        >>> without_paths({"cache": Path("/data/kept"), "seed": 0}, Path("/data/runs/x"))
        {'cache': '../../kept', 'seed': 0}
    """
    if isinstance(value, Mapping):
        return {name: without_paths(item, folder) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item, folder) for item in value]
    if isinstance(value, str) and not Path(value).is_absolute():
        home = os.path.expanduser(f"~{os.sep}")  # noqa: PTH111 - where none is known, too
        return value.replace(f"{folder.resolve()}{os.sep}", "").replace(home, f"~{os.sep}")
    if isinstance(value, str | Path):
        path = Path(value).parent.resolve() / Path(value).name
        try:
            return Path(os.path.relpath(path, folder.resolve())).as_posix()
        except ValueError:  # on another drive of Windows
            return path.name
    return value


def summary(
    outcomes: Sequence[Outcome],
    objective: Objective,
    facts: Mapping[str, Any],
    *,
    best: Outcome | None = None,
    images: int | None = None,
) -> dict[str, Any]:
    """Returns the settings and the results of a search.

    Args:
        outcomes: Those of all trials.
        objective: What the search aimed at.
        facts: What was asked for; stands first.
        best: The best trial in the model; that with the best score unless given.
        images: How many images a validation without folds is of.
    """
    best, probe = best or best_of(outcomes, objective), probe_of(outcomes)
    trials = trials_of(outcomes)
    return {
        **facts,
        "objective": asdict(objective),
        "best": asdict(best) if best else None,
        "probe": asdict(probe) if probe else None,
        "gain_over_probe": [asdict(gain) for gain in gains(best, probe, objective, images)]
        if best and probe
        else [],
        "test": None,
        "failed_trials": sum(outcome.failed for outcome in trials),
        "stopped_trials": sum(outcome.status == "stopped" for outcome in trials),
        "trials": len(trials),
        "versions": versions(),
    }


def write_summary(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a summary as JSON, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    write_json(path, content)
