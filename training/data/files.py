"""Files of published snapshots, as readers see them: a path, and what its manifest promises; checksums are compared
here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.errors import DamagedError, IntegrityError
from fieldwise.features.snapshot.manifest import beside_name, rows_digest
from fieldwise.training.data.plan import Plan, Segment

_NAMED_ROWS = 5

Columns = dict[str, npt.NDArray[Any]]
"""Decoded rows of a file, by the names of its columns."""


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of a published snapshot and what its manifest promises."""

    path: str  # local path or URL
    rows: int
    sha256: str
    identity: str = ""
    """Of its rows, whatever wrote them, where its manifest tells; else of its bytes."""
    first: int = 0
    """Of a part of the file: its first row."""
    promised: int | None = None
    """Rows of the whole file, where ``rows`` are a part of it."""
    positives: int | None = None
    """Of the whole file; None where nobody has told."""
    weighted: bool | None = None
    """Whether its rows have weights; None where nobody has told."""

    @property
    def whole(self) -> int:
        """Rows of the whole file."""
        return self.rows if self.promised is None else self.promised

    def part(self, first: int, rows: int) -> DataFile:
        """Some of its rows."""
        return replace(self, first=self.first + first, rows=rows, promised=self.whole)

    @property
    def url(self) -> str:
        """As petastorm takes it."""
        plain = self.path if "://" in self.path else "file://" + str(Path(self.path).absolute())
        return store.file_uri(self.path) if self.quoted else plain

    @property
    def quoted(self) -> bool:
        """Whether a plain URL of the local path would lose a part of it, such as what follows a #."""
        plain = str(Path(self.path).absolute())
        return "://" not in self.path and urlparse("file://" + plain).path != plain


def name_rows(
    files: Sequence[DataFile], plan: Plan, origin: Sequence[Segment], rows: npt.NDArray[np.int64]
) -> list[str]:
    """Where rows of a batch lie, file by file; ``origin`` is the batch's, ``rows`` are positions in it."""
    numbers = [
        files[part.file].first + plan.permutation(part.file)[part.first : part.first + part.rows] for part in origin
    ]
    owners = [np.full(part.rows, part.file) for part in origin]
    if len(rows) == 0:
        return []
    number, owner = np.concatenate(numbers)[rows], np.concatenate(owners)[rows]
    named = []
    for file in np.unique(owner):
        own = np.sort(number[owner == file])
        listed = ", ".join(map(str, own[:_NAMED_ROWS])) + (
            f" and {len(own) - _NAMED_ROWS} more" * (len(own) > _NAMED_ROWS)
        )
        named.append(f"{files[file].path} row{'s' * (len(own) > 1)} {listed}")
    return named


def verify_checksum(file: DataFile) -> None:
    """IntegrityError unless the file's SHA-256 is the manifest's."""
    found = checksum(file)
    if found != file.sha256:
        other = "a directory" if os.path.isdir(file.path) else "no such file"
        raise damaged(file, f"SHA-256 {found}" if found else other, expected=f"SHA-256 {file.sha256}")


def require_sound(file: DataFile, columns: Columns, slot_names: Sequence[str]) -> None:
    """DamagedError for columns of other types, and for labels and weights that have no meaning in any sum of them:
    labels are 0 or 1, as many of them 1 as the manifest says, weights finite and none below 0."""
    label, weight = columns["label"], columns.get("weight")
    if any(columns[name].dtype != np.int32 for name in slot_names) or label.dtype != np.float32:
        raise damaged(file, "other types or nulls", expected="int32 slots and a float32 label")
    if not ((label == 0) | (label == 1)).all():
        raise damaged(file, "others", expected="labels 0 and 1")
    positives = int(np.count_nonzero(label))
    if file.positives is not None and positives != file.positives:
        raise damaged(file, f"{positives}", expected=f"{file.positives} positives")
    if file.weighted is not None and (weight is not None) != file.weighted:
        raise damaged(file, "the opposite", expected="a weight" if file.weighted else "no weight")
    if weight is not None and not (weight.dtype == np.float32 and np.isfinite(weight).all() and (weight >= 0).all()):
        raise damaged(file, "others", expected="finite float32 weights, none below 0")


def beside_names(columns: Container[str]) -> list[str]:
    """Of the columns that travel beside the rows, those of one file."""
    return list(takewhile(columns.__contains__, map(beside_name, count())))


def verify_rows(file: DataFile, columns: Columns, slot_names: Sequence[str]) -> None:
    """IntegrityError unless the rows are those that the snapshot's digest stands for, where its manifest tells: a
    training of other rows would be taken for one of these."""
    if file.identity in ("", file.sha256):  # of its bytes
        return
    slots = np.stack([columns[name] for name in slot_names])
    more = [columns[name] for name in beside_names(columns)]
    beside = np.stack(more).T if more else None
    found = rows_digest(slots.T, columns["label"], columns.get("weight"), beside)
    if found != file.identity:
        raise damaged(file, f"rows of SHA-256 {found}", expected=f"rows of SHA-256 {file.identity}")


def checksum(file: DataFile) -> str | None:
    """None when there is no such file."""
    digest = hashlib.sha256()
    try:
        with store.opened(file.path) as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    except (FileNotFoundError, IsADirectoryError):
        return None
    return digest.hexdigest()


def damaged(file: DataFile, found: str, expected: str | None = None) -> IntegrityError:
    """With the reason, which only the file's bytes tell: one that is gone may just have gone, all else is to mend."""
    bytes_found = checksum(file)
    kind: type[IntegrityError] = DamagedError
    reason = "The file changed after its snapshot was published"
    if bytes_found is None and not os.path.isdir(file.path):
        kind, reason = IntegrityError, "The file was removed after its snapshot was published"
    elif bytes_found == file.sha256:
        reason = "The file is as it was published, so its manifest is at fault"
    fix = f"{reason}: build the snapshot again."
    return kind(file.path, expected=expected or f"{file.whole} rows", found=found, fix=fix)


def read_floats(file: DataFile, names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Columns of float32 of a file's rows, without petastorm. IntegrityError as of ``PlanReader``."""
    try:
        with store.opened(file.path) as stream:
            table = pq.ParquetFile(stream).read(columns=list(names))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        verify_checksum(file)
        raise unreadable(file, error) from error
    for name in names:
        if name not in table.column_names or table[name].type != pa.float32() or table[name].null_count:
            raise damaged(file, "other types or nulls", expected=f"float32 in {', '.join(names)}")
    return [table[name].to_numpy()[file.first : file.first + file.rows].astype(np.float64) for name in names]


def unreadable(file: DataFile, error: Exception) -> IntegrityError:
    """For a library's error over bytes that are those of the manifest."""
    found = f"{type(error).__name__}: {' '.join(str(error).split())}"
    fix = "Its bytes are those that were published: try again."
    return IntegrityError(file.path, expected="a file that can be read", found=found, fix=fix)
