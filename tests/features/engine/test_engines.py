"""Both engines do the same with frames; the local one stays within its memory, and nothing outlives what failed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from fieldwise.features.engine import local
from fieldwise.features.engine.base import Engine, indices
from fieldwise.features.engine.local import LocalEngine
from fieldwise.features.errors import InputError, StorageError
from fieldwise.features.interrupt import Interrupted
from fieldwise.features.spark.run import SparkEngine

ROW = "place int, text string, number bigint"


def drawing(seed: int, rows: int):
    """A task that makes ``rows`` rows of each number."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            draw = np.random.default_rng([seed, index])
            for part in np.array_split(np.arange(rows), 3):
                place = draw.integers(-5, 5, len(part)).astype(np.int32)
                text = [f"t{n}" for n in draw.integers(0, 40, len(part))]
                columns = [pa.array(place), pa.array(text, pa.string()), pa.array(draw.integers(-9, 9, len(part)))]
                yield pa.record_batch(columns, ["place", "text", "number"])

    return run


def whole(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """(rows): what one partition holds, in its order; nothing of an empty one."""
    rows = [str(row) for batch in batches for row in batch.to_pylist()]
    if rows:
        yield pa.record_batch([pa.array(["\n".join(rows)])], ["rows"])


def found(engine: Engine, seed: int, parts: int, rows: int) -> list[Counter[str]]:
    """Partitions by place, sorted; the same of rows that are kept for two uses; counts of chosen rows."""
    drawn = engine.numbered(4).mapped(drawing(seed, rows), ROW)
    places = {place: n for n, place in enumerate(engine.places(parts))}
    sort = ["place", "text", "number"]
    with drawn.kept() as kept:
        by_place = kept.shuffled("place", parts, order=sort).mapped(whole, "rows string").rows("test")
        again = kept.shuffled("number", parts).mapped(whole, "rows string").rows("test")
        chosen = kept.where("place", [0, 3], ["text"]).rows("test")
    met = {}
    for row in again:  # rows of one number are in one partition
        for number in {eval(line)["number"] for line in row["rows"].split("\n")}:
            assert met.setdefault(number, row["rows"]) == row["rows"]
    assert len(places) == parts
    lines = Counter(line for row in again for line in row["rows"].split("\n"))
    for row in by_place:
        own = [tuple(eval(line).values()) for line in row["rows"].split("\n")]
        assert own == sorted(own)
    flat = Counter(line for row in by_place for line in row["rows"].split("\n"))
    return [flat, lines, Counter(row["text"] for row in chosen)]


def test_both_engines_do_the_same(spark: SparkSession) -> None:
    for seed, parts, rows in ((1, 1, 0), (2, 3, 50), (3, 7, 200)):
        assert found(LocalEngine(), seed, parts, rows) == found(SparkEngine(spark), seed, parts, rows)


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_each_place_is_a_partition_of_its_own(engine: str, spark: SparkSession) -> None:
    runs: Engine = LocalEngine() if engine == "local" else SparkEngine(spark)
    keys = runs.places(23)

    def place(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            yield pa.record_batch([pa.array([keys[index]] * 3, pa.int32())], ["place"])

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        met = {place for batch in batches for place in batch["place"].to_pylist()}
        yield pa.record_batch([pa.array([len(met)])], ["places"])

    scattered = runs.numbered(23).mapped(place, "place int").shuffled("place", 23)
    assert [row["places"] for row in scattered.mapped(count, "places bigint").rows("test")] == [1] * 23


@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 300))
@settings(max_examples=20)
def test_what_does_not_fit_is_the_same_from_a_file(seed: int, parts: int, rows: int) -> None:
    held = found(LocalEngine(), seed, parts, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "HELD_BYTES", 2000)
        assert found(LocalEngine(), seed, parts, rows) == held


def raising(error: BaseException, at: int = 1):
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            if index == at:
                raise error
            for _ in range(2000):
                time.sleep(0.01)
                yield pa.record_batch([pa.array([index])], ["number"])

    return run


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fieldwise-task")]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [(InputError("b.csv", expected="a", found="b", fix="C."), InputError), (OSError(28, "No space left"), StorageError),
     (KeyError("ours"), KeyError)],
)  # fmt: skip
@pytest.mark.parametrize("cores", [1, 3])
def test_an_error_of_a_task_ends_them_all(raised: Exception, kind: type[Exception], cores: int) -> None:
    engine = LocalEngine()
    engine.cores = cores
    started = time.monotonic()
    with pytest.raises(kind):
        engine.numbered(2 if cores == 1 else 6).mapped(raising(raised, at=0), "number bigint").rows("test")
    assert time.monotonic() - started < 10
    assert threads() == []


def test_nobody_is_at_work_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted(2)

    monkeypatch.setattr(local, "wait", interrupted)
    engine = LocalEngine()
    engine.cores = 2
    with pytest.raises(Interrupted):
        engine.numbered(4).mapped(raising(KeyError(), at=9), "number bigint").rows("test")
    assert threads() == []
