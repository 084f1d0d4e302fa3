"""Schedules in files: the phases of an unfreezing schedule, written in YAML."""

from dataclasses import fields as fields_of
from os import PathLike
from typing import Any

import keras
import yaml

from keras_transfer.training.schedule import Phase
from keras_transfer.utils.yaml_file import LineErrors, fields, plain, read_yaml

_FIELDS = [field.name for field in fields_of(Phase)]
_MEANT = {"unfreeze": "which", "blocks": "which", "lr": "learning_rate", "epoch": "at_epoch"}


class ScheduleFileError(ValueError):
    """The errors in the file of a schedule, each with its line."""


def read_schedule(path: str | PathLike[str]) -> list[Phase]:
    """Reads an unfreezing schedule from a YAML file. Nothing in the file is ever run.

    Args:
        path: A file with a list of mappings under `phases:`, or the list alone. The fields are
            those of `Phase`; `optimizer` is the name of one of Keras' own, or a mapping of `name`
            and arguments. The short form is a mapping of epochs to blocks, such as `20: block5`.

    Returns:
        The phases in the order of the file, at least one.

    Raises:
        FileNotFoundError: If there is no such file.
        ScheduleFileError: If anything in it is wrong; a `ValueError` whose message lists the errors
            with their lines.

    Example:
        >>> Path("schedule.yaml").write_text('''
        ... phases:
        ...   - {at_epoch: 20, which: block5, learning_rate: 1e-5}
        ...   - {patience: 3, which: block4, optimizer: {name: sgd, momentum: 0.9}}
        ... ''')
        >>> [phase.which for phase in read_schedule("schedule.yaml")]
        ['block5', 'block4']
    """
    return read_yaml(path, _phases, ScheduleFileError)


def _phases(root: yaml.Node) -> list[Phase]:
    errors, phases = LineErrors(), []
    with errors.at(root):
        if isinstance(root, yaml.MappingNode) and any(
            key.value == "phases" for key, _ in root.value
        ):
            root = fields(root, ["phases"], "field", errors)["phases"]
        if not (isinstance(root, yaml.CollectionNode) and root.value):
            raise ValueError(
                "expected a list of phases such as `- {at_epoch: 20, which: block5}` under "
                f"`phases:`, or `20: block5`. Received: {plain(root)!r:.60}."
            )
        short = isinstance(root, yaml.MappingNode)
        if short:
            fields(root, {str(plain(key)) for key, _ in root.value}, "epoch", errors)  # none twice
        for item in root.value:
            node = item[0] if short else item
            with errors.at(node):
                phases.append(
                    Phase(plain(item[1]), at_epoch=plain(node)) if short else _phase(node)
                )
    errors.raise_any()
    return phases


def _phase(node: yaml.Node) -> Phase:
    errors, values = LineErrors(), {}
    for name, value in fields(node, _FIELDS, "field", errors, _MEANT).items():
        with errors.at(value):
            read = _optimizer(value) if name == "optimizer" else plain(value)
            if read is None:
                raise ValueError(f"`{name}` is empty. Write a value, or leave it out.")
            # Each value by itself, so that its error has its line.
            values[name] = getattr(Phase(**{"at_epoch": 0, name: read}), name)
    errors.raise_any()
    return Phase(**values)


def _optimizer(node: yaml.Node) -> Any:
    """Returns the name of an optimizer, or the optimizer itself if there are arguments."""
    value = plain(node)
    if not isinstance(value, dict):
        return value
    if any(isinstance(argument, dict | list) for argument in value.values()) or "name" not in value:
        raise ValueError(
            "`optimizer` must be the name of an optimizer, or its `name` and numbers, such as "
            f"{{name: sgd, momentum: 0.9}}. Received: {value!r:.200}."
        )
    name = value.pop("name")
    return keras.optimizers.get({"class_name": name, "config": value})
