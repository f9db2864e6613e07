"""Compiled selection: which items of a block of proposed scores may still be among a context's best K.

A proposed score s of (context, item) comes with bounds: its float32 logit lies in [s - e, s + e]. Per context a buffer
keeps (lower, upper, item); ``threshold`` is the K-th largest lower bound seen, so an item whose upper bound is below it
is out for good. Ties stay in. With a cap of m items per category, the greedy choice under the cap takes the place of
the K largest: raising scores never lowers the K-th greedy pick, so its lower bound serves the same way, and so does the
m-th of a category.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.vectors import add, fabs, fma, load, lowest, reaching, splat

reordered = nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
"""Decorator of a kernel's part that may sum in any order."""

LANES = 64
"""Proposed scores compared with the threshold at a time."""


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
    for m in range(groups.start[group], groups.start[group + 1]):
        if not contains(exclude.item, start, stop, groups.item[m]):
            return True
    return False


@inner
def kth_largest(values, k):
    """The k-th largest of ``values``, which are reordered (Hoare's selection)."""
    low, high, want = 0, len(values) - 1, len(values) - k
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if want <= j:
            high = j
        elif want >= i:
            low = i
        else:
            break
    return values[want]


@kernel
def shrink(buffers, c, k):
    """Raise the threshold of context c and drop what can no longer be among its best k."""
    lower, upper, group, n = buffers.lower, buffers.upper, buffers.group, buffers.held[c]
    if n >= k:
        buffers.threshold[c] = max(buffers.threshold[c], kth_largest(lower[c, :n].copy(), k))
    kept = 0
    for a in range(n):
        if upper[c, a] >= buffers.threshold[c]:
            lower[c, kept], upper[c, kept], group[c, kept] = lower[c, a], upper[c, a], group[c, a]
            kept += 1
    buffers.held[c] = kept


@reordered
def dot(x, y, i, j):
    """<x[i], y[j]> in float64, in whatever order is fast."""
    total = np.float64(0.0)
    for d in range(x.shape[1]):
        total += np.float64(x[i, d]) * np.float64(y[j, d])
    return total


@kernel
def certify(u, v, a, b, norm_u, norm_v, context_error, item_error, share, start, chosen, logit, sure):
    """float32 logits of pairs from their factors, and whether they are certain.

    ``a + b + <u, v>`` is within context_error + item_error + share |u| |v| of what `training.kernels.exact` would sum.
    Where both ends of that range round to one float32, that is the logit; elsewhere (and where an error is infinite) it
    is not ``sure``. u [C, D], a, |u|, context_error [C]; v [G, D], b, |v|, item_error [G]; chosen, logit, sure
    [start[C]].
    """
    for c in range(len(start) - 1):
        for j in range(start[c], start[c + 1]):
            g = chosen[j]
            sure[j] = False
            error = context_error[c] + item_error[g]
            if error == np.inf:
                continue
            value = a[c] + b[g] + dot(u, v, c, g)
            error += share * norm_u[c] * norm_v[g]
            low, high = np.float32(value - error), np.float32(value + error)
            logit[j], sure[j] = low, low == high


@inner
def last_hits(scores, linear, a, chunk, relative, floor):
    """Bits of the scores from ``chunk`` to the end of row a, fewer than LANES, that may reach ``floor``."""
    bits = np.uint64(0)
    for j in range(scores.shape[1] - chunk):
        score = scores[a, chunk + j]
        if score + linear[chunk + j] + relative * abs(score) >= floor:
            bits |= np.uint64(1) << np.uint64(j)
    return bits


