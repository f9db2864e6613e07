"""Ids meet by their canonical text: what that is for every type of column, and how integers travel and are ordered."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.features.errors import InputError
from fieldwise.pipelines.score.ids import IdKind, identity, together, undecodable

_INTEGERS = st.one_of(
    st.integers(-(2**65), 2**65),
    st.builds(lambda around, d: around + d, st.sampled_from([0, 2**63, -(2**63), 2**64]), st.integers(-2, 2)),
)
_TEXTS = st.one_of(
    _INTEGERS.map(str), st.sampled_from(["007", "7.0", "+7", "-0", "", "abc", " 7", "7 ", "\uff17", "1e3"])
)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([7, None], pa.int8()), [7, None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([7.0, 7.5, float("nan"), -0.0, 1e16]), ["7", "7.5", None, "0", "1e+16"]),
        (pa.array(["007", "", " 7", "7 ", "\u00e9", "e\u0301"]), ["007", None, " 7", "7 ", "\u00e9", "e\u0301"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array([True]), ["true"]),
        (pa.array([b"a", b"\xff"]), ["a", None]),
        (pa.array([datetime.date(2020, 1, 31)]), ["2020-01-31"]),
        (pa.array([Decimal("39.00")]), ["39.00"]),
        (pa.nulls(1), [None]),
    ],
)
def test_what_an_id_is(column: pa.Array, expected: list[object]) -> None:
    assert identity(column, "x").to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.month_day_nano_interval()])
def test_types_without_a_text_are_named(kind: pa.DataType) -> None:
    with pytest.raises(InputError, match=r"column 'user': expected ids that are texts, numbers or dates, found type"):
        identity(pa.nulls(1, kind), "catalog.contexts: column 'user'")


@given(st.lists(_TEXTS, max_size=8), st.sampled_from([IdKind.SIGNED, IdKind.UNSIGNED]))
def test_a_text_meets_an_integer_of_that_text(read: list[str], kind: IdKind) -> None:
    low, high = (-(2**63), 2**63) if kind is IdKind.SIGNED else (0, 2**64)
    packed, can = kind.packed(identity(pa.array(read, pa.string()), "x"))
    whole = [v for v in read if v.isascii() and v.lstrip("-").isdigit() and str(int(v)) == v and low <= int(v) < high]
    assert [v for v, known in zip(read, can, strict=True) if known] == whole
    kept = packed.filter(pa.array(can, pa.bool_()))
    assert kind.unpacked(kept, wide=True).to_pylist() == [int(v) for v in whole]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_unsigned_ids_travel_in_their_order(values: list[int]) -> None:
    packed, can = IdKind.UNSIGNED.packed(pa.array(values, pa.uint64()))
    assert can.all()
    assert np.argsort(packed, kind="stable").tolist() == sorted(range(len(values)), key=lambda i: values[i])
    assert IdKind.UNSIGNED.unpacked(packed, wide=True).to_pylist() == values


def test_integers_of_the_other_sign_meet_nothing() -> None:
    assert IdKind.SIGNED.packed(pa.array([2**63, 5], pa.uint64()))[1].tolist() == [False, True]
    assert IdKind.UNSIGNED.packed(pa.array([-1, 5]))[1].tolist() == [False, True]


def test_ids_of_several_files() -> None:
    assert together([pa.array([7]), pa.array(["7"])], "x").to_pylist() == ["7", "7"]
    assert together([pa.array([7]), pa.array([8], pa.uint64())], "x").type == pa.int64()
    assert together([pa.array([7]), pa.array([2**63], pa.uint64())], "x").to_pylist() == [7, 2**63]
    assert len(together([], "x")) == 0
    with pytest.raises(InputError, match=r"x: expected ids of one integer type, found negative ones and ones beyond"):
        together([pa.array([-7]), pa.array([2**63], pa.uint64())], "x")
    assert IdKind.of([pa.int32(), pa.uint64()]) is IdKind.SIGNED
    assert IdKind.of([pa.int32(), pa.string()]) is IdKind.TEXT


def test_bytes_that_are_no_text_are_not_missing() -> None:
    column = pa.array([b"u1", b"u\xff", None, b""], pa.large_binary())
    assert identity(column, "here").to_pylist() == ["u1", None, None, None]
    assert undecodable(column).tolist() == [False, True, False, False]
    assert not undecodable(pa.array(["u1", None])).any()
