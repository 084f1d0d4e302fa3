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
        for name, node in fields(root, RULES, "hyperparameter", _MEANT).items():
            with errors.at(node):
                if isinstance(node, yaml.MappingNode):
                    parts = fields(node, _RANGE, "part of a range")
                    given: Dimension = Range(
                        **{part: plain(value) for part, value in parts.items()}
                    )
                else:
                    given = dimension(plain(node))
                for text in wrong(name, given):
                    raise ValueError(f"`{name}`: {text}")
                found[name] = typed(name, given)
    errors.raise_any()
    return found
