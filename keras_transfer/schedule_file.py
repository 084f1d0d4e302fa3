"""Schedules in files: the phases of an unfreezing schedule, written in YAML."""

import contextlib
import difflib
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import yaml

from keras_transfer.schedule import Phase

_LARGEST = 100_000  # bytes: PyYAML takes seconds for more, and no schedule is so long
_DEEPEST = 10  # lists and mappings within each other; the deepest that means anything is 4
_MOST_ERRORS = 20

# What all versions of YAML read as the same number, and `1e-5`, which PyYAML takes for a text.
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
_REAL_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_OCTAL_TO_SOME = re.compile(r"[-+]?0(o[0-7]+|[0-9]+)")
_TRUTH = {"true": True, "false": False}
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

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
    file = Path(path)
    try:
        return _phases(_root(_text(file)))
    except _WrongError as wrong:
        errors = sorted(wrong.errors, key=lambda error: error[0])
    lines = [f"{file}, line {line}: {text}" for line, text in errors[:_MOST_ERRORS]]
    if len(errors) > _MOST_ERRORS:
        lines.append(f"{file}: {len(errors) - _MOST_ERRORS} more errors.")
    raise ScheduleFileError("\n".join(lines))


class _WrongError(Exception):
    """Errors on their way to `read_schedule`, as `(line, text)`."""

    def __init__(self, *errors: tuple[int, str]) -> None:
        super().__init__(*errors)
        self.errors = errors


class _Errors:
    """Collects errors, so that one does not hide the others."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def add(self, node: yaml.Node | yaml.Token, text: str) -> None:
        self.found.append((_line(node), text))

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except _WrongError as wrong:
            self.found += wrong.errors

    def raise_any(self) -> None:
        if self.found:
            raise _WrongError(*self.found)


def _line(node: yaml.Node | yaml.Token) -> int:
    return node.start_mark.line + 1


def _text(file: Path) -> str:
    if file.is_dir():
        raise ScheduleFileError(
            f"{file}: this is a folder. Expected a YAML file with {_A_SCHEDULE}; give the path of "
            "the file in it."
        )
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"There is no file {str(file)!r}. Expected a YAML file with {_A_SCHEDULE}; write it, "
            "or correct the path."
        ) from error
    if b"\0" in data:
        raise _WrongError((_line_at(data, data.index(b"\0")), _not_text("a byte 0")))
    if len(data) > _LARGEST:
        text = f"the file has more than {_LARGEST:,} bytes. Expected {_A_SCHEDULE}; is it another?"
        raise _WrongError((1, text))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{data[error.start]:02x}, which is not UTF-8"
        raise _WrongError((_line_at(data, error.start), _not_text(found))) from error


def _not_text(found: str) -> str:
    return f"this is no text: it holds {found}. Save it as UTF-8, or correct the path."


def _line_at(data: bytes, position: int) -> int:
    return len((data[:position] + b".").splitlines())


def _root(text: str) -> yaml.Node | None:
    """The tree of the file, once nothing in it expands, repeats or asks for Python objects."""
    errors = _Errors()
    try:
        _refuse_extras(text, errors)
        errors.raise_any()
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        before = text[: error.position].encode()
        errors.found.append(
            (_line_at(before, len(before)), _not_text(f"the character {text[error.position]!r}"))
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        errors.found.append((mark.line + 1 if mark else 1, _syntax(error)))
    raise _WrongError(*errors.found)


def _refuse_extras(text: str, errors: _Errors) -> None:
    """Looks at the tokens, before anything is built of them."""
    depth, begun = 0, False
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        kind = type(token).__name__
        if kind.startswith(("Block", "Flow")):
            depth += kind.endswith("StartToken") - kind.endswith("EndToken")
        match token:
            case yaml.TagToken(value=(handle, suffix)):
                tag = f"{handle or ''}{suffix}"
                errors.add(token, f"the tag {tag:.60} is refused. Leave it out; plain values do.")
            case yaml.AnchorToken():
                errors.add(
                    token,
                    f"the anchor &{token.value:.60} is refused. Write the values out instead.",
                )
            case yaml.AliasToken():
                errors.add(
                    token,
                    f"the alias *{token.value:.60} is refused. Write the values out; a glob that "
                    "begins with * needs quotes.",
                )
            case yaml.DocumentStartToken() if begun:
                errors.add(token, "a second document begins. Expected one; remove this `---`.")
                return
            case yaml.StreamStartToken() | yaml.DirectiveToken() | yaml.DocumentEndToken():
                continue
        begun = True
        if depth > _DEEPEST:
            errors.add(token, f"lists and mappings nest too deeply. Expected {_A_SCHEDULE}.")
            return


def _syntax(error: yaml.MarkedYAMLError) -> str:
    context = f" {error.context}" if error.context else ""
    if error.context and error.context_mark and error.context_mark is not error.problem_mark:
        context += f" that begins in line {error.context_mark.line + 1}"
    hint = ""
    if "'\\t'" in (error.problem or ""):
        hint = " Indent with spaces, not with tabs."
    elif "alias" in (error.context or ""):
        hint = " A glob that begins with * needs quotes."
    return f"this is not YAML:{context}{',' * bool(context)} {error.problem}.{hint}"


@dataclass(frozen=True)
class _Unclear:
    """A value that readers of YAML do not agree upon."""

    why: str


def _value(node: yaml.Node) -> Any:
    """A scalar as Python has it, `_Unclear`, or the node itself if it is a list or mapping."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    text = node.value
    if node.style is not None:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in _SWITCHES and node.tag.endswith(":bool"):
        truth = _SWITCHES[text.lower()]
        return _Unclear(
            f"which YAML 1.1 reads as {truth} and YAML 1.2 as a text. Write {truth} if you mean "
            "that, or quotes around a name"
        )
    if text.lower() in _TRUTH and node.tag.endswith(":bool"):
        return _TRUTH[text.lower()]
    if _WHOLE_NUMBER.fullmatch(text) and len(text) <= 18:  # as long as all that fits into 64 bits
        return int(text)
    if _REAL_NUMBER.fullmatch(text):
        return float(text)
    if node.tag.endswith(":float") and text.lower().endswith((".inf", ".nan")):
        return float(text.replace(".", ""))
    if node.tag in _NUMBER_TAGS or _OCTAL_TO_SOME.fullmatch(text):
        return _Unclear(
            "which is unclear: readers of YAML take it for different numbers. Write decimal "
            "digits without leading zeros, or quotes around a name"
        )
    return text


