"""Numbers that are compared as Python compares them: integers of any size exactly, also with floats.

A float64 carries whole numbers up to 2^53. Rounding to the nearest keeps order, so two numbers whose float64 differ
are ordered by these; only where they agree at 2^53 or beyond are the exact values looked at, row by row. Arithmetic
does the same: exact where operands or result lie there and both operands are whole, float64 elsewhere. Numbers with a
fraction are float64, whatever they were written as (``0.1`` of a text, a decimal and an expression are one number).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Rows = npt.NDArray[np.int64]
LIMIT = 2.0**53
"""From here on float64 leaves out integers."""


class Number(NamedTuple):
    """A column of numbers, or one for all rows."""

    floats: pa.Array | pa.Scalar
    """float64, the nearest; null for missing."""
    exact: Callable[[Rows], Sequence[int | float]]
    """What stands in rows that are not missing."""


def constant(value: float | None) -> Number:
    """A literal."""
    number = None if value is None else _nearest(value)
    return Number(pa.scalar(number, pa.float64()), lambda rows: [0 if value is None else value] * len(rows))


def column(floats: pa.Array, values: pa.Array) -> Number:
    """A column and the float64 it reads as."""
    return Number(floats, lambda rows: [_read(value) for value in values.take(pa.array(rows)).to_pylist()])


def of_floats(floats: pa.Array | pa.Scalar) -> Number:
    """Numbers that are float64 from the start, or truths as 1 and 0."""
    floats = pc.cast(floats, pa.float64())
    if isinstance(floats, pa.Scalar):
        return constant(floats.as_py())
    return Number(floats, lambda rows: floats.take(pa.array(rows)).to_pylist())


def negated(number: Number) -> Number:
    return Number(pc.negate(number.floats), lambda rows: [-value for value in number.exact(rows)])


def compare(
    left: Number, right: Number, fast: Callable[[Any, Any], Any], exact: Callable[[Any, Any], bool]
) -> pa.Array | pa.Scalar:
    """``exact(l, r)`` for every row, by ``fast`` over float64 wherever that decides."""
    result = fast(left.floats, right.floats)
    a, b = _numpy(left.floats), _numpy(right.floats)
    rows = np.flatnonzero((a == b) & (np.abs(a) >= LIMIT))
    if not len(rows):
        return result
    found = [exact(x, y) for x, y in zip(left.exact(rows), right.exact(rows), strict=True)]
    return pa.scalar(found[0]) if isinstance(result, pa.Scalar) else _patched(result, rows, found)


def among(number: Number, choices: Sequence[int | float]) -> pa.Array | pa.Scalar:
    """Whether each is one of ``choices``; null where missing."""
    floats = number.floats
    if isinstance(floats, pa.Scalar):
        return pa.scalar(number.exact(np.zeros(1, np.int64))[0] in choices if floats.is_valid else None, pa.bool_())
    inside = pc.is_in(floats, value_set=pa.array([_nearest(choice) for choice in choices]))
    rows = np.flatnonzero(_numpy(inside) & (np.abs(_numpy(floats)) >= LIMIT))
    if len(rows):
        wanted = set(choices)
        inside = _patched(inside, rows, [value in wanted for value in number.exact(rows)])
    return pc.if_else(pc.is_valid(floats), inside, pa.scalar(None, pa.bool_()))


def arithmetic(
    left: Number, right: Number, fast: Callable[[Any, Any], Any], exact: Callable[[Any, Any], float]
) -> Number:
    """``exact(l, r)`` where it needs whole numbers that float64 leaves out, ``fast`` over float64 elsewhere."""
    floats = fast(left.floats, right.floats)
    a, b, out = _numpy(left.floats), _numpy(right.floats), _numpy(floats)
    far = (np.abs(a) >= LIMIT) | (np.abs(b) >= LIMIT) | (np.abs(out) >= LIMIT)
    rows = np.flatnonzero(far & np.isfinite(a) & np.isfinite(b))
    if not len(rows):
        return of_floats(floats)
    found: dict[int, float] = {}
    for row, x, y in zip(rows.tolist(), left.exact(rows), right.exact(rows), strict=True):
        if _whole(x) and _whole(y) and not (y == 0 and fast not in (pc.add, pc.subtract, pc.multiply)):
            found[row] = _quotient(int(x), int(y)) if fast is pc.divide else exact(int(x), int(y))
    if isinstance(floats, pa.Scalar):
        return constant(found.get(0, floats.as_py()))
    mended = _patched(floats, np.array(list(found), np.int64), [_nearest(value) for value in found.values()])
    return Number(
        mended,
        lambda rows: [
            found.get(row, value)
            for row, value in zip(rows.tolist(), mended.take(pa.array(rows)).to_pylist(), strict=True)
        ],
    )


def _read(value: Any) -> int | float:
    """A value of a column: an int where it is whole, however it was written."""
    if isinstance(value, int | float):
        return value
    near = float(value)
    if not math.isfinite(near):
        return near
    number = value if isinstance(value, Decimal) else Decimal(value)
    return int(number) if number == number.to_integral_value() else near


def _whole(value: float) -> bool:
    return isinstance(value, int) or value.is_integer()


def _nearest(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _quotient(x: int, y: int) -> int | float:
    """Whole where it comes out whole."""
    whole, rest = divmod(x, y)
    try:
        return whole if rest == 0 else x / y
    except OverflowError:
        return math.inf if (x > 0) == (y > 0) else -math.inf


def _numpy(values: pa.Array | pa.Scalar) -> npt.NDArray[Any]:
    """NaN for null; one row for a scalar."""
    if isinstance(values, pa.Scalar):
        return np.array([np.nan if values.as_py() is None else values.as_py()])
    found: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return found


def _patched(values: pa.Array, rows: Rows, new: Sequence[Any]) -> pa.Array:
    mask = np.zeros(len(values), np.bool_)
    mask[rows] = True
    return pc.replace_with_mask(values, pa.array(mask), pa.array(new, values.type))
