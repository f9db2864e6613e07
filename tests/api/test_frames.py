"""Tables of every library become the same columns, and come back as what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.api.frames import arrow, column_like, ids_of, is_frame, publish, tell_index
from fieldwise.features.errors import ConfigError, InputError

COLUMNS: dict[str, list[Any]] = {"user": ["a", "b", None], "price": [1.5, None, 3.0], "n": [1, 2, 3]}


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(COLUMNS, index=[7, 8, 9]),
        pd.DataFrame(COLUMNS).astype({"user": "category"}),
        pl.DataFrame(COLUMNS),
        pl.DataFrame(COLUMNS).with_columns(pl.col("user").cast(pl.Categorical)),
        pa.table(COLUMNS),
        pa.table(COLUMNS).to_batches()[0],
        COLUMNS,
        pa.table(COLUMNS).to_pylist(),
    ],
)
def test_one_table_from_all(frame: Any, tmp_path: Path) -> None:
    table = arrow(frame)
    assert table.to_pydict() == COLUMNS
    assert is_frame(frame)
    path = publish(table, str(tmp_path), "log")
    assert pq.read_table(path).to_pydict() == COLUMNS
    assert not any(pa.types.is_dictionary(field.type) for field in table.schema)


def test_a_named_index_is_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame(COLUMNS)
    wanted = {"user": COLUMNS["user"], "price": COLUMNS["price"], "n": COLUMNS["n"]}
    assert arrow(frame.set_index("user")).to_pydict() == wanted
    assert arrow(frame.set_index(["price", "n"])).column_names == ["price", "n", "user"]
    assert arrow(frame.set_index(frame["n"] * 2)).to_pydict() == COLUMNS
    assert "warning: the index 'n' is left out: a column has its name" in capsys.readouterr().err
    arrow(frame.set_index("user", drop=False))
    for quiet in (frame, frame.set_index("user"), frame[frame["n"] > 1], pa.table(COLUMNS)):
        tell_index(quiet)
    assert capsys.readouterr().err == ""
    tell_index(frame.set_index("user").rename_axis(None))
    assert "warning: the index has no name, so it is left out: name it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("acc-0", {"id": ["acc-0"]}),
        (7, {"id": [7]}),
        (["a", "b"], {"id": ["a", "b"]}),
        (range(2), {"id": [0, 1]}),
        (pd.Series(["a", None], name="user"), {"user": ["a", None]}),
        (pd.Series(["a", "b"], dtype="category"), {"id": ["a", "b"]}),
        (pd.Index(["a", "b"]), {"id": ["a", "b"]}),
        (pl.Series("user", ["a", "b"]), {"user": ["a", "b"]}),
        (np.array(["a", "b"], object), {"id": ["a", "b"]}),
        (np.array(["a", "b"]), {"id": ["a", "b"]}),
        (pa.chunked_array([[1], [2]]), {"id": [1, 2]}),
    ],
)
def test_ids_alone_are_a_table_of_one_column(given: Any, wanted: dict[str, Any]) -> None:
    assert arrow(ids_of(given, None)).to_pydict() == wanted
    assert arrow(ids_of(given, "account")).to_pydict() == {"account": next(iter(wanted.values()))}


def test_tables_and_rows_are_no_ids() -> None:
    frame = pd.DataFrame(COLUMNS)
    for given in (frame, pl.DataFrame(COLUMNS), pa.table(COLUMNS), COLUMNS, pa.table(COLUMNS).to_pylist()):
        assert ids_of(given, "user") is None
    assert ids_of(frame.iloc[0], "user") is None


def test_a_row_is_a_table_of_one() -> None:
    row = {"user": "a", "price": 1.5, "tags": ["x", "y"]}
    wanted = {"user": ["a"], "price": [1.5]}
    assert arrow({"user": "a", "price": 1.5}).to_pydict() == wanted
    assert arrow([row]).to_pydict() == {**wanted, "tags": [["x", "y"]]}
    assert arrow(pd.DataFrame([{"user": "a", "price": 1.5}]).iloc[0]).to_pydict() == wanted


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"a": [1, "x"]}), "columns hold one type each, found .*"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "twice|[Dd]uplicate"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "columns a twice"),
        (pd.DataFrame({"of": pd.cut([1, 2], [0, 1, 2])}), "column 'of' of categories that are no plain values"),
        (42, "found a int"),
    ],
)
def test_what_is_no_table(frame: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"the table: expected .*{said}"):
        arrow(frame)


def test_a_column_of_nothing_is_text() -> None:
    assert arrow(pd.DataFrame({"a": [None, None]})).schema.field("a").type == pa.string()


def test_the_same_table_is_one_file(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    first = publish(pa.table(COLUMNS), folder, "log")
    stamp = Path(first).stat().st_mtime_ns
    assert publish(pa.table(COLUMNS), folder, "log") == first
    assert Path(first).stat().st_mtime_ns == stamp, "a command would take it for a changed file"
    other = publish(pa.table({**COLUMNS, "n": [1, 2, 4]}), folder, "log")
    assert sorted(Path(folder).iterdir()) == sorted([Path(first), Path(other)])
    with pytest.raises(ConfigError, match="workspace: expected a local directory"):
        publish(pa.table(COLUMNS), "s3://bucket/data", "log")


def test_columns_come_back_as_they_came() -> None:
    values = np.array([0.1, 0.2, 0.3], np.float32)
    series = column_like(values, "probability", pd.DataFrame(COLUMNS, index=[7, 8, 9]))
    assert list(series.index) == [7, 8, 9]
    assert series.name == "probability"
    assert column_like(values, "probability", pl.DataFrame(COLUMNS)).name == "probability"
    assert column_like(values, "probability", pa.table(COLUMNS)) == pa.array(values)
