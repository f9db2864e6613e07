"""Gradients of ranks on one host, in memory that all of them see, so that sums need no sockets."""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.world import World

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class SharedRows:
    """float32 [ranks, n]: row r is written by rank r and read by all.

    The memory has no name in any file system (memfd_create), so nothing is left of it however the ranks end. When to
    write and when to read is the caller's to agree on; ``room`` must be called by all ranks with the same number.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._array = np.zeros((world.size, 0), np.float32)

    @staticmethod
    def of(world: World) -> SharedRows | None:
        """None for a rank alone, and where the ranks do not all see each other's processes (collective)."""
        if world.size == 1:
            return None
        seen = world.gather(_host())
        return SharedRows(world) if seen[0] and all(place == seen[0] for place in seen) else None

    def room(self, n: int) -> npt.NDArray[np.float32] | None:
        """The array, of at least n columns; None if the system has no memory to share."""
        if self._array.shape[1] < n:
            columns = n + n // 4
            mapped = self._mapped(self._world.size * columns * 4)
            if not all(self._world.gather(mapped is not None)) or mapped is None:
                return None
            self._array = np.frombuffer(mapped, np.float32).reshape(self._world.size, columns)
        return self._array

    def _mapped(self, size: int) -> mmap.mmap | None:
        """Rank 0's new memory on every rank."""
        with ExitStack() as files:
            mapped, place = None, ""
            with suppress(OSError):  # no memory: the place stays empty, and every rank goes without
                if self._world.first:
                    own = os.memfd_create("fieldwise")
                    files.callback(os.close, own)
                    os.posix_fallocate(own, 0, size)
                    place = f"/proc/{os.getpid()}/fd/{own}"
            place = self._world.share(place)
            with suppress(OSError):
                if place:
                    file = os.open(place, os.O_RDWR)
                    files.callback(os.close, file)
                    mapped = mmap.mmap(file, size)
            self._world.gather(None)  # rank 0's descriptor stays open until everyone has been there
        return mapped


def _host() -> tuple[str, str] | None:
    """The same for processes that see each other below /proc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return _BOOT.read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
