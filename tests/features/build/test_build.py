"""Whole builds of small logs: what is published, what is refused, and that bytes do not depend on who made them."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fieldwise.features.build.split import TEST, TRAIN, VALID, Splitter
from fieldwise.features.config import SplitConfig
from fieldwise.features.errors import ArtifactError, ConfigError, InputError, RefusedError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.snapshot.manifest import Manifest, load_snapshot
from fieldwise.features.snapshot.publish import Attempt
from fieldwise.pipelines.build import features as pipeline
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config

DAY = 86_400
START = 1_700_006_400  # midnight UTC


def write_day(path: Path, day: int, rows: int = 400, users: int = 40) -> None:
    """Rows of label, user, item, price, time; many rows repeat, as in real logs of few fields."""
    rng = np.random.default_rng(day)
    lines = [
        f"{int(rng.random() < 0.3)},u{rng.zipf(1.5) % users + 10 * day},i{rng.integers(20)},{rng.integers(9)}.5,"
        f"{START + day * DAY + 60 * i}"
        for i in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for day in range(3):
        write_day(tmp_path / f"day-{day}.csv", day)
    return tmp_path


def config_of(place: Path, **keys: Any) -> Config:
    """A config over ``day-*.csv``, with some keys changed."""
    document = {
        "name": "log",
        "source": {"path": "day-*.csv", "columns": ["label", "user", "item", "price", "at"]},
        "label": "label",
        "time": "at",
        "split": {"by": "hash", "key": "user", "valid": 0.15, "test": 0.15},
        "fields": [
            {"name": "user", "kind": "vocabulary", "min_count": 3},
            {"name": "item", "kind": "hash", "buckets": 32},
            {"name": "price", "kind": "number", "quantiles": 4},
        ],
        "model": {"kind": "lr"},
        "snapshot": {"rows_per_file": 300},
    } | keys
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_config(path)


def rows_of(directory: str, *roles: str) -> list[tuple[float, ...]]:
    """All rows of these roles, in the order of the manifest."""
    snapshot = load_snapshot(directory)
    tables = [pq.read_table(snapshot.path(e)) for e in snapshot.manifest.files_of(roles)]
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def everything(directory: str) -> list[tuple[float, ...]]:
    return rows_of(directory, "train", "valid", "test", "all")


def test_published_rows_are_the_encoders(log: Path) -> None:
    result = build_features(config_of(log))
    snapshot = load_snapshot(result["dir"])
    raw = [line.split(",") for day in range(3) for line in (log / f"day-{day}.csv").read_text().split()]
    batch = pa.table({name: [row[i] for row in raw] for i, name in enumerate(["label", "user", "item", "price"])})
    slots = Encoder(snapshot.spec).encode(batch).slots
    expected = sorted(
        (*map(int, row), float(label)) for row, label in zip(slots, batch["label"].to_pylist(), strict=True)
    )
    assert sorted(everything(result["dir"])) == expected
    assert sum(result["rows"].values()) == 1200
    assert result["status"] == "published"
    assert result["source_files"] == 3
    assert [(Path(entry.path).name, entry.rows) for entry in snapshot.manifest.sources or []] == [
        (f"day-{day}.csv", 400) for day in range(3)
    ]
    assert result["positives"]["train"] == sum(row[-1] for row in rows_of(result["dir"], "train"))
    for entry in snapshot.manifest.files:
        metadata = pq.ParquetFile(snapshot.path(entry)).metadata
        assert (metadata.num_row_groups, metadata.num_rows) == (1, entry.rows)
        schema = pq.read_schema(snapshot.path(entry))
        assert [f.type for f in schema] == [pa.int32()] * 3 + [pa.float32()]
        assert not any(f.nullable for f in schema)


def test_rows_with_one_key_share_a_role_and_fitting_sees_training_rows_only(log: Path) -> None:
    result = build_features(config_of(log))
    spec = load_snapshot(result["dir"]).spec
    known = set(spec.vocabularies["user"].values.to_pylist())
    users = {role: {int(row[0]) for row in rows_of(result["dir"], role)} - {2} for role in ("train", "valid", "test")}
    assert users["train"] == {3 + i for i in range(len(known))}
    assert users["valid"] == users["test"] == set()  # other users: all unseen
    counted = spec.vocabularies["user"].counts.sum()
    assert counted == sum(row[0] >= 3 for row in rows_of(result["dir"], "train"))


def test_bytes_do_not_depend_on_ranges_nor_compression(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_features(config_of(log))
    monkeypatch.setattr(pipeline, "RANGE_BYTES", 1500)
    again = build_features(config_of(log), replace=True)
    for path in sorted(log.glob("day-*.csv")):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    source = {"path": "day-*.csv.gz", "columns": ["label", "user", "item", "price", "at"]}
    zipped = build_features(config_of(log, source=source, workspace="zipped"))
    assert first["digest"] == again["digest"] == zipped["digest"]
    assert first["files"] >= 4


def test_a_rerun_returns_what_stands_and_another_request_is_refused(log: Path) -> None:
    first = build_features(config_of(log))
    before = sorted(os.listdir(first["dir"]))
    assert build_features(config_of(log))["status"] == "already published"
    other = config_of(log, snapshot={"rows_per_file": 100})
    with pytest.raises(ArtifactError, match="--replace") as refusal:
        build_features(other)
    assert refusal.value.exit_code == 2
    assert sorted(os.listdir(first["dir"])) == before
    replaced = build_features(other, replace=True)
    assert replaced["status"] == "published"
    assert replaced["files"] > first["files"]
    assert len(os.listdir(first["dir"])) == 2  # manifest and the new data; the old data is gone


def test_split_by_time_keeps_equal_times_together(log: Path) -> None:
    rows = [f"{i % 2},u{i % 7},i,1,{START + 100 * (i // 30)}" for i in range(300)]  # ten moments of 30 rows
    (log / "day-0.csv").write_text("\n".join(rows) + "\n")
    source = {"path": "day-0.csv", "columns": ["label", "user", "item", "price", "at"]}
    result = build_features(config_of(log, source=source, split={"by": "time", "valid": 0.12, "test": 0.18}))
    assert result["rows"] == {"train": 210, "valid": 30, "test": 60}  # nearest to 210, 36, 54


def test_split_by_files(log: Path) -> None:
    result = build_features(config_of(log, split={"by": "files", "valid": "day-1.csv", "test": ["*-2.csv"]}))
    assert result["rows"] == {"train": 400, "valid": 400, "test": 400}


def test_patterns_of_a_split_may_hold_brackets() -> None:
    splitter = Splitter(
        SplitConfig(by="files", valid="day[1].csv", test=["*/run[2]/*", "last[3]/a.csv", "day-[45].csv"])
    )
    paths = ["/x/day[1].csv", "/x/run[2]/a.csv", "/x/last[3]/a.csv", "/x/day-4.csv", "/x/day-6.csv", "/x/b.csv"]
    assert [splitter.of_path(path) for path in paths] == [VALID, TEST, TEST, TEST, TRAIN, TRAIN]


def test_without_shuffle_the_same_rows_in_source_order(log: Path) -> None:
    placed = build_features(config_of(log))
    straight = build_features(config_of(log, snapshot={"rows_per_file": 300, "shuffle": "none"}, workspace="straight"))
    assert sorted(everything(placed["dir"])) == sorted(everything(straight["dir"]))
    assert placed["spec_digest"] == straight["spec_digest"]
    labels = [float(line[0]) for day in range(3) for line in (log / f"day-{day}.csv").read_text().split()]
    alone = build_features(config_of(log, split={}, snapshot={"shuffle": "none"}, workspace="alone"))
    assert [row[-1] for row in rows_of(alone["dir"], "all")] == labels


def test_a_frozen_spec_encodes_later_days_and_counts_the_unseen(log: Path) -> None:
    base = build_features(config_of(log, split={}), date="2023-11-15")
    later = build_features(config_of(log, split={}), date="2023-11-16", spec=base["dir"])
    assert base["rows"] == later["rows"] == {"all": 400}
    assert later["spec_digest"] == base["spec_digest"]
    manifest = load_snapshot(later["dir"]).manifest
    assert manifest.id == "2023-11-16"
    assert manifest.filtered == 800  # rows of other days
    assert manifest.fields["user"].unseen == sum(row[0] == 2 for row in everything(later["dir"])) > 0
    other = config_of(log, split={}, fields=[{"name": "user", "kind": "vocabulary"}])
    with pytest.raises(
        ArtifactError, match=r"fields: item is gone; fields: price is gone; fields\.user\.min_count: spec 3, config 4"
    ):
        build_features(other, date="2023-11-16", spec=base["dir"])


def test_negatives_are_sampled_in_training_only_and_always_the_same(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_features(config_of(log))
    sampled = build_features(config_of(log, snapshot={"negative_rate": 0.25}, workspace="sampled"))
    manifest = load_snapshot(sampled["dir"]).manifest
    assert manifest.negative_rate == 0.25
    assert {r: sampled["rows"][r] for r in ("valid", "test")} == {r: whole["rows"][r] for r in ("valid", "test")}
    assert sampled["positives"] == whole["positives"]
    negatives = whole["rows"]["train"] - whole["positives"]["train"]
    kept = sampled["rows"]["train"] - sampled["positives"]["train"]
    assert kept == pytest.approx(negatives / 4, rel=0.3)
    assert manifest.dropped_negatives == negatives - kept
    monkeypatch.setattr(pipeline, "RANGE_BYTES", 2000)
    assert build_features(config_of(log, snapshot={"negative_rate": 0.25}), replace=True)["digest"] == sampled["digest"]


def test_unreadable_rows_go_to_quarantine_with_place_reason_and_text(log: Path) -> None:
    good = (log / "day-1.csv").read_bytes()
    (log / "day-1.csv").write_bytes(
        b"1,u1,i1,cheap,1700000005\n" + good + b"1,u1\n7,u1,i1,1,1700000006\n1,\xff\xfe,i1,1,1700000000\n"
    )
    with pytest.raises(
        RefusedError,
        match=r"at most 0\.1000% .* 4 of 1204 .*column_count: 1 row, such as '1,u1' at .*day-1.csv line 402",
    ) as refusal:
        build_features(config_of(log))
    assert refusal.value.exit_code == 3
    for reason in (
        "bad_label of label: 1",
        "undecodable: 1",
        "bad_number of price: 1 row, such as 'cheap' at",
    ):  # the encoder's too, though it never ran
        assert reason in str(refusal.value)
    assert not list((log / "work").glob("**/*.parquet"))
    result = build_features(config_of(log, snapshot={"max_bad_fraction": 0.01}))
    snapshot = load_snapshot(result["dir"])
    assert sum(result["rows"].values()) == 1200
    table = pq.read_table(f"{snapshot.data_dir}/quarantine.parquet").to_pylist()
    assert sum(result["quarantined"].values()) == len(table) == 4
    assert {row["path"].rsplit("/", 1)[-1] for row in table} == {"day-1.csv"}
    lines = {row["raw"].rstrip(b"\n"): row for row in table}
    assert lines[b"1,u1,i1,cheap,1700000005"]["position"] == 0
    assert lines[b"1,u1"]["position"] == 25 + len(good)
    assert lines[b"1,u1,i1,cheap,1700000005"]["value"] == "cheap"
    assert {lines[b"1,u1,i1,cheap,1700000005"]["field"], lines[b"7,u1,i1,1,1700000006"]["field"]} == {"price", "label"}


def test_quarantine_and_moments_are_told_on_screen_in_the_result_and_on_the_page(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (log / "day-2.csv").open("a") as file:
        file.write("1,u1,i1,<b>\x1b[31m,1700179200\n1,u1,i1,1,0\n1,u1,i1,1,14102100\n")
    result = build_features(config_of(log, snapshot={"max_bad_fraction": 0.01}))
    assert result["moments"] == ["2023-11-15T00:00:00+00:00", "2023-11-17T06:39:00+00:00"]
    first, second = result["quarantine"]
    place = f"{log}/day-2.csv line"
    assert (first["reason"], first["field"], first["rows"]) == ("bad_time", "time", 2)
    assert [(s["value"], s["where"]) for s in first["samples"]] == [("0", f"{place} 402"), ("14102100", f"{place} 403")]
    assert (second["field"], second["samples"][0]["where"]) == ("price", f"{place} 401")
    said = capsys.readouterr().err
    assert f"  bad_number of price: 1 row, such as '<b>\\x1b[31m' at {place} 401\n" in said
    assert (
        "'14102100' reads as 1970-06-13T05:15:00+00:00 under time.format auto: expected a moment from 1990-01-01"
        in said
    )
    assert "  moments 2023-11-15T00:00:00+00:00 to 2023-11-17T06:39:00+00:00\n" in said
    page = Path(result["report"]).read_text()
    assert f"<code><bdi>&lt;b&gt;\\x1b[31m</bdi></code> <small><bdi>{place} 401</bdi></small>" in page
    assert "First moment <bdi>2023-11-15T00:00:00+00:00</bdi>, last <bdi>2023-11-17T06:39:00+00:00</bdi>." in page
    assert build_features(config_of(log, snapshot={"max_bad_fraction": 0.01}))["quarantine"] == result["quarantine"]


def test_rows_that_found_their_key_in_a_side_table_are_told(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the users without their letter, as numbers: none is met, and every age is missing."""
    fields = [{"name": "age", "kind": "hash", "buckets": 8}]
    pq.write_table(pa.table({"user": list(range(80)), "age": ["1"] * 80}), log / "users.parquet")
    join = {"path": "users.parquet", "format": "parquet", "on": "user"}
    result = build_features(config_of(log, fields=fields, join=[join]))
    assert result["joined"] == Manifest.load(result["dir"]).joined == {"users.parquet on user": 0}
    assert "join users.parquet on user: 0 rows met one of the table: NO KEY OF THE LOG" in capsys.readouterr().err
    pq.write_table(pa.table({"user": [f"u{n}" for n in range(10)], "age": ["1"] * 10}), log / "users.parquet")
    result = build_features(config_of(log, fields=fields, join=[join]), replace=True)
    assert 0 < result["joined"]["users.parquet on user"] < 1200


