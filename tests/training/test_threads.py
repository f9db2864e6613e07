"""Threads of compiled kernels: all of the work, once, and no time lost on tiny numbers."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from fieldwise.training.threads import Team


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("count", "each"), [(0, 1), (1, 1 << 20), (1000, 1), (1000, 1000)])
def test_work_is_done_once(threads: int, count: int, each: int) -> None:
    done: Counter[int] = Counter()
    Team(threads).spread(count, lambda first, last: done.update(range(first, last)), each)
    assert done == Counter(range(count))


def flushed() -> bool:
    return not np.finfo(np.float32).tiny * np.float32(0.5)


def test_tiny_numbers_are_zero_on_every_thread_and_only_there() -> None:
    here, found = threading.Barrier(3), []

    def job() -> None:
        here.wait()  # all three at once
        found.append(flushed())

    Team(3).run(job)
    assert found == [True] * 3
    Team(2).spread(10, lambda first, last: found.append(flushed()), 1)
    assert found[3:] == [True]
    assert not flushed()
    with pytest.raises(ZeroDivisionError):
        Team(1).run(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    assert not flushed()


def test_an_error_in_another_thread_is_raised_here() -> None:
    main, here = threading.current_thread(), threading.Barrier(2)

    def job() -> None:
        here.wait()
        if threading.current_thread() is not main:
            raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        Team(2).run(job)
