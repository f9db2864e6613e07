"""Texts read as numbers and moments exactly as Python reads them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fieldwise.features.columns.batch import Columns, Views, one_table
from fieldwise.features.columns.moment import PARTS, TimeConfig, part_of, to_local
from fieldwise.features.columns.text import as_uuid, canonical, flags, moments, numbers, plain, texts, valid_utf8
from fieldwise.features.errors import InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.fields.time import TimeField

_DECIMALS = st.from_regex(r"[+-]?([0-9]{1,25}(\.[0-9]{0,12})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(st.lists(st.one_of(_DECIMALS, st.floats(allow_nan=False, allow_infinity=False).map(repr)), min_size=1))
def test_decimals_read_to_the_last_bit(values: list[str]) -> None:
    read, bad = numbers(pa.array(values))
    assert not bad.any()
    assert read.tolist() == [float(v) for v in values]


@pytest.mark.parametrize(
    "text", ["x", "1x", "--1", "1e", "1e+", "0x10", "1_0", "inf", "Infinity", ".", "1.2.3", "\uff11", "1\0"]
)
def test_what_is_no_decimal(text: str) -> None:
    assert numbers(pa.array([text]))[1].tolist() == [True]


def test_missing_numbers() -> None:
    values, bad = numbers(pa.array(["", None, "nan", "NaN", " 7 "]))
    assert np.isnan(values[:4]).all()
    assert values[4] == 7
    assert not bad.any()


def test_typed_numbers() -> None:
    assert numbers(pa.array([1, None]))[0].tolist()[0] == 1
    assert numbers(pa.array([True, False]))[0].tolist() == [1, 0]


@given(st.lists(st.decimals(-(10**18), 10**18, places=6), min_size=1))
def test_decimals_are_the_nearest_numbers(values: list[Decimal]) -> None:
    assert numbers(pa.array(values, pa.decimal128(38, 6)))[0].tolist() == [float(v) for v in values]


EVER = TimeConfig(column="t", earliest=date(1, 1, 1), latest=date(9999, 12, 31))


@given(st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)))
def test_iso_moments_equal_pythons(moment: datetime) -> None:
    expected = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    for text in (moment.isoformat(), moment.isoformat(" "), moment.isoformat() + "Z", moment.isoformat() + "+00:00"):
        read, missing, bad = moments(pa.array([text]), EVER)
        assert (read[0], missing[0], bad[0]) == (expected, False, False), text


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({"format": "auto"}, "881250949", "1997-12-04T15:55:49+00:00"),
        ({"format": "auto"}, "2017-11-07 9:30", "2017-11-07T09:30:00+00:00"),
        ({"format": "auto"}, "2017-11-07", "2017-11-07T00:00:00+00:00"),
        ({"format": "auto"}, "2017-11-07T09:30:00.25+02:00", "2017-11-07T07:30:00.250000+00:00"),
        ({"format": "auto"}, "1414843200.0", "2014-11-01T12:00:00+00:00"),
        ({"format": "auto"}, "1.4148432e+09", "2014-11-01T12:00:00+00:00"),
        ({"format": "epoch_ms", "earliest": "1970-01-01"}, "1500", "1970-01-01T00:00:01.500000+00:00"),
        ({"format": "epoch_us"}, "1414843200000001", "2014-11-01T12:00:00.000001+00:00"),
        ({"format": "epoch_ns"}, "1414843200000000000", "2014-11-01T12:00:00+00:00"),
        ({"format": "%y%m%d%H"}, "14102100", "2014-10-21T00:00:00+00:00"),
        ({"format": "%d-%b-%Y"}, "01-Jan-1995", "1995-01-01T00:00:00+00:00"),
        ({"format": "%d/%m/%Y %H:%M:%S %z"}, "01/02/1995 03:04:05 -0130", "1995-02-01T04:34:05+00:00"),
        ({"zone": "America/New_York"}, "2020-07-01 00:00", "2020-07-01T04:00:00+00:00"),
    ],
)
def test_formats(config: dict[str, str], text: str, expected: str) -> None:
    read, _, bad = moments(pa.array([text]), TimeConfig(column="t", **config))
    assert not bad[0]
    assert datetime.fromtimestamp(int(read[0]) / 1e6, UTC).isoformat() == expected


@pytest.mark.parametrize(
    "text", ["2020-13-01", "2021-02-29", "2020-01-01T25:00", "2020-01-01x", "x", "1500000000000", "2020-01-01 10:00 Zz"]
)
def test_what_is_no_moment(text: str) -> None:
    assert moments(pa.array([text]), TimeConfig(column="t"))[2].tolist() == [True]


@pytest.mark.parametrize(
    ("config", "column"),
    [
        ({}, ["14102100"]), ({}, ["45244.92593"]), ({}, ["0"]), ({}, ["-1"]), ({}, ["9999-12-31"]),
        ({}, ["1989-12-31"]), ({}, ["2100-01-01"]), ({}, ["4102444800"]), ({"format": "epoch_ms"}, ["1414843200"]),
        ({"format": "%y%m%d"}, ["700101"]), ({"latest": "2014-01-01"}, ["2014-01-01"]),
        ({"zone": "Europe/Berlin"}, [datetime(1970, 6, 13)]), ({}, pa.array([0], pa.timestamp("ms", "UTC"))),
        ({"zone": "Europe/Berlin"}, pa.array([2**62], pa.timestamp("s"))),
        ({}, pa.array([1_414_843_200_000_000_000], pa.timestamp("ms"))), ({}, pa.array([2**31 - 1], pa.date32())),
        ({}, [14102100]), ({}, [45244.92593]), ({}, pa.array([2**63 - 1])),
    ],
)  # fmt: skip
def test_moments_that_cannot_be(config: dict[str, Any], column: Any) -> None:
    read, missing, bad = moments(pa.array(column), TimeConfig(column="t", **config))
    assert (read.tolist(), missing.tolist(), bad.tolist()) == ([0], [False], [True])


def test_bounds_are_days_in_utc_the_first_included() -> None:
    texts_ = pa.array(["1990-01-01", "2099-12-31 23:59:59.999999", None, ""])
    assert moments(texts_, TimeConfig(column="t"))[2].tolist() == [False] * 4
    with pytest.raises(ValidationError, match="earliest must lie before latest, got 2020-01-01 and 2020-01-01"):
        TimeConfig(column="t", earliest="2020-01-01", latest="2020-01-01")


def test_bounds_are_written_only_where_they_are_not_the_default() -> None:
    """Digests of specs and requests from before there were bounds stay."""
    assert TimeConfig(column="t").model_dump() == {"column": "t", "format": "auto", "zone": "UTC"}
    moved = TimeConfig(column="t", earliest="1970-01-01")
    assert TimeConfig.model_validate(moved.model_dump(mode="json")) == moved
    field = TimeField(name="h", kind="time", part="hour", of={"column": "t", "zone": "Europe/Berlin"})
    digest = "7c8fc738a1ceeaeae37200d4c023eb438110122973f0d88cced7a8582540bf4f"
    assert FeatureSpec.assemble([field], {"h": field.fit(None)}).digest == digest


def test_typed_moments() -> None:
    when = datetime(2020, 7, 1, 12, tzinfo=UTC)
    micros = int(when.timestamp() * 1e6)
    zoned = pa.array([when, None], pa.timestamp("ns", "Asia/Tokyo"))
    read, missing, _ = moments(zoned, TimeConfig(column="t", zone="America/New_York"))
    assert read[0] == micros
    assert missing.tolist() == [False, True]
    naive = pa.array([when.replace(tzinfo=None)], pa.timestamp("s"))
    read, _, _ = moments(naive, TimeConfig(column="t", zone="America/New_York"))
    assert read[0] == micros + 4 * 3_600_000_000
    assert moments(pa.array([14102100]), TimeConfig(column="t", format="%y%m%d%H"))[0][0] == 1413849600_000_000


@given(
    st.integers(-(10**15), 2 * 10**15), st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin"])
)
def test_parts_equal_pythons(micros: int, zone: str) -> None:
    moment = datetime.fromtimestamp(micros // 10**6, ZoneInfo(zone))
    local = to_local(np.array([micros], np.int64), zone)
    expected = {
        "minute": moment.minute, "hour": moment.hour, "weekday": moment.weekday(),
        "hour_of_week": moment.weekday() * 24 + moment.hour, "day": moment.day - 1, "month": moment.month - 1,
    }  # fmt: skip
    assert {part: int(part_of(local, part)[0]) for part in PARTS} == expected


def test_unknown_formats_and_zones_are_refused() -> None:
    with pytest.raises(ValidationError, match="IANA zone"):
        TimeConfig(column="t", zone="Mars/Olympus")
    with pytest.raises(ValidationError, match="got %Q"):
        TimeConfig(column="t", format="%Q")
    with pytest.raises(ValidationError, match="strptime"):
        TimeConfig(column="t", format="epoch_days")


@given(st.lists(st.binary(max_size=12)))
def test_utf8(values: list[bytes]) -> None:
    def decodes(value: bytes) -> bool:
        try:
            value.decode()
        except UnicodeDecodeError:
            return False
        return True

    assert valid_utf8(texts(pa.array(values, pa.binary()))).tolist() == [decodes(v) for v in values]


def test_flags() -> None:
    on, bad = flags(pa.array(["1", "0", "", None, "true", "FALSE", "2", "x"]))
    assert on.tolist() == [True, False, False, False, True, False, False, False]
    assert bad.tolist() == [False] * 6 + [True, True]


@given(st.lists(st.integers(-(10**19) + 1, 10**19 - 1), min_size=1))
def test_long_integers_read_to_the_last_bit(values: list[int]) -> None:
    assert numbers(pa.array(list(map(str, values))))[0].tolist() == [float(v) for v in values]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([b"ab\xff", None], pa.binary(3)), ["6162ff", None]),
        (pa.array([b"ab", "ü".encode()]), ["ab", "ü"]),
        (pa.array([Decimal("1.50"), None]), ["1.50", None]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
        (pa.array([2**64 - 1, 2**53 + 1], pa.uint64()), ["18446744073709551615", "9007199254740993"]),
        (pa.array(np.array([1.5, np.nan, 2.0], np.float16)), ["1.5", None, "2"]),
        (pa.nulls(2), [None, None]),
        (pa.array([date(2024, 1, 31), None]), ["2024-01-31", None]),
        (pa.array([True, None]), ["true", None]),
    ],
)
def test_canonical_texts(array: pa.Array, expected: list[str | None]) -> None:
    assert canonical(array).to_pylist() == expected
    assert canonical(array.slice(1)).to_pylist() == expected[1:]


def test_uuids_read_as_people_write_them() -> None:
    some = UUID("1234abcd-1234-abcd-1234-abcdef012345")
    array = pa.array([b"\0" * 16, some.bytes, None], pa.binary(16))
    assert as_uuid(array.slice(1)).to_pylist() == [str(some), None]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array([{"a": 1}]), "type struct<a: int64>. Write what it holds as plain columns."),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "Write what it holds as plain columns."),
        (pa.array([[1]]), "type list<item: int64>. To read several values, set `max_values` on its field."),
    ],
)
def test_a_type_without_a_text_is_told_with_file_and_column(array: pa.Array, words: str) -> None:
    columns = Columns({"x": array}, 1, origins={"x": "a.parquet"}).filter(np.array([True]))
    for read in (columns.texts, columns.numbers, lambda name: columns.moments(TimeConfig(column=name))):
        with pytest.raises(InputError, match=r"^a\.parquet, column 'x': expected single values, found type ") as error:
            read("x")
        assert str(error.value).endswith(words)


def test_columns_of_views_may_be_replaced() -> None:
    views = Views(np.frombuffer(b"abcd", np.uint8), np.array([[0], [1], [2]]), np.ones((3, 1), np.int32))
    columns = Columns({"a": None, "b": None, "c": None}, 1, views).adding({"b": pa.array(["new"])})
    assert columns.batch().to_pydict() == {"a": ["a"], "b": ["new"], "c": ["c"]}


def test_one_table_of_parts_whose_types_differ() -> None:
    parts = [pa.record_batch([[7, None], ["x", "y"]], ["id", "name"]), pa.record_batch([["07"], ["z"]], ["id", "name"])]
    assert one_table(parts).to_pydict() == {"id": ["7", None, "07"], "name": ["x", "y", "z"]}
    assert one_table(parts[:1]).schema.types == [pa.int64(), pa.string()]
    lists = [pa.array([["a"], None], pa.list_(pa.string())), pa.array([["b", "c"]], pa.large_list(pa.large_string()))]
    together = one_table([pa.record_batch([part], ["tags"]) for part in lists])
    assert together.to_pydict() == {"tags": [["a"], None, ["b", "c"]]}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_moment_has_one_text_whatever_its_unit_and_zone(unit: str) -> None:
    moment = datetime(2020, 1, 31, 15, 4, 0)
    assert canonical(pa.array([moment, None], pa.timestamp(unit))).to_pylist() == ["2020-01-31 15:04:00", None]
    for zone in ("UTC", "Europe/Berlin", "+05:30"):
        assert canonical(pa.array([moment], pa.timestamp(unit, zone))).to_pylist() == ["2020-01-31 15:04:00Z"]
    if unit != "s":
        fine = canonical(pa.array([datetime(2020, 1, 31, 10, 0, 0, 120_000)], pa.timestamp(unit))).to_pylist()
        assert fine == ["2020-01-31 10:00:00.12"]


def test_a_value_that_python_lacks_is_told_all_the_same() -> None:
    far = pa.array([4 * 10**17], pa.int64()).cast(pa.timestamp("us"))
    assert plain(far[0]) == 4 * 10**17
    assert plain(pa.array([7])[0]) == 7