def _received(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        return f"a {kind}" if node.value else f"an empty {kind}"
    value, quoted = _value(node), repr(node.value)
    quoted = quoted if len(quoted) <= 60 else f"{quoted[:57]}...'"
    plain = quoted[1:-1]
    match value:
        case None:
            return "nothing. Write a value, or leave it out"
        case _Unclear(why):
            return f"{plain}, {why}"
        case str() if node.style is None:
            return f"the text {quoted}"
        case str() if _REAL_NUMBER.fullmatch(value):
            return f"the quoted text {quoted}. Leave the quotes out"
        case str():
            return f"the quoted text {quoted}"
        case float() if _WHOLE_NUMBER.fullmatch(node.value):
            return f"{plain}, a number of {len(node.value)} digits"
        case float() if value.is_integer() and abs(value) < 1e15:
            return f"{plain}. Write {value:.0f}"
    return plain


def _wrong(node: yaml.Node, what: str, expected: str) -> _WrongError:
    return _WrongError((_line(node), f"{what} must be {expected}. Received: {_received(node)}."))


def _whole(node: yaml.Node, what: str, least: int = 0) -> int:
    value = _value(node)
    if type(value) is int and value >= least:
        return value
    raise _wrong(node, what, f"a whole number from {least} on")


def _from_one(node: yaml.Node, what: str) -> int:
    return _whole(node, what, 1)


def _rate(node: yaml.Node, what: str) -> float:
    value = _value(node)
    if type(value) in (int, float) and 0 < value < math.inf:
        return float(value)
    raise _wrong(node, what, "a positive number, such as 1e-5")


def _flag(node: yaml.Node, what: str) -> bool:
    value = _value(node)
    if isinstance(value, bool):
        return value
    raise _wrong(node, what, "true or false")


def _which(node: yaml.Node, what: str) -> str | int | list[str]:
    value = _value(node)
    if isinstance(node, yaml.SequenceNode) and node.value:
        errors = _Errors()
        for item in node.value:
            if not (isinstance(name := _value(item), str) and name):
                with errors.collected():
                    raise _wrong(item, f"each item of {what}", "the name of a block, or a glob")
        errors.raise_any()
        return [item.value for item in node.value]
    if (isinstance(value, str) and value) or (type(value) is int and value > 0):
        return value
    raise _wrong(node, what, "a block's name, a glob, a list of these, a number from 1 on, or all")


def _pairs(node: yaml.MappingNode, errors: _Errors) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yields each `(name, key, value)` of a mapping whose key is a scalar and new."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            errors.add(key, f"a field must have a plain name. Received: {_received(key)}.")
        elif key.value in lines:
            errors.add(
                key,
                f"{key.value!r:.60} is there already, in line {lines[key.value]}. Remove one of "
                "them.",
            )
        else:
            lines[key.value] = _line(key)
            yield key.value, key, value


def _unknown(what: str, name: str, expected: Collection[str]) -> str:
    near = difflib.get_close_matches(name[:60].lower(), expected, 1)
    near = [_MEANT[name]] if _MEANT.get(name) in expected else near
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r:.60}.{meant} Expected one of: {', '.join(expected)}."


