"""Compiled kernels: one pass over a batch's rows for every model, and the optimizers' updates of single table rows.

Arrays are flat float32 with explicit offsets, so that a row of the table is ``values[at : at + width]``. A model gives
one function, ``score(v, at, d) -> z``: from the pooled rows of its F fields (field f at ``v[at[f]:]``) the logit
without bias, and into ``d`` [F * width] the derivative of z by every pooled weight. An optimizer gives one function
that updates one row. Pooling, logloss, accumulation and threads are the same for all and written once.

``values`` may be the table itself: then a row that occurs once in the batch is updated on the spot, while it is in the
processor's cache (nothing else of the batch reads it), and only repeated rows have a gradient in memory.

Work is cut into fixed parts, one per thread, and their sums are added in the order of parts: the same bits for the same
number of threads. Stated shapes: B rows, K columns, F fields, U distinct rows, T threads.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba.extending import overload

from training.jit import add, div, fma, inner, kernel, load, mul, prefetch, splat, sqrt, store, sub, total

# ---- models: score(v, at, d) -> logit without bias; d holds 1 in linear columns and 0 elsewhere from the start -------


def _lr(fields: int, dim: int) -> Any:
    @inner
    def score(v, at, d):
        z = np.float32(0.0)
        for f in range(fields):
            z += v[at[f]]
        return z

    return score


def _fm(fields: int, dim: int) -> Any:
    width = 1 + dim

    @inner
    def score(v, at, d):
        """dz/dv_f = sum_i v_i - v_f"""
        linear = np.float32(0.0)
        s = splat(np.float32(0.0), dim)
        squares = splat(np.float32(0.0), dim)
        for f in range(fields):
            linear += v[at[f]]
            x = load(v, at[f] + 1, dim)
            s = add(s, x)
            squares = fma(x, x, squares)
        for f in range(fields):
            store(d, f * width + 1, sub(s, load(v, at[f] + 1, dim)))
        return linear + np.float32(0.5) * total(sub(mul(s, s), squares))

    return score


def _ffm(fields: int, dim: int) -> Any:
    width = 1 + fields * dim

    @inner
    def swap(v, d, p, q, i, j, z):
        """Pair (i, j): the vector of one is the derivative by the other; each is read once."""
        x = load(v, p + j * dim, dim)
        y = load(v, q + i * dim, dim)
        store(d, i * width + 1 + j * dim, y)
        store(d, j * width + 1 + i * dim, x)
        return fma(x, y, z)

    @inner
    def score(v, at, d):
        linear = np.float32(0.0)
        z0 = splat(np.float32(0.0), dim)  # four sums, so that additions need not wait for each other
        z1, z2, z3 = z0, z0, z0
        for i in range(fields):
            linear += v[at[i]]
            p = at[i] + 1
            j = i + 1
            while j + 3 < fields:
                z0 = swap(v, d, p, at[j] + 1, i, j, z0)
                z1 = swap(v, d, p, at[j + 1] + 1, i, j + 1, z1)
                z2 = swap(v, d, p, at[j + 2] + 1, i, j + 2, z2)
                z3 = swap(v, d, p, at[j + 3] + 1, i, j + 3, z3)
                j += 4
            while j < fields:
                z0 = swap(v, d, p, at[j] + 1, i, j, z0)
                j += 1
        return linear + total(add(add(z0, z1), add(z2, z3)))

    return score


SCORES: dict[str, Callable[[int, int], Any]] = {"lr": _lr, "fm": _fm, "ffm": _ffm}
"""(fields, dim) -> compiled score"""


# ---- optimizers: update(w, at, states, grad, grad_at, alpha, hyper): g = alpha * grad + l2 * w -----------------------


def _lanewise(build: Callable[[int], Any]) -> Callable[[int], Any]:
    """A row's update from ``build(lanes) -> new(w, g, states, at, hyper)``, an update of that many neighbours."""

    def row(width: int) -> Any:
        lanes, body = min(width, 16), width // 16 * 16 if width > 16 else 0
        tail = width - body
        many, few = build(lanes), build(tail or 1)
        rest = tail or 1

        @inner
        def chunk(w, at, states, grad, grad_at, alpha, hyper):
            x = load(w, at, lanes)
            g = fma(splat(alpha, lanes), load(grad, grad_at, lanes), mul(splat(hyper[1], lanes), x))
            store(w, at, many(x, g, states, at, hyper))

        @inner
        def last(w, at, states, grad, grad_at, alpha, hyper):
            x = load(w, at, rest)
            g = fma(splat(alpha, rest), load(grad, grad_at, rest), mul(splat(hyper[1], rest), x))
            store(w, at, few(x, g, states, at, hyper))

        @inner
        def update(w, at, states, grad, grad_at, alpha, hyper):
            for j in range(0, body, 16):
                chunk(w, at + j, states, grad, grad_at + j, alpha, hyper)
            if tail:
                last(w, at + body, states, grad, grad_at + body, alpha, hyper)

        return update

    return row


