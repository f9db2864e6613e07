"""What a snapshot's rows follow from, and how two records differ."""

from __future__ import annotations

from typing import Any

import pytest

from fieldwise.features.config import FeatureConfig
from fieldwise.features.snapshot.record import (
    check_record,
    differences,
    field_differences,
    record_of,
    same_files,
    without_paths,
)

BASE: dict[str, Any] = {
    "source": {"path": "s3://key:secret@logs/{date}.csv"},
    "join": [{"path": "users.csv", "on": "user"}],
    "label": "rating >= 4",
    "time": "when",
    "fields": [{"name": "user", "kind": "hash"}, {"name": "age", "kind": "number", "quantiles": 10}],
}
KEYS = ("source", "join", "label", "weight", "filter", "time", "label_delay", "split", "snapshot")


def config(**changes: Any) -> FeatureConfig:
    return FeatureConfig.model_validate({**BASE, **changes})


def told(*, same_paths: bool = True, **changes: Any) -> list[str]:
    before, now = record_of(config()), record_of(config(**changes))
    return differences(before, now, KEYS, names=("snapshot", "config"), same_paths=same_paths)


def test_paths_stand_as_written_and_without_passwords() -> None:
    record = record_of(config(), [["${LOGS}/{date}.csv"], ["s3://me:pw@side/users.csv"]])
    assert record["source"]["path"] == ["${LOGS}/{date}.csv"]
    assert record["join"][0]["path"] == ["s3://me:***@side/users.csv"]
    assert record_of(config())["source"]["path"] == ["s3://key:***@logs/{date}.csv"]
    assert "fields" not in record


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"label": " (rating>=4) "}, []),
        ({"time": {"column": "when"}}, []),
        ({"label": "rating >= 5"}, ["label: snapshot rating >= 4, config rating >= 5"]),
        ({"label": "rating >= 4.5"}, ["label: snapshot rating >= 4, config rating >= 4.5"]),
        ({"weight": "price"}, ["weight: snapshot none, config price"]),
        ({"filter": "a == 'x  y'"}, ["filter: snapshot none, config a == 'x  y'"]),
        ({"time": {"column": "when", "zone": "Europe/Berlin"}}, ["time.zone: snapshot UTC, config Europe/Berlin"]),
        ({"label_delay": "1d"}, ["label_delay: snapshot none, config 1d"]),
        ({"join": []}, ["join: snapshot user, config none"]),
        ({"join": [{"path": "users.csv", "on": "id"}]}, ["join.0.on: snapshot user, config id"]),
        ({"source": {**BASE["source"], "separator": "\t"}}, ["source.separator: snapshot none, config '\\t'"]),
        ({"source": {"path": "b.csv"}}, ["source.path: snapshot s3://key:***@logs/{date}.csv, config b.csv"]),
        (
            {"split": {"by": "hash", "key": "user", "valid": 0.1, "test": 0.2}},
            [
                "split.by: snapshot none, config hash",
                "split.valid: snapshot none, config 0.1",
                "split.test: snapshot none, config 0.2",
                "split.key: snapshot none, config user",
            ],
        ),
    ],
)
def test_differences_are_named(changes: dict[str, Any], expected: list[str]) -> None:
    assert told(**changes) == expected


def test_how_another_file_reads_is_its_own_affair() -> None:
    other = {"path": "b.tsv", "format": "tsv", "columns": ["user", "when"]}
    assert told(same_paths=False, source=other) == []
    assert told(same_paths=False, source={**BASE["source"], "format": "tsv"}) == [
        "source.format: snapshot csv, config tsv"
    ]
    assert told(same_paths=False, join=[{"path": "new.csv", "on": "id"}]) == ["join.0.on: snapshot user, config id"]


def test_what_a_later_version_adds_had_its_default() -> None:
    before, now = record_of(config()), record_of(config())
    now["source"]["mark"], now["later"] = None, None
    assert differences(before, now, (*KEYS, "later"), names=("a", "b"), same_paths=True) == []
    now["source"]["mark"] = "x"
    assert differences(before, now, KEYS, names=("a", "b"), same_paths=True) == ["source.mark: a none, b x"]


def test_fields() -> None:
    theirs, names = config().fields, ("snapshot", "config")
    user, age = BASE["fields"]
    assert field_differences(theirs, config().fields, names) == []
    ours = config(fields=[user, {**age, "quantiles": 20}, {"name": "hour", "kind": "time", "part": "hour"}]).fields
    assert field_differences(theirs, ours, names) == [
        "fields: hour is new",
        "fields.age.quantiles: snapshot 10, config 20",
    ]
    assert field_differences(theirs, config(fields=[user]).fields, names) == ["fields: age is gone"]
    ours = config(fields=[user, {"name": "age", "kind": "hash"}]).fields
    assert field_differences(theirs, ours, names) == ["fields.age.kind: snapshot number, config hash"]
    assert field_differences(theirs, config(fields=[age, user]).fields, names) == [
        "fields: snapshot in the order user, age, config age, user"
    ]


def test_a_bundle_tells_no_path_but_whether_it_is_the_same() -> None:
    kept = without_paths(record_of(config()))
    assert "csv" not in kept["source"]["path"]
    assert same_files(kept, without_paths(record_of(config())), source=True) == []
    swapped = config(source={**BASE["source"], "columns": ["b", "a"]})
    assert same_files(kept, without_paths(record_of(swapped)), source=True) == [
        "source.columns: model none, config b, a"
    ]
    assert (
        same_files(kept, without_paths(record_of(config(source={"path": "new.jsonl", "format": "jsonl"}))), source=True)
        == []
    )


@pytest.mark.parametrize("record", [5, {}, {"source": 1, "join": []}, {"source": {"path": []}, "join": 3}])
def test_what_is_no_record(record: Any) -> None:
    with pytest.raises(ValueError, match="no record of sources and joins"):
        check_record(record)


@pytest.mark.parametrize("written", [5, True, 1.5, [], {}, ["a"]])
def test_a_record_whose_expression_is_none(written: Any) -> None:
    record = without_paths(record_of(config()))
    check_record(record)
    with pytest.raises(ValueError, match="filter is no expression"):
        check_record({**record, "filter": written})
