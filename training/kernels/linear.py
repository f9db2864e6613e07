"""Compiled steps of models of linear weights alone, whose batches are not looked up: `step.fused` calls them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.loss import logloss
from fieldwise.training.kernels.passes import turn
from fieldwise.training.kernels.updates import update
from fieldwise.training.kernels.vectors import add, chosen, give, load, marked, prefetch, splat, store

COLUMNS = 8
"""Columns it takes at a time."""
AHEAD = 64
"""Numbers between asking for one of the table and reading it."""
BLOCK = 1024
"""Rows whose losses and slopes are summed in one."""
AT_ONCE = 4
"""Columns whose weights are added before they are added to the logits."""
SCATTERED = 4
"""A number read at random takes as long as so many in a row."""
SLOPE = 2.0**-102
"""The smallest that counts. So no sum of slopes is too small for a normal float, which would end as -0.0."""


@kernel
def linear_groups(first, last, bounds, values, rows, partials):
    """Of a model of linear weights alone: the logits [B] that groups [first, last) of columns add up to.

    ``rows`` [K, B]: the table row of every column; ``bounds`` [G + 1] of the groups; into ``partials`` [G, B].
    """
    for g in range(first, last):
        linear_logits(0, rows.shape[1], values, rows[bounds[g] : bounds[g + 1]], np.float32(0.0), partials[g])


@kernel
def linear_slopes(first, last, partials, bias, label, weight, share, logits, slopes, sums):
    """What follows ``linear_groups``, for the batch's blocks [first, last) of ``BLOCK`` rows.

    ``partials`` [G, B]: logits of groups of columns, added in their order. ``slopes`` [B] and ``sums`` [blocks, 2] take
    what ``batch_pass`` tells too: share * w * dlogloss/dlogit (0 below ``SLOPE``), and a block's sums of w * logloss
    and of the slopes.
    """
    for block in range(first, last):
        begin, end = block * BLOCK, min(block * BLOCK + BLOCK, len(logits))
        part = logits[begin:end]
        part[:] = bias
        for group in range(len(partials)):
            part += partials[group, begin:end]
        loss, slope = 0.0, 0.0
        for b in range(begin, end):
            of_row, by_logit = logloss(np.float64(logits[b]), label[b])
            w = np.float64(weight[b]) if weight.size else 1.0
            loss += w * of_row
            slope += share * w * by_logit
            g = np.float32(share * w * by_logit)
            slopes[b] = g if math.isfinite(g) and abs(g) >= SLOPE else np.float32(0.0)
        sums[block, 0], sums[block, 1] = loss, slope


@kernel
def linear_logits(first, last, values, rows, bias, logits):
    """Logits of batch rows [first, last), column after column: what is read at random is a small part of the table.

    Vectors of one number, because processors with a repaired gather load numbers faster one by one.
    """
    logits[first:last] = bias
    s = 0
    while s + AT_ONCE <= len(rows):
        c0, c1, c2, c3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
        for b in range(first, last):
            z0 = add(load(values, c0[b], 1), load(values, c1[b], 1))
            z1 = add(load(values, c2[b], 1), load(values, c3[b], 1))
            store(logits, b, add(load(logits, b, 1), add(z0, z1)))
        s += AT_ONCE
    while s < len(rows):
        column = rows[s]
        for b in range(first, last):
            store(logits, b, add(load(logits, b, 1), load(values, column[b], 1)))
        s += 1


@kernel
def linear_lanes(bounds, taken, rows, slopes, lanes):
    """What follows ``linear_slopes`` where columns share table rows, a thread's turns at ``rows``; see `turn`.

    Every part of them adds its gradients to lanes of its own of ``lanes`` [P, 1 or 2, table rows].
    """
    part = -1
    while True:
        part = turn(bounds, taken, part)
        if part < 0:
            break
        first = taken[part] >> 1
        last = min(first + COLUMNS, bounds[part + 1])
        linear_lane(first, last, rows, slopes, lanes[part])
        give(taken, part, 2 * last)


@kernel
def linear_lane(first, last, rows, slopes, lanes):
    """Gradients of columns [first, last) of ``rows`` [K, B], the table row of every column, added to one lane.

    A lane starts at -0.0, which no sum of other numbers is, so that a gradient of 0 can be told from none. Of two
    ``lanes`` [2, table rows] the second takes what rounding took from the first; see `add_to_sum`.
    """
    lane, lost = lanes[0], lanes[len(lanes) - 1]
    for s in range(first, last):
        column = rows[s]
        if len(lanes) == 1:
            for b in range(len(slopes)):
                prefetch(lane, column[min(b + AHEAD, len(slopes) - 1)])
                lane[column[b]] += slopes[b]
        else:
            for b in range(len(slopes)):
                add_to_sum(lane, lost, column[b], slopes[b])


@inner
def add_to_sum(lane, lost, u, slope):
    """lane[u] += slope, and what rounding takes from that goes to lost[u], as the next slope's part (Kahan)."""
    before, more = lane[u], slope + lost[u]
    lane[u] = before + more
    lost[u] = more - (lane[u] - before)


