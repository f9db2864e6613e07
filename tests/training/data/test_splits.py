"""Snapshots become splits, or one message says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fieldwise.features.errors import ArtifactError, InputError
from fieldwise.training.data.files import read_floats
from fieldwise.training.data.splits import Split, TrainData
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, write_snapshot

SPEC = hash_spec((20, 30))
DAYS = {"2026-01-01": 9, "2026-01-02": 8, "2026-01-03": 7}


def test_a_split_snapshot_and_days_as_roles(tmp_path: Path) -> None:
    split = write_snapshot(tmp_path / "s", SPEC, {"train": [30, 20], "valid": [10], "test": [15]})
    data = TrainData.of_one(split)
    assert [part.rows for part in (data.train, data.valid, data.test)] == [50, 10, 15]
    days = [write_snapshot(tmp_path / day, SPEC, {"all": [n]}, name=day) for day, n in DAYS.items()]
    data = TrainData.of(days[:2], days[2:])
    assert [part.rows for part in (data.train, data.valid, data.test)] == [17, 7, 0]
    assert data.snapshots == {day.manifest.id: day.manifest.digest for day in days}
    assert all(Path(file.path).exists() for file in data.train.files)


def test_what_does_not_belong_together_is_refused_by_name(tmp_path: Path) -> None:
    one = write_snapshot(tmp_path / "one", SPEC, {"all": [30]}, name="one")
    other = write_snapshot(tmp_path / "other", hash_spec((21, 30)), {"all": [30]}, name="other")
    with pytest.raises(ArtifactError, match=rf"{other.dir}: expected the feature spec {SPEC.digest[:12]} of {one.dir}"):
        TrainData.of([one], [other])
    weighted = write_snapshot(tmp_path / "weighted", SPEC, {"all": [30]}, weighted=True, name="weighted")
    with pytest.raises(ArtifactError, match="expected no weight as in"):
        TrainData.of([one, weighted])
    with pytest.raises(ArtifactError, match="expected an unsplit snapshot in one role, found it in train and valid"):
        TrainData.of([one], [one])
    sampled = write_snapshot(tmp_path / "sampled", SPEC, {"train": [300]}, negative_rate=0.5, name="sampled")
    with pytest.raises(ArtifactError, match=r"one negative-downsampling rate, found 0\.5, None"):
        TrainData.of([one, sampled])
    with pytest.raises(InputError, match="at least one snapshot"):
        TrainData.of([])


def test_empty_splits_and_single_classes_are_refused(tmp_path: Path) -> None:
    negative = write_snapshot(tmp_path / "s", SPEC, {"train": [30]}, logit=lambda slots: slots[:, 0] * 0.0 - 100)
    data = TrainData.of_one(negative)
    with pytest.raises(InputError, match="split train: expected rows of both classes, found 30 rows, all labelled 0"):
        data.train.require_both_classes()
    with pytest.raises(InputError, match="split valid: expected rows of both classes, found no rows"):
        data.valid.require_both_classes()


def test_classes_without_weight_are_refused_by_the_manifest(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path, SPEC, {"train": [30], "valid": [20, 20]}, weighted=True)
    weights = {"train": (4.0, 0.5), "valid": (9.0, 0.0)}
    files = [file.model_copy(update={"weights": weights[file.role]}) for file in snapshot.manifest.files]
    known = replace(snapshot, manifest=snapshot.manifest.model_copy(update={"files": files}))
    data = TrainData.of_one(known)
    assert data.train.weights == (4.0, 0.5)
    data.train.require_both_classes()
    words = "split valid: expected positive weight in both classes, found 0 on positives, 18 on negatives"
    with pytest.raises(InputError, match=words):
        data.require_both_classes(valid=False)
    assert TrainData.of_one(snapshot).valid.weights is None  # a manifest from before says nothing
    half = replace(
        snapshot, manifest=snapshot.manifest.model_copy(update={"files": [files[0], *snapshot.manifest.files[1:]]})
    )
    assert TrainData.of_one(half).valid.weights is None


def test_base_rate_counts_weights(tmp_path: Path) -> None:
    plain = TrainData.of([write_snapshot(tmp_path / "a", SPEC, {"train": [200, 300]})]).train
    assert plain.base_rate(World()) == plain.positives / 500
    weighted = TrainData.of([write_snapshot(tmp_path / "b", SPEC, {"train": [200, 300]}, weighted=True)]).train
    assert weighted.base_rate(World()) != pytest.approx(weighted.positives / 500, rel=1e-3)
    assert 0.1 < weighted.base_rate(World()) < 0.9


def labels_of(split: Split) -> list[float]:
    return [label for file in split.files for label in read_floats(file, ["label"])[0]]


def test_a_sample_is_the_first_rows_of_files_spread_evenly(tmp_path: Path) -> None:
    split = TrainData.of_one(write_snapshot(tmp_path / "s", SPEC, {"train": [100] * 20})).train
    assert split.sample(2000) is split
    sample = split.sample(300)
    assert [file.path for file in sample.files] == [file.path for file in split.files[::2]]
    assert [(file.first, file.rows, file.whole) for file in sample.files] == [(0, 30, 100)] * 10
    assert (sample.rows, sample.positives) == (300, sum(labels_of(sample)))
    assert labels_of(sample)[:30] == labels_of(split)[:30]
    assert split.sample(1).rows == 10, "a row of every file"


def test_a_tenth_is_held_out(tmp_path: Path) -> None:
    """The last days, or of one snapshot the last rows of every file; no row is on both sides, none is lost."""
    split = TrainData.of_one(write_snapshot(tmp_path / "s", SPEC, {"train": [105, 200, 3]})).train
    train, valid = split.held_out()
    assert [(file.first, file.rows) for file in train.files] == [(0, 95), (0, 180), (0, 3)]
    assert [(file.first, file.rows) for file in valid.files] == [(95, 10), (180, 20)]
    assert (train.role, valid.role) == ("train", "valid")
    assert train.positives + valid.positives == split.positives == sum(labels_of(split))
    assert valid.positives == sum(labels_of(valid))

    sizes = {"2026-01-01": [500, 400], "2026-01-02": [60], "2026-01-03": [50, 1]}
    days = [write_snapshot(tmp_path / day, SPEC, {"all": rows}, name=day) for day, rows in sizes.items()]
    train, valid = TrainData.of(days).train.held_out()
    assert [file.rows for file in train.files] == [500, 400]
    assert [file.rows for file in valid.files] == [60, 50, 1], "one day is not a tenth"