@inner
def roomy(capacity):
    """Items in a buffer that leave it room for a while."""
    return capacity - max(capacity // 4, 1)


@inner
def below(threshold, error):
    """A float32 that is no larger than ``threshold - error``."""
    return np.nextafter(np.float32(threshold - error), np.float32(-np.inf))


@kernel
def scan(scores, linear, base, contexts, error, relative, buffers, k, groups, exclude, alone, resume):
    """Keep what a block of proposed scores may contribute.

    scores float32 [A, B]: contexts ``contexts`` [A] against groups base..base+B, without ``linear`` [B]; error float64
    [A]; a score's bound is ``error + relative |score|``. ``resume`` int64 [2] is where to start (row, column).

    Returns:
        The context whose buffer is full (``resume`` then says where to go on), else -1. With ``alone`` the kernel makes
        room itself, and says so only when bounds cannot tell the items apart.
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
        floor, free = below(threshold[c], error[a]), exclude.start[c] == exclude.start[c + 1]
        for chunk in range(resume[1] if a == resume[0] else 0, width, LANES):
            if chunk + LANES <= width:  # here and not in a function: calls would cost as much
                score = load(scores, a * width + chunk, LANES)
                reach = fma(fabs(score), splat(relative, LANES), add(score, load(linear, chunk, LANES)))
                bits = reaching(reach, splat(floor, LANES))
            else:
                bits = last_hits(scores, linear, a, chunk, relative, floor)
            while bits != 0:
                j = chunk + lowest(bits)
                bits &= bits - np.uint64(1)
                slack = relative * abs(scores[a, j])
                value = scores[a, j] + linear[j]
                if value + slack >= floor and (free or available(groups, base + j, exclude, c)):
                    n = held[c]
                    lower[c, n] = np.float32(value - slack - error[a])
                    upper[c, n] = np.float32(value + slack + error[a])
                    group[c, n] = base + j
                    held[c] = n + 1
                    if n + 1 == capacity:
                        if alone:
                            shrink(buffers, c, k)
                            floor = below(threshold[c], error[a])
                        if held[c] > roomy(capacity):
                            resume[0], resume[1] = a, j + 1
                            return c
    return -1


@kernel
def rank(start, item, logit, exclude, k, cap, group, category, used, out_start, out_item, out_logit):
    """Lists by (logit descending, item ascending) out of scored pairs ``start[c]:start[c + 1]``, each item once.

    Excluded items stay out, and with ``cap`` all but the first ``cap`` of a category: group [items] and category
    [groups] tell it, ``used`` [categories] are zeros. Lists of at most k go to ``out_start`` [C + 1] and on.
    """
    longest = 0
    for c in range(len(start) - 1):
        longest = max(longest, start[c + 1] - start[c])
    keys, bits = np.empty(longest, np.uint64), np.empty(1, np.float32)
    for c in range(len(start) - 1):
        n, taken = 0, out_start[c]
        for j in range(start[c], start[c + 1]):
            if not contains(exclude.item, exclude.start[c], exclude.start[c + 1], item[j]):
                bits[0] = logit[j] + np.float32(0.0)  # -0.0 becomes 0.0, its equal
                keys[n] = (np.uint64(descending(bits.view(np.uint32)[0])) << np.uint64(32)) | np.uint64(item[j])
                n += 1
        keys[:n].sort()
        for j in range(n):
            if taken == out_start[c] + k:
                break
            chosen = np.int64(keys[j] & np.uint64(0xFFFFFFFF))
            if cap:
                kind = category[group[chosen]]
                if used[kind] == cap:
                    continue
                used[kind] += 1
            bits.view(np.uint32)[0] = descending(np.uint32(keys[j] >> np.uint64(32)))
            out_item[taken], out_logit[taken] = chosen, bits[0]
            taken += 1
        out_start[c + 1] = taken
        if cap:
            for j in range(out_start[c], taken):
                used[category[group[out_item[j]]]] = 0


@kernel
def diverse(
    vectors, norm, group, category, start, item, logit, k, cap, penalty, used, out_start, out_item, out_logit
):  # fmt: skip
    """Of ranked lists ``start[c]:start[c + 1]``, the k picked one after another by

        logit[i] - penalty * max(0, max over picked j of cosine(vectors[group[i]], vectors[group[j]]))

    (maximal marginal relevance), the earlier one of equals, with ``cap`` at most so many of a category: ``used``
    [categories] are zeros. They go to ``out_start`` [C + 1] and on, in that order.
    """
    longest = 0
    for c in range(len(start) - 1):
        longest = max(longest, start[c + 1] - start[c])
    alike, left = np.empty(longest), np.empty(longest, np.bool_)
    for c in range(len(start) - 1):
        first, n = start[c], start[c + 1] - start[c]
        alike[:n], left[:n], taken = 0.0, True, out_start[c]
        for _ in range(min(k, n)):
            best, most = -1, -np.inf
            for j in range(n):
                value = logit[first + j] - penalty * alike[j]
                if left[j] and (best < 0 or value > most):
                    best, most = j, value
            if best < 0:
                break
            left[best] = False
            out_item[taken], out_logit[taken] = item[first + best], logit[first + best]
            taken += 1
            own = group[item[first + best]]
            used[category[own]] += 1
            full = cap and used[category[own]] == cap
            for j in range(n):
                if left[j] and full and category[group[item[first + j]]] == category[own]:
                    left[j] = False
                if left[j]:
                    alike[j] = max(alike[j], cosine(vectors, norm, own, group[item[first + j]]))
        out_start[c + 1] = taken
        for j in range(out_start[c], taken):
            used[category[group[out_item[j]]]] = 0


@inner
def cosine(vectors, norm, a, b):
    """Of two rows, summed in one order; 0 where either is zero, 1 of a row with itself."""
    if norm[a] == 0.0 or norm[b] == 0.0:
        return 0.0
    if a == b:
        return 1.0
    total = 0.0
    for d in range(vectors.shape[1]):
        total += np.float64(vectors[a, d]) * np.float64(vectors[b, d])
    return total / (norm[a] * norm[b])


@inner
def descending(bits):
    """Bits of a float32 <-> an integer that is smaller the larger the number is; its own inverse."""
    return bits if bits & np.uint32(0x80000000) else bits ^ np.uint32(0x7FFFFFFF)
