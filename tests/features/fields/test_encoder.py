"""Slots of every field kind, from text and from typed columns alike, and problems that blank their rows."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import ArtifactError, InputError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.fitting import fit_spec, merge
from fieldwise.features.fields.spec import FeatureSpec
from tests.tallies import tally


def config(*fields: dict[str, Any], **rest: Any) -> FeatureConfig:
    return FeatureConfig.model_validate({"source": {"path": "x"}, "label": "y", "fields": list(fields), **rest})


def fit(batch: pa.Table, *fields: dict[str, Any], **rest: Any) -> FeatureSpec:
    declared = config(*fields, **rest).fields
    return fit_spec(declared, merge([tally(declared, batch)]))


def slots(batch: pa.Table, *fields: dict[str, Any], **rest: Any) -> list[list[int]]:
    encoded = Encoder(fit(batch, *fields, **rest)).encode(batch)
    assert not encoded.problems
    return encoded.slots.tolist()


def column(batch: pa.Table, *fields: dict[str, Any]) -> list[int]:
    return [row[0] for row in slots(batch, *fields)]


def test_hash_is_pinned() -> None:
    batch = pa.table({"u": ["a", "", None, "Zürich", "x" * 1000, "\0"]})
    expected = [3 + xxhash.xxh64_intdigest(v.encode(), 42) % 1000 if v else 1 for v in batch["u"].to_pylist()]
    assert column(batch, {"name": "u", "kind": "hash", "buckets": 1000}) == expected
    assert expected[:4] == [335, 1, 1, 505]


def test_vocabulary_orders_by_count_then_bytes() -> None:
    batch = pa.table({"u": ["b", "a", "é", "z", "b", "a", "é", "q", "q", "q", "", None]})
    field = {"name": "u", "kind": "vocabulary", "min_count": 2}
    assert column(batch, field) == [5, 4, 6, 2, 5, 4, 6, 3, 3, 3, 1, 1]
    assert column(batch, {**field, "max_size": 1}) == [2] * 7 + [3] * 3 + [1] * 2


def test_numbers_with_a_comma_are_those_with_a_point() -> None:
    point = ["1234.5", "-0.5", "12", "1234567", "", "7.25", "1299"]
    comma = ["1234,5", "-0,5", "12", "1.234.567", "", "7,25", "1\u202f299"]
    field = {"name": "n", "kind": "number", "quantiles": 4}
    spec = fit(pa.table({"n": point}), field)
    other = fit(pa.table({"n": comma}), {**field, "decimal": ","})
    assert other.fields[0].edges == spec.fields[0].edges
    assert column(pa.table({"n": comma}), {**field, "decimal": ","}) == column(pa.table({"n": point}), field)
    assert "decimal" not in spec.fields[0].config.model_dump()  # digests of before the key
    for text in ("1.5", "1.23,4", "1,2,3", "1e3,5"):
        (problem,) = Encoder(other).encode(pa.table({"n": [text]})).problems
        assert (problem.reason, problem.value) == ("bad_number", text)
    typed = Encoder(other).encode(pa.table({"n": [7.25]})).slots
    assert typed.tolist() == Encoder(other).encode(pa.table({"n": ["7,25"]})).slots.tolist()


def test_number_bins() -> None:
    batch = pa.table({"n": ["-1", "0", "0.5", "1", "1.99", "2", "3", "4", "1e300", "", "123456789012345678901234"]})
    log2 = [3, 4, 4, 5, 5, *(5 + math.floor(math.log2(v) ** 2) for v in (2, 3, 4)), 3 + 1026, 1, 3 + 1026]
    assert column(batch, {"name": "n", "kind": "number"}) == log2
    assert column(batch, {"name": "n", "kind": "number", "edges": [0, 2]}) == [3, 4, 4, 4, 4, 5, 5, 5, 5, 1, 5]
    ages = pa.table({"n": [str(i) for i in range(100)] + [""]})
    assert column(ages, {"name": "n", "kind": "number", "quantiles": 4}) == [3 + i // 25 for i in range(100)] + [1]


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1), st.integers(2, 9))
@settings(deadline=None)
def test_quantiles_hold_equal_shares_but_for_ties(values: list[float], quantiles: int) -> None:
    batch = pa.table({"n": values})
    edges = fit(batch, {"name": "n", "kind": "number", "quantiles": quantiles})["n"].edges
    assert len(edges) < quantiles
    assert list(edges) == sorted(set(edges))
    whole = pa.table({"n": [float(i) for i in range(64 * quantiles)]})
    counts = np.bincount(column(whole, {"name": "n", "kind": "number", "quantiles": quantiles}))[3:]
    assert counts.tolist() == [64] * quantiles


def test_time_parts_in_their_zone() -> None:
    batch = pa.table({"t": ["2020-07-05 23:30", "", "1577836800"]})
    parts = [{"name": part, "kind": "time", "part": part} for part in ("hour", "weekday", "day", "month")]
    time = {"column": "t", "zone": "Europe/Berlin"}
    assert slots(batch, *parts, time=time) == [[26, 9, 7, 9], [1] * 4, [4, 5, 3, 3]]
    assert slots(batch, {**parts[0], "of": {"column": "t"}}, time=time)[2] == [3]


def test_cross_joins_texts() -> None:
    batch = pa.table({"a": ["x", "", "", None], "b": pa.array([1, 1, None, None])})
    expected = [3 + xxhash.xxh64_intdigest(v.encode(), 42) % 50 for v in ("x\x1f1", "\x1f1")]
    assert column(batch, {"name": "c", "kind": "cross", "of": ["a", "b"], "buckets": 50}) == [*expected, 1, 1]


def test_multi_valued() -> None:
    lists = [["a", "b", "a", "c"], ["b"], [], None, ["", "c"]]
    text = pa.table({"g": [None if v is None else "||".join(v) for v in lists]})
    field = {"name": "g", "kind": "vocabulary", "min_count": 1, "max_values": 3}
    expected = [[3, 4, 3], [4, 0, 0], [1, 0, 0], [1, 0, 0], [5, 0, 0]]
    assert slots(text, {**field, "separator": "||"}) == expected
    assert slots(pa.table({"g": lists}), field) == expected
    spec = fit(text, {**field, "separator": "||", "pooling": "sum"})
    assert (spec["g"].pooling, spec["g"].slots) == ("sum", 3)


def test_flags_gather_column_names() -> None:
    batch = pa.table({"x": ["1", "0", "1", ""], "y": pa.array([True, False, True, None]), "z": pa.array([0, 0, 1, 1])})
    field = {"name": "f", "kind": "vocabulary", "min_count": 1, "flags": ["x", "y", "z"], "max_values": 2}
    assert slots(batch, field) == [[3, 4], [1, 0], [3, 4], [5, 0]]
    encoded = Encoder(fit(batch, field)).encode(batch.set_column(0, "x", pa.array(["1", "7", "", ""])))
    assert [(p.row, p.field, p.reason, p.value) for p in encoded.problems] == [(1, "f", "bad_flag", "7")]


def test_shared_index_space() -> None:
    batch = pa.table({"item": ["a", "b", "b"], "seen": ["b a", "q", ""]})
    item = {"name": "item", "kind": "vocabulary", "min_count": 1}
    seen = {"name": "seen", "kind": "vocabulary", "shares": "item", "separator": " ", "max_values": 2}
    spec = fit(batch, seen, item)
    assert (spec["seen"].offset, spec["seen"].size, spec.rows) == (spec["item"].offset, 5, 5)
    assert Encoder(spec).encode(batch).slots.tolist() == [[3, 4, 4], [2, 0, 3], [1, 0, 3]]
    for wrong in ({**seen, "shares": "nobody"}, {**seen, "shares": "seen"}, {**seen, "kind": "hash"}):
        with pytest.raises(ValidationError):
            config(wrong, item)
    with pytest.raises(ValidationError, match="min_count"):
        config({**seen, "min_count": 2}, item)


def test_several_fields_at_once() -> None:
    declared = config({"name": "C{1..3}", "kind": "hash"}, {"names": ["u", "I{1..2}"], "kind": "number"})
    assert [field.name for field in declared.fields] == ["C1", "C2", "C3", "u", "I1", "I2"]
    assert declared.fields[0].columns == ("C1",)
    again = FeatureConfig.model_validate(declared.model_dump())
    assert again.fields == declared.fields
    for wrong in ({"names": ["a", "a"], "kind": "hash"}, {"names": ["a", "b"], "kind": "hash", "column": "c"}):
        with pytest.raises(ValidationError):
            config(wrong)
    with pytest.raises(ValidationError, match="one of quantiles and edges"):
        config({"name": "n", "kind": "number", "quantiles": 3, "edges": [1]})


def test_problems_blank_their_rows_only_and_are_not_counted() -> None:
    batch = pa.table({"u": ["a", "b"], "n": ["1", "one"]})
    fields = [{"name": "u", "kind": "vocabulary", "min_count": 1}, {"name": "n", "kind": "number"}]
    spec = fit(batch, *fields)
    assert spec.vocabularies["u"].values.to_pylist() == ["a"]
    encoded = Encoder(spec).encode(batch)
    assert encoded.slots.tolist() == [[3, 5], [0, 0]]
    assert [tuple(problem) for problem in encoded.problems] == [(1, "n", "bad_number", "one", "n")]
    binary = Encoder(spec).encode(pa.table({"u": [b"a", b"\xff"], "n": ["1", "1"]}))
    assert [(p.row, p.reason) for p in binary.problems] == [(1, "undecodable")]
    with pytest.raises(InputError, match="expected a column 'u'"):
        Encoder(spec).encode(pa.table({"n": ["1"]}))


FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "h", "column": "i", "kind": "hash", "buckets": 97},
    {"name": "v", "column": "i", "kind": "vocabulary", "min_count": 1},
    {"name": "q", "column": "i", "kind": "number", "quantiles": 3},
    {"name": "l", "column": "f", "kind": "number"},
    {"name": "hf", "column": "f", "kind": "hash", "buckets": 97},
    {"name": "x", "kind": "cross", "of": ["i", "f"], "buckets": 997},
    {"name": "hour", "kind": "time", "part": "hour_of_week", "of": {"column": "t", "earliest": "1970-01-01",
                                                                    "latest": "2300-01-01"}},
)  # fmt: skip
_ROWS = st.tuples(
    st.one_of(st.none(), st.integers(-(2**40), 2**40)),
    st.one_of(st.none(), st.floats(-1e5, 1e5).map(lambda v: round(v, 3) + 0.0)),
    st.one_of(st.none(), st.integers(0, 2**33)),
)


@given(st.lists(_ROWS, min_size=1), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_typed_columns_encode_like_their_texts(rows: list[tuple[Any, ...]], cut: int) -> None:
    names = ("i", "f", "t")
    types = (pa.int64(), pa.float64(), pa.int64())
    typed = pa.table({n: pa.array([r[k] for r in rows], types[k]) for k, n in enumerate(names)})
    text = pa.table({n: [None if r[k] is None else f"{r[k]:.10g}" if k == 1 else str(r[k]) for r in rows]
                     for k, n in enumerate(names)})  # fmt: skip
    declared = [field for field in FIELDS if field["name"] not in "vq" or typed["i"].null_count < len(rows)]
    spec = fit(typed, *declared)
    assert fit(text, *declared).digest == spec.digest
    whole = Encoder(spec).encode(typed)
    assert whole.slots.tolist() == Encoder(spec).encode(text).slots.tolist()
    assert Encoder(spec).encode(typed.slice(cut)).slots.tolist() == whole.slots[cut:].tolist()
    assert whole.slots.flags.f_contiguous
    assert whole.slots.dtype == np.int32


@given(st.lists(st.lists(st.text(max_size=3), max_size=12), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_fitting_does_not_depend_on_cuts_or_order(parts: list[list[str]]) -> None:
    declared = config({"name": "u", "kind": "vocabulary", "min_count": 1}).fields
    tallies = [tally(declared, pa.table({"u": pa.array(part, pa.string())})) for part in parts]
    if not any(any(part) for part in parts):
        return
    whole = tally(declared, pa.table({"u": [v for part in parts for v in part]}))
    digests = {fit_spec(declared, merge(t)).digest for t in (tallies, tallies[::-1], [whole])}
    assert len(digests) == 1


def saved(tmp_path: Path) -> tuple[FeatureSpec, Path]:
    batch = pa.table({"u": ["b", "a", "b"], "n": ["1", "2", "3"]})
    spec = fit(
        batch, {"name": "u", "kind": "vocabulary", "min_count": 1},
        {"name": "q", "column": "n", "kind": "number", "quantiles": 3},
        {"name": "l", "column": "n", "kind": "number"}, {"name": "h", "column": "u", "kind": "hash", "buckets": 10},
    )  # fmt: skip
    spec.save(str(tmp_path / "spec"))
    return spec, tmp_path / "spec"


def test_spec_survives_disk_and_pickle(tmp_path: Path) -> None:
    spec, path = saved(tmp_path)
    loaded = FeatureSpec.load(str(path))
    assert loaded.fields == spec.fields
    assert loaded.digest == spec.digest == pickle.loads(pickle.dumps(spec)).digest
    assert loaded.vocabularies["u"].counts.tolist() == [2, 1]
    first = {p.name: p.read_bytes() for p in path.iterdir()}
    loaded.save(str(path))
    assert {p.name: p.read_bytes() for p in path.iterdir()} == first
    assert sorted(first) == ["spec.json", "vocabulary.parquet"]


def test_values_of_local_indices(tmp_path: Path) -> None:
    spec, _ = saved(tmp_path)
    assert [spec.value_of("u", i) for i in range(5)] == ["padding", "missing", "unseen", "b", "a"]
    assert [spec.value_of("q", i) for i in (3, 4, 5)] == ["(-inf, 2)", "[2, 3)", "[3, inf)"]
    assert spec.value_of("h", 7) == "bucket 4"
    with pytest.raises(IndexError):
        spec.value_of("u", 5)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("spec.json", b'"values":2', b'"values":3'), ("spec.json", b'"offset":5', b'"offset":4'),
        ("spec.json", b"[2.0,3.0]", b"[3.0,2.0]"), ("spec.json", b"xxh64-42", b"xxh64-43"),
        ("spec.json", b'"fields"', b'"field"'), ("spec.json", b'"buckets":10', b'"buckets":11'),
        ("vocabulary.parquet", b"PAR1", b"PAR0"),
    ],
)  # fmt: skip
def test_damaged_specs_are_refused(tmp_path: Path, file: str, old: bytes, new: bytes) -> None:
    _, path = saved(tmp_path)
    data = (path / file).read_bytes()
    assert old in data
    (path / file).write_bytes(data.replace(old, new))
    with pytest.raises(ArtifactError, match="feature spec"):
        FeatureSpec.load(str(path))


def test_a_swapped_vocabulary_is_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    batch = pa.table({"u": ["c", "a", "c"]})
    fit(batch, {"name": "u", "kind": "vocabulary", "min_count": 1}).save(str(tmp_path / "other"))
    (path / "vocabulary.parquet").write_bytes((tmp_path / "other/vocabulary.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="differs from its SHA-256"):
        FeatureSpec.load(str(path))
    (path / "vocabulary.parquet").unlink()
    with pytest.raises(ArtifactError, match="no file"):
        FeatureSpec.load(str(path))
