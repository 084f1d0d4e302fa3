"""Spaces in files: the hyperparameters of a search, written in YAML."""

from os import PathLike
from typing import Any

import yaml

from keras_transfer.search.space.dimension import Choices, Dimension, Range
from keras_transfer.search.space.rules import RULES, SpaceError, typed, wrong
from keras_transfer.utils.yaml_file import (
    Errors,
    WrongError,
    line_of,
    pairs_of,
    read_yaml,
    received,
    unknown,
    value_of,
)

_EXPECTED = "a hyperparameter a line, such as `dropout: {min: 0.0, max: 0.7}` or `depth: [1, 2]`"
_RANGE = ("min", "max", "log", "step")
_MEANT = {"lr": "learning_rate", "units": "hidden", "layers": "depth", "backbones": "backbone"}


def read_space(path: str | PathLike[str]) -> dict[str, Dimension]:
    """Reads what a YAML file says of hyperparameters. Nothing in the file is ever run.

    Raises:
        FileNotFoundError: If there is no such file.
        SpaceError: If anything in it is wrong or unclear; lists the errors with their lines.
    """
    return read_yaml(path, _given, expected=_EXPECTED, error=SpaceError)


def _given(root: yaml.Node) -> dict[str, Dimension]:
    """What a file says."""
    errors = Errors()
    if not isinstance(root, yaml.MappingNode):
        raise WrongError((line_of(root), f"expected {_EXPECTED}. Received: {received(root)}."))
    found: dict[str, Dimension] = {}
    for name, key, value in pairs_of(root, errors):
        if name not in RULES:
            errors.add(key, unknown("hyperparameter", name, RULES, _MEANT))
            continue
        with errors.collected():
            found[name] = typed(name, _parsed(name, value))
            for text in wrong(name, found[name]):
                errors.add(value, f"`{name}`: {text}")
    errors.raise_any()
    return found


def _parsed(name: str, node: yaml.Node) -> Dimension:
    if isinstance(node, yaml.MappingNode):
        return _range(name, node)
    errors = Errors()
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    values = []
    for item in items:
        with errors.collected():
            values.append(_scalar(name, item))
    errors.raise_any()
    return Choices(tuple(values))


def _range(name: str, node: yaml.MappingNode) -> Range:
    errors = Errors()
    if RULES[name].kind is str:
        errors.add(node, f"`{name}`: expected {RULES[name].told}, or a list of these.")
        errors.raise_any()
    given: dict[str, Any] = {}
    for part, key, value in pairs_of(node, errors):
        if part not in _RANGE:
            errors.add(key, f"`{name}`: {unknown('part of a range', part, _RANGE)}")
            continue
        with errors.collected():
            given[part] = _part(name, part, value)
    for part in ("min", "max"):
        if part not in given and not errors.found:
            errors.add(node, f"`{name}`: a range needs min and max, and {part} is missing.")
    errors.raise_any()
    return Range(**given)


def _part(name: str, part: str, node: yaml.Node) -> Any:
    value = value_of(node)
    if part == "log":
        if isinstance(value, bool):
            return value
        expected = "true or false"
    elif part == "step":
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        expected = "a number"
    else:
        return _scalar(name, node)
    raise WrongError(
        (line_of(node), f"`{name}`: {part} must be {expected}. Received: {received(node)}.")
    )


def _scalar(name: str, node: yaml.Node) -> Any:
    """A value of a hyperparameter, checked here so that an error has its line."""
    value, rule = value_of(node), RULES[name]
    if rule.allows(value):
        return value
    raise WrongError(
        (line_of(node), f"`{name}`: expected {rule.told}. Received: {received(node, rule.allows)}.")
    )
