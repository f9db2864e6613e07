"""A small published snapshot, for tests that need one."""

from __future__ import annotations

import hashlib

import numpy as np

from fieldwise.features import store
from fieldwise.features.build import files
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import MANIFEST, FieldCounts, Manifest, snapshot_digest

SHA = hashlib.sha256(b"").hexdigest()


def published(directory: str, data: str = "data-0") -> Manifest:
    """A snapshot of ten rows of one hash field, as a build leaves it."""
    config = HashField(name="user", kind="hash", buckets=16)
    spec = FeatureSpec.assemble([config], {"user": config.fit(None)})
    where = store.join(directory, data)
    store.make_dir(where)
    spec.save(where)
    schema = files.snapshot_schema(spec.slot_names, has_weight=False)
    entry = files.write_rows(
        where, 0, "00000", schema, np.full((10, 1), 5, np.int32, order="F"), np.ones(10, np.float32), None
    )
    manifest = Manifest(
        id="all", spec_digest=spec.digest, source_fingerprint=SHA, request=SHA, data=data, slot_names=spec.slot_names,
        has_weight=False, files=[entry], quarantined={}, filtered=0, dropped_negatives=0, negative_rate=None,
        fields={"user": FieldCounts(values=10, missing=0, unseen=0)},
        digest=snapshot_digest(spec.digest, [entry.identity]),
    )  # fmt: skip
    store.write_atomic(store.join(directory, MANIFEST), manifest.to_json())
    return manifest
