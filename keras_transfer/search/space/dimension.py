"""What a search may choose one hyperparameter from: a range, some values, or one value."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import keras_tuner

Value = int | float | str


@dataclass(frozen=True)
class Choices:
    """Some values to choose from, or the one that is fixed.

    Attributes:
        values: One or more, each different, all of one type.
    """

    values: tuple[Value, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether there is but one."""
        return len(self.values) == 1

    @property
    def least(self) -> Any:
        """The lowest value."""
        return min(self.values)

    @property
    def most(self) -> Any:
        """The highest value."""
        return max(self.values)

    def above(self, value: Value) -> list[Any]:
        """Returns all values above one."""
        return [one for one in self.values if one > value]  # type: ignore[operator]

    def declare(self, hp: "keras_tuner.HyperParameters", name: str, usual: Value) -> Any:
        """Declares a hyperparameter; returns its value in this trial, `None` if inactive.

        Args:
            hp: Where to declare it.
            name: Its name.
            usual: The default, where it is among the values.
        """
        if self.is_fixed:
            return hp.Fixed(name, self.values[0])
        default = usual if usual in self.values else self.values[0]
        return hp.Choice(name, list(self.values), default=default)

    def nearest(self, value: Any) -> Any:
        """Returns the value that is nearest to a number."""
        return min(self.values, key=lambda one: abs(one - value))

    def to_plain(self) -> Any:
        """Returns it as JSON and YAML have it."""
        return self.values[0] if self.is_fixed else list(self.values)

    def __str__(self) -> str:
        told = [_as_yaml(value) for value in self.values]
        return told[0] if self.is_fixed else f"[{', '.join(told)}]"


@dataclass(frozen=True)
class Range:
    """All numbers of a range, or those that are steps apart.

    Attributes:
        min: The lowest.
        max: The highest.
        log: Whether orders of magnitude count, not differences.
        step: From one number to the next: what is added or, with `log`, the factor. `None` for
            every number.

    Example:
        >>> Range(32, 512, log=True, step=2)  # 32, 64, 128, 256 or 512
    """

    min: int | float
    max: int | float
    log: bool = False
    step: int | float | None = None

    is_fixed = False

    @property
    def least(self) -> Any:
        """The lowest value."""
        return self.min

    @property
    def most(self) -> Any:
        """The highest value that it can come to."""
        return self._on_grid(self.max)

    def above(self, value: int) -> list[int]:
        """Returns all whole numbers of it above one."""
        if self.log or isinstance(self.step, float):
            numbers = {self._on_grid(number) for number in range(int(self.min), int(self.max) + 1)}
        else:
            numbers = set(range(int(self.min), int(self.max) + 1, int(self.step or 1)))
        return sorted(number for number in numbers if number > value)

    def declare(self, hp: "keras_tuner.HyperParameters", name: str, usual: Value) -> Any:
        """Declares a hyperparameter; returns its value in this trial, `None` if inactive.

        Args:
            hp: Where to declare it.
            name: Its name.
            usual: The default, or the value of the range that is next to it.
        """
        whole = isinstance(self.min, int) and isinstance(self.max, int)
        kind = hp.Int if whole else hp.Float
        sampling = "log" if self.log else "linear"
        default = self.nearest(usual)
        return kind(name, self.min, self.max, step=self.step, sampling=sampling, default=default)

    def nearest(self, value: Any) -> Any:
        """Returns the number of it at or next below one."""
        return self._on_grid(min(max(value, self.min), self.max))

    def _on_grid(self, number: Any) -> Any:
        """The number of the range at or next below one."""
        if self.step is None:
            return number
        if self.log:
            steps = int(math.log(number / self.min, self.step) + 1e-8)
            found = self.min * self.step**steps
        else:
            found = self.min + int((number - self.min) / self.step + 1e-8) * self.step
        return int(found) if isinstance(self.min, int) else float(f"{found:.12g}")

    def wrong(self) -> str | None:
        """Returns what makes it impossible, `None` if nothing does."""
        if self.min > self.max:
            return f"min={self.min} is above max={self.max}. Exchange them"
        if self.min == self.max:
            return f"min and max are both {self.min}. For one value write it alone: {self.min}"
        if self.log and self.min <= 0:
            return f"log needs numbers above 0, and min is {self.min}. Raise it, or list values"
        if self.step is None:
            return None
        if self.step <= (1 if self.log else 0):
            least = "a factor above 1 with log" if self.log else "above 0"
            return f"step must be {least}. Received: {self.step}"
        beyond = self.min * self.step if self.log else self.min + self.step
        if beyond > self.max * (1 + 1e-9):
            return f"step={self.step} leads from min={self.min} beyond max={self.max} at once"
        return None

    def to_plain(self) -> Any:
        """Returns it as JSON and YAML have it."""
        log = {"log": True} if self.log else {}
        step = {} if self.step is None else {"step": self.step}
        return {"min": self.min, "max": self.max, **log, **step}

    def __str__(self) -> str:
        told = ", ".join(f"{key}: {_as_yaml(value)}" for key, value in self.to_plain().items())
        return f"{{{told}}}"


Dimension = Choices | Range


def dimension(given: Any) -> Dimension:
    """Returns what a search may choose from, of what people write in Python.

    Args:
        given: One value, a list of values, a `Range`, or a mapping as `Range.to_plain` gives it.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(given, Choices | Range):
        return given
    if isinstance(given, dict):
        return Range(**given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return Choices(tuple(given))
    if isinstance(given, int | float | str):
        return Choices((given,))
    raise TypeError(f"Expected a value, a list of values, or a Range. Received: {given!r}.")


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # Quotes for a word that YAML would take for something else, such as `no`.
    needs_quotes = isinstance(value, str) and yaml.safe_load(value) != value
    return json.dumps(value) if needs_quotes else str(value)
