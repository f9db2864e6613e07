"""Compiled search for a batch's distinct table rows, and the factors by which a field's values are pooled; the plain
twin is `numpy.unique`. `step.lookup` calls it."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.vectors import prefetch

_BLOCK = 256
"""Rows whose part of the index fits into the innermost cache."""
_AHEAD = 16
"""Rows between asking for a place in the map and using it."""


@inner
def pair_bucket(first, second, buckets):
    """Bucket in [0, buckets) of a pair of table rows (first of the smaller slot); buckets < 2**32.

    h = (first * A + second) * B mod 2**64, h ^= h >> 29, h *= C; bucket = (h >> 32) * buckets >> 32.
    """
    h = (np.uint64(first) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(second)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return np.int64(((h >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32))


@kernel
def first_stranger(by_slot, size):
    padded = False
    for s in range(by_slot.shape[0]):
        low, high = np.int32(1), np.int32(0)
        for value in by_slot[s]:
            low, high = min(low, value), max(high, value)
        padded |= low == 0
        if low < 0 or high >= size[s]:
            for b in range(by_slot.shape[1]):
                if by_slot[s, b] < 0 or by_slot[s, b] >= size[s]:
                    return s, b, True
    return -1, -1, padded


@kernel
def find_distinct(by_slot, offset, position, ids, again, index):
    """The slots' columns of ``index``, slot by slot in blocks of rows whose index stays in the processor's cache.

    Places in the map are asked for early, and no branch guesses what is new.
    """
    slots, batch = by_slot.shape
    distinct = 0
    for first in range(0, batch, _BLOCK):
        last = min(first + _BLOCK, batch)
        for s in range(slots):
            base, column = offset[s], by_slot[s]
            for b in range(first, min(first + _AHEAD, last)):
                prefetch(position, base + column[b])
            for b in range(first, last):
                if b + _AHEAD < last:
                    prefetch(position, base + column[b + _AHEAD])
                if column[b] == 0:
                    index[b, s] = 0
                    continue
                row = base + column[b]
                at = position[row]
                new = at < 0
                at = np.int32(distinct) if new else at
                position[row] = at
                index[b, s] = at
                ids[distinct] = row  # overwritten by the next one unless it is new
                again[at] = not new
                distinct += new
    return distinct


@kernel
def pooling_factors(by_slot, field_of_slot, mean_pooled, factor):
    """Slot by slot in blocks of rows, as `find_distinct`: along a row, the slots of a large batch share few cache
    lines."""
    slots, batch = by_slot.shape
    count = np.empty((len(mean_pooled), _BLOCK), np.int32)
    for first in range(0, batch, _BLOCK):
        last = min(first + _BLOCK, batch)
        count[:] = 0
        for s in range(slots):
            if mean_pooled[field_of_slot[s]]:
                values, of_field = by_slot[s, first:last], count[field_of_slot[s]]
                for b in range(len(values)):
                    of_field[b] += values[b] != 0
        for s in range(slots):
            values, of_field = by_slot[s, first:last], count[field_of_slot[s]]
            mean = mean_pooled[field_of_slot[s]]
            for b in range(len(values)):
                one = np.float32(1.0) / np.float32(max(of_field[b], 1)) if mean else np.float32(1.0)
                factor[first + b, s] = one if values[b] != 0 else np.float32(0.0)


@kernel
def direct_rows(by_slot, offset, first, second, base, buckets, rows):
    """rows [K, B]: the table rows themselves, where nothing is padding."""
    slots = by_slot.shape[0]
    for s in range(slots):
        for b in range(by_slot.shape[1]):
            rows[s, b] = offset[s] + by_slot[s, b]
    for p in range(len(first)):
        one, other, column = rows[first[p]], rows[second[p]], rows[slots + p]
        for b in range(len(column)):
            column[b] = base + pair_bucket(one[b], other[b], buckets)


@kernel
def find_distinct_pairs(first, second, rows, buckets, position, ids, again, distinct, index, factor):
    """The pairs' columns of ``index`` (and of ``factor``, unless it is empty because all are 1).

    A row's pairs are hashed, and asked for, while the row before is looked up.
    """
    slots, pairs, batch = index.shape[1] - len(first), len(first), index.shape[0]
    row, ahead, own = np.empty(pairs, np.int64), np.empty(pairs, np.int64), np.empty(slots, np.int64)
    for b in range(batch + 1):
        row, ahead = ahead, row
        if b < batch:
            for s in range(slots):
                own[s] = ids[index[b, s]]
            for p in range(pairs):
                ahead[p] = rows + pair_bucket(own[first[p]], own[second[p]], buckets)
            for p in range(pairs):
                prefetch(position, ahead[p])
        if b == 0:
            continue
        for p in range(pairs):
            column = slots + p
            if factor.size:
                factor[b - 1, column] = factor[b - 1, first[p]] * factor[b - 1, second[p]]
                if factor[b - 1, column] == 0.0:
                    index[b - 1, column] = 0
                    continue
            at = position[row[p]]
            new = at < 0
            at = np.int32(distinct) if new else at
            position[row[p]] = at
            index[b - 1, column] = at
            ids[distinct] = row[p]  # overwritten by the next one unless it is new
            again[at] = not new
            distinct += new
    return distinct


@kernel
def number_repeats(position, ids, again, repeat):
    """Number the repeated rows; leave the scratch space as it was found."""
    repeats = 0
    for u in range(len(ids)):
        position[ids[u]] = -1
        repeat[u] = repeats if again[u] else -1
        repeats += again[u]
        again[u] = False
