"""Reports of whole builds, drift that stops a scheduler, and the next version of a spec."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from fieldwise.features.errors import ArtifactError, RefusedError
from fieldwise.features.report.report import Report, table
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot
from fieldwise.pipelines.agreement import source_files
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.build.refit import refit_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config

START = 1_700_006_400  # midnight UTC of 2023-11-15
DAYS = ["2023-11-15", "2023-11-16", "2023-11-17"]
FIELDS = [
    {"name": "user", "kind": "vocabulary", "min_count": 2},
    {"name": "item", "kind": "hash", "buckets": 64},
    {"name": "tags", "kind": "vocabulary", "min_count": 1, "separator": "|", "max_values": 3},
]


def write_log(place: Path, rows: int = 900) -> None:
    """One file of three days; on the third most users are new and clicks are twice as frequent."""
    draw = np.random.default_rng(0)
    lines = []
    for day in range(3):
        for n in range(rows):
            user = f"u{draw.integers(30)}" if day < 2 or draw.random() < 0.3 else f"new{draw.integers(30)}"
            tags = "|".join(draw.choice(list("pqrs"), draw.integers(0, 5)))
            moment = START + 86_400 * day + n * 86_400 // rows
            lines.append(f"{int(draw.random() < 0.2 * (1 + day // 2))},{user},i{draw.integers(40)},{tags},{moment}")
    (place / "log.csv").write_text("\n".join(lines) + "\n")


def config_of(place: Path, **keys: Any) -> Config:
    document = {
        "name": "log",
        "source": {"path": "log.csv", "columns": ["label", "user", "item", "tags", "at"]},
        "label": "label",
        "time": "at",
        "fields": FIELDS,
        "model": {"kind": "lr"},
        "daily": {"window": 2},
    } | keys
    (place / "config.yaml").write_text(yaml.safe_dump(document))
    return load_config(place / "config.yaml")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the first day fitted and the second and third encoded with its spec."""
    place = tmp_path_factory.mktemp("log")
    write_log(place)
    config = config_of(place)
    first = build_features(config, date=DAYS[0])
    for day in DAYS[1:]:
        build_features(config, date=day, spec=first["dir"])
    return place


def opened(place: Path, snapshot: str) -> tuple[Snapshot, Report]:
    return read(str(place / "work/log/snapshots" / snapshot))


def read(directory: str) -> tuple[Snapshot, Report]:
    found = load_snapshot(directory)
    return found, Report.load(f"{found.data_dir}/report.json")


