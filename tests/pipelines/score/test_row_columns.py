"""The columns score-rows writes: one type in all parts, which pandas, Arrow and Spark read alike; refused names."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.source.raw import SourceFile
from fieldwise.pipelines.score.row_columns import output_schema, written
from fieldwise.pipelines.score.score_rows import score_rows
from tests.pipelines.catalogs import read
from tests.pipelines.shop import shop_config, write_bundle, write_shop

UTC, BERLIN = "UTC", "Europe/Berlin"


def parquet(folder: Path, *kinds: pa.DataType) -> list[SourceFile]:
    """A file for every type of a column ``x``."""
    files = []
    for n, kind in enumerate(kinds):
        path = folder / f"{n}.parquet"
        pq.write_table(pa.table({"x": pa.array([None], kind)}), path)
        files.append(SourceFile(str(path), path.stat().st_size))
    return files


@pytest.mark.parametrize(
    ("kinds", "common"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.int8(), pa.uint8()], pa.int16()),
        ([pa.uint32(), pa.int8(), pa.null()], pa.int64()),
        ([pa.uint64(), pa.int8()], pa.string()),
        ([pa.uint64(), pa.uint8()], pa.uint64()),
        ([pa.int32(), pa.float32()], pa.float64()),
        ([pa.int16(), pa.float32()], pa.float32()),
        ([pa.int64(), pa.float64()], pa.string()),
        ([pa.int64(), pa.float64(), pa.string()], pa.string()),
        ([pa.null()], pa.string()),
        ([pa.null(), pa.bool_()], pa.bool_()),
        ([pa.bool_(), pa.int8()], pa.string()),
        ([pa.decimal128(10, 2), pa.decimal128(12, 5)], pa.decimal128(13, 5)),
        ([pa.decimal128(38, 0), pa.decimal128(38, 9)], pa.string()),
        ([pa.timestamp("s"), pa.timestamp("ms")], pa.timestamp("ms")),
        ([pa.timestamp("ms", UTC), pa.timestamp("ns", BERLIN)], pa.timestamp("us", UTC)),
        ([pa.timestamp("us", UTC), pa.timestamp("us")], pa.string()),
        ([pa.date32(), pa.timestamp("us")], pa.string()),
        ([pa.time64("us")], pa.string()),
        ([pa.dictionary(pa.int32(), pa.string()), pa.large_string()], pa.string()),
        ([pa.binary(), pa.binary(3)], pa.binary()),
        ([pa.binary(), pa.int32()], pa.binary()),
        ([pa.list_(pa.int32()), pa.list_(pa.int64()), pa.null()], pa.list_(pa.int64())),
        ([pa.struct([("a", pa.int8())]), pa.struct([("a", pa.float32())])], pa.struct([("a", pa.float32())])),
    ],
)
def test_the_common_type(tmp_path: Path, kinds: list[pa.DataType], common: pa.DataType) -> None:
    """Whatever the order of the files."""
    for order in (kinds, kinds[::-1]):
        source = SourceConfig(path=["x"], format="parquet")
        found = output_schema(source, parquet(tmp_path, *order), None, ())
        assert found == pa.schema([("x", common), ("probability", pa.float32())])


@pytest.mark.parametrize("kinds", [
    [pa.list_(pa.int32()), pa.int32()], [pa.list_(pa.int64()), pa.list_(pa.string())],
    [pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())])],
])  # fmt: skip
def test_nothing_in_common(tmp_path: Path, kinds: list[pa.DataType]) -> None:
    with pytest.raises(InputError, match=r"column 'x': expected a type in common, found .* in .*0\.parquet, .* in .*1"):
        output_schema(SourceConfig(path=["x"], format="parquet"), parquet(tmp_path, *kinds), None, ())


def test_values_stay_what_they_are() -> None:
    big = 2**53 + 1
    text = pa.field("x", pa.string())
    assert written(pa.array([big, None]), text, "f").to_pylist() == [str(big), None]
    assert written(pa.array([7.0, 0.5]), text, "f").to_pylist() == ["7", "0.5"]
    assert written(pa.array([Decimal("1.50")]), text, "f").to_pylist() == ["1.50"]
    micros = pa.field("x", pa.timestamp("us"))
    assert written(pa.array([1_000], pa.timestamp("ns")), micros, "f").cast(pa.int64()).to_pylist() == [1]
    with pytest.raises(
        InputError, match=r"b\.parquet: expected column 'x' to be exact as timestamp\[us\], found Casting"
    ):
        written(pa.array([1_001], pa.timestamp("ns")), micros, "b.parquet")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_shop(tmp_path)
    return tmp_path


def refused(shop: Path, header: str, kind: type[Exception], columns: list[str] | None = None) -> str:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    _, *lines = (shop / "log.csv").read_text().splitlines()
    (shop / "other.csv").write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(kind) as met:
        score_rows(config, model=bundle, inputs=["log.csv", "other.csv"], columns=columns)
    assert not (shop / "work" / "scores").exists()
    return str(met.value)


def test_bytes_of_a_fixed_length_stay_bytes() -> None:
    array = pa.array([b"\x00" * 16, b"\xff" * 16], pa.binary(16))
    assert written(array, pa.field("id", pa.binary()), "a.parquet").to_pylist() == array.to_pylist()


def test_names_that_readers_would_lose(shop: Path) -> None:
    header = "user,age,item,category,tags,when,position,click"
    rest = header.replace(",click", "")
    log = (shop / "log.csv").read_text()
    for name in ("date", "Date", "PROBABILITY"):
        (shop / "log.csv").write_text(log.replace("click", name, 1))
        taken = "partition's (date=...)" if name != "PROBABILITY" else "score's"
        assert refused(shop, header.replace("click", name), ConfigError) == (
            f"columns to write: expected no column called {name!r} (the name is the {taken}), found one. "
            f"Leave it out: --columns {rest}."
        )
    (shop / "log.csv").write_text(log.replace("click", "User", 1))
    assert refused(shop, header.replace("click", "User"), ConfigError) == (
        f"columns to write: expected no column called 'User' (Spark takes it for 'user'), found one. "
        f"Leave it out: --columns {rest}."
    )
    assert refused(shop, header.replace("click", "User"), ConfigError, ["user", "User"]).endswith(
        "Leave it out of --columns, or rename it."
    )


def test_files_whose_columns_differ(shop: Path) -> None:
    header = "user,age,item,category,tags,when,position,click"
    rest = header.replace(",click", "")
    said = refused(shop, header.replace("click", "seen"), InputError)
    assert said == (
        f"{shop}/other.csv: expected the columns of {shop}/log.csv, because all are to be written, found no column "
        f"'click'. Name columns that every file has: --columns {rest}."
    )
    said = refused(shop, header.replace("item", "thing"), InputError, ["user", "item"])
    assert said.startswith(f"{shop}/other.csv: expected a column 'item', found columns user, age, thing")
    config = shop_config(shop)
    (shop / "other.csv").write_text((shop / "log.csv").read_text().replace("click", "seen", 1))
    result = score_rows(config, model=str(shop / "bundle"), inputs=["log.csv", "other.csv"], columns=rest.split(","))
    assert result["rows"] == 800


def extras(n: int, kinds: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    """Columns beside the model's own, n rows each."""
    values: dict[str, Any] = {
        "id": [7] * n, "paid": [Decimal("1.50")] * n, "at": [datetime.datetime(2026, 1, 2, 3, 4, 5, 6)] * n,
        "seen": [datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)] * n, "nothing": [None] * n,
        "huge": [2**63 + 5] * n, "list": [[1, 2]] * n, "kind": ["a"] * n,
    }  # fmt: skip
    return {name: pa.array(values[name], kind) for name, kind in kinds.items()}


