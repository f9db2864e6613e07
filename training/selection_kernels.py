"""Compiled selection: which items of a block of proposed scores may still be among a context's best K.

A proposed score s of (context, item) comes with bounds: its float32 logit lies in [s - e, s + e]. Per context a buffer keeps
(lower, upper, item); ``threshold`` is the K-th largest lower bound seen, so an item whose upper bound is below it is out for
good. Ties stay in. With a cap of m items per category, the greedy choice under the cap takes the place of the K largest:
raising scores never lowers the K-th greedy pick, so its lower bound serves the same way, and so does the m-th of a category.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.jit import inner, kernel

LANES = 64
"""Proposed scores compared with the threshold at a time, without a branch."""


class Lists(NamedTuple):
    """A list of item positions per context: ``item[start[c]:start[c + 1]]``, ascending."""

    start: npt.NDArray[np.int64]  # [C + 1]
    item: npt.NDArray[np.int64]


class Buffers(NamedTuple):
    """What is kept of C contexts between blocks of items."""

    lower: npt.NDArray[np.float32]  # [C, capacity]
    upper: npt.NDArray[np.float32]  # [C, capacity]
    group: npt.NDArray[np.int32]  # [C, capacity]
    held: npt.NDArray[np.int64]  # [C]
    threshold: npt.NDArray[np.float32]  # [C]


@inner
def contains(items, start, stop, item):
    """Whether the ascending ``items[start:stop]`` hold ``item``."""
    while start < stop:
        middle = (start + stop) // 2
        if items[middle] < item:
            start = middle + 1
        elif items[middle] > item:
            stop = middle
        else:
            return True
    return False


@inner
def available(groups, group, exclude, c):
    """Whether some item of a group is not excluded for context c."""
    start, stop = exclude.start[c], exclude.start[c + 1]
    if start == stop:
        return True
    for m in range(groups.start[group], groups.start[group + 1]):
        if not contains(exclude.item, start, stop, groups.item[m]):
            return True
    return False


@kernel
def shrink(buffers, c, k, category, cap):
    """Raise the threshold of context c and drop what can no longer be among its best k."""
    lower, upper, group, n = buffers.lower, buffers.upper, buffers.group, buffers.held[c]
    if cap > 0:
        order = np.argsort(-lower[c, :n])
        category_floor = np.full(category.max() + 2, -np.inf, np.float32)
        taken = np.zeros(len(category_floor), np.int64)
        picked = 0
        for a in order:
            own = category[group[c, a]]
            taken[own] += 1
            if taken[own] == cap:
                category_floor[own] = lower[c, a]
            if taken[own] <= cap:
                picked += 1
                if picked == k:
                    buffers.threshold[c] = max(buffers.threshold[c], lower[c, a])
        kept = 0
        for a in range(n):
            if upper[c, a] >= buffers.threshold[c] and upper[c, a] >= category_floor[category[group[c, a]]]:
                lower[c, kept], upper[c, kept], group[c, kept] = lower[c, a], upper[c, a], group[c, a]
                kept += 1
    else:
        if n >= k:
            buffers.threshold[c] = max(buffers.threshold[c], np.partition(lower[c, :n], n - k)[n - k])
        kept = 0
        for a in range(n):
            if upper[c, a] >= buffers.threshold[c]:
                lower[c, kept], upper[c, kept], group[c, kept] = lower[c, a], upper[c, a], group[c, a]
                kept += 1
    buffers.held[c] = kept


@inner
def any_reaches(scores, a, linear, start, stop, relative, floor):
    """Whether some score of row a in [start, stop) may reach ``floor``: counted without a branch, so by vector units."""
    hits = np.uint32(0)
    for j in range(np.uint64(start), np.uint64(stop)):  # unsigned: no check for negative indices in the way
        hits += np.uint32(scores[a, j] + linear[j] + relative * abs(scores[a, j]) >= floor)
    return hits > 0


@inner
def below(threshold, error):
    """A float32 that is no larger than ``threshold - error``."""
    return np.nextafter(np.float32(threshold - error), np.float32(-np.inf))


@kernel
def scan(scores, linear, base, contexts, error, relative, buffers, k, groups, exclude, category, cap, resume):
    """Keep what a block of proposed scores may contribute.

    scores float32 [A, B]: contexts ``contexts`` [A] against groups base..base+B, without ``linear`` [B]; error float64 [A];
    a score's bound is ``error + relative |score|``. ``resume`` int64 [2] is where to start (row, column).

    Returns:
        The context whose buffer is full of items that bounds cannot tell apart (``resume`` then says where to go on), else -1.
    """
    capacity, width = buffers.lower.shape[1], scores.shape[1]
    lower, upper, group, held, threshold = (
        buffers.lower,
        buffers.upper,
        buffers.group,
        buffers.held,
        buffers.threshold,
    )
    for a in range(resume[0], len(contexts)):
        c = contexts[a]
        floor = below(threshold[c], error[a])
        for chunk in range(resume[1] if a == resume[0] else 0, width, LANES):
            stop = min(chunk + LANES, width)
            if not any_reaches(scores, a, linear, chunk, stop, relative, floor):
                continue
            for j in range(chunk, stop):
                slack = relative * abs(scores[a, j])
                value = scores[a, j] + linear[j]
                if value + slack >= floor and available(groups, base + j, exclude, c):
                    n = held[c]
                    lower[c, n] = np.float32(value - slack - error[a])
                    upper[c, n] = np.float32(value + slack + error[a])
                    group[c, n] = base + j
                    held[c] = n + 1
                    if n + 1 == capacity:
                        shrink(buffers, c, k, category, cap)
                        floor = below(threshold[c], error[a])
                        if held[c] > capacity - max(capacity // 4, 1):
                            resume[0], resume[1] = a, j + 1
                            return c
    return -1


@kernel
def ranked(start, chosen, logits, groups, exclude, category, k, cap, out_count, out_item, out_logit):
    """The best k items of each context from its rescored groups: logit descending, then item position ascending.

    start [A + 1], chosen [start[A]] groups, logits float32 of them; out_item, out_logit [A, k], out_count [A].
    """
    for a in range(len(start) - 1):
        total = 0
        for j in range(start[a], start[a + 1]):
            total += min(groups.start[chosen[j] + 1] - groups.start[chosen[j]], k)
        item, value, own = np.empty(total, np.int64), np.empty(total, np.float32), np.empty(total, np.int64)
        n = 0
        for j in range(start[a], start[a + 1]):
            taken = 0
            for m in range(groups.start[chosen[j]], groups.start[chosen[j] + 1]):
                if taken == k:
                    break
                if not contains(exclude.item, exclude.start[a], exclude.start[a + 1], groups.item[m]):
                    item[n], value[n], own[n] = groups.item[m], logits[j], category[chosen[j]] if cap > 0 else 0
                    n += 1
                    taken += 1
        by_item = np.argsort(item[:n])
        order = by_item[np.argsort(-value[:n][by_item], kind="mergesort")]
        used = np.zeros(category.max() + 2 if cap > 0 else 1, np.int64)
        count = 0
        for o in order:
            if count == k:
                break
            if cap > 0:
                if used[own[o]] == cap:
                    continue
                used[own[o]] += 1
            out_item[a, count], out_logit[a, count] = item[o], value[o]
            count += 1
        out_count[a] = count


@kernel
def keep_exact(buffers, c, logits, shifted, first_item, k, category, cap):
    """Bounds become the exact logits, ``shifted`` by a(c); of context c only the best k by (logit, first item) stay, under the cap."""
    n = buffers.held[c]
    by_item = np.argsort(first_item)
    order = by_item[np.argsort(-logits[by_item], kind="mergesort")]
    used = np.zeros(category.max() + 2 if cap > 0 else 1, np.int64)
    group = buffers.group[c, :n].copy()
    kept = 0
    for o in order:
        if kept == k:
            break
        if cap > 0:
            own = category[group[o]]
            if used[own] == cap:
                continue
            used[own] += 1
        buffers.lower[c, kept] = buffers.upper[c, kept] = shifted[o]
        buffers.group[c, kept] = group[o]
        kept += 1
    buffers.held[c] = kept
    if kept == k:
        buffers.threshold[c] = max(buffers.threshold[c], buffers.lower[c, kept - 1])


@kernel
def first_items(buffers, groups, exclude, c):
    """The smallest item of each group in the buffer of context c that is not excluded."""
    first = np.empty(buffers.held[c], np.int64)
    for n in range(len(first)):
        for m in range(groups.start[buffers.group[c, n]], groups.start[buffers.group[c, n] + 1]):
            if not contains(exclude.item, exclude.start[c], exclude.start[c + 1], groups.item[m]):
                first[n] = groups.item[m]
                break
    return first
