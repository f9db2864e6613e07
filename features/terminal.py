"""What people see: text from data, names and servers can neither move a terminal's cursor nor forge a line.

Control characters, escape sequences, marks that turn the direction of writing, lone surrogates and every other
character without a shape of its own are written as Python's ``repr`` writes them: ``\\x1b``, ``\\u202e``, ``\\n``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from fieldwise.features.redact import redacted

LOG = logging.getLogger("fieldwise")
"""Words to people, on stderr; stdout belongs to results. Those who embed us put handlers of their own here."""
STYLE = "FIELDWISE_LOG"
"""Environment variable: ``quiet`` (warnings and errors), ``verbose`` (with seconds and module), ``json``, and ``bars``
for what draws them through a pipe; with commas. Ranks and whatever else a command starts take after it."""
_LATER_LINE = re.compile(r"\n(?=[^\n])")


def printable(text: str, *, kept: str = "") -> str:
    """``text`` with what has no shape written as an escape, but for characters ``kept``; printable texts are as they
    are."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def say(*lines: str) -> None:
    """Lines for people, at once. What a text holds, it stays one line."""
    for line in lines:
        LOG.info(line, stacklevel=2)


def warn(line: str) -> None:
    """A line that is also read by who wants to hear of trouble alone."""
    LOG.warning(line, stacklevel=2)


def last_words(line: str, stream: TextIO | TerminalStream) -> None:
    """An error's line, without the lock of a handler: a signal may have come while a line was written."""
    record = LOG.makeRecord(LOG.name, logging.ERROR, __file__, 0, line, (), None)
    stream.write(_formatter().format(record) + "\n")
    stream.flush()


def bars() -> bool:
    """Whether to draw bars: on a terminal, which may be that of the command that started us, and in a notebook, whose
    cells go back to the start of a line, too."""
    style, notebook = _style(), type(sys.stderr).__module__.startswith("ipykernel")
    return style <= {"verbose", "bars"} and ("bars" in style or notebook or sys.stderr.isatty())


def set_style(*words: str) -> None:
    """How words look from now on, here and in processes that this one starts: also so, see ``STYLE``."""
    if words:
        os.environ[STYLE] = ",".join(sorted(_style() | {*words}))
    style = _style()
    LOG.handlers = [_ToPeople()]
    LOG.handlers[0].setFormatter(_formatter())
    LOG.setLevel(logging.WARNING if "quiet" in style else logging.INFO)
    LOG.propagate = False


@contextmanager
def hushed() -> Iterator[None]:
    """Warnings and errors alone meanwhile, here and in processes that are started: for parts of a longer story. Who
    asked for more (``-v``), and a program that listens, hears all."""
    former, handlers = os.environ.get(STYLE), LOG.handlers
    if _style() & {"verbose", "json"}:
        yield
        return
    set_style("quiet")
    try:
        yield
    finally:
        os.environ.pop(STYLE)
        if former is not None:
            os.environ[STYLE] = former
        set_style()
        LOG.handlers = handlers


def _style() -> set[str]:
    return set(os.environ.get(STYLE, "").split(",")) - {""}


def _formatter() -> logging.Formatter:
    return _Lines() if "json" in _style() else _Words("verbose" in _style())


class _ToPeople(logging.StreamHandler[Any]):
    """Writes to what ``sys.stderr`` is at the moment: a command wraps it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class _Words(logging.Formatter):
    """As a person reads them."""

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose

    def format(self, record: logging.LogRecord) -> str:
        text = redacted(record.getMessage())
        text = printable(text, kept="\n" if record.levelno >= logging.ERROR else "")  # a traceback of our own
        text = f"warning: {text}" if record.levelno == logging.WARNING else text
        return f"{record.relativeCreated / 1000:8.1f} s {record.module}: {text}" if self._verbose else text


class _Lines(logging.Formatter):
    """A JSON object a line: ``time``, ``level``, ``module``, ``message``, and of errors what they are made of."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "module": record.module,
            "message": redacted(record.getMessage()),
            **record.__dict__.get("facts", {}),
        }
        return json.dumps(line)


class TerminalStream:
    """A text stream to people, for whatever a process of ours and its libraries write: no secrets, all printable.

    Lines behind the first of one ``write`` are set in: a message that holds line ends forges no line. Everything else
    is the stream's own.
    """

    def __init__(self, stream: TextIO | TerminalStream) -> None:
        self._stream: TextIO = stream._stream if isinstance(stream, TerminalStream) else stream

    def write(self, text: str) -> int:
        with _LIFE.lock:
            if text:  # a bar that ends writes nothing, too
                _LIFE.heard(self._stream)
            self._stream.write(self._shown(redacted(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def _shown(self, text: str) -> str:
        return _LATER_LINE.sub("\n  ", printable(text, kept="\n"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Life:
    """When something was last written, and whether what stands in the line is a sign of life alone."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal's last words may come while the main thread writes
        self.last, self.shown, self.doing = time.monotonic(), False, ""

    def heard(self, stream: TextIO) -> None:
        if self.shown:
            stream.write("\r\x1b[K")
        self.last, self.shown = time.monotonic(), False


_LIFE = _Life()
os.register_at_fork(after_in_child=_LIFE.__init__)  # type: ignore[misc]  # its lock may be held by a thread left behind
SILENCE_SECONDS = 1.5
"""After which a terminal gets a sign of life."""


@contextmanager
def alive(name: str, stream: TerminalStream) -> Iterator[None]:
    """Within the block a terminal that nobody writes to shows ``name`` and the seconds so far, until somebody does."""
    if not bars():
        yield
        return
    started, stop = time.monotonic(), threading.Event()

    def show() -> None:
        while not stop.wait(SILENCE_SECONDS / 10):
            with _LIFE.lock:
                if time.monotonic() - _LIFE.last > SILENCE_SECONDS and not stop.is_set():
                    # back to the line's start: a rank that writes to the terminal knows nothing of this
                    what = _LIFE.doing and f", {_LIFE.doing}"
                    stream._stream.write(f"\r\x1b[K{name}: {time.monotonic() - started:.0f} s{what}\r")
                    stream._stream.flush()
                    _LIFE.shown = True

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        with _LIFE.lock:
            _LIFE.heard(stream._stream)


def doing(what: str) -> None:
    """What a sign of life tells besides, from now on; nothing by an empty text."""
    _LIFE.doing = printable(what)


class BarStream(TerminalStream):
    """For bars, which go back to the start of their line, and for what a ``TerminalStream`` elsewhere has written."""

    def _shown(self, text: str) -> str:
        return printable(text, kept="\r\n")


set_style()
