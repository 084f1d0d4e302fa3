"""YAML files that people write: what is wrong in one is told with its line, nothing is run."""

import contextlib
import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

_LARGEST = 100_000  # bytes: PyYAML takes seconds for more, and no such file is so long
_DEEPEST = 10  # lists and mappings within each other; the deepest that means anything is 4
_MOST_ERRORS = 20

T = TypeVar("T")

# What all versions of YAML read as the same number, and `1e-5`, which PyYAML takes for a text.
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
REAL_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_OCTAL_TO_SOME = re.compile(r"[-+]?0(o[0-7]+|[0-9]+)")
_TRUTH = {"true": True, "false": False}
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_yaml(
    path: str | PathLike[str],
    parse: Callable[[yaml.Node], T],
    *,
    expected: str,
    error: type[ValueError],
) -> T:
    """Reads a YAML file. Nothing in it is ever run.

    Args:
        path: The file.
        parse: Makes what is returned of the tree of the file, or raises a `WrongError`.
        expected: What such a file holds, as it is told where another is met.
        error: What is raised.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: An `error`, if anything in it is wrong or unclear; its message lists the errors
            with their lines.
    """
    file = Path(path)
    if file.is_dir():
        raise error(
            f"{file}: this is a folder. Expected a YAML file with {expected}; give the path of "
            "the file in it."
        )
    try:
        return parse(_root(_text(file, expected), expected))
    except WrongError as wrong:
        errors = sorted(wrong.errors, key=lambda found: found[0])
    lines = [f"{file}, line {line}: {text}" for line, text in errors[:_MOST_ERRORS]]
    if len(errors) > _MOST_ERRORS:
        lines.append(f"{file}: {len(errors) - _MOST_ERRORS} more errors.")
    raise error("\n".join(lines))


class WrongError(Exception):
    """Errors on their way to `read_yaml`, as `(line, text)`."""

    def __init__(self, *errors: tuple[int, str]) -> None:
        super().__init__(*errors)
        self.errors = errors


