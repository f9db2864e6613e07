"""Log rows: joins, filters, labels, weights, times; rows in = rows out + filtered + rejected."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.moment import TimeConfig
from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.fitting import check, fit_spec, merge
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.log import LogBatch, LogReader
from fieldwise.features.source.raw import count_rows, split_ranges
from tests.tallies import tally

LOG = "user,item,rating,when,price\n1,a,5,2024-01-01 00:10,2\n2,b,3,2024-01-01 23:00,1\n9,a,4,2024-01-02 01:00,\n"


def config(**rest: Any) -> FeatureConfig:
    fields = [{"name": "user", "kind": "vocabulary", "min_count": 1}]
    return FeatureConfig.model_validate(
        {"source": {"path": "log.csv"}, "label": "rating >= 4", "fields": fields, **rest}
    )


def rows(config: FeatureConfig, base: Path, target: int = 1 << 30, **options: Any) -> list[LogBatch]:
    reader = pickle.loads(pickle.dumps(LogReader(config, str(base), **options)))
    ranges = split_ranges(config.source, list_files(config.source, str(base)), target)
    return [batch for rng in ranges for batch in reader.read(rng)]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "users.csv").write_text("user,age\n2,30\n1,\n")
    return tmp_path


def test_side_tables_join_and_unmatched_rows_are_missing(base: Path) -> None:
    joined = config(
        join=[{"path": "users.csv", "on": "user"}], fields=[{"name": "age", "kind": "number", "edges": [9]}]
    )
    (batch,) = rows(joined, base)
    assert batch.columns.names == ["rating", "user", "age"]
    assert batch.columns.array("age").to_pylist() == ["", "30", None]
    spec = fit_spec(joined.fields, merge([tally(joined.fields, batch.columns)]))
    assert Encoder(spec).encode(batch.columns).slots.tolist() == [[1], [4], [1]]


@pytest.mark.parametrize(
    ("log", "table", "met"),
    [
        (["7", "007", "7.0", "8"], pa.array([7, 9]), 1),
        (["7", "007", "7.0", "8"], pa.array([7.0, 9.5]), 1),
        (pa.array([7.0, 9.5, None]), pa.array([7, 9], pa.uint8()), 1),
        (pa.array([2**64 - 1, 2**53 + 1], pa.uint64()), [str(2**64 - 1), str(2**53)], 1),
        (pa.array([2**53 + 1, 2**53 + 2]), pa.array([2**53 + 1, 2**53], pa.uint64()), 1),
        (["00007", "00008"], pa.array([7, 8]), 0),
    ],
)
def test_keys_meet_by_their_text(tmp_path: Path, log: Any, table: Any, met: int) -> None:
    pq.write_table(pa.table({"k": log, "rating": [5] * len(log)}), tmp_path / "log.parquet")
    pq.write_table(pa.table({"k": table, "age": [1, 2]}), tmp_path / "users.parquet")
    parquet = {"path": "users.parquet", "format": "parquet", "on": "k"}
    joined = config(
        source={"path": "log.parquet", "format": "parquet"}, join=[parquet], fields=[{"name": "age", "kind": "hash"}]
    )
    (batch,) = rows(joined, tmp_path)
    assert batch.joined == {"users.parquet on k": met}
    assert batch.columns.array("age").null_count == len(log) - met


def test_duplicate_keys_and_bad_side_rows_are_refused(base: Path) -> None:
    join = {"path": "users.csv", "on": "user"}
    (base / "users.csv").write_text("user,age\n2,30\n1,5\n2,31\n")
    with pytest.raises(InputError, match=r"users.csv: expected each user once, found '2' again in row 3"):
        rows(config(join=[join]), base)
    (base / "users.csv").write_text("user,age\n2,30\n1\n")
    with pytest.raises(InputError, match=r"users.csv line 3: expected rows that parse, found column_count"):
        rows(config(join=[join]), base)


def test_a_side_tables_quoted_line_break_and_columns_by_position(base: Path) -> None:
    (base / "users.csv").write_text('id,n,text\n2,30,"x\n1,99,y"\n1,5,z\n')
    join = {"path": "users.csv", "on": "user", "columns": ["user", "age", "text"], "header": True, "select": ["age"]}
    fields = [{"name": "age", "kind": "number", "edges": [10, 20]}]
    batch = rows(config(join=[join], fields=fields), base)[0]
    assert set(batch.columns.array("age").to_pylist()) <= {"30", "5", None}
    assert "99" not in batch.columns.array("age").to_pylist()
    with pytest.raises(InputError, match=r"users.csv: expected a header of 2 names"):
        rows(config(join=[join | {"columns": ["user", "age"]}], fields=fields), base)


def test_a_joined_column_must_not_hide_one_of_the_log(base: Path) -> None:
    (base / "users.csv").write_text("user,item\n2,x\n")
    reads_both = config(join=[{"path": "users.csv", "on": "user"}], fields=[{"name": "item", "kind": "hash"}])
    with pytest.raises(InputError, match="column 'item'"):
        rows(reads_both, base)


def test_filter_label_weight_time(base: Path) -> None:
    (batch,) = rows(config(filter="price is not null", weight="price * 2", time="when"), base)
    assert (batch.rows, batch.filtered, batch.rejects) == (2, 1, [])
    assert batch.label is not None
    assert batch.label.tolist() == [1, 0]
    assert batch.label.dtype == np.float32
    assert batch.weight is not None
    assert batch.weight.tolist() == [4, 2]
    assert batch.time is not None
    assert batch.time[0] == 1_704_067_800_000_000
    assert batch.positions.tolist() == [28, 53]


@pytest.mark.parametrize(
    ("bad", "reason", "field"),
    [
        ("1,a,x,2024-01-01,1", "bad_label", "label"), ("1,a,,2024-01-01,1", "bad_label", "label"),
        ("1,a,5,yesterday,1", "bad_time", "time"), ("1,a,5,,1", "bad_time", "time"),
        ("1,a,5,2024-01-01,-1", "bad_weight", "weight"), ("1,a,5,2024-01-01,", "bad_weight", "weight"),
        ("1,a,5,2024-01-01,1e400", "bad_weight", "weight"), ("1,a,5,2024-01-01,1e39", "bad_weight", "weight"),
        ("1,a,5,2024-01-01,1e-50", "bad_weight", "weight"), ("1,a,5,2024-01-01,nan", "bad_weight", "weight"),
        ("1,a,5,14102100,1", "bad_time", "time"), ("1,a,5,9999-12-31,1", "bad_time", "time"),
        ("x,a,5,2024-01-01,1", "bad_number", "filter"),
        ("1,a,5", "column_count", ""),
    ],
)  # fmt: skip
def test_unusable_rows_are_rejected_with_their_text(base: Path, bad: str, reason: str, field: str) -> None:
    (base / "log.csv").write_text(LOG.replace("9,a,4,2024-01-02 01:00,\n", bad + "\n"))
    (batch,) = rows(config(weight="price", time="when", filter="user > 0"), base)
    (reject,) = batch.rejects
    assert (reject.reason, reject.field, reject.raw.decode(), reject.position) == (reason, field, bad, 78)
    assert batch.rows == 2
    assert len(batch.positions) == batch.columns.rows == 2


def test_labels_outside_zero_and_one(base: Path) -> None:
    (batch,) = rows(config(label="rating"), base)
    assert [r.reason for r in batch.rejects] == ["bad_label"] * 3
    (batch,) = rows(config(label="rating"), base, need_label=False)
    assert batch.label is None
    assert batch.rows == 3


def test_a_day_of_its_zone(base: Path) -> None:
    (batch,) = rows(config(time="when"), base, date="2024-01-01")
    assert (batch.rows, batch.filtered) == (2, 1)
    (batch,) = rows(config(time={"column": "when", "zone": "Asia/Tokyo"}), base, date="2024-01-02", keep=["item"])
    assert (batch.columns.array("item").to_pylist(), batch.filtered) == (["a"], 2)
    with pytest.raises(ConfigError, match="YYYY-MM-DD"):
        LogReader(config(time="when"), str(base), date="2024-1-1")


def test_problems_of_the_encoder_become_rejects(base: Path) -> None:
    fields = [{"name": "rating", "kind": "number"}, {"name": "item", "kind": "number"}]
    (batch,) = rows(config(fields=fields), base)
    encoded = Encoder(fit_spec(config(fields=fields).fields, merge([]))).encode(batch.columns)
    left = batch.without(encoded.problems)
    assert left.rows == 0
    assert [(r.reason, r.field) for r in left.rejects] == [("bad_number", "item")] * 3
    assert left.rejects[1].raw == b"2,b,3,2024-01-01 23:00,1"


_VALUES = [
    b"1",
    b"0",
    b"",
    b"x",
    b"\xff",
    b"7",
    b'"',
    b"a\0b",
    "\u00e9\u4e16".encode(),
    b"2024-01-01",
    b"1e999",
    b"-3.5",
]
_VALUES += [b"y" * 5000, b"1|0|1"]
_LINE = st.one_of(
    st.binary(max_size=20).map(lambda v: v.replace(b"\n", b",")),
    st.text(max_size=20).map(lambda v: v.encode("utf-8", "surrogatepass").replace(b"\n", b",")),
    st.lists(st.sampled_from(_VALUES), min_size=5, max_size=7).map(b",".join),
    st.tuples(*[st.sampled_from([b"1", b"0", b""])] * 6).map(b",".join),
)


@given(st.lists(_LINE, max_size=40), st.integers(20, 9000))
@settings(max_examples=80, deadline=None)
def test_every_row_is_encoded_or_quarantined(tmp_path_factory: Any, lines: list[bytes], target: int) -> None:
    base = tmp_path_factory.mktemp("log")
    (base / "log.csv").write_bytes(b"\n".join([b"a,b,c,d,e,f", *lines]))
    fields = [
        {"name": "h", "kind": "hash", "column": "a"},
        {"name": "v", "kind": "vocabulary", "column": "a", "min_count": 1, "separator": "|", "max_values": 2},
        {"name": "n", "kind": "number", "column": "b"},
        {"name": "t", "kind": "time", "part": "hour", "of": "c"},
        {"name": "x", "kind": "cross", "of": ["a", "b"]},
        {"name": "s", "kind": "vocabulary", "min_count": 1, "flags": ["d", "e"]},
    ]
    declared = config(label="f", filter="b != 7", fields=fields)
    batches = rows(declared, base, target)
    tallied = merge([tally(declared.fields, batch.columns) for batch in batches])
    if set(tallied["field"].to_pylist()) != {1, 5}:  # no value to fit a vocabulary from
        declared = config(label="f", filter="b != 7", fields=[f for f in fields if f["kind"] != "vocabulary"])
        tallied = merge([])
    encoder = Encoder(fit_spec(declared.fields, tallied))
    encoded = filtered = rejected = 0
    for batch in batches:
        left = batch.without(encoder.encode(batch.columns).problems)
        slots = encoder.encode(left.columns)
        assert not slots.problems
        assert (slots.slots[:, 0] > 0).all()
        encoded, filtered, rejected = encoded + left.rows, filtered + left.filtered, rejected + len(left.rejects)
    ranges = split_ranges(declared.source, list_files(declared.source, str(base)), target)
    assert encoded + filtered + rejected == sum(count_rows(declared.source, rng) for rng in ranges)


def test_a_time_field_and_the_logs_time_may_be_two_equal_blocks() -> None:
    """As after unpickling: the moments that one has read serve the other."""
    block = {"column": "when"}
    columns = Columns.of(pa.table({"when": ["2020-01-31 15:04:05"]}))
    first, second = TimeConfig.model_validate(block), TimeConfig.model_validate(block)
    for one in (first, second):  # each has read a batch before
        Columns.of(pa.table({"when": ["2020-01-31"]})).moments(one)
    assert columns.moments(first) is columns.moments(second)


def test_side_tables_of_parts_that_differ(base: Path) -> None:
    """Types, empty parts, links, keys that directories tell: values meet by their text."""
    (base / "side/user=1").mkdir(parents=True)
    (base / "users").mkdir()
    pq.write_table(pa.table({"user": [1], "age": [20]}), base / "users/a.parquet")
    pq.write_table(pa.table({"user": ["2", "3"], "age": [30.5, None]}), base / "users/b.parquet")
    pq.write_table(pa.table({"user": pa.array([], pa.int64()), "age": pa.nulls(0)}), base / "users/c.parquet")
    fields = [{"name": "age", "kind": "number", "edges": [9]}]
    typed = config(join=[{"path": "users", "format": "parquet", "on": "user"}], fields=fields)
    assert rows(typed, base)[0].columns.array("age").to_pylist() == ["20", "30.5", None]
    (base / "side/user=1/x.csv").write_text("age\n40\n")
    (base / "side/empty.csv").write_text("")
    told = config(join=[{"path": "side/user=*", "on": "user"}], fields=fields)
    assert rows(told, base)[0].columns.array("age").to_pylist() == ["40", None, None]
    (base / "none.csv").write_text("user,age\n")
    empty = config(join=[{"path": "none.csv", "on": "user"}], fields=fields)
    assert rows(empty, base)[0].columns.array("age").to_pylist() == [None] * 3


def test_a_column_that_cannot_be_read_is_told_where_it_comes_from(base: Path) -> None:
    pq.write_table(pa.table({"user": ["1"], "age": [{"years": 3}]}), base / "users.parquet")
    fields = [{"name": "age", "kind": "number", "edges": [9]}]
    joined = config(join=[{"path": "users.parquet", "format": "parquet", "on": "user"}], fields=fields)
    (batch,) = rows(joined, base)
    with pytest.raises(InputError, match=r"^side table users\.parquet on user, column 'age': expected single values"):
        check(joined.fields, batch.columns)
    pq.write_table(pa.table({"user": [["1"]], "rating": [5]}), base / "log.parquet")
    typed = config(source={"path": "log.parquet", "format": "parquet"})
    (batch,) = rows(typed, base)
    with pytest.raises(InputError, match=r"/log\.parquet, column 'user': .* To read several values, set `max_values`"):
        check(typed.fields, batch.columns)
