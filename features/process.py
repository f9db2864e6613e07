"""Processes of this machine: who runs, and who shall not outlive whom."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import time
from contextlib import suppress

FAILURES = "FIELDWISE_FAILURES"
"""Environment variable of ranks: the folder in which they leave their errors for the process that started them."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a forked child must not load anything


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, however it dies. Linux; elsewhere nothing."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that ``end_children`` finds them. Linux."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children(of: int | None = None) -> set[int]:
    """Living processes that one (default: this) started, and what those started. Linux; elsewhere none are known."""
    parents = {}
    for entry in os.listdir("/proc") if sys.platform == "linux" else ():
        with suppress(OSError):  # it has ended meanwhile
            if entry.isdigit():
                with open(f"/proc/{entry}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry)] = int(parent)
    found: set[int] = set()
    new = {os.getpid() if of is None else of}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def end_children(grace_seconds: float = 5.0) -> bool:
    """SIGTERM to all ``children``, SIGKILL to those that are left after a while. Returns whether there were any."""
    first = left = children()
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 1.0)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while (left := children()) and time.monotonic() < deadline:
            time.sleep(0.05)
    return bool(first)


def end_at_once(pid: int) -> None:
    """SIGKILL to a process and all that it started, which are stopped first: nobody starts another one meanwhile."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for other in (pid, *children(pid)):
            with suppress(ProcessLookupError):
                os.kill(other, number)


def machine() -> str:
    """This machine since its last boot, and the container in it: process ids mean nothing beyond."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def began(pid: int) -> int | None:
    """When a process of this machine began, in ticks since boot; None where that is not told. ProcessLookupError when
    it has ended, though its parent may not have noticed yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *rest = file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        os.kill(pid, 0)  # where there is no /proc; PermissionError: it is somebody else's
        return None
    if state in (b"Z", b"X"):
        raise ProcessLookupError(pid)
    return int(rest[18])


def runs(pid: int, start: int | None = None) -> bool:
    """Whether a process of this machine is alive, whoever's it is; ``start`` tells it from a later one of its id."""
    try:
        found = began(pid)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return start is None or found is None or found == start
