"""Damage that a library reads without a word, or tells in its own: ours name the file, in one line, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.features.columns.text import plain
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ArtifactError, DamagedError, InputError
from fieldwise.features.process import machine
from fieldwise.features.source.raw import column_names, read_range
from fieldwise.features.source.rows import FileRange
from fieldwise.features.store.lease import alive
from fieldwise.pipelines.cycle.record import Record
from fieldwise.pipelines.score.output import MANIFEST, Output, write_part
from fieldwise.training.data.splits import TrainData
from fieldwise.training.ranks.world import World
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.registry import HISTORY, MOVE, Registry
from tests.snapshots import hash_spec, write_snapshot

PARQUET = SourceConfig.model_validate({"path": "x.parquet", "format": "parquet"})


def test_a_columns_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"user": ["a"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"user", b"\xf3ser"))
    with pytest.raises(InputError, match=r"x\.parquet: expected a whole Parquet file, found 'utf-8' codec"):
        column_names(PARQUET, str(path))


def test_values_behind_their_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    column = pa.array([f"u{n % 3}" for n in range(64)]).dictionary_encode()
    pq.write_table(pa.table({"user": column}), path, compression="none", write_statistics=False)
    content = path.read_bytes()
    packed = bytes(content[content.index(b"u2") + 2 :])
    at = content.index(b"u2") + 2 + packed.index(b"\x11\x24\x49"[1:])  # 0 1 2 0 1 2 ... in two bits each
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(InputError, match=r"x\.parquet: expected a whole Parquet file, found .*dictionary"):
        list(read_range(PARQUET, FileRange(str(path), 0, 1)))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([10**9], pa.int32()).view(pa.date32()), 10**9),
        (pa.array([2**62]).view(pa.timestamp("us", "Mars/x")), 2**62),
        (pa.array([b"\xffa"]).view(pa.string()), "\ufffda"),
    ],
)
def test_a_value_that_python_lacks(array: pa.Array, expected: object) -> None:
    assert plain(array[0]) == expected


def test_weights_of_a_snapshot_that_changed(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "s", hash_spec(), {"train": [50]}, weighted=True)
    train = TrainData.of([snapshot]).train
    path = Path(train.files[0].path)
    path.write_bytes(b"x" + path.read_bytes()[1:-1] + b"x")
    with pytest.raises(DamagedError, match=r"train-00000\.parquet: .*changed after its snapshot was published") as told:
        train.base_rate(World())
    assert told.value.exit_code == 2


def test_a_lease_of_a_process_without_number(tmp_path: Path) -> None:
    path = tmp_path / "lease-a.json"
    path.write_text(json.dumps({"host": machine(), "pid": float("inf"), "start": 1}))
    assert alive(str(path))  # its age tells


def test_a_days_record(tmp_path: Path) -> None:
    record = Record(str(tmp_path), "2026-01-01")
    record.step("champion", lambda: "models:/m/1")
    path = Path(record.path)
    path.write_text(path.read_text().replace("models:/m/1", "models:/m/2"))
    with pytest.raises(ArtifactError, match=r"2026-01-01\.json: .* Remove the file to do 2026-01-01 anew"):
        Record(str(tmp_path), "2026-01-01")


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({"champion": "models:/m/1", "line": {"model": "models:/m/1", "dates": ["../x"]}}, "it changed since it was"),
        ({"today": 5}, "it changed since it was written"), ({"champion": 5}, "one without champion"),
        ({"done": True}, "one without champion"), ({"champion": "models:/m/1", "config": {}}, "one without config"),
        ({"challenger": ["x"]}, "one without challenger"), ({"promotion": "x"}, "one without promotion"),
    ],
)  # fmt: skip
def test_a_days_record_without_a_seal(tmp_path: Path, steps: dict[str, object], told: str) -> None:
    """Taken off an edited record; those of earlier versions, which have none, are read."""
    (tmp_path / "daily").mkdir()
    path = tmp_path / "daily" / "2026-01-01.json"
    earlier = {"champion": "models:/m/1", "challenger": {"metrics": {}}, "promotion": {"kept": "1"}, "done": True}
    path.write_text(json.dumps(earlier))
    assert Record(str(tmp_path), "2026-01-01").steps == earlier
    path.write_text(json.dumps(steps))
    with pytest.raises(ArtifactError, match=rf"2026-01-01\.json: .* found {told}.* Remove the file to do"):
        Record(str(tmp_path), "2026-01-01")


def test_published_scores(tmp_path: Path) -> None:
    target = tmp_path / "date=all"
    output = Output(str(target), "request")
    with output:
        part = write_part(output.staging, 0, pa.table({"p": np.zeros(3)}), dictionary=[])
        output.publish([part], {})
    assert Output(str(target), "request").standing() is not None
    (target / part["path"]).unlink()
    with pytest.raises(ArtifactError, match=r"part-00000.*found no such file\. Remove .*date=all to make it anew"):
        Output(str(target), "request").standing()
    (target / MANIFEST).write_bytes(b"{")
    with pytest.raises(ArtifactError, match=r"_manifest\.json: expected JSON, found Expecting property name"):
        Output(str(target), "request").standing()


@pytest.mark.parametrize("told", ["[", "{}", "[1]", '["x"]'])
def test_former_champions(tmp_path: Path, told: str) -> None:
    runs.connect(f"sqlite:///{tmp_path}/m.db", str(tmp_path))
    runs.MlflowClient().create_registered_model("m", tags={HISTORY: told})
    with pytest.raises(ArtifactError, match=r"models:/m: expected former versions as JSON.*tag champion_history"):
        Registry("m", str(tmp_path)).rollback()
    runs.MlflowClient().set_registered_model_tag("m", MOVE, told)
    with pytest.raises(ArtifactError, match=r"models:/m: expected an interrupted move as JSON.*tag fieldwise.move"):
        Registry("m", str(tmp_path)).promote("1")
