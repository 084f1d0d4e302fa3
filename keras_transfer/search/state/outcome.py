"""Outcome: what came of a trial, as the file outcome.json in the trial's folder."""

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from keras_tuner.engine.trial import Trial, TrialStatus

from keras_transfer.search.state.files import put_aside, read_json, read_or_put_aside, write_json

Status = Literal["completed", "failed", "stopped"]

FILE = "outcome.json"
PREFIX = "trial_"  # of the folders of trials, as KerasTuner names them
# What a file must hold; numbers of metrics and folds are checked as they are converted.
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("id", "failure", "traceback", "worker"), str),
    **dict.fromkeys(("epoch", "epochs"), int | None),
    "score": float | int | None,
    "deviation": float | int | None,
    "seed": int,
}


@dataclass(frozen=True)
class Begun:
    """What a trial begins with: as much of an `Outcome` as is known then."""

    trial: int
    id: str
    hyperparameters: Mapping[str, Any]
    worker: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        trial: Its number in order of start, from 1; 0 is the probe.
        id: KerasTuner's id of it, `"probe"` for the probe.
        status: `"completed"`, `"failed"`, or `"stopped"` by the median rule or the deadline; what
            was stopped has a score all the same.
        score: The objective in the best epoch, the mean over folds; `None` if it failed.
        seconds: How long it took.
        hyperparameters: Name to value, without those of KerasTuner itself (`tuner/...`).
        deviation: Sample standard deviation of the score over folds; `None` without folds.
        metrics: All logs of the best epoch, means over folds.
        epoch: The best epoch, from 1, of the first fold; `None` if it failed.
        failure: The last line of the traceback, empty if it did not fail.
        traceback: All of it.
        seed: That of its first execution.
        folds: The metrics of each fold, empty without folds.
        worker: The id of the tuner that ran it.
        epochs: The last epoch that it was allowed, which Hyperband raises from round to round;
            `None` if nobody noted it.

    Raises:
        ValueError: If the status is unknown, or a trial that did not fail has no finite score.

    Example:
        >>> outcome = Outcome(1, "0000", "completed", 0.31, 12.5, {"hidden": 64})
        >>> outcome.write(Path("trials/trial_0000"))
        >>> Outcome.read(Path("trials/trial_0000")).score
        0.31
    """

    trial: int
    id: str
    status: Status
    score: float | None
    seconds: float
    hyperparameters: Mapping[str, Any]
    deviation: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None
    failure: str = ""
    traceback: str = ""
    seed: int = 0
    folds: tuple[Mapping[str, float], ...] = ()
    worker: str = ""
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(
                f"status={self.status!r}. Expected one of {', '.join(get_args(Status))}."
            )
        if self.failed != (self.score is None) or not math.isfinite(self.score or 0):
            raise ValueError(
                f"score={self.score!r} of a trial that is {self.status}. Expected a finite number, "
                "or None if it failed."
            )

    @property
    def failed(self) -> bool:
        """Whether it has no score."""
        return self.status == "failed"

    def __str__(self) -> str:
        if self.failed:
            return f"failed: {self.failure}"
        return ", ".join(f"{name} {value:.4f}" for name, value in self._told().items())

    def _told(self) -> Mapping[str, float]:
        names = sorted((name for name in self.metrics if name.startswith("val_")), reverse=True)
        return {name: self.metrics[name] for name in names} or {"score": self.score or 0.0}

    def write(self, folder: Path, name: str = FILE) -> Path:
        """Writes it into the trial's folder, which is made if needed, whole or not at all.

        Returns:
            The file.

        Raises:
            OSError: If it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, asdict(self))
        return folder / name

    @classmethod
    def read(cls, folder: Path, name: str = FILE) -> Self:
        """Reads the outcome in a trial's folder.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is torn, or holds something else; the message names the file.
        """
        content = read_json(folder / name)
        known = {one.name for one in fields(cls)}
        try:
            facts = {key: value for key, value in content.items() if key in known}
            for key, kind in _KINDS.items():
                if key in facts and not isinstance(facts[key], kind):
                    raise TypeError(f"{key} is {facts[key]!r}")
            facts["metrics"] = _numbers(facts.get("metrics", {}))
            facts["folds"] = tuple(map(_numbers, facts.get("folds", ())))
            facts["trial"], facts["seconds"] = int(facts["trial"]), float(facts["seconds"])
            facts["hyperparameters"] = dict(facts["hyperparameters"])
            return cls(**facts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{str(folder / name)!r} is no outcome of a trial ({error}). Expected what "
                "Outcome.write writes."
            ) from error


def read_all(trials_folder: Path) -> tuple[list[Outcome], list[Path]]:
    """Reads the outcomes of all trials that have ended.

    Args:
        trials_folder: The folder of the trials' folders `trial_<id>`; it may not be there yet.

    Returns:
        The outcomes in order of their numbers, and the files that are torn.
    """
    outcomes, torn = [], []
    for folder in sorted(trials_folder.glob(f"{PREFIX}*")):
        try:
            outcomes.append(Outcome.read(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue  # it has not ended
        except ValueError:
            torn.append(folder / FILE)
    return sorted(outcomes, key=lambda outcome: outcome.trial), torn


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as they were: JSON has no NaN, so it became null."""
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}


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