def _sgd(lanes: int) -> Any:
    @inner
    def new(w, g, states, at, hyper):
        return sub(w, mul(splat(hyper[0], lanes), g))

    return new


def _adagrad(lanes: int) -> Any:
    @inner
    def new(w, g, states, at, hyper):
        n = fma(g, g, load(states[0], at, lanes))
        store(states[0], at, n)
        return sub(w, div(mul(splat(hyper[0], lanes), g), add(sqrt(n), splat(hyper[2], lanes))))

    return new


def _adam(lanes: int) -> Any:
    @inner
    def new(w, g, states, at, hyper):
        m = load(states[0], at, lanes)
        m = fma(splat(hyper[3], lanes), sub(g, m), m)
        n = load(states[1], at, lanes)
        n = fma(splat(hyper[4], lanes), sub(mul(g, g), n), n)
        store(states[0], at, m)
        store(states[1], at, n)
        return sub(w, div(mul(splat(hyper[0], lanes), m), add(sqrt(n), splat(hyper[2], lanes))))

    return new


def _rowwise_adagrad(width: int) -> Any:
    state_width = min(width, 2)

    @inner
    def update(w, at, states, grad, grad_at, alpha, hyper):
        n, row = states[0], at // width * state_width
        first, last = 0, 1
        for part in range(state_width):
            squares = np.float32(0.0)
            for j in range(first, last):
                g = alpha * grad[grad_at + j] + hyper[1] * w[at + j]
                squares += g * g
            n[row + part] += squares / np.float32(last - first)
            rate = hyper[0] / (math.sqrt(n[row + part]) + hyper[2])
            for j in range(first, last):
                w[at + j] -= rate * (alpha * grad[grad_at + j] + hyper[1] * w[at + j])
            first, last = 1, width

    return update


def _ftrl(width: int) -> Any:
    @inner
    def update(w, at, states, grad, grad_at, alpha, hyper):
        rate, l2, beta, l1 = hyper[0], hyper[1], hyper[2], hyper[3]
        for j in range(width):
            g, n = alpha * grad[grad_at + j], states[1][at + j]
            grown = n + g * g
            z = states[0][at + j] + g - (math.sqrt(grown) - math.sqrt(n)) / rate * w[at + j]
            states[0][at + j], states[1][at + j] = z, grown
            excess = z - min(max(z, -l1), l1)
            w[at + j] = -excess / ((beta + math.sqrt(grown)) / rate + l2)

    return update


RULES: dict[str, Callable[[int], Any]] = {
    "sgd": _lanewise(_sgd),
    "adagrad": _lanewise(_adagrad),
    "rowwise_adagrad": _rowwise_adagrad,
    "adam": _lanewise(_adam),
    "ftrl": _ftrl,
}
"""width -> compiled update of one row. ``hyper``: what the optimizer of that name in `training.optim` gives."""


# ---- specialisation: constants first, so that kernels on disk close over numbers and names only ----------------------


def score(kind, fields, dim, v, at, d):
    """A model's score; the first three arguments are compile-time constants."""
    raise NotImplementedError


@overload(score, prefer_literal=True)
def _score(kind, fields, dim, v, at, d):
    chosen = SCORES[kind.literal_value](fields.literal_value, dim.literal_value)
    return lambda kind, fields, dim, v, at, d: chosen(v, at, d)


def update(rule, width, w, at, states, grad, grad_at, alpha, hyper):
    """An optimizer's update of one row; the first two arguments are compile-time constants."""
    raise NotImplementedError


@overload(update, prefer_literal=True)
def _update(rule, width, w, at, states, grad, grad_at, alpha, hyper):
    chosen = RULES[rule.literal_value](width.literal_value)
    return lambda rule, width, w, at, states, grad, grad_at, alpha, hyper: chosen(
        w, at, states, grad, grad_at, alpha, hyper
    )


