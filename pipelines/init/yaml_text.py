"""YAML as people write it: keys, flow blocks and comments, with names and values from data that can be nothing else.

A text from data stands in quotes unless it is a plain word, so that no name is read as a number, a key or a
comment; comments are one printable line.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from fieldwise.features.terminal import printable

WIDTH = 116
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""Words that some reader of YAML takes for values of other kinds."""


def scalar(value: Any) -> str:
    """A single value."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    if _WORD.fullmatch(text) and text.lower() not in _KEYWORDS:
        return text
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    """Inside double quotes: what has no shape, or turns the direction of writing, by its number."""
    if char in '"\\':
        return f"\\{char}"
    number = ord(char)
    if char.isprintable():
        return char
    return f"\\x{number:02x}" if number < 1 << 8 else f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def key(name: str) -> str:
    """A key: ``on`` is a text to us, as the docs write it."""
    return name if name == "on" else scalar(name)


def flow(value: Any) -> str:
    """A value in one line: ``{name: user, kind: hash}``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key(name)}: {flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


class Page:
    """Lines of a config in order."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def comment(self, text: str, indent: int = 0) -> None:
        """One line, or several where it is long."""
        start = f"{' ' * indent}# "
        shown = printable(" ".join(text.split()))
        self._lines += textwrap.wrap(shown, WIDTH, initial_indent=start, subsequent_indent=start,
                                     break_long_words=False, break_on_hyphens=False) or [start.rstrip()]  # fmt: skip

    def line(self, name: str, value: Any, indent: int = 0) -> None:
        """``name: value`` in one line."""
        self._lines.append(f"{' ' * indent}{key(name)}: {flow(value)}")

    def open(self, name: str, indent: int = 0) -> None:
        """``name:``, with a block below."""
        self._lines.append(f"{' ' * indent}{key(name)}:")

    def block(self, name: str, value: Mapping[str, Any], indent: int = 0) -> None:
        """A block in one line where that is short, else a key in each line."""
        line = f"{' ' * indent}{key(name)}: {flow(value)}"
        if len(line) <= WIDTH:
            self._lines.append(line)
            return
        self.open(name, indent)
        for inner, item in value.items():
            self._long(inner, item, indent + 2)

    def _long(self, name: str, item: Any, indent: int) -> None:
        line = f"{' ' * indent}{key(name)}: {flow(item)}"
        if len(line) <= WIDTH or not isinstance(item, list | tuple):
            self._lines.append(line)
            return
        self._lines.append(f"{' ' * indent}{key(name)}: [")
        self._lines += _filled(map(flow, item), " " * (indent + 2))
        self._lines.append(f"{' ' * indent}]")

    def item(self, value: Mapping[str, Any], reason: str) -> None:
        """An item of a list, its reason above it where both do not fit in a line."""
        line = f"  - {flow(value)}"
        told = f"{line}  # {printable(' '.join(reason.split()))}" if reason else line
        if len(told) <= WIDTH:
            self._lines.append(told)
            return
        if reason:
            self.comment(reason, indent=2)
        if len(line) <= WIDTH:
            self._lines.append(line)
            return
        for place, (name, one) in enumerate(value.items()):
            self._long(name, one, 4)
            if place == 0:
                self._lines[-1] = f"  - {self._lines[-1][4:]}"

    def space(self) -> None:
        self._lines.append("")

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _filled(parts: Iterable[str], indent: str) -> list[str]:
    """Items of a list, many in a line."""
    lines = [indent]
    for part in parts:
        if len(lines[-1]) + len(part) + 2 > WIDTH and lines[-1].strip():
            lines.append(indent)
        lines[-1] += f"{part}, "
    return [line.rstrip() for line in lines]
