"""Files to raw columns. (Signatures first; bodies follow.)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.config import SourceConfig


class SourceFile(NamedTuple):
    path: str
    size: int


class FileRange(NamedTuple):
    """Bytes [start, stop) of a text file, or row groups [start, stop) of a Parquet file."""

    path: str
    start: int
    stop: int


class Reject(NamedTuple):
    """A row that cannot be used. position: byte offset in the file, or row number in a Parquet file."""

    path: str
    position: int
    reason: str
    field: str
    raw: bytes


@dataclass(frozen=True)
class RawBatch:
    path: str
    columns: pa.RecordBatch
    positions: npt.NDArray[np.int64]
    rejects: list[Reject]


def list_files(config: SourceConfig, base: str, date: str | None = None) -> list[SourceFile]: ...


def split_ranges(config: SourceConfig, files: Sequence[SourceFile], target_bytes: int) -> list[FileRange]: ...


def read_range(config: SourceConfig, rng: FileRange, columns: Sequence[str] | None = None) -> Iterator[RawBatch]: ...
