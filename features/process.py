"""Processes of this machine: who runs, and who shall not outlive whom."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a forked child must not load anything


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, however it dies. Linux; elsewhere nothing."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


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