def _of_one_number(rule: str) -> str:
    """The same rule for rows of one number, of which the mean over the row is the number."""
    return "adagrad" if rule == "rowwise_adagrad" else rule


@cache
def linear_columns(rule: str) -> Any:
    """``linear_lane`` and ``lane_rows`` in one for columns [first, last) that share no table row, of one lane.

    For batches that touch little of the table. ``lanes`` [1 or 2, table rows] as there; ``bits``: the first as int32.
    """

    same = _of_one_number(rule)

    @kernel
    def run(first, last, values, rows, slopes, lanes, bits, states, hyper):
        one, none, each = np.float32(1.0), np.int32(-(2**31)), len(lanes)
        lane, lost = lanes[0], lanes[each - 1]
        touched = np.empty(rows.shape[1] + 1, np.int32)
        for s in range(first, last):
            column, distinct = rows[s], 0
            for b in range(len(column)):
                u = column[b]
                new = bits[u] == none
                if each == 1:
                    lane[u] += slopes[b]
                else:
                    add_to_sum(lane, lost, u, slopes[b])
                touched[distinct] = u  # overwritten by the next one unless it is new
                distinct += new
            for i in range(distinct):
                u = np.int64(touched[i])
                if each == 2:
                    lane[u] += lost[u]
                    lost[u] = np.float32(-0.0)
                update(same, 1, values, u, states, lane, u, one, hyper)
                lane[u] = np.float32(-0.0)

    return run


@cache
def lane_rows(rule: str) -> Any:
    """What follows gradients in lanes: rows [first, last) of the table by the sum of their lanes, left at -0.0.

    Sixteen neighbours are updated at once, then those without a gradient put back.
    """
    same = _of_one_number(rule)

    @kernel
    def run(first, last, values, lanes, states, hyper):
        one, none, grads, size = np.float32(1.0), np.float32(-0.0), lanes.reshape(-1), lanes.shape[1]
        many = first + (last - first) // 16 * 16
        grad, old = np.empty(16, np.float32), np.empty((len(states) + 1) * 16, np.float32)
        for u in range(first, many, 16):
            g = load(grads, u, 16)
            for t in range(1, lanes.shape[0]):
                g = add(g, load(grads, t * size + u, 16))
            if not marked(g):
                continue
            for t in range(lanes.shape[0]):
                store(grads, t * size + u, splat(none, 16))
            before, at = load(values, u, 16), 0
            for state in states:
                if len(state):  # an optimizer without state has an empty one
                    store(old, at, load(state, u, 16))
                at += 16
            store(grad, 0, g)
            update(same, 16, values, u, states, grad, 0, one, hyper)
            store(values, u, chosen(g, load(values, u, 16), before))
            at = 0
            for state in states:
                if len(state):
                    store(state, u, chosen(g, load(state, u, 16), load(old, at, 16)))
                at += 16
        for u in range(many, last):
            grad[0] = none
            for t in range(lanes.shape[0]):
                grad[0] += lanes[t, u]
                lanes[t, u] = none
            if grad[0] != 0.0 or math.copysign(one, grad[0]) > 0.0:
                update(same, 1, values, u, states, grad, 0, one, hyper)

    return run
