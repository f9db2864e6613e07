"""Small published snapshots with planted labels, written in the real format without Spark."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import (
    FileEntry,
    Manifest,
    Snapshot,
    load_snapshot,
    rows_digest,
    snapshot_digest,
)

Logit = Callable[[np.ndarray], np.ndarray]
_NOTHING = "0" * 64
PLANTED = """
name: planted
source: {path: log.csv}
label: click
fields: [{name: "f{0..1}", kind: hash, buckets: 10}]
model: {kind: lr}
"""
"""A config for `hash_spec`'s snapshots of two fields of ten buckets, but for ``training``."""


def hash_spec(buckets: Sequence[int] = (20, 30, 5), max_values: Sequence[int] | None = None) -> FeatureSpec:
    """Hash fields f0, f1, ...; those with max_values > 1 are multi-valued with mean pooling."""
    configs = [
        HashField(kind="hash", name=f"f{i}", buckets=n, **({"separator": "|", "max_values": m} if m > 1 else {}))
        for i, (n, m) in enumerate(zip(buckets, max_values or [1] * len(buckets), strict=True))
    ]
    return FeatureSpec.assemble(configs, {config.name: config.fit(None) for config in configs})


def random_slots(spec: FeatureSpec, rows: int, rng: np.random.Generator) -> np.ndarray:
    """int32 [rows, S]; values are long-tailed, lists have 1 to max_values entries before their padding."""
    columns = []
    for field in spec.fields:
        values = 1 + (field.size - 1) * rng.random((rows, field.slots)) ** 2
        length = rng.integers(1, field.slots + 1, rows)
        columns.append(np.where(np.arange(field.slots) < length[:, None], values, 0).astype(np.int32))
    return np.concatenate(columns, axis=1)


def planted_logit(spec: FeatureSpec, seed: int = 7) -> Logit:
    """A crossing of the first two slots on top of a linear part."""
    rng = np.random.default_rng(seed)
    linear = rng.normal(0, 0.5, (spec.slots, max(field.size for field in spec.fields)))
    left, right = rng.normal(0, 1, (2, linear.shape[1], 2))

    def logit(slots: np.ndarray) -> np.ndarray:
        crossing = (left[slots[:, 0]] * right[slots[:, 1]]).sum(1)
        return linear[np.arange(spec.slots), slots].sum(1) + crossing - 0.5

    return logit


def write_snapshot(
    directory: Path,
    spec: FeatureSpec,
    files: Mapping[str, Sequence[int]],
    *,
    logit: Logit | None = None,
    weighted: bool = False,
    negative_rate: float | None = None,
    seed: int = 0,
    name: str = "all",
    config: dict[str, Any] | None = None,
) -> Snapshot:
    """Publish a snapshot with files of the given row counts per role; ``config``: its record."""
    rng = np.random.default_rng(seed)
    logit = logit or planted_logit(spec)
    data = directory / "data-test"
    data.mkdir(parents=True)
    spec.save(str(data))
    entries = []
    for role, counts in files.items():
        for number, rows in enumerate(counts):
            slots = random_slots(spec, rows, rng)
            label = (rng.random(rows) < 1 / (1 + np.exp(-logit(slots)))).astype(np.float32)
            if negative_rate is not None and role == "train":
                kept = (label == 1) | (rng.random(rows) < negative_rate)
                slots, label = slots[kept], label[kept]
            columns = {column: slots[:, s] for s, column in enumerate(spec.slot_names)} | {"label": label}
            if weighted:
                columns["weight"] = rng.choice(np.array([0.0, 0.5, 1.0, 3.0], np.float32), len(label))
            entries.append(write_file(data / f"{role}-{number:05d}.parquet", role, columns))
    manifest = Manifest(
        id=name,
        spec_digest=spec.digest,
        source_fingerprint=_NOTHING,
        request=_NOTHING,
        data=data.name,
        slot_names=spec.slot_names,
        has_weight=weighted,
        files=entries,
        quarantined={},
        filtered=0,
        dropped_negatives=0,
        negative_rate=negative_rate,
        fields={},
        config=config,
        digest=snapshot_digest(spec.digest, [entry.identity for entry in entries]),
    )
    (directory / "manifest.json").write_bytes(manifest.to_json())
    return load_snapshot(str(directory))


def write_file(path: Path, role: str, columns: Mapping[str, np.ndarray]) -> FileEntry:
    """One Parquet file of non-null columns and its manifest entry."""
    schema = pa.schema([pa.field(name, pa.from_numpy_dtype(values.dtype), False) for name, values in columns.items()])
    table = pa.table([pa.array(values) for values in columns.values()], schema=schema)
    pq.write_table(table, path, row_group_size=max(1, len(table)))
    slots = [values for name, values in columns.items() if name not in ("label", "weight")]
    return FileEntry(
        path=path.name,
        role=role,
        rows=len(table),
        positives=int(columns["label"].sum()),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        rows_sha256=rows_digest(np.stack(slots, axis=1), columns["label"], columns.get("weight")),
        bytes=path.stat().st_size,
    )
