"""What people see: text from data, names and servers can neither move a terminal's cursor nor forge a line.

Control characters, escape sequences, marks that turn the direction of writing, lone surrogates and every other
character without a shape of its own are written as Python's ``repr`` writes them: ``\\x1b``, ``\\u202e``, ``\\n``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from fieldwise.features.redact import redacted

_LATER_LINE = re.compile(r"\n(?=[^\n])")


def printable(text: str, *, kept: str = "") -> str:
    """``text`` with what has no shape written as an escape, but for characters ``kept``; printable texts are as they
    are."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def say(*lines: str) -> None:
    """Lines on stderr, at once; stdout belongs to results. What a text holds, it stays one line."""
    for line in lines:
        sys.stderr.write(printable(redacted(line)) + "\n")
    sys.stderr.flush()


class TerminalStream:
    """A text stream to people, for whatever a process of ours and its libraries write: no secrets, all printable.

    Lines behind the first of one ``write`` are set in: a message that holds line ends forges no line. Everything else
    is the stream's own.
    """

    def __init__(self, stream: TextIO | TerminalStream) -> None:
        self._stream: TextIO = stream._stream if isinstance(stream, TerminalStream) else stream

    def write(self, text: str) -> int:
        self._stream.write(self._shown(redacted(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def _shown(self, text: str) -> str:
        return _LATER_LINE.sub("\n  ", printable(text, kept="\n"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class BarStream(TerminalStream):
    """For bars, which go back to the start of their line, and for what a ``TerminalStream`` elsewhere has written."""

    def _shown(self, text: str) -> str:
        return printable(text, kept="\r\n")
