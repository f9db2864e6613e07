"""Compiled kernels that count what a snapshot's files hold."""

from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import entry
from fieldwise.features.kernels.strings import FIRST, MISSING, PADDING, UNSEEN

_SLOTS = "Array(int32, 1, 'C', readonly=True), Array(uint8, 1, 'C', readonly=True)"
_GROUPS = "Array(int64, 1, 'C', readonly=True), int64[:, ::1], int64[::1]"


@entry(f"void({_SLOTS}, int32[:, ::1])", f"void({_SLOTS}, int64[:, ::1])")
def count_slots(slots, label, counts):  # type: ignore[no-untyped-def]
    """counts[slot, label] += 1 for every row: ``counts`` [size, 2]; slots in [0, size), labels 0 or 1."""
    flat = counts.ravel()
    for i in range(len(slots)):
        flat[np.uint64(2) * np.uint64(slots[i]) + np.uint64(label[i])] += 1


@entry(f"void({_SLOTS}, int64[::1])")
def count_known(slots, known, counts):  # type: ignore[no-untyped-def]
    """counts += (values, missing, unseen, not known): ``known`` uint8 [size] by local index, or empty for all known."""
    for i in range(len(slots)):
        v = slots[i]
        if v == PADDING:
            continue
        counts[0] += 1
        if v == MISSING:
            counts[1] += 1
        elif v == UNSEEN:
            counts[2] += 1
        elif len(known) > 0 and known[v] == 0:
            counts[3] += 1


@entry(f"int64(int32[:, ::1], {_GROUPS})", f"int64(int64[:, ::1], {_GROUPS})")
def sum_groups(counts, starts, groups, top):  # type: ignore[no-untyped-def]
    """``counts`` [size, 2] in one look: sums by group, the most frequent values, the number of values that occur.

    groups [G, 2] of the indices from ``starts`` [G] on; top [K] indices by count descending, then index, 0 where there
    are no more.
    """
    used, kept, group = 0, 0, 0
    for i in range(starts[0], len(counts)):
        n = counts[i, 0] + counts[i, 1]
        if n == 0:
            continue
        while group + 1 < len(starts) and starts[group + 1] <= i:
            group += 1
        groups[group, 0] += counts[i, 0]
        groups[group, 1] += counts[i, 1]
        if i < FIRST:
            continue
        used += 1
        at = kept
        while at > 0 and counts[top[at - 1], 0] + counts[top[at - 1], 1] < n:
            if at < len(top):
                top[at] = top[at - 1]
            at -= 1
        if at < len(top):
            top[at] = i
            kept = min(kept + 1, len(top))
    return used
