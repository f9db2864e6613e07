"""The hash is pinned: to literal pairs, to the xxhash package, and over every way a buffer can lie in memory."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fieldwise.features.columns.hashing import xxh64_array, xxh64_rows

PINNED = {
    "": 11002672306508523268,
    "a": 9864288744972464332,
    "Zürich": 16246815932409060502,
    "日本語": 17827403010824870377,
    "x" * 1000: 9998667176628506295,
}


@pytest.mark.parametrize(("text", "expected"), PINNED.items())
def test_literal_pairs(text: str, expected: int) -> None:
    assert xxh64_array(pa.array([text]))[0] == expected


@given(st.lists(st.one_of(st.none(), st.text(max_size=80))), st.integers(0, 3), st.integers(0, 2**64 - 1))
def test_equals_the_package_on_slices_and_nulls(values: list[str | None], skip: int, seed: int) -> None:
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(values, kind)[skip:]
        expected = [xxhash.xxh64_intdigest((v or "").encode(), seed) for v in values[skip:]]
        assert xxh64_array(array, seed).tolist() == expected


def test_rows() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (50, 37), dtype=np.uint8)
    assert xxh64_rows(rows, 7).tolist() == [xxhash.xxh64_intdigest(row.tobytes(), 7) for row in rows]
    rows.flags.writeable = False
    assert xxh64_rows(rows[::2], 7).tolist() == [xxhash.xxh64_intdigest(row.tobytes(), 7) for row in rows[::2]]


def test_typed_values_hash_their_canonical_text() -> None:
    arrays = {
        "1": [pa.array([1], pa.int8()), pa.array([1], pa.uint64()), pa.array([1.0]), pa.array([1.0], pa.float32())],
        "-3": [pa.array([-3]), pa.array([-3.0])],
        "0": [pa.array([-0.0])],
        "9007199254740991": [pa.array([2.0**53 - 1])],
        "0.1": [pa.array([0.1]), pa.array([0.1], pa.float32())],
        "true": [pa.array([True])],
        "": [pa.array([float("nan")]), pa.array([None], pa.int64()), pa.nulls(1)],
        "b": [pa.array(["b"]).dictionary_encode(), pa.array([b"b"])],
    }
    for text, typed in arrays.items():
        for array in typed:
            plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            assert xxh64_array(plain)[0] == xxhash.xxh64_intdigest(text.encode(), 42), (text, array.type)


def test_equals_sparks_xxhash64(spark: SparkSession) -> None:
    drawn = random.Random(0)
    code_points = [*range(0xD800), *range(0xE000, 0x110000)]
    values = ["".join(map(chr, drawn.choices(code_points, k=drawn.randrange(90)))) for _ in range(500)]
    values += [*PINNED, "\0", *("x" * n for n in range(100))]
    frame = spark.createDataFrame([(value,) for value in values], "value string").coalesce(1)
    hashed = [row[0] % 2**64 for row in frame.select(F.xxhash64("value")).collect()]
    assert hashed == xxh64_array(pa.array(values)).tolist() == [xxhash.xxh64_intdigest(v.encode(), 42) for v in values]