class Errors:
    """Collects errors, so that one does not hide the others.

    Attributes:
        found: As `(line, text)`.
    """

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def add(self, node: yaml.Node | yaml.Token, text: str) -> None:
        """Notes an error at the line of a node."""
        self.found.append((line_of(node), text))

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Notes the errors that a block ends with, and goes on behind it."""
        try:
            yield
        except WrongError as wrong:
            self.found += wrong.errors

    def raise_any(self) -> None:
        """Raises a `WrongError` if there was one."""
        if self.found:
            raise WrongError(*self.found)


def line_of(node: yaml.Node | yaml.Token) -> int:
    """Returns the line of a node, from 1."""
    return node.start_mark.line + 1


def _text(file: Path, expected: str) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"There is no file {str(file)!r}. Expected a YAML file with {expected}; write it, "
            "or correct the path."
        ) from error
    if b"\0" in data:
        raise WrongError((_line_at(data, data.index(b"\0")), _not_text("a byte 0")))
    if len(data) > _LARGEST:
        text = f"the file has more than {_LARGEST:,} bytes. Expected {expected}; is it another?"
        raise WrongError((1, text))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{data[error.start]:02x}, which is not UTF-8"
        raise WrongError((_line_at(data, error.start), _not_text(found))) from error


def _not_text(found: str) -> str:
    return f"this is no text: it holds {found}. Save it as UTF-8, or correct the path."


def _line_at(data: bytes, position: int) -> int:
    return len((data[:position] + b".").splitlines())


def _root(text: str, expected: str) -> yaml.Node:
    """The tree of the file, once nothing in it expands, repeats or asks for Python objects."""
    errors = Errors()
    try:
        _refuse_extras(text, errors, expected)
        errors.raise_any()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or value_of(root) is None:
            raise WrongError((1, f"the file is empty. Expected {expected}."))
        return root
    except yaml.reader.ReaderError as error:
        before = text[: error.position].encode()
        errors.found.append(
            (_line_at(before, len(before)), _not_text(f"the character {text[error.position]!r}"))
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        errors.found.append((mark.line + 1 if mark else 1, _syntax(error)))
    raise WrongError(*errors.found)


def _refuse_extras(text: str, errors: Errors, expected: str) -> None:
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
            errors.add(token, f"lists and mappings nest too deeply. Expected {expected}.")
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


def value_of(node: yaml.Node) -> Any:
    """Returns a scalar as Python has it, or the node itself if it is a list or mapping.

    What readers of YAML do not agree upon is neither text nor number, so that no check passes it.
    """
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
    if REAL_NUMBER.fullmatch(text):
        return float(text)
    if node.tag.endswith(":float") and text.lower().endswith((".inf", ".nan")):
        return float(text.replace(".", ""))
    if node.tag in _NUMBER_TAGS or _OCTAL_TO_SOME.fullmatch(text):
        return _Unclear(
            "which is unclear: readers of YAML take it for different numbers. Write decimal "
            "digits without leading zeros, or quotes around a name"
        )
    return text


def received(node: yaml.Node, allows: Callable[[Any], bool] = lambda value: True) -> str:
    """Returns what a node holds, as an error tells it.

    Args:
        node: The node.
        allows: Tells whether a number would be right. One that would not is not told how to write.
    """
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        return f"a {kind}" if node.value else f"an empty {kind}"
    value, quoted = value_of(node), repr(node.value)
    quoted = quoted if len(quoted) <= 60 else f"{quoted[:57]}...'"
    plain = quoted[1:-1]
    match value:
        case None:
            return "nothing. Write a value, or leave it out"
        case _Unclear(why):
            return f"{plain}, {why}"
        case str() if node.style is None:
            return f"the text {quoted}"
        case str() if REAL_NUMBER.fullmatch(value) and allows(_number(value)):
            return f"the quoted text {quoted}. Leave the quotes out"
        case str():
            return f"the quoted text {quoted}"
        case float() if _WHOLE_NUMBER.fullmatch(node.value):
            return f"{plain}, a number of {len(node.value)} digits"
        case float() if value.is_integer() and abs(value) < 1e15 and allows(int(value)):
            return f"{plain}. Write {value:.0f}"
    return plain


def _number(text: str) -> int | float:
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else float(text)


def wrong_node(
    node: yaml.Node,
    what: str,
    expected: str,
    allows: Callable[[Any], bool] = lambda value: True,
) -> WrongError:
    """Returns the error for a node that holds something else than was expected."""
    told = received(node, allows)
    return WrongError((line_of(node), f"{what} must be {expected}. Received: {told}."))


def whole(node: yaml.Node, what: str, least: int = 0) -> int:
    """Returns a whole number, or raises a `WrongError`."""

    def allows(value: Any) -> bool:
        return type(value) is int and value >= least

    value = value_of(node)
    if allows(value):
        return value
    raise wrong_node(node, what, f"a whole number from {least} on", allows)


def from_one(node: yaml.Node, what: str) -> int:
    """Returns a whole number from 1 on, or raises a `WrongError`."""
    return whole(node, what, 1)


def rate(node: yaml.Node, what: str) -> float:
    """Returns a positive number, or raises a `WrongError`."""

    def allows(value: Any) -> bool:
        return type(value) in (int, float) and 0 < value < math.inf

    value = value_of(node)
    if allows(value):
        return float(value)
    raise wrong_node(node, what, "a positive number, such as 1e-5", allows)


def flag(node: yaml.Node, what: str) -> bool:
    """Returns a truth value, or raises a `WrongError`."""
    value = value_of(node)
    if isinstance(value, bool):
        return value
    raise wrong_node(node, what, "true or false")


def pairs_of(node: yaml.MappingNode, errors: Errors) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yields each `(name, key, value)` of a mapping whose key is a scalar and new."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            errors.add(key, f"a field must have a plain name. Received: {received(key)}.")
        elif key.value in lines:
            errors.add(
                key,
                f"{key.value!r:.60} is there already, in line {lines[key.value]}. Remove one of "
                "them.",
            )
        else:
            lines[key.value] = line_of(key)
            yield key.value, key, value


def unknown(
    what: str, name: str, expected: Collection[str], meant: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Returns what is wrong with a name that nobody knows.

    Args:
        what: What it should be the name of.
        name: The name.
        expected: The names that are known.
        meant: What those who write a certain name have in mind.
    """
    near = difflib.get_close_matches(name[:60].lower(), expected, 1)
    near = [meant[name]] if meant.get(name) in expected else near
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r:.60}.{guess} Expected one of: {', '.join(expected)}."
