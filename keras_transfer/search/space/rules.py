"""What values the hyperparameters of a search can have."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.search.space.dimension import Choices, Dimension, Range

_FORMS = "a value, a list of values, or a range such as {min: 32, max: 512}"
_WORD = re.compile(r"[\w./:@-]+")  # what YAML takes for a text without quotes


class SpaceError(ValueError):
    """What is wrong with a space: a line for each error, with its place where there is one."""


@dataclass(frozen=True)
class Rule:
    """What values of a hyperparameter can be.

    Attributes:
        told: That in words.
        kind: Their type.
        low: The lowest.
        high: The highest.
        above_low: Whether the lowest itself is too low.
        below_high: Whether the highest itself is too high.
        words: The words that are known; none for any.
        usual: The default of a trial.
    """

    told: str
    kind: type
    low: float = 0
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False
    words: tuple[str, ...] = ()
    usual: Any = None

    def allows(self, value: Any) -> bool:
        """Whether a value is possible."""
        if self.kind is str:
            is_word = isinstance(value, str) and _WORD.fullmatch(value) is not None
            return is_word and (not self.words or value in self.words)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind is int and not isinstance(value, int):
            return False
        low_enough = value < self.high if self.below_high else value <= self.high
        return low_enough and (value > self.low if self.above_low else value >= self.low)


class _FrozenEpochs(Rule):
    def allows(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return value >= 0 if isinstance(value, int) else 0 <= value < 1


class _Unfreeze(Rule):
    def allows(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return 0 <= value <= (1000 if isinstance(value, int) else 1)


# Whole numbers, or shares of something.
_COUNT_OR_SHARE = ("frozen_epochs", "unfreeze")
_RATE = "a number above 0 and up to 10"
RULES: Mapping[str, Rule] = {
    "backbone": Rule("the name of a backbone", str),
    "pooling": Rule("avg, max or levels", str, words=("avg", "max", "levels"), usual="avg"),
    "hidden": Rule("a whole number from 1 to 65536", int, 1, 65536, usual=128),
    "depth": Rule("a whole number from 0 to 4", int, 0, 4, usual=0),
    "dropout": Rule("a number from 0 up to, not including, 1", float, 0, 1, False, True, (), 0.3),
    "learning_rate": Rule(_RATE, float, 0, 10, True, usual=1e-3),
    "weight_decay": Rule("a number from 0 to 10", float, 0, 10, usual=0.0),
    "label_smoothing": Rule(
        "a number from 0 up to, not including, 1", float, 0, 1, False, True, (), 0.1
    ),
    "unfreeze": _Unfreeze(
        "a whole number of blocks from 0 to 1000, or a share of them such as 0.5", float, usual=0.6
    ),
    "batch_norm": Rule("adapt or frozen", str, words=("adapt", "frozen"), usual="adapt"),
    "fine_tuning_epochs": Rule("a whole number from 1 to 10000", int, 1, 10_000, usual=10),
    "fine_tuning_learning_rate": Rule(_RATE, float, 0, 10, True, usual=1e-3),
    "lr_decay": Rule("a number above 0 and up to 1", float, 0, 1, True, usual=1.0),
    "frozen_epochs": _FrozenEpochs(
        "a whole number of epochs, or a share of them such as 0.5", float, usual=0
    ),
}


def typed(name: str, chosen: Dimension) -> Dimension:
    """The same with whole numbers as floating point ones where others are possible."""
    if RULES[name].kind is not float:
        return chosen
    if isinstance(chosen, Range):
        numbers = [chosen.min, chosen.max]
        if name in _COUNT_OR_SHARE and all(isinstance(number, int) for number in numbers):
            return chosen
        step = None if chosen.step is None else _float(chosen.step)
        return Range(_float(chosen.min), _float(chosen.max), chosen.log, step)
    if name in _COUNT_OR_SHARE and not _is_share_beside_0(chosen.values):
        return chosen
    return Choices(tuple(_float(value) for value in chosen.values))


def _is_share_beside_0(values: Sequence[Any]) -> bool:
    """Whether the one whole number is 0, which is both."""
    numbers = [value for value in values if isinstance(value, float) or value != 0]
    return bool(numbers) and all(isinstance(number, float) for number in numbers)


def _float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def wrong(name: str, chosen: Dimension) -> list[str]:
    """What is wrong with what a hyperparameter is chosen from."""
    rule = RULES[name]
    values = chosen.values if isinstance(chosen, Choices) else (chosen.min, chosen.max)
    if rule.kind is str and isinstance(chosen, Range):
        return [f"expected {rule.told}, or a list of these. Received: a range."]
    bad = [value for value in values if not rule.allows(value)]
    if bad:
        return [f"expected {rule.told}. Received: {bad[0]!r}."]
    if not values:
        return [f"the list is empty. Expected {_FORMS}."]
    if len({type(value) for value in values}) > 1:
        return ["expected whole numbers, or shares, not both together."]
    if isinstance(chosen, Choices):
        twice = next((value for value in values if values.count(value) > 1), None)
        return [] if twice is None else [f"{twice!r} is there twice. Remove one of them."]
    if name == "unfreeze" and not isinstance(chosen.min, int):
        return ["expected a range of whole numbers, or a list of shares. Received: a range."]
    if (rule.kind is int or name == "unfreeze") and not isinstance(chosen.step, int | None):
        return [f"step must be a whole number. Received: {chosen.step!r}."]
    text = chosen.wrong()
    return [] if text is None else [f"{text}."]
