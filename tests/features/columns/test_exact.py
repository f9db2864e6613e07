"""Numbers in expressions are compared as Python compares ints and floats, whatever their size and type."""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.features.columns.expression import Expression

_PYTHON = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CALCULATE = {"+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod}
_AROUND = st.sampled_from([0, 2**53, 2**54, 2**62, 2**63, -(2**53), -(2**63), 10**18])
_INT64 = st.builds(lambda around, d: max(-(2**63), min(2**63 - 1, around + d)), _AROUND, st.integers(-3, 3))
_UINT64 = st.builds(lambda around, d: around + d, st.sampled_from([3, 2**53, 2**63, 2**64 - 4]), st.integers(-3, 3))
_FLOATS = st.builds(lambda around, d: float(around) + d, _AROUND, st.integers(-3, 3))
_COLUMNS = [
    (_INT64, pa.int64(), int), (_UINT64, pa.uint64(), int), (_FLOATS, pa.float64(), float),
    (_INT64, pa.string(), str), (_UINT64, pa.string(), str), (_UINT64, pa.decimal128(20, 0), Decimal),
]  # fmt: skip


@st.composite
def _columns(draw: st.DrawFn) -> tuple[list[Any], pa.Array]:
    """Three numbers or nulls, and the column that holds them."""
    values, kind, written = draw(st.sampled_from(_COLUMNS))
    given = draw(st.lists(st.one_of(values, st.none()), min_size=3, max_size=3))
    return given, pa.array([None if v is None else written(v) for v in given], kind)


@given(_columns(), _columns(), st.sampled_from(list(_PYTHON)))
def test_two_columns(left: tuple[list[Any], pa.Array], right: tuple[list[Any], pa.Array], sign: str) -> None:
    found, bad = Expression(f"a {sign} b").evaluate(pa.table({"a": left[1], "b": right[1]}))
    assert found.to_pylist() == [
        None if None in pair else _PYTHON[sign](*pair) for pair in zip(left[0], right[0], strict=True)
    ]
    assert not bad.any()


@given(_columns(), st.one_of(_INT64, _UINT64, _FLOATS), st.sampled_from(list(_PYTHON)))
def test_a_column_and_a_number(column: tuple[list[Any], pa.Array], number: float, sign: str) -> None:
    found, _ = Expression(f"a {sign} {number!r}").evaluate(pa.table({"a": column[1]}))
    assert found.to_pylist() == [None if v is None else _PYTHON[sign](v, number) for v in column[0]]
    found, _ = Expression(f"{number!r} {sign} a").evaluate(pa.table({"a": column[1]}))
    assert found.to_pylist() == [None if v is None else _PYTHON[sign](number, v) for v in column[0]]


@given(_columns(), st.lists(st.one_of(_INT64, _UINT64, _FLOATS), min_size=1, max_size=5))
def test_lists(column: tuple[list[Any], pa.Array], choices: list[float]) -> None:
    words = ", ".join(map(repr, choices))
    found, _ = Expression(f"a in [{words}]").evaluate(pa.table({"a": column[1]}))
    assert found.to_pylist() == [None if v is None else v in choices for v in column[0]]
    found, _ = Expression(f"a not in [{words}]").evaluate(pa.table({"a": column[1]}))
    assert found.to_pylist() == [None if v is None else v not in choices for v in column[0]]


@given(
    st.lists(_INT64, min_size=3, max_size=3), st.one_of(_INT64, _UINT64).filter(bool),
    st.sampled_from(list(_CALCULATE)), st.integers(-2, 2),
)  # fmt: skip
def test_arithmetic_on_integers(values: list[int], number: int, sign: str, shift: int) -> None:
    """Nothing overflows and nothing is rounded before the comparison."""
    table = pa.table({"a": values})
    target = _CALCULATE[sign](values[0], number) + shift
    found, _ = Expression(f"a {sign} {number} == {target}").evaluate(table)
    assert found.to_pylist() == [_CALCULATE[sign](v, number) == target for v in values]
    found, _ = Expression(f"-a {sign} {number} < {target}").evaluate(table)
    assert found.to_pylist() == [_CALCULATE[sign](-v, number) < target for v in values]
    assert Expression(f"a {sign} {number}").evaluate(table)[0].to_pylist() == [
        float(_CALCULATE[sign](v, number)) for v in values
    ]


def test_a_day_of_ids_by_their_last_digit() -> None:
    ids = [14695981039346656037 + n for n in range(20)]
    found, _ = Expression("id % 10 == 3").evaluate(pa.table({"id": pa.array(ids, pa.uint64())}))
    assert found.to_pylist() == [n % 10 == 3 for n in ids]


def test_quotients() -> None:
    table = pa.table({"a": [2**63 - 1, 2**62, 1_700_000_000_123_456_789, 5], "b": [0, 4, 10**9, 2]})
    assert Expression("a / b").evaluate(table)[0].to_pylist() == [float("inf"), 2.0**60, 1_700_000_000.1234567, 2.5]
    assert Expression("a / 4 == 1152921504606846976").evaluate(table)[0].to_pylist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("price == 19.99", [True, False]), ("price in [0.1]", [False, True]), ("price < 19.99", [False, True])],
)
def test_decimals_read_as_the_nearest_number(text: str, expected: list[bool]) -> None:
    """Arrow's own conversion of 19.99 is a bit off."""
    prices = pa.array([Decimal("19.99000"), Decimal("0.10000")], pa.decimal128(38, 5))
    assert Expression(text).evaluate(pa.table({"price": prices}))[0].to_pylist() == expected


def test_numbers_beyond_float64() -> None:
    table = pa.table({"a": ["1e999", str(10**400), "7"]})
    assert Expression(f"a < {10**308}").evaluate(table)[0].to_pylist() == [False, False, True]
    assert Expression("9007199254740992 == 9007199254740993").evaluate(table)[0].to_pylist() == [False] * 3
