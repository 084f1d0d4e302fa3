"""Schedules in files: the phases of an unfreezing schedule, written in YAML."""

import inspect
import math
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import keras
import yaml

from keras_transfer.training.schedule import Phase
from keras_transfer.utils.yaml_file import (
    REAL_NUMBER,
    Errors,
    WrongError,
    flag,
    from_one,
    line_of,
    pairs_of,
    rate,
    read_yaml,
    unknown,
    value_of,
    whole,
    wrong_node,
)

# `keras.optimizers.get` knows all of these by their names; it knows others too, which wrap one or
# come from elsewhere.
_OPTIMIZERS: Mapping[str, Any] = {
    optimizer.__name__.lower(): optimizer
    for optimizer in (
        keras.optimizers.Adadelta,
        keras.optimizers.Adafactor,
        keras.optimizers.Adagrad,
        keras.optimizers.Adam,
        keras.optimizers.AdamW,
        keras.optimizers.Adamax,
        keras.optimizers.Ftrl,
        keras.optimizers.Lion,
        keras.optimizers.Muon,
        keras.optimizers.Nadam,
        keras.optimizers.RMSprop,
        keras.optimizers.SGD,
        keras.optimizers.ScheduleFreeAdamW,
    )
}
_STEPS = {"ema_overwrite_frequency", "gradient_accumulation_steps", "ns_steps", "warmup_steps"}

_A_PHASE = "`{at_epoch: 20, which: block5}`"
_A_SCHEDULE = f"a list of phases such as `- {_A_PHASE[1:]} under `phases:`, or `20: block5`"
_MEANT = {"unfreeze": "which", "blocks": "which", "lr": "learning_rate"}


