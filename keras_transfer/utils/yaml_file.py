"""YAML files that people write: errors name the line, and nothing in a file is ever run."""

import contextlib
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

_LARGEST = 100_000  # bytes: PyYAML takes seconds for more, and no such file is so long

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Reads plain scalars as YAML 1.2 does: `1e-5` is a number; `on`, `1:30` and `010` are texts.

    It refuses aliases, with which a small file can describe a huge one.
    """

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            problem = "aliases are refused. Write the values out; a glob that begins with * needs "
            raise yaml.composer.ComposerError(None, None, f"{problem}quotes", mark)
        return super().compose_node(parent, index)


for _kind, _pattern in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?(0|[1-9][0-9]*)"),
    ("float", r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), None
    )


class LineErrors(ValueError):
    """Errors in a file, as `(line, text)`: collected, so that one does not hide the others."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []

    @contextlib.contextmanager
    def at(self, node: yaml.Node) -> Iterator[None]:
        """Notes the errors that a block ends with, at the line of a node, and goes on behind it."""
        try:
            yield
        except LineErrors as errors:
            self.found += errors.found
        except (TypeError, ValueError) as error:
            self.found.append((node.start_mark.line + 1, " ".join(str(error).split())))

    def raise_any(self) -> None:
        """Raises itself if there was an error."""
        if self.found:
            raise self


def read_yaml(
    path: str | PathLike[str], parse: Callable[[yaml.Node], T], error: type[ValueError]
) -> T:
    """Reads a YAML file.

    Args:
        path: The file.
        parse: Makes what is returned from the root node, or raises `LineErrors`.
        error: The class of the error for a file that is wrong.

    Raises:
        OSError: If the file cannot be read.
        ValueError: An `error` whose message lists what is wrong, with its lines.
    """
    errors = LineErrors()
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError(f"the file has more than {_LARGEST:,} bytes")
        root = yaml.compose(data.decode("utf-8-sig"), Loader=_Loader)
        if root is None:
            raise ValueError("the file is empty")
        return parse(root)
    except FileNotFoundError as missing:
        raise FileNotFoundError(f"There is no file {str(path)!r}.") from missing
    except LineErrors as wrong:
        errors.found += sorted(wrong.found)
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        errors.found.append((mark.line + 1 if mark else 1, f"this is not YAML: {wrong.problem}."))
    except (yaml.YAMLError, RecursionError, ValueError) as wrong:
        errors.found.append((1, f"{' '.join(str(wrong).split())}."))
    raise error("\n".join(f"{path}, line {line}: {text}" for line, text in errors.found))


def plain(node: yaml.Node) -> Any:
    """Returns a node as Python has it: numbers, texts, truth values, lists and dicts of these."""
    try:
        return _Loader("").construct_object(node, deep=True)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{error.problem}.") from error


def fields(
    node: yaml.Node,
    known: Collection[str],
    what: str,
    errors: LineErrors,
    meant: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, yaml.Node]:
    """Returns the nodes of a mapping by their keys.

    Args:
        node: The mapping.
        known: The keys that may occur, each once at most.
        what: What the keys are.
        errors: Collects the errors of keys that are unknown, or occur twice.
        meant: As for `unknown`.

    Raises:
        ValueError: If it is no mapping.
    """
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"expected a mapping of {what}s. Received: {plain(node)!r:.60}.")
    nodes: dict[str, yaml.Node] = {}
    for key, value in node.value:
        with errors.at(key):
            name = str(plain(key))
            if name not in known:
                raise ValueError(unknown(what, name, known, meant))
            if name in nodes:
                raise ValueError(f"{name!r} is there already. Remove one of them.")
            nodes[name] = value
    return nodes


def unknown(
    what: str, name: str, expected: Collection[str], meant: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Returns the message for an unknown name.

    Args:
        what: What it should be the name of.
        name: The name.
        expected: The known names.
        meant: Names that people write by mistake, to those that they mean.
    """
    near = difflib.get_close_matches(name[:60].lower(), expected, 1)
    near = [meant[name]] if meant.get(name) in expected else near
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r:.60}.{guess} Expected one of: {', '.join(expected)}."
