"""The YAML of configs and overrides, inside limits: what would grow or nest past any use is refused with its line."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from fieldwise.features import store
from fieldwise.features.errors import ConfigError, store_error

MOST_BYTES = 1 << 20
"""Of a config file."""
MOST_VALUES = 100_000
"""Of a document, each as often as aliases name it, a long text for as many as it could be cut into."""
MOST_DEPTH = 50
_VALUE_BYTES = 100
_KEY_LENGTH = 1_000
_DIGITS = 100


class Yaml(yaml.SafeLoader):
    """YAML 1.2's scalars: only true and false are booleans (the key ``on`` is text), 1e-6 is a number, a date, a moment
    or ``19:00`` is the text that was written."""

    _depth = _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As it was, but for depth, number (nodes are large, and this calls itself) and NUL characters."""
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth > MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_DEPTH} levels of nesting", problem_mark=mark)
        if self._nodes > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES:,} values", problem_mark=mark)
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:  # no path and no name can hold it
            raise yaml.MarkedYAMLError(problem="a NUL character", problem_mark=mark)
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _DIGITS:
            raise yaml.MarkedYAMLError(problem=f"a number of more than {_DIGITS} digits", problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


Yaml.add_constructor("tag:yaml.org,2002:int", Yaml.construct_yaml_int)
Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.I), list("tTfF"))
Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$|^[-+]?\.(inf|nan)$", re.I
    ),
    list("-+.0123456789"),
)
Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),  # YAML 1.1's, but no 19:00 to base 60
    list("-+0123456789"),
)


class _Plain(yaml.SafeDumper):
    """Writes what `Yaml` reads as the same values: its scalars, not YAML 1.1's, decide what needs quotes."""

    yaml_implicit_resolvers = Yaml.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dumped(document: dict[str, Any]) -> str:
    """A document as YAML. Raises yaml.YAMLError for values that are no plain data."""
    text: str = yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
    return text


UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError)
"""What YAML raises; all but the first for scalars that are not what they claim: a month 13, ``!!bool x``."""


def read_document(path: str) -> tuple[str, yaml.Node | None, dict[str, Any]]:
    """(absolute path or URL, nodes, value) of a config file. Raises ConfigError for none, and for what is no block of
    keys; no key is looked at."""
    file = path if "://" in path else os.path.abspath(path)
    try:
        root, data = parsed(read_text(file), file)
    except ConfigError:
        raise
    except UNREADABLE as error:
        found = complaint(error)
        fix = "Indent by spaces, not by tabs." if "\\t" in found else "Mend the syntax at that line."
        raise ConfigError(file, expected="valid YAML", found=found, fix=fix) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a single {type(data).__name__}"
        raise ConfigError(file, expected="keys and values", found=found, fix="See configs/ for examples.")
    return file, root, data


def read_text(file: str) -> str:
    """The text of a config file. Raises ConfigError for none, one that is no text, or too large."""
    try:
        with store.opened(file) as stream:
            content: bytes = stream.read(MOST_BYTES + 1)
        if len(content) <= MOST_BYTES:
            return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        if not isinstance(error, FileNotFoundError) and (told := store_error(error)) is not None:
            raise told from error
        found = (isinstance(error, OSError) and error.strerror) or str(error) or "none"
        raise ConfigError(file, expected="a readable config file", found=found, fix="Check --config.") from None
    raise ConfigError(
        file, expected=f"a config of at most {MOST_BYTES:,} bytes", found="more", fix="Check --config, or write less."
    )


def parsed(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """The nodes of a document, which know their lines, and its value.

    Raises ConfigError for keys that a block has twice or that are no single values, and for what grows past limits;
    ``UNREADABLE`` for what is no YAML.
    """
    root = yaml.compose(text, Loader=Yaml)
    _require_bounded(root, where)
    _require_once(root, where)
    return root, yaml.load(text, Loader=Yaml)  # noqa: S506  a SafeLoader


def complaint(error: Exception) -> str:
    """What YAML says, without the piece of text it shows: that may be half a URL with its password."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.MarkedYAMLError) and mark is not None:
        said = " ".join(part for part in (error.context, error.problem) if part)
        return f"{said} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def _require_bounded(root: yaml.Node | None, where: str) -> None:
    """Refuse what grows past any use: aliases of aliases, a list that holds itself, a text that many aliases name."""
    stack, left = [(root, 1)], MOST_VALUES - 1
    while stack and left >= 0:
        node, depth = stack.pop()
        if depth > MOST_DEPTH:
            found = "more, aliases followed"
            raise ConfigError(where, expected=f"at most {MOST_DEPTH} levels of nesting", found=found, fix=_LESS)
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif node is not None:
            left -= len(node.value) // _VALUE_BYTES
        left -= len(parts)
        stack += [(part, depth + 1) for part in parts]
    if left < 0:
        found = "more, aliases counted"
        raise ConfigError(where, expected=f"at most {MOST_VALUES} values", found=found, fix=_LESS)


_LESS = "Write less of it."


def _require_once(root: yaml.Node | None, where: str) -> None:
    """Refuse a key that a block has twice: YAML would take the last one without a word."""
    stack: list[tuple[yaml.Node | None, tuple[str, ...]]] = [(root, ())]
    while stack:
        node, place = stack.pop()
        if isinstance(node, yaml.SequenceNode):
            stack += [(item, (*place, str(position))) for position, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or len(key.value) > _KEY_LENGTH:
                    found = "a longer one" if isinstance(key, yaml.ScalarNode) else "a block or a list"
                    expected = f"a text of at most {_KEY_LENGTH:,} characters as a key"
                    raise ConfigError(f"{where} line {line}", expected=expected, found=found, fix="Change the key.")
                if key.value in lines:
                    raise ConfigError(
                        f"{where} line {line}, {'.'.join((*place, key.value))}",
                        expected="a key once",
                        found=f"it in line {lines[key.value]} too",
                        fix="Keep one of them.",
                    )
                lines[key.value] = line
                stack.append((value, (*place, key.value)))