class ScheduleFileError(ValueError):
    """What is wrong in the file of a schedule: a line for each error, with the place of it."""


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
        ScheduleFileError: If anything in it is wrong or unclear; a `ValueError` whose message
            lists the errors with their lines.

    Example:
        >>> Path("schedule.yaml").write_text('''
        ... phases:
        ...   - {at_epoch: 20, which: block5, learning_rate: 1e-5}
        ...   - {patience: 3, which: block4, optimizer: {name: sgd, momentum: 0.9}}
        ... ''')
        >>> [phase.which for phase in read_schedule("schedule.yaml")]
        ['block5', 'block4']
    """
    return read_yaml(path, _phases, expected=_A_SCHEDULE, error=ScheduleFileError)


def _which(node: yaml.Node, what: str) -> str | int | list[str]:
    value = value_of(node)
    if isinstance(node, yaml.SequenceNode) and node.value:
        errors = Errors()
        for item in node.value:
            if not (isinstance(name := value_of(item), str) and name):
                with errors.collected():
                    raise wrong_node(item, f"each item of {what}", "the name of a block, or a glob")
        errors.raise_any()
        return [item.value for item in node.value]
    if (isinstance(value, str) and value) or (type(value) is int and value > 0):
        return value
    raise wrong_node(
        node, what, "a block's name, a glob, a list of these, a number from 1 on, or all"
    )


def _optimizer(node: yaml.Node, what: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _optimizer_with_arguments(node, what)
    value = value_of(node)
    if not isinstance(value, str):
        raise wrong_node(
            node, what, "the name of an optimizer, or such as `{name: sgd, momentum: 0.9}`"
        )
    if value.lower() not in _OPTIMIZERS:
        raise WrongError((line_of(node), unknown("optimizer", value, _OPTIMIZERS, _MEANT)))
    return value.lower()


def _optimizer_with_arguments(node: yaml.MappingNode, what: str) -> Any:
    errors = Errors()
    pairs = {name: (key, value) for name, key, value in pairs_of(node, errors)}
    if "name" not in pairs:
        errors.add(node, f"{what} has no `name`. Expected one of: {', '.join(_OPTIMIZERS)}.")
        errors.raise_any()
    named = pairs.pop("name")[1]
    if isinstance(named, yaml.MappingNode):
        raise wrong_node(named, "the `name` of an optimizer", "a text")
    with errors.collected():
        optimizer = _OPTIMIZERS[_optimizer(named, "the `name` of an optimizer")]
    errors.raise_any()
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(optimizer).parameters.values()
        if parameter.default is not parameter.empty
        and parameter.name not in ("name", "exclude_layers")
    }
    arguments: dict[str, Any] = {}
    for name, (key, value) in pairs.items():
        if name not in defaults:
            errors.add(key, unknown(f"argument of {optimizer.__name__}", name, defaults, _MEANT))
            continue
        with errors.collected():
            arguments[name] = _argument(value, name, defaults[name])
    errors.raise_any()
    try:
        return optimizer(**arguments)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        text = f"Keras refuses this {optimizer.__name__}: {reason}"
        raise WrongError((line_of(node), text)) from error


def _argument(node: yaml.Node, name: str, default: Any) -> bool | int | float:
    what = f"`{name}`"
    if isinstance(default, bool):
        return flag(node, what)
    if name in _STEPS:
        return whole(node, what)
    if name == "learning_rate":
        return rate(node, what)
    value, signed = value_of(node), default is not None and default < 0
    if type(value) in (int, float) and math.isfinite(value) and (signed or value >= 0):
        return value
    raise wrong_node(node, what, "a number" if signed else "a number from 0 on")


_FIELDS: Mapping[str, Callable[[yaml.Node, str], Any]] = {
    "which": _which,
    "at_epoch": whole,
    "patience": from_one,
    "freeze": _which,
    "learning_rate": rate,
    "lr_decay": rate,
    "warmup": whole,
    "optimizer": _optimizer,
    "restore_best": flag,
}


def _phases(root: yaml.Node) -> list[Phase]:
    """The phases of a whole file, in any of its forms."""
    errors = Errors()
    phases: list[Phase] = []
    if isinstance(root, yaml.MappingNode) and any(key.value == "phases" for key, _ in root.value):
        pairs = list(pairs_of(root, errors))
        for name, key, _ in pairs:
            if name != "phases":
                errors.add(key, unknown("field", name, ["phases"], _MEANT))
        root = next(value for name, _, value in pairs if name == "phases")
    with errors.collected():
        phases = _listed(root)
    errors.raise_any()
    return phases


def _listed(node: yaml.Node) -> list[Phase]:
    errors = Errors()
    phases: list[Phase] = []
    if not (isinstance(node, yaml.CollectionNode) and node.value):
        raise wrong_node(node, "a schedule", _A_SCHEDULE)
    if isinstance(node, yaml.MappingNode):
        for name, key, value in pairs_of(node, errors):
            with errors.collected():
                phases.append(_short_phase(name, key, value))
    else:
        for item in node.value:
            with errors.collected():
                phases.append(_phase(item))
    errors.raise_any()
    return phases


def _short_phase(name: str, key: yaml.Node, value: yaml.Node) -> Phase:
    if name in _FIELDS:
        raise WrongError(
            (line_of(key), f"the field {name!r} is in no phase. Expected {_A_SCHEDULE}.")
        )
    if isinstance(value_of(key), str) and not REAL_NUMBER.fullmatch(name):
        raise WrongError(
            (
                line_of(key),
                f"{name!r:.60} is neither `phases` nor an epoch. Expected {_A_SCHEDULE}.",
            )
        )
    errors = Errors()
    fields: dict[str, Any] = {}
    with errors.collected():
        fields["at_epoch"] = whole(key, "an epoch")
    with errors.collected():
        fields["which"] = _which(value, "what an epoch unfreezes")
    errors.raise_any()
    return Phase(**fields)


def _phase(node: yaml.Node) -> Phase:
    if not isinstance(node, yaml.MappingNode):
        raise wrong_node(node, "a phase", f"a mapping of fields, such as {_A_PHASE}")
    errors = Errors()
    fields: dict[str, Any] = {}
    pairs = list(pairs_of(node, errors))
    for name, key, value in pairs:
        if name not in _FIELDS:
            hint = f" Or the short form, `{name}: ...` without a dash." if name.isdigit() else ""
            errors.add(key, unknown("field", name, _FIELDS, _MEANT) + hint)
            continue
        with errors.collected():
            fields[name] = _FIELDS[name](value, f"`{name}`")
    names = {name for name, _, _ in pairs}
    if names <= set(_FIELDS) and not names & {"at_epoch", "patience"}:
        errors.add(
            node,
            "this phase never begins. Expected `at_epoch`, an epoch counted from 0, or `patience`, "
            "a number of epochs without improvement.",
        )
    errors.raise_any()
    return Phase(**fields)
