"""Ctrl-C and SIGTERM: the command unwinds as after an error, ends its processes, says one line and exits with 128 + n.

The first signal raises `Interrupted` in the main thread. Whoever must not be cut in two holds it off (``held``), and
training, which first writes a checkpoint, has handlers of its own. A second signal ends the command at once, and so
does a time that no unwinding should take; neither waits for threads that are still at work.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from fieldwise.features.process import adopt_orphans, end_children

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_SECONDS = 3.0
"""A second signal counts from then on: a terminal, a launcher and a scheduler may all pass on the same first one."""
GRACE_SECONDS = 20.0
"""Unwinding takes a second or two: Spark's tasks are ended, staging directories removed."""


class Interrupted(SystemExit):
    """A signal asked the command to end; its exit code."""

    def __init__(self, number: int) -> None:
        self.number = int(number)
        super().__init__(128 + self.number)


class Interruptible:
    """While it is used as a context manager in the main thread, the first signal raises `Interrupted` there.

    Args:
        last_words: told the signal's number just before the process ends; ``sys.stderr`` is closed to all by then.
    """

    active: Interruptible | None = None

    def __init__(self, last_words: Callable[[int], None]) -> None:
        self.came: int | None = None
        self.holds = 0
        self._last_words = last_words
        self._since = 0.0
        self._former: dict[int, Any] = {}
        self._outer = Interruptible.active

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._receive) for number in SIGNALS}
            Interruptible.active = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        Interruptible.active = self._outer

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.came is not None:
            if time.monotonic() > self._since + PATIENCE_SECONDS:
                self.leave(number)
            return
        self.came, self._since = number, time.monotonic()
        quieten()
        adopt_orphans()
        self.hurry(number)
        if not self.holds:
            raise Interrupted(number)

    def hurry(self, number: int) -> None:
        """Unwinding begins: it has its time, and no more."""

        def lose_patience() -> None:
            time.sleep(GRACE_SECONDS)
            self.leave(number)

        threading.Thread(target=lose_patience, daemon=True).start()

    def leave(self, number: int) -> None:
        """End this process and all that it started, whatever its threads are at."""
        end_children()
        self._last_words(number)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + number)


def hurrying(interrupted: Interrupted) -> Interrupted:
    """To be raised by who has handlers of its own and has done what they are for: unwinding has its time from here."""
    if Interruptible.active is not None:
        Interruptible.active.hurry(interrupted.number)
    return interrupted


@contextmanager
def held() -> Iterator[None]:
    """A few seconds' work that must not be cut in two: a signal takes effect behind it."""
    active = Interruptible.active
    if active is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    active.holds += 1
    try:
        yield
    finally:
        active.holds -= 1
    if active.came is not None and not active.holds:
        raise Interrupted(active.came)


def quieten() -> None:
    """What breaks from here on in threads, finalizers and libraries breaks because a command is leaving."""
    if Interruptible.active is not None:
        logging.disable(logging.CRITICAL)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  the last words have a stream of their own