@pytest.mark.parametrize(
    ("keys", "error", "said"),
    [
        ({"filter": "price > 100"}, InputError, "source: expected rows"),
        ({"weight": "price * 0"}, InputError, "split train: expected positive weight in both classes, found 0 on pos"),
        ({"weight": "label"}, InputError, r"split train: expected positive weight .* on positives, 0 on negatives"),
        ({"label": "label >= 0"}, InputError, "both classes"),
        ({"split": {"by": "hash", "key": "item", "valid": 0.0001, "test": 0.1}}, InputError, r"split\.valid"),
        ({"split": {"by": "files", "valid": "nothing*", "test": "day-2*"}}, InputError, r"split\.valid"),
        ({"split": {"by": "hash", "key": "nobody", "valid": 0.1, "test": 0.1}}, InputError, "nobody"),
        ({"split": {"by": "time", "valid": 0.1, "test": 0.1}, "time": None}, ConfigError, r"time"),
        ({"source": {"path": "{date}.csv", "columns": ["label"]}}, ConfigError, "--date"),
    ],
)
def test_what_cannot_be_built_is_refused_and_leaves_nothing(
    log: Path, keys: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as refusal:
        build_features(config_of(log, **keys))
    assert refusal.value.exit_code == 2  # type: ignore[attr-defined]
    assert not list((log / "work").glob("**/*.json"))
    assert not list((log / "work").glob("**/*.parquet"))


@pytest.mark.parametrize("same", [True, False])
def test_two_builds_of_a_day_at_once_end_with_one_whole_snapshot(
    log: Path, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=60)
    publish = Attempt.publish

    def publish_together(self: Attempt, manifest: Manifest, *, replace: bool) -> Manifest:
        both.wait()  # each has all its data written when it tries
        return publish(self, manifest, replace=replace)

    monkeypatch.setattr(Attempt, "publish", publish_together)
    configs = [config_of(log), config_of(log) if same else config_of(log, snapshot={"rows_per_file": 100})]
    with ThreadPoolExecutor(2) as pool:
        builds = [pool.submit(build_features, config) for config in configs]
    results = [build.result() for build in builds if build.exception() is None]
    errors = [error for build in builds if (error := build.exception()) is not None]
    assert len({result["digest"] for result in results}) == 1
    assert [result["status"] for result in results].count("published") == 1
    if same:
        assert sorted(result["status"] for result in results) == ["already published", "published"]
    else:
        (refusal,) = errors
        assert isinstance(refusal, ArtifactError)
        assert "another request" in str(refusal)
        assert "Build it anew with `fieldwise features --replace`" in str(refusal)
    directory = results[0]["dir"]
    snapshot = load_snapshot(directory)
    assert set(os.listdir(directory)) == {"manifest.json", snapshot.manifest.data}
    for entry in snapshot.manifest.files:
        assert hashlib.sha256(Path(snapshot.path(entry)).read_bytes()).hexdigest() == entry.sha256
    assert len(everything(directory)) == 1200