def test_the_report_counts_what_the_files_hold(place: Path) -> None:
    snapshot, report = opened(place, DAYS[2])
    rows = pq.read_table([snapshot.path(file) for file in snapshot.manifest.files]).to_pylist()
    for field in snapshot.spec.fields:
        slots = [f"slot_{n:04d}" for n in range(field.first_slot, field.first_slot + field.slots)]
        values = Counter(row[slot] for row in rows for slot in slots if row[slot] != 0)
        tally, counted = report.fields[field.name].tally, snapshot.manifest.fields[field.name]
        assert tally.values == counted.values == values.total()
        assert tally.missing == counted.missing == values[1]
        assert tally.unseen == counted.unseen == values[2]
        most = sorted(((-n, index) for index, n in values.items() if index > 2))[:10]
        assert [(-value.count, value.index) for value in tally.top] == most
        clicks = Counter(row[slot] for row in rows for slot in slots if row["label"] == 1)
        assert [value.positives for value in tally.top] == [clicks[index] for _, index in most]
        assert sum(tally.groups) == values.total()
        assert tally.missing + tally.unseen <= tally.values  # lists of several values too
    assert snapshot.manifest.fields["tags"].values > len(rows)
    assert report.fields["item"].distinct == pytest.approx(40, abs=8)
    assert 0 < report.fields["user"].tally.unseen / report.rows < 0.9
    (day,) = report.days
    assert report.repeated == len(rows) - len({tuple(row.values()) for row in rows}) > 0
    seconds = np.arange(900) * 86_400 // 900
    assert report.hours == tuple(np.bincount(seconds // 3600).tolist())
    assert (day.day, day.rows, day.positives) == (DAYS[2], 900, sum(int(row["label"]) for row in rows))
    assert report.drift is not None
    assert report.drift.fields["user"].excess > 1 > 0.1 > report.drift.fields["item"].excess
    assert opened(place, DAYS[0])[1].drift is None  # its own rows


def test_training_rows_alone_make_the_distribution_and_days_count_dropped_negatives(place: Path) -> None:
    split = {"by": "time", "valid": 0.2, "test": 0.1}
    config = config_of(place, split=split, snapshot={"negative_rate": 0.5}, workspace="sampled")
    built = build_features(config)
    _, report = read(built["dir"])
    assert "snapshot all" in Path(built["report"]).read_text()
    rows, clicks = built["rows"], built["positives"]
    assert report.distribution.label == [2 * (rows["train"] - clicks["train"]), clicks["train"]]
    assert sum(report.distribution.fields["user"]) == sum(report.distribution.label)
    assert [day.rows for day in report.days] == pytest.approx([540, 540, 900], abs=60)
    assert [day.rate for day in report.days] == pytest.approx([0.2, 0.2, 0.4], abs=0.05)
    day = build_features(config, date=DAYS[0])
    assert day["rows"] == {"all": 900}
    assert load_snapshot(day["dir"]).manifest.negative_rate is None  # nothing was dropped: nothing to correct


def test_drift_past_a_threshold_stops_with_code_3_and_leaves_the_snapshot(place: Path) -> None:
    before = sorted(os.listdir(place / "work/log/snapshots"))
    spec = str(place / "work/log/snapshots" / DAYS[0])
    config = config_of(place, drift={"max_psi": 0.25, "max_label_psi": 0.01})
    assert build_features(config, date=DAYS[1], spec=spec)["status"] == "already published"
    for _ in range(2):
        with pytest.raises(RefusedError) as refused:
            build_features(config, date=DAYS[2], spec=spec)
    assert refused.value.exit_code == 3
    said = str(refused.value)
    assert "fields within a stability index of 0.25 and a label rate within 0.01" in said
    assert "field 'user'" in said
    assert "% unseen" in said
    assert "field 'item'" not in said
    assert "label rate 4" in said
    assert "--refit" in said
    assert sorted(os.listdir(place / "work/log/snapshots")) == before
    assert build_features(config, date=DAYS[2], spec=spec, against=f"{place}/work/log/snapshots/{DAYS[2]}")["drift"]


def test_the_calendar_is_no_drift_of_a_day(tmp_path: Path) -> None:
    write_log(tmp_path)
    parts = [{"name": part, "kind": "time", "part": part} for part in ("weekday", "day", "hour")]
    config = config_of(tmp_path, fields=[FIELDS[1], *parts], split={"by": "none"}, drift={"max_psi": 0.25})
    window = build_features(config)
    built = build_features(config, date=DAYS[1], spec=window["dir"])  # one weekday of three
    assert set(built["drift"]["fields"]) == {"item", "hour"}
    report = read(built["dir"])[1]
    (line,) = [line for line in table(report) if line.startswith("  weekday ")]
    assert " - " in line, "not measured"


def test_thresholds_without_rows_to_compare_with_are_refused(place: Path, tmp_path: Path) -> None:
    spec = load_snapshot(str(place / "work/log/snapshots" / DAYS[0])).spec
    spec.save(str(tmp_path))
    config = config_of(place, drift={"max_psi": 0.25}, workspace="elsewhere")
    with pytest.raises(ArtifactError, match="--against"):
        build_features(config, date=DAYS[1], spec=str(tmp_path))
    assert not (place / "elsewhere").exists()


def test_the_next_spec_stands_beside_the_old_and_says_what_moved(place: Path) -> None:
    first, _ = opened(place, DAYS[0])
    config = config_of(place, drift={"max_psi": 0.25})
    result = refit_features(config, date="2023-11-18", spec=first.dir)
    assert result["former"] == first.spec.digest != result["spec_digest"]
    user = result["moved"]["user"]
    assert (user["before"], user["kept"], user["new"]) == (30, 30, 30)
    assert user["moved"] > 0
    short = result["spec_digest"][:8]
    assert [built["snapshot"] for built in result["snapshots"]] == [f"{day}.{short}" for day in DAYS[1:]]
    assert {load_snapshot(built["dir"]).spec.digest for built in result["snapshots"]} == {result["spec_digest"]}
    assert opened(place, DAYS[1])[0].spec.digest == first.spec.digest
    # the window is what later days are compared with
    again = build_features(config_of(place), date=DAYS[2], spec=result["spec"])
    assert again["status"] == "already published"
    assert again["drift"]["against"].endswith("expected.json")
    assert again["drift"]["fields"]["user"]["psi"] > 0.1


def test_late_labels_hold_rows_back_to_the_day_they_settle(place: Path) -> None:
    config = config_of(place, label_delay="6h", workspace="late", split={"by": "none"})
    built = [build_features(config, date=day) for day in (DAYS[0], DAYS[1], "2023-11-18")]
    assert [day["rows"]["all"] for day in built] == [675, 900, 225]  # with the third day's 900 every row once
    assert [day.day for day in read(built[1]["dir"])[1].days] == DAYS[:2]
    everything = build_features(config)
    assert everything["rows"] == {"all": 2700 - 225}
    assert load_snapshot(everything["dir"]).manifest.filtered == 225


def test_a_day_with_late_labels_reads_the_file_of_the_day_before_too(tmp_path: Path) -> None:
    for day in DAYS:
        (tmp_path / f"log-{day}.csv").write_text("1,u,i,p,1700000000\n")
    source = {"path": "log-{date}.csv", "columns": ["label", "user", "item", "tags", "at"]}
    names = [
        [
            Path(file.path).name
            for file in source_files(config_of(tmp_path, source=source, label_delay=delay), [DAYS[2]])
        ]
        for delay in (None, "6h", "30h")
    ]
    assert names == [[f"log-{day}.csv" for day in DAYS[first:]] for first in (2, 1, 0)]
