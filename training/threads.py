"""Threads for compiled kernels, which let go of Python's lock.

No OpenMP: its idle threads spin on the cores that others need, and a process that used it cannot fork.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch

from fieldwise.features.arrays import Int64

_FEWEST = 64
"""Rows that are worth a thread."""
_PIECES = 4
"""Per thread, when work is spread."""
_LITTLE = 1 << 19
"""Numbers that one thread is through with before another has woken up."""

SUMMED = 1 << 14
"""Rows whose float32 gradients are summed one by one without keeping what rounding takes from the sum."""

_SMALLEST, _HALF = np.finfo(np.float32).tiny, np.float32(0.5)


def parts_of(threads: int) -> int:
    """Of a batch: so many that threads find one to go on with, see `training.kernels.passes`."""
    return threads + 1 if threads > 1 else 1


class Team:
    """A fixed number of threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.parts = parts_of(threads)
        self._others = [
            ThreadPoolExecutor(
                1, thread_name_prefix=f"kernel-{number}", initializer=torch.set_flush_denormal, initargs=(True,)
            )
            for number in range(1, threads)
        ]

    def run(self, job: Callable[[], None]) -> None:
        """``job()`` on every thread that comes in time; it takes its work from where the others take theirs."""
        self._together([job] * self.threads)

    def _together(self, jobs: list[Callable[[], None]]) -> None:
        others = [thread.submit(job) for thread, job in zip(self._others, jobs[1:], strict=True)]
        with _tiny_is_zero():
            jobs[0]()
        for other in others:
            if not other.cancel():  # one that has not begun by now has nothing left to do
                other.result()

    def spread(self, count: int, job: Callable[[int, int], None], each: int) -> None:
        """``job(first, last)`` over pieces of [0, count) that touch no other.

        A thread has the same share of them every time, which its core's cache may still hold; then it helps the others.

        Args:
            each: how many numbers one of the count touches, about; little work is not worth a second thread.
        """
        if count * each <= _LITTLE or self.threads == 1:
            with _tiny_is_zero():
                job(0, count)
            return
        bounds = [count * piece // (_PIECES * self.threads) for piece in range(_PIECES * self.threads + 1)]
        pieces = list(pairwise(bounds))
        shares = [deque(pieces[i * _PIECES : (i + 1) * _PIECES]) for i in range(self.threads)]

        def work(number: int) -> None:
            for share in (shares[number], *shares):
                take = share.popleft if share is shares[number] else share.pop
                while share:
                    try:
                        first, last = take()
                    except IndexError:  # another thread was faster
                        break
                    job(first, last)

        self._together([partial(work, number) for number in range(self.threads)])

    def pieces(self, count: int, multiple: int) -> Int64:
        """Bounds of as many pieces as `spread` makes, of a multiple each but for the last one."""
        whole = -(-count // multiple)
        number = min(whole, _PIECES * self.threads)
        return np.minimum(np.arange(number + 1, dtype=np.int64) * whole // number * multiple, count)

    def lanes(self, count: int) -> int:
        """Lanes for the gradients of a batch's parts: two for each where a part is longer than ``SUMMED`` rows."""
        return self.parts * (1 + (count > self.parts * SUMMED))

    def cut(self, count: int) -> tuple[Int64, Int64]:
        """A batch's parts [P + 1] and where they stand [P], as `training.kernels.passes.turn` takes them."""
        bounds = np.arange(self.parts + 1, dtype=np.int64) * count // self.parts
        return bounds, 2 * bounds[:-1]


@contextmanager
def _tiny_is_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as 0: weights that only L2 moves end there, and slow processors down."""
    before = not _SMALLEST * _HALF
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@cache
def _team(threads: int) -> Team:
    return Team(threads)


def team(count: int) -> Team:
    """torch's number of threads, fewer when there is little to share."""
    return _team(max(1, min(torch.get_num_threads(), count // _FEWEST)))
