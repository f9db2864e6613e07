"""Compiled arithmetic of single samples and rows: the models' scores and derivatives, the optimizers' updates.

Arrays are flat float32 (of the table, bfloat16 as well) with explicit offsets, so that a row of the table is
``values[at : at + width]``. A model gives
one function, ``score(v, at, d) -> z``: from the pooled rows of its F fields (field f at ``v[at[f]:]``) the logit
without bias, and into ``d`` [F * width] the derivative of z by every pooled weight. An optimizer gives one function
that updates one row. Pooling, logloss, accumulation and threads are the same for all, in `training.passes`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from training.jit import add, chosen, div, fma, inner, join, load, mul, number, put, splat, sqrt, store, sub, total

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
            linear += number(v, at[f])
            x = load(v, at[f] + 1, dim)
            s = add(s, x)
            squares = fma(x, x, squares)
        for f in range(fields):
            store(d, f * width + 1, sub(s, load(v, at[f] + 1, dim)))
        return linear + np.float32(0.5) * total(sub(mul(s, s), squares))

    return score


def _ffm(fields: int, dim: int) -> Any:
    """dz/dv_{i,j} = v_{j,i}; z = 1/2 sum_i <v_i, dz/dv_i>.

    Row after row of the derivative is put together from its partners' vectors, so many as fill a register, and stored
    as a whole: less than half the time of going through the pairs and storing the vectors of each.
    """
    width = 1 + fields * dim
    group = next((n for n in (8, 4, 2) if n * dim <= 16), 1)
    lanes, whole = group * dim, fields // group * group
    partners, single = _partners(group), _partners(1)
    others = np.where(np.eye(group, dtype=np.bool_).repeat(dim, 1), np.float32(-0.0), np.float32(1.0)).reshape(-1)

    @inner
    def blocks(v, at, d, i, own, count, sums):
        """Of row i all groups but that at ``own``, by a loop whose length the compiler knows."""
        p, to = at[i] + 1, i * width + 1
        for t in range(0, count, group):
            j = t + group if t >= own else t
            y = partners(dim, v, at, i, j)
            store(d, to + j * dim, y)
            sums = fma(y, load(v, p + j * dim, lanes), sums)
        return sums

    @inner
    def score(v, at, d):
        linear, rest = np.float32(0.0), splat(np.float32(0.0), dim)
        zeros = splat(np.float32(0.0), lanes)
        z = zeros
        for i in range(whole):
            own = i // group * group
            y = partners(dim, v, at, i, own)
            y = chosen(load(others, (i - own) * lanes, lanes), y, zeros)
            store(d, i * width + 1 + own * dim, y)
            sums = fma(y, load(v, at[i] + 1 + own * dim, lanes), zeros)
            z = add(z, blocks(v, at, d, i, own, whole - group, sums))
        for i in range(whole, fields):
            z = add(z, blocks(v, at, d, i, fields, whole, zeros))
        for i in range(fields):
            linear += number(v, at[i])
            for j in range(whole, fields):
                if i != j:
                    y = single(dim, v, at, i, j)
                    store(d, i * width + 1 + j * dim, y)
                    rest = fma(y, load(v, at[i] + 1 + j * dim, dim), rest)
        return linear + np.float32(0.5) * (total(z) + total(rest))

    return score


def _partners(count: int) -> Any:
    """Vectors v_{j,i} to v_{j + count - 1,i} in one."""
    if count == 1:
        return inner(lambda dim, v, at, i, j: load(v, at[j] + 1 + i * dim, dim))
    half = _partners(count // 2)
    apart = count // 2
    return inner(lambda dim, v, at, i, j: join(half(dim, v, at, i, j), half(dim, v, at, i, j + apart)))


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
            put(w, at, many(x, g, states, at, hyper), hyper[len(hyper) - 1])

        @inner
        def last(w, at, states, grad, grad_at, alpha, hyper):
            x = load(w, at, rest)
            g = fma(splat(alpha, rest), load(grad, grad_at, rest), mul(splat(hyper[1], rest), x))
            put(w, at, few(x, g, states, at, hyper), hyper[len(hyper) - 1])

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
                g = alpha * grad[grad_at + j] + hyper[1] * number(w, at + j)
                squares += g * g
            n[row + part] += squares / np.float32(last - first)
            rate = hyper[0] / (math.sqrt(n[row + part]) + hyper[2])
            for j in range(first, last):
                x = number(w, at + j)
                x -= rate * (alpha * grad[grad_at + j] + hyper[1] * x)
                put(w, at + j, x, hyper[len(hyper) - 1])
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
"""width -> compiled update of one row. ``hyper``: what the optimizer's ``begin`` in `training.optim` gives."""


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