def accumulate(width, out, at, alpha, x, x_at):
    """``out[at : at + width] += alpha * x[x_at : x_at + width]``; ``width`` is a compile-time constant."""
    raise NotImplementedError


@overload(accumulate, prefer_literal=True)
def _accumulate(width, out, at, alpha, x, x_at):
    body = width.literal_value // 16 * 16
    tail = width.literal_value - body
    rest = tail or 1

    def code(width, out, at, alpha, x, x_at):
        for j in range(0, body, 16):
            store(out, at + j, fma(splat(alpha, 16), load(x, x_at + j, 16), load(out, at + j, 16)))
        if tail:
            store(out, at + body, fma(splat(alpha, rest), load(x, x_at + body, rest), load(out, at + body, rest)))

    return code


# ---- the pass over a batch -------------------------------------------------------------------------------------------


LOGITS, GRADIENT, LOSS = range(3)


@inner
def logloss(z, y):
    """Logloss of a logit and its derivative, finite for any finite z."""
    return max(z, 0.0) - z * y + math.log1p(math.exp(-abs(z))), 1.0 / (1.0 + math.exp(-z)) - y


@cache
def batch_pass(kind: str, fields: int, dim: int, width: int, unit: bool, rule: str) -> Any:
    """The kernel of rows [first, last) of a batch; returns (sum of w * logloss, share * its derivative by the bias).

    Its ``task`` is LOGITS, GRADIENT (``label`` holds dloss/dlogit) or LOSS (both, of the logloss, in one pass).

    Args:
        kind, fields, dim, width: the model.
        unit: every column is a field of its own and every factor is 1.
        rule: the optimizer of a step, where values is the table and rows that occur once are updated on the spot; or ""
    """
    step = rule != ""

    @kernel
    def run(
        task, first, last, values, ids, index, factor, field_of_column, bias, label, weight, share, logits, grads,
        place, states, hyper,
    ):  # fmt: skip
        d = np.zeros(fields * width, np.float32)
        for f in range(fields):
            d[f * width] = 1.0
        at = np.empty(fields, np.int64)
        pooled = np.empty(0 if unit else fields * width, np.float32)
        columns = index.shape[1]
        loss, bias_grad = 0.0, 0.0
        for b in range(first, last):
            if step and len(ids) and b + 1 < last:
                for c in range(columns):
                    u = index[b + 1, c]
                    if place[u] < 0:
                        for j in range(0, width, 16):
                            prefetch(values, ids[u] * width + j)
                            for state in states:
                                prefetch(state, ids[u] * width + j)
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
                else:
                    accumulate(width, grads, p * width, alpha, d, np.int64(f) * width)
        return loss, bias_grad

    return run


@cache
def repeated_rows(width: int, rule: str) -> Any:
    """Second half of a step: rows u in [first, last) that repeat get the sum of the threads' gradients, left zeroed."""

    @kernel
    def run(first, last, values, ids, grads, place, states, hyper):
        one = np.float32(1.0)
        for u in range(first, last):
            if place[u] < 0:
                continue
            p = np.int64(place[u]) * width
            for t in range(1, grads.shape[0]):
                accumulate(width, grads[0], p, one, grads[t], p)
                grads[t, p : p + width] = 0.0
            update(rule, width, values, ids[u] * width, states, grads[0], p, one, hyper)
            grads[0, p : p + width] = 0.0

    return run


@cache
def given_rows(width: int, rule: str) -> Any:
    """The optimizer alone: rows ids[first:last] of the table by their gradients [U * width]."""

    @kernel
    def run(first, last, values, ids, grads, states, hyper):
        for u in range(first, last):
            if u + 4 < last:
                for j in range(0, width, 16):
                    prefetch(values, ids[u + 4] * width + j)
                    for state in states:
                        prefetch(state, ids[u + 4] * width + j)
            update(rule, width, values, ids[u] * width, states, grads, np.int64(u) * width, np.float32(1.0), hyper)

    return run


@kernel
def add_parts(first, last, parts):
    """parts[0, first:last] += parts[1, first:last] + ..., in order."""
    for t in range(1, parts.shape[0]):
        for i in range(first, last):
            parts[0, i] += parts[t, i]
