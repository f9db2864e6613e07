"""A published snapshot: what its manifest says, and the checks that make it trustworthy. No Spark.

    <snapshot>/manifest.json            exists only once published
    <snapshot>/data-<attempt>/...       Parquet files, spec.json, vocabulary.parquet, quarantine.parquet

The manifest names the data directory; files a job wrote but does not name are nobody's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import FailFast, Field, StringConstraints, model_validator

from fieldwise.features import store
from fieldwise.features.arrays import Float32, Int64
from fieldwise.features.errors import ArtifactError, InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.schema import Strict
from fieldwise.features.snapshot.record import check_record
from fieldwise.features.store import bounded

MANIFEST = "manifest.json"
QUARANTINE = "quarantine.parquet"

Role = Literal["train", "valid", "test", "all"]
MOST_BYTES = 32 << 20
"""Of a manifest: about 140,000 files."""
ROLES: tuple[Role, ...] = ("train", "valid", "test", "all")

PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
"""A file or directory name, never a path: a manifest cannot point outside its snapshot. Of a length that file systems
take, with the words that leases and temporary files put around it."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
MOST_ROWS = 1 << 40
"""Of a file: so many of so many files add up within int64."""
Count = Annotated[int, Field(ge=0, le=1 << 62)]
Weight = Annotated[float, Field(ge=0)]


MOST_TEXTS = 1000
"""Values of a column beside the rows whose texts a manifest keeps."""


def beside_name(at: int) -> str:
    """In the files, of a column beside the rows."""
    return f"beside_{at:04d}"


class Beside(Strict):
    """A raw column that travels beside the rows: XXH64 of its canonical texts, as int64."""

    column: str
    values: Annotated[list[str], Field(max_length=MOST_TEXTS)] | None
    """In ascending order, the empty text for missing ones; None where they are more."""


class FileEntry(Strict):
    """One Parquet file: one row group, int32 slots, float32 label and, if the snapshot has them, a float32 weight and
    int64 columns beside the rows."""

    path: PlainName
    """Name inside the data directory."""
    role: Role
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)]
    positives: Count
    sha256: Sha256
    """Of the file's bytes, which depend on the library that wrote them: tells damage."""
    rows_sha256: Sha256 | None = None
    """`rows_digest` of what the file holds, whatever wrote it; none in manifests of format 1."""
    bytes: Annotated[int, Field(ge=1, le=1 << 62)]
    weights: tuple[Weight, Weight] | None = None
    """Of the negatives and of the positives, summed; none where rows are not weighted, or in manifests from before."""

    @property
    def identity(self) -> str:
        """What the file is to a snapshot's digest."""
        return self.rows_sha256 or self.sha256


class SourceEntry(Strict):
    """One file that was read."""

    path: str
    rows: Count
    """Rows in it, whatever became of them."""


class FieldCounts(Strict):
    """How a field's values read, over all rows of the snapshot. A share of any is a share of ``values``."""

    values: Count
    """Values with a slot: the rows, for a field of one value; what lists hold, cut at ``max_values``, for others."""
    missing: Count
    """Values that were null or empty; a list without values is one."""
    unseen: Count
    """Values the fitted spec does not hold."""


class Manifest(Strict):
    """All of a snapshot but its rows. ``digest`` depends on the spec and the files' rows alone."""

    format_version: Literal[1, 2] = 2
    """1: the digest depends on the files' bytes, and with them on the version of pyarrow that wrote them."""
    id: PlainName
    spec_digest: Sha256
    source_fingerprint: Sha256
    """Of the source files' names, sizes and modification marks."""
    request: Sha256
    """Of everything that was asked for: a rerun of the same request finds this snapshot standing."""
    data: PlainName
    """Name of the data directory."""
    slot_names: Annotated[list[str], FailFast()]
    has_weight: bool
    files: Annotated[list[FileEntry], Field(min_length=1), FailFast()]
    """By role (train, valid, test, all), then by place."""
    quarantined: dict[str, Count]
    """Rows set aside, by reason."""
    filtered: Count
    """Rows left out: by ``filter``, as rows of another day, or as rows whose label is not settled (``label_delay``)."""
    dropped_negatives: Count
    """Negatives of the training split left out by ``snapshot.negative_rate``."""
    negative_rate: Annotated[float, Field(gt=0, le=1)] | None
    """Share of the training split's negatives that was kept, or none if all. The trainer corrects for it once."""
    fields: dict[str, FieldCounts]
    joined: dict[str, Count] = Field(default_factory=dict)
    """Rows of the log that found their key in a side table, by the table's files and key."""
    config: dict[str, Any] | None = None
    """What was asked for, as `features.snapshot.record` keeps it. Snapshots of earlier versions have none."""
    beside: Annotated[list[Beside], FailFast()] = Field(default_factory=list)
    """In the order of their columns in the files."""
    sources: list[SourceEntry] | None = None
    """The log's files in order, those without rows too; None in snapshots of older versions."""
    digest: Sha256

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        if any((f.rows_sha256 is None) != (self.format_version == 1) for f in self.files):
            raise ValueError("files of format 2 have rows_sha256, those of format 1 have none")
        if self.digest != snapshot_digest(self.spec_digest, [f.identity for f in self.files]):
            raise ValueError("the digest does not follow from the spec digest and the files' checksums")
        if len({each.column for each in self.beside}) != len(self.beside):
            raise ValueError("two columns of one name beside the rows")
        if any(f.positives > f.rows for f in self.files):
            raise ValueError("more positives than rows")
        if len({f.path for f in self.files}) != len(self.files):
            raise ValueError("two files of one name")
        if [ROLES.index(f.role) for f in self.files] != sorted(ROLES.index(f.role) for f in self.files):
            raise ValueError("files are not in the order of roles")
        if self.config is not None:
            check_record(self.config)
        return self

    @property
    def day(self) -> str | None:
        """Of a day's snapshot; None of one of the whole source."""
        day = self.id.partition(".")[0]  # another spec's digest may follow
        return None if day == "all" else day

    def files_of(self, roles: Collection[str]) -> list[FileEntry]:
        """The files of these roles, in the manifest's order."""
        return [f for f in self.files if f.role in roles]

    def rows_of(self, roles: Collection[str]) -> int:
        return sum(f.rows for f in self.files_of(roles))

    def to_json(self) -> bytes:
        content = self.model_dump(mode="json", exclude=None if self.beside else {"beside"})  # as of earlier versions
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def load(directory: str) -> Manifest:
        """The manifest of a published snapshot.

        Raises ArtifactError when there is none, when it does not read as a manifest, or when files it names are gone
        or of another size. Checksums are verified by whoever reads the files.
        """
        manifest = _parse(directory)
        data = store.join(directory, manifest.data)
        sizes = store.list_sizes(data)
        for entry in manifest.files:
            if sizes.get(entry.path) != entry.bytes:
                raise ArtifactError(
                    store.join(data, entry.path),
                    expected=f"{entry.bytes} bytes as its manifest says",
                    found=f"{sizes[entry.path]} bytes" if entry.path in sizes else "no such file",
                    fix="The snapshot is damaged: build it again with --replace.",
                )
        return manifest


