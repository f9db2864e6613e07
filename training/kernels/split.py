"""Compiled split of rows between context and item, and equal rows; see `training.scoring.factors`."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.exact import FFM, FM, FWFM, finish, pool
from fieldwise.training.kernels.select import reordered


@kernel
def split(form, slots, mine, theirs, context, linear, mass, norm, lossless, vectors, precise):
    """One side of the split of rows [n, S] whose other side is padding.

    ``mine`` and ``theirs`` are the fields of the two sides. Written are `training.scoring.factors.Factors`' arrays;
    ``precise`` [n, D or 0] gets the vectors before they are rounded to float32.
    """
    kind, k, fields, width = form.kind, form.dim, len(form.mean), form.table.shape[1] - 1
    take = np.zeros(fields, np.bool_)
    for f in mine:
        take[f] = True
    pooled, own, lanes = np.zeros(fields), np.zeros((fields, width)), np.zeros(2 * width)
    partner = np.zeros((fields if kind == FFM else 0, width))
    across = np.zeros(vectors.shape[1])
    row = np.empty(slots.shape[1], np.int32)
    for r in range(len(slots)):
        for s in range(len(row)):
            row[s] = slots[r, s]
        pool(kind, k, form.table, form.first, form.offset, form.mean, row, take, pooled, own, partner)
        linear[r] = finish(form, row, pooled, own, partner, lanes)
        if not context:
            linear[r] -= form.bias
        mass[r] = abs(form.bias) + linear_mass(form, row) + pair_mass(kind, k, own, mine)
        meet(form, mine, theirs, context, own, across)
        rounded = vectors[r]
        lossless[r] = round_to(rounded, across) == 0
        norm[r] = np.sqrt(squares(rounded))
        for d in range(precise.shape[1]):
            precise[r, d] = across[d]


@inner
def linear_mass(form, row):
    """Sum of absolute linear weights."""
    total = 0.0
    for s in range(len(row)):
        if row[s] != 0:
            total += abs(form.table[form.offset[s] + row[s], 0])
    return total


@inner
def pair_mass(kind, k, own, mine):
    """No less than this side's part of the sum of absolute terms of all pairs that it takes part in.

    FM: [sum_f |V_f|]^2 of both sides together is at most twice the sum of either's. FFM: |<x, y>| <= (|x|^2 + |y|^2)/2.
    """
    total = 0.0
    if kind == FM:
        for d in range(k):
            column = 0.0
            for f in mine:
                column += abs(own[f, d])
            total += 2.0 * column * column
    else:
        for f in mine:
            total += 0.5 * squares(own[f])
    return total


@reordered
def squares(x):
    """Sum of squares, in whatever order is fast."""
    total = 0.0
    for d in range(len(x)):
        total += np.float64(x[d]) * np.float64(x[d])
    return total


@inner
def round_to(rounded, across):
    """rounded = across as float32; how many of its numbers that changes."""
    changed = 0
    for d in range(len(rounded)):
        rounded[d] = across[d]
        changed += np.float64(rounded[d]) != across[d]
    return changed


@inner
def meet(form, mine, theirs, context, own, across):
    """What meets the other side; both sides lay their numbers in the same order."""
    kind, k = form.kind, form.dim
    if kind == FM:
        for d in range(k):
            across[d] = 0.0
        for f in mine:
            for d in range(k):
                across[d] += own[f, d]
    elif kind == FFM:
        for i in range(len(mine)):
            source = own[mine[i]]
            for j in range(len(theirs)):
                at, g = (i * len(theirs) + j if context else j * len(mine) + i) * k, theirs[j] * k
                if k == 4:  # the common case: four numbers in one move
                    w, x, y, z = source[g], source[g + 1], source[g + 2], source[g + 3]
                    across[at], across[at + 1], across[at + 2], across[at + 3] = w, x, y, z
                else:
                    for d in range(k):
                        across[at + d] = source[g + d]
    elif kind == FWFM and (len(mine) > len(theirs) or (len(mine) == len(theirs) and context)):
        for j in range(len(theirs)):
            for d in range(k):
                across[j * k + d] = 0.0
            for f in mine:
                for d in range(k):
                    across[j * k + d] += form.relation[f, theirs[j]] * own[f, d]
    elif kind == FWFM:
        for i in range(len(mine)):
            for d in range(k):
                across[i * k + d] = own[mine[i], d]


@kernel
def equal_rows(rows, table, group):
    """group [n]: which of the distinct rows, in the order of first sight, each of ``rows`` [n, width] is.

    ``table`` int64, a power of two >= 2 n of them, all -1, is scratch space. Returns the number of distinct rows.
    """
    mask, found = np.uint64(len(table) - 1), 0
    for r in range(len(rows)):
        key = np.uint64(14695981039346656037)
        for s in range(rows.shape[1]):
            key = (key ^ np.uint64(np.uint32(rows[r, s]))) * np.uint64(1099511628211)
        at = (key ^ (key >> np.uint64(32))) & mask
        while table[at] >= 0 and not same_row(rows, table[at], r):
            at = (at + np.uint64(1)) & mask
        if table[at] < 0:
            table[at] = r
            group[r] = found
            found += 1
        else:
            group[r] = group[table[at]]
    return found


@inner
def same_row(rows, i, j):
    s = 0
    while s < rows.shape[1] and rows[i, s] == rows[j, s]:
        s += 1
    return s == rows.shape[1]