def test_pandas_arrow_and_spark_read_what_files_of_many_types_give(shop: Path, spark: SparkSession) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    config = config.model_copy(update={"source": SourceConfig(path=["a.parquet", "b.parquet"], format="parquet")})
    log, first, second = read(shop / "log.csv"), {}, {}
    first = {"id": pa.int64(), "paid": pa.decimal128(8, 2), "at": pa.timestamp("ns"), "seen": pa.timestamp("ms", UTC),
             "nothing": pa.null(), "huge": pa.uint64(), "list": pa.list_(pa.int32()),
             "kind": pa.dictionary(pa.int8(), pa.string())}  # fmt: skip
    second = {"id": pa.float64(), "paid": pa.decimal128(12, 4), "at": pa.timestamp("us"),
              "seen": pa.timestamp("us", BERLIN), "nothing": pa.null(), "huge": pa.uint64(),
              "list": pa.large_list(pa.int64()), "kind": pa.large_string()}  # fmt: skip
    for name, kinds, rows in (("a", first, log.slice(0, 150)), ("b", second, log.slice(150))):
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        for column, array in extras(len(rows), kinds).items():
            table = table.append_column(column, array)
        pq.write_table(table, shop / f"{name}.parquet")
    result = score_rows(config, model=bundle)
    assert (result["rows"], result["files"]) == (400, 2)
    place = str(shop / "work" / "scores" / "rows")
    frames = {
        "pandas": pd.read_parquet(place),
        "arrow": ds.dataset(place, partitioning="hive").to_table().to_pandas(),
        "spark": spark.read.parquet(place).toPandas(),
    }
    for reader, frame in frames.items():
        assert len(frame) == 400, reader
        assert set(frame["date"]) == {"all"}, reader
        assert set(frame["id"]) == {"7"}, reader
        assert set(frame["paid"].astype(str)) == {"1.5000"}, reader
        assert set(frame["at"]) == {pd.Timestamp("2026-01-02 03:04:05.000006")}, reader
        assert frame["nothing"].isna().all(), reader
        assert {int(value) for value in frame["huge"]} == {2**63 + 5}, reader
        assert {tuple(value) for value in frame["list"]} == {(1, 2)}, reader
        assert set(frame["kind"]) == {"a"}, reader
        assert sorted(frame["item"]) == sorted(log["item"].to_pylist()), reader
    types = dict(spark.read.parquet(place).dtypes)
    assert types["seen"] == "timestamp"
    assert len({round(float(frame["probability"].sum()), 2) for frame in frames.values()}) == 1
