"""Memory that all ranks of one host see: one table for all of them, updated as threads of one process would."""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import ExitStack, suppress
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldwise.training.ranks.world import World

_HUGE = 2 << 20
"""Bytes of a huge page."""
_COLLAPSE = 25
"""MADV_COLLAPSE: make these pages huge ones now. From Linux 6.1 on, whatever the system's default for shared memory."""


class SharedMemory:
    """Hands out arrays that lie in the same memory on every rank.

    The memory has no name in any file system (memfd_create), so nothing is left of it however the ranks end. When to
    write and when to read is the caller's to agree on.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    @staticmethod
    def of(world: World) -> SharedMemory | None:
        """None for a rank alone, and where the ranks do not all see each other's processes (collective)."""
        if world.size == 1 or world.ranks_on_host < world.size or sys.platform != "linux":
            return None
        memory = SharedMemory(world)
        try:
            memory.zeros(1)  # a sandbox may forbid it
        except MemoryError:
            return None
        return memory

    def zeros(self, *shape: int, dtype: type = np.float32) -> npt.NDArray[Any]:
        """Zeros, the same memory on every rank (collective, of the same shape and type).

        Raises MemoryError on every rank if one of them cannot have it.
        """
        size = prod(shape) * np.dtype(dtype).itemsize
        with ExitStack() as files:
            mapped, first, place = None, 0, ""
            with suppress(OSError):  # no memory: the place stays empty, and every rank goes without
                if self.world.first:
                    own = os.memfd_create("fieldwise")
                    files.callback(os.close, own)
                    os.posix_fallocate(own, 0, size + 2 * _HUGE)
                    place = f"/proc/{os.getpid()}/fd/{own}"
            place = self.world.share(place)
            with suppress(OSError):
                if place:
                    file = os.open(place, os.O_RDWR)
                    files.callback(os.close, file)
                    mapped, first = _mapped(file, size)
                    if self.world.first:  # pages become huge for whoever maps them
                        with suppress(OSError):  # an older kernel: rows are read from small pages, which is slower
                            mapped.madvise(_COLLAPSE, first, size)
            found = self.world.gather(mapped is not None)  # rank 0's descriptor stays open until all have been there
        if not all(found) or mapped is None:
            raise MemoryError(f"{size:,} bytes of memory for {self.world.size} ranks to share")
        return np.frombuffer(mapped, dtype, prod(shape), first).reshape(shape)


def _mapped(file: int, size: int) -> tuple[mmap.mmap, int]:
    """The file's bytes from ``_HUGE`` on, and where they begin in the mapping.

    Huge pages need an address that lies as far into a page as its place in the file; so the address that the system
    chooses first tells from where in the file to map, and mostly it is chosen again.
    """
    for _ in range(4):
        mapped = mmap.mmap(file, size + _HUGE)
        skew = _address(mapped) % _HUGE
        mapped.close()
        mapped = mmap.mmap(file, size + _HUGE, offset=skew)
        if _address(mapped) % _HUGE == skew:
            break
    return mapped, _HUGE - skew


def _address(mapped: mmap.mmap) -> int:
    return int(np.frombuffer(mapped, np.uint8).ctypes.data)
