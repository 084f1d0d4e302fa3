"""Outcome: the result of a trial, as JSON holds it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from keras_transfer.search.state.files import read_json, write_json

Status = Literal["completed", "failed", "stopped"]

FILE = "outcome.json"
PREFIX = "trial_"  # of the folders of trials, as KerasTuner names them
# What a file must hold; numbers of metrics and folds are checked as they are converted.
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("id", "failure", "traceback"), str),
    **dict.fromkeys(("epoch", "epochs"), int | None),
    **dict.fromkeys(("score", "expected"), float | int | None),
    "deviation": float | int | None,
    "seed": int,
}


@dataclass(frozen=True)
class Begun:
    """A trial that begins: the part of an `Outcome` that is known then."""

    trial: int
    id: str
    hyperparameters: Mapping[str, Any]
    expected: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

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
        epochs: The last epoch that it was allowed, which Hyperband raises from round to round;
            `None` if nobody noted it.
        expected: The seconds that it was expected to take; `None` if nobody knew.

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
    epochs: int | None = None
    expected: float | None = None

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
        return ", ".join(f"{name} {value:.4f}" for name, value in self._scores().items())

    def _scores(self) -> Mapping[str, float]:
        names = sorted((name for name in self.metrics if name.startswith("val_")), reverse=True)
        return {name: self.metrics[name] for name in names} or {"score": self.score or 0.0}

    def write(self, folder: Path, name: str = FILE) -> Path:
        """Writes it into a folder, which is made if needed, whole or not at all.

        Returns:
            The file.

        Raises:
            OSError: If it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, self.to_json())
        return folder / name

    @classmethod
    def read(cls, folder: Path, name: str = FILE) -> Self:
        """Reads the outcome in a trial's folder.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is torn, or holds something else; the message names the file.
        """
        try:
            return cls.from_json(read_json(folder / name))
        except ValueError as error:
            raise ValueError(f"{str(folder / name)!r}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Returns the outcome that JSON holds; what a newer version has added is left out.

        Raises:
            ValueError: If it holds something else.
        """
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
            raise ValueError(f"this is no outcome of a trial ({error}).") from error


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as they were: JSON has no NaN, so it became null."""
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}
