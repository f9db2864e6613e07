"""Compiled scores of single samples and their derivatives, a model each; the plain twins are in `training.models`.

Arrays are flat float32 (of the table, bfloat16 as well) with explicit offsets, so that a row of the table is
``values[at : at + width]``. A model gives one function, ``score(v, at, d) -> z``: from the pooled rows of its F fields
(field f at ``v[at[f]:]``) the logit without bias, and into ``d`` [F * width] the derivative of z by every pooled
weight. Pooling, logloss, accumulation and threads are the same for all, in `training.kernels.passes`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from fieldwise.features.kernels.compile import inner
from fieldwise.training.kernels.vectors import add, chosen, fma, join, load, mul, number, splat, store, sub, total


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


# ---- specialisation: constants first, so that kernels on disk close over numbers and names only ----------------------
def score(kind, fields, dim, v, at, d):
    """A model's score; the first three arguments are compile-time constants."""
    raise NotImplementedError


@overload(score, prefer_literal=True)
def _score(kind, fields, dim, v, at, d):
    chosen = SCORES[kind.literal_value](fields.literal_value, dim.literal_value)
    return lambda kind, fields, dim, v, at, d: chosen(v, at, d)
