"""A connection between two nodes that carries a JSON object a line; strangers may be at the other end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fieldwise.features.store import bounded

BEAT_SECONDS = 5.0
"""Both sides are heard of at least that often."""
SILENT_SECONDS = 30.0
"""Who was not heard of for so long is given up: its machine has lost its power or its network."""
_MOST_BYTES = 1 << 20


class Line:
    """One side of it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SILENT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._sending = connection, threading.Lock()

    @property
    def address(self) -> str:
        """Of this machine, as the other side sees it."""
        return str(self._connection.getsockname()[0])

    def send(self, word: str, **more: Any) -> None:
        """Say something; where nobody hears it any more, ``messages`` ends."""
        with self._sending, suppress(OSError):
            self._connection.sendall(json.dumps({"say": word, **more}).encode() + b"\n")

    def messages(self, first_within: float = SILENT_SECONDS) -> Iterator[dict[str, Any]]:
        """What the other side says, until it is gone or falls silent. ArtifactError for what no node would say."""
        self._connection.settimeout(first_within)
        with self._connection.makefile("rb") as file, suppress(OSError):
            while line := file.readline(_MOST_BYTES):
                self._connection.settimeout(SILENT_SECONDS)
                bounded.require_within(line, "line", _MOST_BYTES)
                yield bounded.parse(line, "line")

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for a message
        self._connection.close()
