"""The compiled pass over a batch's rows, for every model and optimizer, and what follows it.

``values`` may be the table itself: then a row that occurs once in the batch is updated on the spot, while it is in the
processor's cache (nothing else of the batch reads it), and only repeated rows have a gradient in memory.

A batch is cut into fixed parts, one more than threads, each with sums of its own that are added in the order of parts.
Threads take turns of a few rows, first each in a part of its own, towards the end in the part that is least advanced.
So none waits for one that the system has given to other work, and yet a part's rows are summed in their order: the same
bits for the same number of threads.
A long part's gradients have a second array beside them, of what rounding took from each sum: a frequent row is summed
over tens of thousands of samples, and what it lost that way would show in the fifth digit.
Stated shapes: B rows, K columns, F fields, U distinct rows, P parts.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.loss import logloss
from fieldwise.training.kernels.scores import score
from fieldwise.training.kernels.updates import accumulate, accumulate_all, update
from fieldwise.training.kernels.vectors import give, look, prefetch, take

LOGITS, GRADIENT, LOSS = range(3)
TURN = 64
"""Rows a thread takes at a time."""
STAY = 2
"""Of what its part has left, a thread goes on for one in so many rows more before it changes to one less advanced."""


@inner
def turn(bounds, taken, mine):
    """The least advanced part that no thread is in, now taken; -1 when there is none.

    The part that the thread was in before (``mine``, -1 for none) counts as less advanced than it is by a share of what
    it has left: its sums are in this processor's cache, and to change pays only towards the end.

    ``bounds`` int64 [P + 1]; ``taken`` int64 [P]: twice the part's next row, plus 1 while a thread is in it.
    """
    while True:
        best, seen, least = -1, np.int64(0), np.int64(0)
        for part in range(len(taken)):
            now = look(taken, part)
            row = now >> 1
            done = row - bounds[part] - ((bounds[part + 1] - row) // STAY if part == mine else 0)
            if now & 1 == 0 and row < bounds[part + 1] and (best < 0 or done < least):
                best, seen, least = part, now, done
        if best < 0 or take(taken, best, seen, seen + 1):
            return best


@cache
def batch_pass(kind: str, fields: int, dim: int, width: int, unit: bool, rule: str) -> Any:
    """The kernel of one thread's turns at a batch; see `turn` for ``bounds`` and ``taken``.

    Its ``task`` is LOGITS, GRADIENT (``label`` holds dloss/dlogit) or LOSS (both, of the logloss, in one pass). It adds
    to ``sums`` [P, 2] each part's sum of w * logloss and share * its derivative by the bias, and to ``grads`` [P, ...],
    or [2 P, ...] with what rounding took from a part's sums behind them; see `accumulate_all`.

    Args:
        kind, fields, dim, width: the model.
        unit: every column is a field of its own and every factor is 1.
        rule: the optimizer of a step, where values is the table and rows that occur once are updated on the spot; or ""
    """
    step = rule != ""

    @kernel
    def run(
        task, bounds, taken, sums, values, ids, index, factor, field_of_column, bias, label, weight, share, logits,
        grads, place, states, hyper,
    ):  # fmt: skip
        d = np.zeros(fields * width, np.float32)
        for f in range(fields):
            d[f * width] = 1.0
        at = np.empty(fields, np.int64)
        pooled = np.empty(0 if unit else fields * width, np.float32)
        columns, part, each = index.shape[1], -1, len(grads) // len(taken)
        while True:
            part = turn(bounds, taken, part)
            if part < 0:
                break
            first = taken[part] >> 1
            last, own, lost = min(first + TURN, bounds[part + 1]), grads[each * part], grads[each * part + each - 1]
            loss, bias_grad = 0.0, 0.0
            for b in range(first, last):
                if width > 1 and b + 1 < last and (len(ids) or not step):
                    for c in range(columns):
                        u = np.int64(index[b + 1, c])
                        p = np.int64(place[u]) if step else u
                        row = (ids[u] if step else u) * width
                        for j in range(0, width, 16):
                            prefetch(values, row + j)
                            if p >= 0:
                                prefetch(own, p * width + j)
                            else:
                                for state in states:
                                    prefetch(state, row + j)
                if unit:
                    for c in range(columns):
                        u = np.int64(index[b, c])
                        at[c] = (ids[u] if step else u) * width
                    z = bias + score(kind, fields, dim, values, at, d)
                else:
                    pooled[:] = 0.0
                    for f in range(fields):
                        at[f] = f * width
                    for c in range(columns):
                        if factor[b, c] != 0.0:
                            u = np.int64(index[b, c])
                            row = (ids[u] if step else u) * width
                            accumulate(width, pooled, np.int64(field_of_column[c]) * width, factor[b, c], values, row)
                    z = bias + score(kind, fields, dim, pooled, at, d)
                if task != GRADIENT:
                    logits[b] = z
                if task == LOGITS:
                    continue
                if task == GRADIENT:
                    g = label[b]
                else:
                    of_row, by_logit = logloss(np.float64(z), label[b])
                    w = np.float64(weight[b]) if weight.size else 1.0
                    loss += w * of_row
                    bias_grad += share * w * by_logit
                    g = np.float32(share * w * by_logit)
                    if not math.isfinite(g):
                        continue  # the loss says so; the gradient stays clean
                for c in range(columns):
                    f, alpha = c, g
                    if not unit:
                        if factor[b, c] == 0.0:
                            continue
                        f, alpha = field_of_column[c], g * factor[b, c]
                    u = np.int64(index[b, c])
                    p = np.int64(place[u]) if step else u
                    if step and p < 0:  # nothing else of the batch reads this row
                        update(rule, width, values, ids[u] * width, states, d, np.int64(f) * width, alpha, hyper)
                    elif each == 1:
                        accumulate(width, own, p * width, alpha, d, np.int64(f) * width)
                    else:
                        accumulate_all(width, own, lost, p * width, alpha, d, np.int64(f) * width)
            sums[part, 0] += loss
            sums[part, 1] += bias_grad
            give(taken, part, 2 * last)

    return run


@cache
def summed_rows(width: int, rule: str) -> Any:
    """Second half of a step: table rows ids[first:last] by the sum of their gradients in lanes [L, ...], in that order.

    ``places`` [U, L]: a row's place in every lane, -1 where it has none. They are left zeroed.
    """

    @kernel
    def run(first, last, values, ids, places, lanes, states, hyper):
        one, sums, count = np.float32(1.0), lanes.reshape(-1), lanes.shape[0]
        size = lanes.shape[1]
        for u in range(first, last):
            if u + 8 < last:
                for j in range(0, width, 16):
                    for t in range(count):
                        prefetch(sums, t * size + max(places[u + 8, t], 0) * width + j)
                    prefetch(values, ids[u + 8] * width + j)
                    for state in states:
                        prefetch(state, ids[u + 8] * width + j)
            at = np.int64(-1)
            for t in range(count):
                if places[u, t] < 0:
                    continue
                p = t * size + np.int64(places[u, t]) * width
                if at < 0:
                    at = p
                else:
                    accumulate(width, sums, at, one, sums, p)
                    sums[p : p + width] = 0.0
            update(rule, width, values, ids[u] * width, states, sums, at, one, hyper)
            sums[at : at + width] = 0.0

    return run


@cache
def given_rows(width: int, rule: str) -> Any:
    """The optimizer alone: rows ids[first:last] of the table by their gradients [U * width]."""
    ahead = 4 + 64 // width

    @kernel
    def run(first, last, values, ids, grads, states, hyper):
        for u in range(first, last):
            if u + ahead < last:
                for j in range(0, width, 16):
                    prefetch(values, ids[u + ahead] * width + j)
                    for state in states:
                        prefetch(state, ids[u + ahead] * width + j)
            update(rule, width, values, ids[u] * width, states, grads, np.int64(u) * width, np.float32(1.0), hyper)

    return run


@kernel
def add_parts(first, last, parts):
    """parts[0, first:last] += parts[1, first:last] + ..., in order; the others are left zeroed."""
    for t in range(1, parts.shape[0]):
        for i in range(first, last):
            parts[0, i] += parts[t, i]
            parts[t, i] = 0.0
