"""Click logs to measure training on: long-tailed slots, and a published snapshot of them without a feature job.

Two thirds of the fields are small (8 to 1,150 values), the others share the remaining rows of the table; values follow
a Zipf law (exponent 1.05). With 39 fields in 2^20 rows a batch of 4,096 touches about 24,000 distinct table rows, 75 %
of them once; the first 4,096 rows of Criteo's public sample touch 23,300, 71 % of them once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fieldwise.features.build.files import snapshot_schema, write_rows
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import Manifest, snapshot_digest
from fieldwise.features.snapshot.publish import Attempt

SMALL = [25, 80, 60, 25, 190, 76, 50, 26, 73, 8, 21, 18, 40, 180, 400, 56, 10, 93, 12, 24, 12, 600, 9, 10, 15, 40, 1150]
FILE_ROWS = 65536
ZEROS = hashlib.sha256(b"").hexdigest()
Slots = npt.NDArray[np.int32]


def field_sizes(fields: int, rows: int) -> list[int]:
    """Sizes of fields that fill a table of ``rows`` rows."""
    small = [SMALL[i % len(SMALL)] + 3 for i in range(fields * 27 // 39)]
    rest, large = rows - sum(small), fields - len(small)
    return small + [rest // large + (i < rest % large) for i in range(large)]


def long_tailed(sizes: list[int], rows: int, seed: int = 0) -> Slots:
    """Slots [rows, F] in Fortran order: Zipf-distributed values in a random order of popularity."""
    rng = np.random.default_rng(seed)
    slots = np.empty((len(sizes), rows), np.int32)
    for field, size in enumerate(sizes):
        shares = np.cumsum(np.arange(1, size - 2, dtype=np.float64) ** -1.05)
        ranks = np.searchsorted(shares, rng.random(rows) * shares[-1])
        slots[field] = 3 + rng.permutation(size - 3)[np.minimum(ranks, size - 4)]
    return slots.T


def labels_of(sizes: list[int], slots: Slots, seed: int = 0) -> npt.NDArray[np.float32]:
    """Labels of a logistic regression: every value has a weight of deviation 0.3; about a quarter are clicks."""
    rng = np.random.default_rng([seed, 1])
    logit = np.full(len(slots), -1.3)
    for field, size in enumerate(sizes):
        logit += rng.normal(0, 0.3, size)[slots[:, field]]
    return (rng.random(len(slots)) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def publish(directory: Path, sizes: list[int], slots: Slots, label: npt.NDArray[np.float32]) -> str:
    """A snapshot of training rows, written as feature jobs write theirs; returns its directory."""
    configs = [HashField(kind="hash", name=f"f{i}", buckets=size - 3) for i, size in enumerate(sizes)]
    spec = FeatureSpec.assemble(configs, {config.name: config.fit(None) for config in configs})
    schema = snapshot_schema(spec.slot_names, has_weight=False)
    with Attempt(str(directory)) as attempt:
        spec.save(attempt.data_dir)
        files = [
            write_rows(attempt.data_dir, 0, f"{at:09d}", schema, slots[at : at + FILE_ROWS], label[at : at + FILE_ROWS],
                       None)
            for at in range(0, len(slots), FILE_ROWS)
        ]  # fmt: skip
        manifest = Manifest(
            id="all", spec_digest=spec.digest, source_fingerprint=ZEROS, request=ZEROS, data=attempt.data,
            slot_names=spec.slot_names, has_weight=False, files=files, quarantined={}, filtered=0, dropped_negatives=0,
            negative_rate=None, fields={}, digest=snapshot_digest(spec.digest, [file.identity for file in files]),
        )  # fmt: skip
        attempt.publish(manifest, replace=True)
    return str(directory)
