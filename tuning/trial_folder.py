"""TrialFolder: what a trial was and what came of it, in files that no accident leaves half done."""

import re
import shutil
from pathlib import Path
from typing import Any

from keras_tuner.engine.trial import Trial, TrialStatus
from outcome import FILE, PREFIX, Outcome
from state_files import put_aside, read_json, read_or_put_aside, write_json

_TRIAL = "trial.json"
_STATUSES = (TrialStatus.RUNNING, TrialStatus.COMPLETED, TrialStatus.FAILED, TrialStatus.INVALID)
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
            outcome = self._own(stage)
        except (FileNotFoundError, NotADirectoryError, ValueError):
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
        """Returns what came of it; `None` if it has not ended. A damaged file is put aside."""
        next_step = "the trial is what trial.json says of it"
        return read_or_put_aside(self.path / FILE, lambda _: self._own(self.path), next_step)

    def _own(self, folder: Path) -> Outcome:
        """The outcome in a folder, if it is of this trial."""
        outcome = Outcome.read(folder)
        if outcome.id != self.id:
            raise ValueError(f"{str(folder / FILE)!r} is of trial {outcome.id!r}, not {self.id!r}.")
        return outcome

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

    def read_trial(self) -> Trial | None:
        """Returns KerasTuner's trial; `None` if there is none. A damaged file is put aside."""
        next_step = "what is known otherwise of the trial is kept"
        return read_or_put_aside(self.path / _TRIAL, self._trial, next_step)

    def _trial(self, path: Path) -> Trial:
        trial = Trial.from_state(read_json(path))
        known = trial.status in _STATUSES and isinstance(trial.hyperparameters.values, dict)
        if (
            trial.trial_id != self.id
            or not known
            or not isinstance(trial.score, float | int | None)
        ):
            raise ValueError(f"{str(path)!r} is not the state of trial {self.id!r}.")
        return trial


def sweep(folder: Path) -> None:
    """Removes files that a killed process was writing into a folder under another name."""
    for path in folder.glob(".*.json.*"):
        path.unlink(missing_ok=True)


def trial_folders(trials: Path) -> list[TrialFolder]:
    """Returns the folders of an oracle's trials in order of start.

    A file in the place of a folder is put aside, for the trial may be given that number again.
    """
    found = []
    for path in trials.glob(f"{PREFIX}*"):
        id = path.name.removeprefix(PREFIX)
        if not id.isdecimal():
            continue
        if path.is_dir():
            found.append(TrialFolder(trials, id))
        else:
            reason = f"{str(path)!r} is a file. Expected the folder of a trial."
            put_aside(path, reason, "what came of the trial is lost, and it is run again")
    return sorted(found, key=lambda folder: int(folder.id))