def _optimizer(node: yaml.Node, what: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _optimizer_with_arguments(node, what)
    value = _value(node)
    if not isinstance(value, str):
        raise _wrong(
            node, what, "the name of an optimizer, or such as `{name: sgd, momentum: 0.9}`"
        )
    if value.lower() not in _OPTIMIZERS:
        raise _WrongError((_line(node), _unknown("optimizer", value, _OPTIMIZERS)))
    return value.lower()


def _optimizer_with_arguments(node: yaml.MappingNode, what: str) -> Any:
    errors = _Errors()
    pairs = {name: (key, value) for name, key, value in _pairs(node, errors)}
    if "name" not in pairs:
        errors.add(node, f"{what} has no `name`. Expected one of: {', '.join(_OPTIMIZERS)}.")
        errors.raise_any()
    named = pairs.pop("name")[1]
    if isinstance(named, yaml.MappingNode):
        raise _wrong(named, "the `name` of an optimizer", "a text")
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
            errors.add(key, _unknown(f"argument of {optimizer.__name__}", name, defaults))
            continue
        with errors.collected():
            arguments[name] = _argument(value, name, defaults[name])
    errors.raise_any()
    try:
        return optimizer(**arguments)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        text = f"Keras refuses this {optimizer.__name__}: {reason}"
        raise _WrongError((_line(node), text)) from error


def _argument(node: yaml.Node, name: str, default: Any) -> bool | int | float:
    what = f"`{name}`"
    if isinstance(default, bool):
        return _flag(node, what)
    if name in _STEPS:
        return _whole(node, what)
    if name == "learning_rate":
        return _rate(node, what)
    value, signed = _value(node), default is not None and default < 0
    if type(value) in (int, float) and math.isfinite(value) and (signed or value >= 0):
        return value
    raise _wrong(node, what, "a number" if signed else "a number from 0 on")


_FIELDS: Mapping[str, Callable[[yaml.Node, str], Any]] = {
    "which": _which,
    "at_epoch": _whole,
    "patience": _from_one,
    "freeze": _which,
    "learning_rate": _rate,
    "lr_decay": _rate,
    "warmup": _whole,
    "optimizer": _optimizer,
    "restore_best": _flag,
}


def _phases(root: yaml.Node | None) -> list[Phase]:
    """The phases of a whole file, in any of its forms."""
    if root is None or _value(root) is None:
        raise _WrongError((1, f"the file is empty. Expected {_A_SCHEDULE}."))
    errors = _Errors()
    phases: list[Phase] = []
    if isinstance(root, yaml.MappingNode) and any(key.value == "phases" for key, _ in root.value):
        pairs = list(_pairs(root, errors))
        for name, key, _ in pairs:
            if name != "phases":
                errors.add(key, _unknown("field", name, ["phases"]))
        root = next(value for name, _, value in pairs if name == "phases")
    with errors.collected():
        phases = _listed(root)
    errors.raise_any()
    return phases


def _listed(node: yaml.Node) -> list[Phase]:
    errors = _Errors()
    phases: list[Phase] = []
    if not (isinstance(node, yaml.CollectionNode) and node.value):
        raise _wrong(node, "a schedule", _A_SCHEDULE)
    if isinstance(node, yaml.MappingNode):
        for name, key, value in _pairs(node, errors):
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
        raise _WrongError(
            (_line(key), f"the field {name!r} is in no phase. Expected {_A_SCHEDULE}.")
        )
    if isinstance(_value(key), str) and not _REAL_NUMBER.fullmatch(name):
        raise _WrongError(
            (_line(key), f"{name!r:.60} is neither `phases` nor an epoch. Expected {_A_SCHEDULE}.")
        )
    errors = _Errors()
    fields: dict[str, Any] = {}
    with errors.collected():
        fields["at_epoch"] = _whole(key, "an epoch")
    with errors.collected():
        fields["which"] = _which(value, "what an epoch unfreezes")
    errors.raise_any()
    return Phase(**fields)


def _phase(node: yaml.Node) -> Phase:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, "a phase", f"a mapping of fields, such as {_A_PHASE}")
    errors = _Errors()
    fields: dict[str, Any] = {}
    pairs = list(_pairs(node, errors))
    for name, key, value in pairs:
        if name not in _FIELDS:
            hint = f" Or the short form, `{name}: ...` without a dash." if name.isdigit() else ""
            errors.add(key, _unknown("field", name, _FIELDS) + hint)
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
