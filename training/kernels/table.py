"""Compiled reading and filling of the embedding table, and the marks that ranks write into shared memory."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.vectors import number, prefetch, put

_AHEAD = 16
"""Ids between asking for a place in the map and using it."""


@kernel
def write_marks(ids, repeat, base, marks):
    """marks[id] = base + 2 * place + (1 if the row occurs more than once) + 1, all places 0 so far."""
    for u in range(len(ids)):
        if u + _AHEAD < len(ids):
            prefetch(marks, ids[u + _AHEAD])
        marks[ids[u]] = base + 1 + (repeat[u] >= 0)


@kernel
def find_places(ids, repeat, base, marks, rank, mine, own_ids):
    """Places of rows that another rank or part adds to, -1 for the others; how many this rank updates, and has in all.

    ``marks`` [ranks, rows]. This rank's get their places, while others read of them only what does not change by that.
    """
    ranks, rows = marks.shape
    flat, own, places = marks.reshape(-1), 0, 0
    for u in range(len(ids)):
        if u + _AHEAD < len(ids):
            for other in range(ranks):
                prefetch(flat, other * rows + ids[u + _AHEAD])
        row = ids[u]
        by_number = (np.uint64(row) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)  # of 2**32
        chosen = np.int64((by_number * np.uint64(ranks)) >> np.uint64(32))
        owner, lonely, owner_again = np.int64(-1), repeat[u] < 0, False
        for step in range(ranks):
            r = chosen + step if chosen + step < ranks else chosen + step - ranks
            code = np.int64(marks[r, row]) - base - 1
            if code >= 0:
                lonely &= r == rank
                again = code % 2 == 1
                if owner < 0 or (again and not owner_again):
                    owner, owner_again = r, again
        if lonely:
            mine[u] = -1
            continue
        mine[u] = places
        marks[rank, row] += 2 * places
        own_ids[own] = row  # overwritten by the next one unless it is this rank's
        places += 1
        own += owner == rank
    return own, places


@kernel
def gather_places(ids, base, marks, rank_of_lane, places):
    """places [G, L] of rows in the lanes of every rank, -1 where a rank does not touch them."""
    ranks, rows = marks.shape
    flat = marks.reshape(-1)
    for u in range(len(ids)):
        if u + _AHEAD < len(ids):
            for r in range(ranks):
                prefetch(flat, r * rows + ids[u + _AHEAD])
        for lane in range(len(rank_of_lane)):
            code = np.int64(marks[rank_of_lane[lane], ids[u]]) - base - 1
            places[u, lane] = code // 2 if code >= 0 else -1


@kernel
def unite(everyones, counts, rank, position, union, mine):
    """Distinct ids in the order of first sight, rank after rank; returns how many."""
    distinct = 0
    for r in range(len(counts)):
        for i in range(counts[r]):
            if i + _AHEAD < counts[r]:
                prefetch(position, np.int64(everyones[r, i + _AHEAD]))
            row = np.int64(everyones[r, i])
            if position[row] < 0:
                position[row] = distinct
                union[distinct] = row
                distinct += 1
            if r == rank:
                mine[i] = position[row]
    for i in range(distinct):
        position[union[i]] = -1
    return distinct


@kernel
def pick_rows(values, rows, picked):
    """picked = values[rows]; numpy's takes twice as long."""
    for i in range(len(rows)):
        picked[i] = values[rows[i]]


@kernel
def gather_rows(first, last, weight, width, ids, out):
    ahead = 4 + 64 // width
    for u in range(first, last):
        if u + ahead < last:
            for j in range(0, width, 16):
                prefetch(weight, ids[u + ahead] * width + j)
        at = ids[u] * width
        for j in range(width):
            out[u * width + j] = number(weight, at + j)


@kernel
def fill_rows(weight, first, last, width, seed, bound):
    """weight[r, c] = bound * uniform(-1, 1) from the SplitMix64 of (seed, r, c)."""
    step = np.float32(0.0)
    for r in range(first, last):
        start = _mix(_mix(seed) ^ np.uint64(r))
        for c in range(width):
            top = _mix(start + np.uint64(c) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)  # 24 bits
            put(weight, r * width + c, bound * (np.float32(top) * np.float32(2.0**-23) - np.float32(1.0)), step)
        put(weight, r * width, np.float32(0.0), step)


@inner
def _mix(z):
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