def _parse(directory: str) -> Manifest:
    path = store.join(directory, MANIFEST)
    try:
        text = bounded.read(path, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            directory,
            expected="a published snapshot (a directory with manifest.json)",
            found="no manifest.json",
            fix="Build the snapshot with `fieldwise features`, or correct the path.",
        ) from None
    fix = "The snapshot is damaged or of another version: build it again with --replace."
    return bounded.validated(text, Manifest, path, "a snapshot manifest of format 1 or 2", fix)


def standing(directory: str) -> Manifest | None:
    """The manifest of a snapshot if one is published here, else None. Raises ArtifactError if it cannot be read."""
    return _parse(directory) if store.exists(store.join(directory, MANIFEST)) else None


def weights_of(files: Iterable[FileEntry]) -> tuple[float, float] | None:
    """Weight of negatives and of positives, or none where a manifest does not know it."""
    known = [file.weights for file in files]
    parts = [weights for weights in known if weights is not None]
    return (sum(w[0] for w in parts), sum(w[1] for w in parts)) if parts and len(parts) == len(known) else None


def require_weights(role: str, negative: float, positive: float) -> None:
    """InputError when the rows of a split that count are of one class, or there are none."""
    if not (negative > 0 and positive > 0):
        raise InputError(
            f"split {role}",
            expected="positive weight in both classes",
            found=f"{positive:g} on positives, {negative:g} on negatives",
            fix="Check the weight expression and the split settings.",
        )


def snapshot_digest(spec_digest: str, identities: Iterable[str]) -> str:
    """SHA-256 over the spec's digest and those of the files' rows, in order: no names, paths, times or writers."""
    return hashlib.sha256("\n".join([spec_digest, *identities]).encode()).hexdigest()


def rows_digest(
    slots: npt.NDArray[np.int32], label: Float32, weight: Float32 | None, beside: Int64 | None = None
) -> str:
    """SHA-256 over slots [n, S], label [n], weight [n] and what is ``beside`` [n, B]: their shape, then column after
    column, little-endian."""
    more = "" if beside is None else f" {beside.shape[1]}"
    digest = hashlib.sha256(f"{slots.shape[0]} {slots.shape[1]} {weight is not None}{more}\n".encode())
    digest.update(np.ascontiguousarray(slots.T, "<i4").data)  # no copy of what is in Fortran order
    for column in (label, weight):
        if column is not None:
            digest.update(np.ascontiguousarray(column, "<f4").data)
    if beside is not None:
        digest.update(np.ascontiguousarray(beside.T, "<i8").data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot, its manifest checked and its spec the one the manifest names."""

    manifest: Manifest
    spec: FeatureSpec
    dir: str

    @property
    def data_dir(self) -> str:
        return store.join(self.dir, self.manifest.data)

    def path(self, entry: FileEntry) -> str:
        return store.join(self.data_dir, entry.path)


def load_snapshot(directory: str) -> Snapshot:
    """Open a published snapshot. Raises ArtifactError for unpublished or damaged ones."""
    manifest = Manifest.load(directory)
    spec = FeatureSpec.load(store.join(directory, manifest.data))
    if spec.digest != manifest.spec_digest or spec.slot_names != manifest.slot_names:
        raise ArtifactError(
            directory,
            expected=f"the feature spec {manifest.spec_digest[:12]} its manifest names",
            found=f"spec {spec.digest[:12]}",
            fix="The snapshot is damaged: build it again with --replace.",
        )
    return Snapshot(manifest, spec, directory)


def snapshot_dir(workspace: str, snapshot: str) -> str:
    """Where a workspace keeps the snapshot of an id (a day, or ``all``)."""
    return store.join(workspace, "snapshots", snapshot)
