"""Threads for compiled kernels, which let go of Python's lock.

No OpenMP: its idle threads spin on the cores that others need, and a process that used it cannot fork.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")
_FEWEST = 64
"""Rows that are worth a thread."""


class Team:
    """A fixed number of threads that share a range: part t of T is [n t / T, n (t + 1) / T)."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix="kernel")

    def share(self, count: int, job: Callable[[int, int, int], Result]) -> list[Result]:
        """``job(part, first, last)`` on every thread; results in the order of parts."""
        bounds = [count * t // self.threads for t in range(self.threads + 1)]
        others = [self._others.submit(job, t, bounds[t], bounds[t + 1]) for t in range(1, self.threads)]
        return [job(0, bounds[0], bounds[1]), *(other.result() for other in others)]


@cache
def _team(threads: int) -> Team:
    return Team(threads)


def team(count: int) -> Team:
    """torch's number of threads, fewer when there is little to share."""
    return _team(max(1, min(torch.get_num_threads(), count // _FEWEST)))
