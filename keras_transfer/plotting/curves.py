"""What the numbers of a run say: its curves, which value is better, which epoch is the best."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

Mode = Literal["auto", "min", "max"]
# One value an epoch, by the name of the log. None: not logged in that epoch. Values that are no
# numbers (a phase's name, an array of per-class scores) are allowed and not drawn.
Logs = Mapping[str, Sequence[Any]]

# What `BlockUnfreezer` logs of its schedule.
BLOCK_RATE = "learning_rate/"  # followed by the name of a block
_PROGRESS = ("phase", "trainable_parameters")

_LOWER = re.compile(
    r"loss|error|crossentropy|divergence|hinge|poisson|perplexity|brier|log_?cosh|false_"
    r"|(^|_)(mse|mae|mape|msle|rmse|kld)($|_)"
)
_HIGHER = re.compile(
    r"acc|auc|precision|recall|sensitivity|specificity|(^|_)f\d|fbeta|iou|io_u|dice|similarity"
    r"|kappa|r2|corr|true_|score"
)


@dataclass(frozen=True)
class Best:
    """The best epoch of a run.

    Attributes:
        key: Name of the log that decided.
        epoch: The epoch, counted from 0 as Keras does.
        value: The log's value in that epoch.
    """

    key: str
    epoch: int
    value: float


@dataclass(frozen=True)
class Curve:
    """Points of one log's line: epochs counted from 1, and a value or NaN for each."""

    key: str
    x: tuple[int, ...]
    y: tuple[float, ...]

    def at(self, x: int) -> float:
        """Value at epoch `x`, or NaN."""
        return dict(zip(self.x, self.y, strict=True)).get(x, math.nan)

    @property
    def lost(self) -> list[int]:
        """Epochs whose value is not finite."""
        return [x for x, y in zip(self.x, self.y, strict=True) if math.isnan(y)]


def curves_of(history: Logs, epochs: Sequence[int]) -> dict[str, Curve]:
    """The logs that can be drawn: a number or nothing in each epoch."""
    curves = {}
    for key, values in history.items():
        if len(values) != len(epochs):
            raise ValueError(
                f"The log {key!r} has {len(values)} values for {len(epochs)} epochs. Expected one "
                "an epoch; put None where nothing was logged."
            )
        points = [(e + 1, v) for e, v in zip(epochs, values, strict=True) if v is not None]
        if points and key != "epoch" and all(is_number(value) for _, value in points):
            y = (float(value) if is_finite(value) else math.nan for _, value in points)
            curves[key] = Curve(key, tuple(x for x, _ in points), tuple(y))
    if not curves:
        raise ValueError(
            f"There is nothing to draw: the history holds {sorted(history)} in {len(epochs)} "
            "epochs. Expected at least one log with a number an epoch, such as 'loss'; draw after "
            "the first epoch."
        )
    return curves


def is_number(value: object) -> bool:
    """Whether a value is a real number, of Python or numpy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return is_number(value) and math.isfinite(value)


def is_rate(key: str) -> bool:
    """Whether a log is the learning rate, or that of one block."""
    return key == "learning_rate" or key.startswith(BLOCK_RATE)


def metric_names(keys: Iterable[str]) -> list[str]:
    """Panels other than learning rates: losses first, training and validation under one name."""
    metrics = (key for key in keys if not is_rate(key) and key not in _PROGRESS)
    names = dict.fromkeys(key.removeprefix("val_") for key in metrics)
    return sorted(names, key=lambda name: name != "loss")  # stable: the others keep their order


def text_of(value: float) -> str:
    """A value as its reader wants it: four digits."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:.4g}"


def lower_is_better(name: str, mode: Mode = "auto") -> bool:
    """Whether the smallest value of a log or score is its best: by `mode`, or else by the name.

    Raises:
        ValueError: If `mode` is unknown, or `"auto"` and the name tells nothing.

    Example:
        >>> lower_is_better("val_loss"), lower_is_better("val_accuracy")
        (True, False)
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"mode={mode!r} is unknown. Expected 'auto', 'min' or 'max'.")
    if mode != "auto":
        return mode == "min"
    if _LOWER.search(name.lower()):
        return True
    if _HIGHER.search(name.lower()):
        return False
    raise ValueError(
        f"The name {name!r} does not tell whether lower or higher is better. Expected a name with "
        "'loss', 'error', 'accuracy', 'auc' or the like in it; for this one, pass mode='min' or "
        "mode='max'."
    )


def monitored_log(monitor: str, logged: Sequence[str]) -> str | None:
    """Name of the log that decides which epoch is the best.

    The default of all figures, `"val_loss"`, means `"loss"` where it is not logged, whatever else
    is. None stands for a log that can only come with the first validation, which has not run yet
    (`validation_freq` of `fit`), and for the default where neither is logged.

    Raises:
        ValueError: If `monitor` is not logged, and not the default, which nobody need have chosen.
    """
    if monitor in logged:
        return monitor
    if monitor == "val_loss":
        return "loss" if "loss" in logged else None
    validated = any(key.startswith("val_") for key in logged)
    if not validated and monitor.startswith("val_") and monitor.removeprefix("val_") in logged:
        return None
    raise ValueError(
        f"monitor={monitor!r} is not among the logs. Logged are {sorted(logged)}. Pass one of them "
        "as monitor, or let the model compute that metric (compile(metrics=...), validation_data)."
    )


def best_epoch(
    history: Logs, epochs: Sequence[int], monitor: str = "val_loss", mode: Mode = "auto"
) -> Best | None:
    """The first epoch with the best finite value of the monitored log, None while there is none.

    Args:
        history: Values by name of the log, one an epoch.
        epochs: The epochs, counted from 0.
        monitor: See `monitored_log`. Default `"val_loss"`.
        mode: See `lower_is_better`. Default `"auto"`.

    Example:
        >>> best_epoch({"loss": [0.5, 0.3, 0.4]}, [0, 1, 2])
        Best(key='loss', epoch=1, value=0.3)
    """
    key = monitored_log(monitor, list(history))
    if key is None:
        return None
    sign = 1 if lower_is_better(key, mode) else -1
    values = [
        (sign * value, epoch)
        for epoch, value in zip(epochs, history[key], strict=True)
        if is_finite(value)
    ]
    if not values:
        return None
    score, epoch = min(values)
    return Best(key, epoch, float(sign * score))
