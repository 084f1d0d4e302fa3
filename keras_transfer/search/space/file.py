"""Spaces in files: the hyperparameters of a search, written in YAML."""

from os import PathLike

import yaml

from keras_transfer.search.space.dimension import Dimension, Range, dimension
from keras_transfer.search.space.rules import RULES, SpaceError, typed, wrong
from keras_transfer.utils.yaml_file import LineErrors, fields, plain, read_yaml

_RANGE = ("min", "max", "log", "step")
_MEANT = {"lr": "learning_rate", "units": "hidden", "layers": "depth", "backbones": "backbone"}


def read_space(path: str | PathLike[str]) -> dict[str, Dimension]:
    """Reads what a YAML file says of hyperparameters. Nothing in the file is ever run.

    Raises:
        FileNotFoundError: If there is no such file.
        SpaceError: If anything in it is wrong; lists the errors with their lines.
    """
    return read_yaml(path, _dimensions, SpaceError)


def _dimensions(root: yaml.Node) -> dict[str, Dimension]:
    errors, found = LineErrors(), {}
    with errors.at(root):
        for name, node in fields(root, RULES, "hyperparameter", errors, _MEANT).items():
            with errors.at(node):
                found[name] = typed(name, _dimension(node, errors))
                for text in wrong(name, found[name]):
                    raise ValueError(f"`{name}`: {text}")
    errors.raise_any()
    return found


def _dimension(node: yaml.Node, errors: LineErrors) -> Dimension:
    if not isinstance(node, yaml.MappingNode):
        return dimension(plain(node))
    parts = fields(node, _RANGE, "part of a range", errors)
    chosen = Range(**{part: plain(value) for part, value in parts.items()})
    if not isinstance(chosen.log, bool):
        raise ValueError(f"log must be true or false. Received: {chosen.log!r}.")
    return chosen
