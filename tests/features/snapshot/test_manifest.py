from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import MANIFEST, FileEntry, load_snapshot, rows_digest, snapshot_digest
from tests.features.snapshots import SHA, published


def changed(directory: str, **keys: object) -> None:
    document = json.loads(store.read_bytes(store.join(directory, MANIFEST)))
    store.write_atomic(store.join(directory, MANIFEST), json.dumps(document | keys).encode())


def test_a_published_snapshot_loads_whole(tmp_path):
    manifest = published(str(tmp_path))
    snapshot = load_snapshot(str(tmp_path))
    assert snapshot.manifest == manifest
    assert snapshot.spec.slot_names == ["slot_0000"]
    assert [e.rows for e in manifest.files_of(["train"])] == [10]
    assert manifest.files_of(["valid", "all"]) == []
    data = store.read_bytes(snapshot.path(manifest.files[0]))
    assert hashlib.sha256(data).hexdigest() == manifest.files[0].sha256


def test_no_manifest_is_no_snapshot(tmp_path):
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        load_snapshot(str(tmp_path))


def test_digest_is_of_spec_and_checksums_alone():
    assert snapshot_digest(SHA, [SHA]) == hashlib.sha256(f"{SHA}\n{SHA}".encode()).hexdigest()
    assert snapshot_digest(SHA, ["a" * 64, "b" * 64]) != snapshot_digest(SHA, ["b" * 64, "a" * 64])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 3}, "format_version"),
        ({"format_version": 1}, "files of format 2 have rows_sha256, those of format 1 have none"),
        ({"digest": "0" * 64}, "does not follow"),
        ({"data": "../elsewhere"}, "data"),
        ({"surprise": 1}, "surprise"),
        ({"files": []}, "files"),
        ({"data": "data-1"}, "no such file"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path, change, said):
    published(str(tmp_path))
    changed(str(tmp_path), **change)
    with pytest.raises(ArtifactError, match=said):
        load_snapshot(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("rows", 1 << 63, "rows"), ("rows", 1 << 41, "rows"), ("positives", 11, "more positives than rows"),
     ("bytes", 10**400, "bytes")],
)  # fmt: skip
def test_numbers_that_no_file_has_are_refused(tmp_path, key, value, said):
    entry = published(str(tmp_path)).files[0].model_dump(mode="json")
    changed(str(tmp_path), files=[entry | {key: value}])
    with pytest.raises(ArtifactError, match=said):
        load_snapshot(str(tmp_path))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", ".hidden", "a/b", ""])
def test_file_names_are_never_paths(path):
    with pytest.raises(ValueError, match="path"):
        FileEntry(path=path, role="train", rows=1, positives=0, sha256=SHA, bytes=1)


def test_truncated_file_and_foreign_spec_are_refused(tmp_path):
    manifest = published(str(tmp_path))
    data = tmp_path / "data-0" / manifest.files[0].path
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=f"{len(whole)} bytes as its manifest says, found {len(whole) - 1}"):
        load_snapshot(str(tmp_path))
    data.write_bytes(whole)
    config = HashField(name="user", kind="hash", buckets=17)
    FeatureSpec.assemble([config], {"user": config.fit(None)}).save(str(tmp_path / "data-0"))
    with pytest.raises(ArtifactError, match="feature spec"):
        load_snapshot(str(tmp_path))


def test_digests_do_not_depend_on_the_writer(tmp_path):
    """The same rows, written by another library with other options: other bytes, the same snapshot."""
    manifest = published(str(tmp_path))
    (entry,) = manifest.files
    path = tmp_path / "data-0" / entry.path
    pq.write_table(pq.read_table(path), path, version="1.0", compression="gzip")
    rewritten = entry.model_copy(
        update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    )
    assert rewritten.sha256 != entry.sha256
    changed(str(tmp_path), files=[rewritten.model_dump(mode="json")])
    assert load_snapshot(str(tmp_path)).manifest.digest == manifest.digest


def test_rows_digests_are_these():
    """Pinned: snapshots of different machines and versions are told apart and found equal by them."""
    slots, label = np.array([[1, -2], [3, 4], [5, 6]], np.int32), np.array([0, 1, 0], np.float32)
    packed = b"3 2 False\n" + struct.pack("<6i3f", 1, 3, 5, -2, 4, 6, 0, 1, 0)
    assert rows_digest(slots, label, None) == hashlib.sha256(packed).hexdigest()
    assert rows_digest(np.asfortranarray(slots), label, None) == hashlib.sha256(packed).hexdigest()
    weighted = packed.replace(b"False", b"True") + struct.pack("<3f", 1, 0.5, 2)
    assert rows_digest(slots, label, np.array([1, 0.5, 2], np.float32)) == hashlib.sha256(weighted).hexdigest()


def test_snapshots_of_format_1_stay_what_they_are(tmp_path):
    """Models name the snapshots that they have learned from by these digests."""
    manifest = published(str(tmp_path))
    entry = manifest.files[0].model_dump(mode="json")
    del entry["rows_sha256"]
    digest = snapshot_digest(manifest.spec_digest, [entry["sha256"]])
    changed(str(tmp_path), files=[entry], digest=digest, format_version=1)
    assert load_snapshot(str(tmp_path)).manifest.digest == digest != manifest.digest


def test_equal_rows_give_equal_bytes(tmp_path):
    first, second = (published(str(tmp_path / name)) for name in ("a", "b"))
    assert first.digest == second.digest
    assert first.files[0].path != second.files[0].path  # no two attempts share a name
