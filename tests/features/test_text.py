"""Texts read as numbers and moments exactly as Python reads them."""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.errors import InputError
from features.moment import PARTS, TimeConfig, part_of, to_local
from features.text import Columns, Views, as_uuid, canonical, flags, moments, numbers, one_table, texts, valid_utf8

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


@given(st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)))
def test_iso_moments_equal_pythons(moment: datetime) -> None:
    expected = (moment.replace(tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)) // (
        datetime.resolution
    )
    for text in (moment.isoformat(), moment.isoformat(" "), moment.isoformat() + "Z", moment.isoformat() + "+00:00"):
        read, missing, bad = moments(pa.array([text]), TimeConfig(column="t"))
        assert (read[0], missing[0], bad[0]) == (expected, False, False), text


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({"format": "auto"}, "881250949", "1997-12-04T15:55:49+00:00"),
        ({"format": "auto"}, "2017-11-07 9:30", "2017-11-07T09:30:00+00:00"),
        ({"format": "auto"}, "2017-11-07", "2017-11-07T00:00:00+00:00"),
        ({"format": "auto"}, "2017-11-07T09:30:00.25+02:00", "2017-11-07T07:30:00.250000+00:00"),
        ({"format": "epoch_ms"}, "1500", "1970-01-01T00:00:01.500000+00:00"),
        ({"format": "%y%m%d%H"}, "14102100", "2014-10-21T00:00:00+00:00"),
        ({"format": "%d-%b-%Y"}, "01-Jan-1995", "1995-01-01T00:00:00+00:00"),
        ({"format": "%d/%m/%Y %H:%M:%S %z"}, "01/02/1995 03:04:05 -0130", "1995-02-01T04:34:05+00:00"),
        ({"zone": "America/New_York"}, "2020-07-01 00:00", "2020-07-01T04:00:00+00:00"),
    ],
)
def test_formats(config: dict[str, str], text: str, expected: str) -> None:
    read, _, bad = moments(pa.array([text]), TimeConfig(column="t", **config))
    assert not bad[0]
    assert datetime.fromtimestamp(int(read[0]) / 1e6, timezone.utc).isoformat() == expected


@pytest.mark.parametrize(
    "text", ["2020-13-01", "2021-02-29", "2020-01-01T25:00", "2020-01-01x", "x", "1500000000000", "2020-01-01 10:00 Zz"]
)
def test_what_is_no_moment(text: str) -> None:
    assert moments(pa.array([text]), TimeConfig(column="t"))[2].tolist() == [True]


def test_typed_moments() -> None:
    when = datetime(2020, 7, 1, 12, tzinfo=timezone.utc)
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
        TimeConfig(column="t", format="epoch_us")


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
