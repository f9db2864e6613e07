"""Snapshots of a log of positives: negatives in every split, none of them known, the same however it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import yaml

from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot
from fieldwise.pipelines.build import features as room
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config

NEGATIVES = {"items": {"path": "films.csv"}, "context": "user", "item": "film", "per_positive": 3}


def watched(folder: Path, **more: Any) -> Config:
    """900 views of 60 users, over ten days; the last fifth is held out."""
    draw, folder = np.random.default_rng(3), folder
    pairs = {(int(u), int(f)) for u, f in zip(draw.integers(0, 60, 1500), draw.integers(0, 40, 1500), strict=True)}
    rows = [f"u{u},{20 + u},f{f},1,2026-01-{1 + n % 10:02d}" for n, (u, f) in enumerate(sorted(pairs))]
    (folder / "log.csv").write_text("user,age,film,watched,when\n" + "\n".join(draw.permutation(rows)) + "\n")
    (folder / "films.csv").write_text("film,genre\n" + "".join(f"f{f},g{f % 5}\n" for f in range(40)))
    document = {
        "name": "watched",
        "workspace": "work",
        "source": {"path": "log.csv"},
        "join": [{"path": "films.csv", "on": "film"}],
        "label": "watched",
        "time": "when",
        "split": {"by": "time", "valid": 0.1, "test": 0.1},
        "fields": [{"name": n, "kind": "vocabulary", "min_count": 1} for n in ("user", "age", "film", "genre")],
        "snapshot": {"rows_per_file": 700},
        "model": {"kind": "fm"},
        "negatives": NEGATIVES,
    }
    (folder / "watched.yaml").write_text(
        yaml.safe_dump({key: v for key, v in (document | more).items() if v is not None})
    )
    return load_config(folder / "watched.yaml")


def values(snapshot: Snapshot) -> pa.Table:
    """Rows in words, with role and label."""
    parts = []
    for file in snapshot.manifest.files:
        rows = pq.read_table(Path(snapshot.dir, snapshot.manifest.data, file.path))
        spec, columns = snapshot.spec, dict[str, Any]()
        for at, field in enumerate(spec.fields):
            local = rows[spec.slot_names[at]].to_pylist()
            columns[field.name] = [spec.value_of(field.name, each) for each in local]
        parts.append(pa.table(columns | {"label": rows["label"], "role": pa.repeat(pa.scalar(file.role), len(rows))}))
    return pa.concat_tables(parts)


def test_every_split_has_its_negatives_and_none_is_known(tmp_path: Path) -> None:
    config = watched(tmp_path)
    result = build_features(config)
    log = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    known = {(user, film) for user, _, film, _, _ in log}
    assert result["rows"] == {role: 4 * count for role, count in result["positives"].items()}
    assert sum(result["positives"].values()) == len(log)
    rows = values(load_snapshot(result["dir"])).to_pylist()
    drawn = [row for row in rows if row["label"] == 0]
    assert not {(row["user"], row["film"]) for row in drawn} & known
    assert {(row["user"], row["film"]) for row in rows if row["label"] == 1} <= known | {
        ("unseen", f) for _, f in known
    }
    ages = {user: age for user, age, *_ in log}
    assert all(row["age"] == ages[row["user"]] for row in drawn if row["user"] != "unseen")
    assert all(row["genre"] == f"g{int(row['film'][1:]) % 5}" for row in drawn if row["film"] != "unseen")


@pytest.mark.usefixtures("spark")
def test_the_same_however_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for size, engine in ((1 << 20, "local"), (2000, "local"), (3000, "spark")):
        monkeypatch.setattr(room, "RANGE_BYTES", size)
        digests.add(build_features(watched(tmp_path, workspace=f"work{size}", engine=engine))["digest"])
    assert len(digests) == 1


def test_the_same_whatever_type_texts_are_of(tmp_path: Path) -> None:
    """pandas 3 writes large texts, others short ones, and the log, its items and side tables are of both."""
    first = values(load_snapshot(build_features(watched(tmp_path))["dir"]))
    for name, kind in (("log", pa.string()), ("films", pa.large_string())):
        table = csv.read_csv(tmp_path / f"{name}.csv")
        texts = [n for n in table.column_names if table.schema.field(n).type == pa.string()]
        for text in texts:
            table = table.set_column(table.column_names.index(text), text, table[text].cast(kind))
        pq.write_table(table, tmp_path / f"{name}.parquet")
    films = {"path": "films.parquet", "format": "parquet"}
    more = {"join": [{**films, "on": "film"}], "negatives": {**NEGATIVES, "items": films}, "workspace": "other"}
    config = watched(tmp_path, source={"path": "log.parquet", "format": "parquet"}, **more)
    found = values(load_snapshot(build_features(config)["dir"]))
    assert len(found) == len(first)
    for column in ("user", "film", "genre"):
        assert set(found[column].to_pylist()) == set(first[column].to_pylist())


def test_another_number_of_negatives_is_another_snapshot(tmp_path: Path) -> None:
    build_features(watched(tmp_path))
    with pytest.raises(Exception, match=r"negatives\.per_positive: snapshot 3, config 2"):
        build_features(watched(tmp_path, negatives={**NEGATIVES, "per_positive": 2}))


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"snapshot\.negative_rate: expected none beside `negatives`"):
        watched(tmp_path, snapshot={"negative_rate": 0.5})
    with pytest.raises(ConfigError, match=r"negatives\.by"):
        watched(tmp_path, negatives={**NEGATIVES, "by": "popularity^-1"})
    with pytest.raises(InputError, match=r"negatives\.context: expected a column 'who'"):
        build_features(watched(tmp_path, negatives={**NEGATIVES, "context": "who"}))


def test_positives_need_the_items_columns_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'genre' of positives, too, found it in negatives\.items alone") as raised:
        build_features(watched(tmp_path, join=None))
    assert raised.value.fix == "Join that table: `join: [{path: films.csv, on: film}]`."
