"""TrialFolder: what a trial was and what came of it, in files that no accident leaves half done."""

import re
import shutil
from pathlib import Path
from typing import Any

from outcome import FILE, PREFIX, Outcome
from state_files import put_aside, read_json, write_json

_TRIAL = "trial.json"
_STAGE = "unfinished-"


class TrialFolder:
    """The folder of a trial.

    A trial's results are written into a folder within it that belongs to who runs the trial, and
    are put in place when they are accepted, `outcome.json` last: that is when the trial has ended.
    So two that run the same trial, one of them taken for dead, don't get in each other's way.

    Args:
        trials: The folder of all trials.
        id: KerasTuner's id of the trial.

    Example:
        >>> folder = TrialFolder(Path("runs/x/trials"), "0000")
        >>> outcome.write(folder.stage("worker-1"))
        >>> folder.commit("worker-1") == outcome
        True
    """

    def __init__(self, trials: Path, id: str) -> None:
        self.path = trials / f"{PREFIX}{id}"
        self.id = id

    def stage(self, tuner_id: str) -> Path:
        """Returns the folder for the results of a tuner until they are accepted."""
        return self.path / (_STAGE + re.sub(r"[^\w.-]", "_", tuner_id))

    def commit(self, tuner_id: str) -> Outcome | None:
        """Puts a tuner's results in place.

        Returns:
            The outcome; `None` if the tuner has left none.

        Raises:
            OSError: If a file cannot be renamed.
        """
        stage = self.stage(tuner_id)
        try:
            outcome = Outcome.read(stage)
        except (FileNotFoundError, ValueError):
            return None
        for file in stage.iterdir():
            if file.name != FILE:
                file.replace(self.path / file.name)
        (stage / FILE).replace(self.path / FILE)
        self.discard()
        return outcome

    def discard(self, tuner_id: str | None = None) -> None:
        """Removes the results that were not accepted, of one tuner or of all."""
        stages = self.path.glob(f"{_STAGE}*") if tuner_id is None else [self.stage(tuner_id)]
        for stage in stages:
            shutil.rmtree(stage, ignore_errors=True)

    def sweep(self) -> None:
        """Removes files that a killed process was writing; nobody may be writing any."""
        sweep(self.path)

    def outcome(self) -> Outcome | None:
        """Returns what came of it; `None` if it has not ended. A torn file is put aside."""
        try:
            return Outcome.read(self.path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            put_aside(self.path / FILE, error, "the trial is what trial.json says of it")
            return None

    def finished_stage(self) -> Outcome | None:
        """Puts results in place that were complete when those who waited for them died."""
        for stage in sorted(self.path.glob(f"{_STAGE}*")):
            found = self.commit(stage.name.removeprefix(_STAGE))
            if found is not None:
                return found
        return None

    def write_trial(self, state: dict[str, Any]) -> None:
        """Writes the state of KerasTuner's trial.

        Raises:
            OSError: If it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / _TRIAL, state)

    def read_trial(self) -> dict[str, Any] | None:
        """Returns that state; `None` if there is none. A torn file is put aside."""
        try:
            state = read_json(self.path / _TRIAL)
            missing = {"trial_id", "hyperparameters", "metrics", "score", "status"} - set(state)
            if missing or state["trial_id"] != self.id:
                wrong = f"it lacks {', '.join(sorted(missing))}" if missing else "of another trial"
                raise ValueError(f"{str(self.path / _TRIAL)!r} is no trial: {wrong}.")
        except FileNotFoundError:
            return None
        except ValueError as error:
            put_aside(self.path / _TRIAL, error, "what is known otherwise of the trial is kept")
            return None
        return state


def sweep(folder: Path) -> None:
    """Removes files that a killed process was writing into a folder under another name."""
    for path in folder.glob(".*.json.*"):
        path.unlink(missing_ok=True)


def trial_folders(trials: Path) -> list[TrialFolder]:
    """Returns the folders of an oracle's trials in order of start."""
    names = (path.name.removeprefix(PREFIX) for path in trials.glob(f"{PREFIX}*") if path.is_dir())
    return [TrialFolder(trials, id) for id in sorted(names, key=_number) if id.isdecimal()]


def _number(id: str) -> int:
    return int(id) if id.isdecimal() else -1
