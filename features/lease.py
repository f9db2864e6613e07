"""A mark that a job is alive, so that what a killed one left can be told from what a running one still needs."""

from __future__ import annotations

import json
import os
import threading
import time
from types import TracebackType

from features import store
from features.process import machine, runs

HEARTBEAT_SECONDS = 30.0
LEASE_SECONDS = 900.0
"""A lease not renewed for this long is dead: 30 missed heartbeats, and room for clocks that differ between machines."""


class Lease:
    """A file that says who works and when they were last seen alive; there for as long as the context manager is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        store.remove(self._path)

    def _renew(self) -> None:
        lease = {"host": machine(), "pid": os.getpid(), "time": time.time()}
        store.write_atomic(self._path, json.dumps(lease).encode())

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._renew()


def alive(path: str) -> bool:
    """Whether the job of a lease still runs, as far as can be told from here."""
    try:
        lease = json.loads(store.read_bytes(path))
    except FileNotFoundError:
        return False  # its job ended while we looked
    if lease["host"] == machine() and not runs(lease["pid"]):
        return False
    return bool(time.time() - lease["time"] < LEASE_SECONDS)
