"""Compiled updates of one row of the table, an optimizer each; arrays as in `training.kernels.scores`."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from fieldwise.features.kernels.compile import inner
from fieldwise.training.kernels.vectors import add, div, fma, load, mul, number, put, splat, sqrt, store, sub


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
"""width -> compiled update of one row. ``hyper``: what the optimizer's ``begin`` in `training.step.optim` gives."""


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


def accumulate_all(width, out, lost, at, alpha, x, x_at):
    """`accumulate`; what rounding takes from ``out`` is kept in ``lost`` (Kahan): their sum is good to an ulp."""
    raise NotImplementedError


@overload(accumulate_all, prefer_literal=True)
def _accumulate_all(width, out, lost, at, alpha, x, x_at):
    body = width.literal_value // 16 * 16
    rest = width.literal_value - body or 1
    many, few = _kahan(16), _kahan(rest)
    tail = width.literal_value > body

    def code(width, out, lost, at, alpha, x, x_at):
        for j in range(0, body, 16):
            many(out, lost, at + j, alpha, x, x_at + j)
        if tail:
            few(out, lost, at + body, alpha, x, x_at + body)

    return code


def _kahan(lanes: int) -> Any:
    @inner
    def plus(out, lost, at, alpha, x, x_at):
        before = load(out, at, lanes)
        more = fma(splat(alpha, lanes), load(x, x_at, lanes), load(lost, at, lanes))
        after = add(before, more)
        store(out, at, after)
        store(lost, at, sub(more, sub(after, before)))

    return plus
