"""What a search looks for: the best value of a metric of the validation data."""

from dataclasses import dataclass
from typing import Any, Literal

_OBJECTIVES: dict[str, Literal["min", "max"]] = {"loss": "min", "accuracy": "max"}


@dataclass(frozen=True)
class Objective:
    """What decides which of two epochs, or trials, is the better.

    Attributes:
        name: A log of the validation data.
        mode: Whether its best value is the lowest or the highest.
    """

    name: str
    mode: Literal["min", "max"]

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another; no number is better than none."""
        return value < than if self.mode == "min" else value > than


def objective(metric: str = "loss") -> Objective:
    """Returns the objective that a metric means.

    Args:
        metric: `"loss"` or `"accuracy"`.

    Raises:
        ValueError: If it is unknown.
    """
    if metric not in _OBJECTIVES:
        raise ValueError(f"Unknown metric {metric!r}. Expected one of {', '.join(_OBJECTIVES)}.")
    return Objective(f"val_{metric}", _OBJECTIVES[metric])


def compile_metrics(metric: str, classes: int) -> list[Any]:
    """Returns the metrics to compile a model with, accuracy first.

    Args:
        metric: As for `objective`.
        classes: How many classes there are.
    """
    return ["accuracy"]
