"""What quarantine says: reasons, fields, values, and places that people find."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.fitting import fit_spec, merge
from fieldwise.features.source import places
from fieldwise.features.source.log import LogBatch, LogReader
from fieldwise.features.source.quarantine import Example, count, examples, quarantined
from fieldwise.features.source.rows import FileRange, Reject
from tests.tallies import tally


def found_in(path: Path, positions: list[int], format: str = "csv") -> list[str]:
    where = dict(places.places([(str(path), position) for position in positions], lambda _: format))
    return [where[str(path), position].removeprefix(f"{path} ") for position in positions]


def test_places_are_lines_of_text_and_rows_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a,b\n1,2\r\nx,3\n\n4,5"
    for name, data in (("a.csv", text), ("a.csv.gz", gzip.compress(text)), ("a.csv.bz2", bz2.compress(text))):
        (tmp_path / name).write_bytes(data)
        assert found_in(tmp_path / name, [14, 0, 9, 4]) == ["line 5", "line 1", "line 3", "line 2"], name
    (tmp_path / "mac.csv").write_bytes(text.replace(b"\r\n", b"\n").replace(b"\n", b"\r"))
    assert found_in(tmp_path / "mac.csv", [8]) == ["line 3"]
    assert found_in(tmp_path / "a.parquet", [0, 16], "parquet") == ["row 1", "row 17"]
    assert found_in(tmp_path / "gone.csv", [7]) == ["byte 7"]
    assert found_in(tmp_path / "a.csv", [1000]) == ["byte 1000"], "the file is shorter now"
    monkeypatch.setattr(places, "MOST_READ", 10)
    assert found_in(tmp_path / "a.csv", [9, 14]) == ["line 3", "byte 14"]


def test_samples_are_the_first_of_different_values_whoever_met_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("".join(f"{n}\n" for n in range(10, 30)))
    rejects = [Reject(str(path), 3 * n, "bad_number", "age", b"raw", value) for n, value in enumerate("xxyxzvw")]
    rejects += [Reject(str(path), 3 * n, "bad_time", "time", b"raw", value) for n, value in enumerate("0000a0")]
    rejects.append(Reject(str(path), 30, "column_count", "", b"1,2,\x1b[2J"))
    parts = [examples(rejects[5:]), examples(rejects[:5])]
    first, zeros, second = quarantined(count(rejects), [e for part in parts for e in part], "csv")
    assert str(first) == (
        f"bad_number of age: 7 rows, such as 'x' at {path} line 1, 'y' at {path} line 3, 'z' at {path} line 5"
    )
    assert str(zeros) == (
        f"bad_time of time: 6 rows, such as '0' at {path} line 1, 'a' at {path} line 5, '0' at {path} line 2"
    )
    assert str(second) == f"column_count: 1 row, such as '1,2,\\x1b[2J' at {path} line 11"


def reader(base: Path, **keys: Any) -> LogReader:
    document = {
        "source": {"path": "log.csv"},
        "join": [{"path": "users.csv", "on": "user", "select": ["age", "since", "value"]}],
        "label": "click",
        "fields": [{"name": "age", "kind": "number", "edges": [9]}, {"name": "user", "kind": "hash"}],
    }
    return LogReader(FeatureConfig.model_validate(document | keys), str(base))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("user,click\nu1,1\nu2,0\nu3,1\n")
    (tmp_path / "users.csv").write_text("user,age,since,value\nu1,7,2020-01-01,1\nu2,old,1.5,1e39\nu3,,,x\n")
    return tmp_path


def told(reader: LogReader, path: Path) -> list[str]:
    (batch,) = reader.read(FileRange(str(path), 0, path.stat().st_size))
    spec = fit_spec(reader.config.fields, merge([tally(reader.config.fields, batch.columns)]))
    rejects = batch.without(Encoder(spec).encode(batch.columns).problems).rejects
    return [
        str(part).replace(str(path.parent) + "/", "")
        for part in quarantined(count(rejects), examples(rejects), reader.config.source.format)
    ]


def test_a_joined_value_is_told_with_its_table_and_key(base: Path) -> None:
    path = base / "log.csv"
    assert told(reader(base), path) == [
        "bad_number of age: 1 row, such as 'old' of users.csv (column age, user = u2), met at log.csv line 3"
    ]
    assert told(reader(base, time="since", fields=[{"name": "user", "kind": "hash"}]), path) == [
        "bad_time of time: 2 rows, such as '1.5' of users.csv (column since, user = u2), met at log.csv line 3, "
        "'' of users.csv (column since, user = u3), met at log.csv line 4"
    ]
    assert told(reader(base, weight="value * 2", fields=[{"name": "user", "kind": "hash"}]), path) == [
        "bad_weight of weight: 2 rows, such as '1e39' of users.csv (column value, user = u2), met at log.csv line 3, "
        "'x' of users.csv (column value, user = u3), met at log.csv line 4"
    ]


def test_parquet_rows_are_told_by_their_number(base: Path) -> None:
    pq.write_table(pa.table({"user": ["u1", "u3"], "click": [1, 7]}), base / "log.parquet")
    parquet = reader(base, source={"path": "log.parquet", "format": "parquet"})
    (batch,) = parquet.read(FileRange(str(base / "log.parquet"), 0, 1))
    assert isinstance(batch, LogBatch)
    (part,) = quarantined(count(batch.rejects), examples(batch.rejects), "parquet")
    assert str(part) == f"bad_label of label: 1 row, such as '7' at {base}/log.parquet row 2"


def test_examples_travel_as_json(base: Path) -> None:
    example = Example("bad_number", "age", "log.csv", 3, "old", "users.csv")
    assert Example(*list(example)) == example
