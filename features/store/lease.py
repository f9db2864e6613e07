"""A mark that a job is alive, so that what a killed one left can be told from what a running one still needs.

No clock of this machine takes part. On the holder's machine its process decides: it runs or it does not, stopped or
not. From elsewhere the age of the file decides, and both ends of that age come from the store's own clock: the file's
time, and that of a file written to learn what time it is there.

    holder here, process runs                  alive, for ever
    holder here, process gone                  dead at once
    holder elsewhere, or the file is damaged   alive while younger than LEASE_SECONDS
    file dated after the store's present       counted from now on (the store's clock was set back)
"""

from __future__ import annotations

import json
import os
import threading
from types import TracebackType

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, BusyError
from fieldwise.features.process import began, machine, runs
from fieldwise.features.store import bounded

HEARTBEAT_SECONDS = 30.0
LEASE_SECONDS = 900.0
"""A lease from elsewhere that was not renewed for this long is dead: 30 missed heartbeats."""
_MOST_BYTES = 4 << 10


class Lease:
    """A file that says who works; there, and renewed, for as long as the context manager is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        holder = {"host": machine(), "pid": os.getpid(), "start": began(os.getpid())}
        self._text = json.dumps(holder).encode()

    def __enter__(self) -> Lease:
        store.write_atomic(self._path, self._text)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        store.remove(self._path)

    def require(self) -> None:
        """Raise BusyError when somebody took the job for dead and its lease away."""
        if not store.exists(self._path):
            raise BusyError(
                self._path, expected="the lease of this job", found="none: another job took this one for dead",
                fix="Run it again. It stood still for long, or lost sight of its store.",
            )  # fmt: skip

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if store.exists(self._path):  # else it was taken away: a new one would only hide that
                    store.write_atomic(self._path, self._text)
            except Exception:  # noqa: S112  a full disk, a store out of reach: the next beat tries again
                continue


def alive(path: str) -> bool:
    """Whether the job of a lease still runs, as far as can be told from here."""
    try:
        text = bounded.read(path, _MOST_BYTES)
    except FileNotFoundError:
        return False  # its job ended while we looked
    except ArtifactError:
        text = b""  # damaged, as below
    try:
        holder = json.loads(text)
        if holder["host"] == machine():
            return runs(int(holder["pid"]), holder.get("start"))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        pass  # damaged: only its age tells
    age = store.age(path)
    if age is not None and age < -LEASE_SECONDS:
        store.write_atomic(path, text)
        return True
    return age is None or age < LEASE_SECONDS
