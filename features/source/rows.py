"""What reading gives: ranges of files, rows as raw columns, and rows that cannot be used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import plain

RAW_LIMIT = 64 << 10
"""Bytes of a rejected row that are kept."""


class FileRange(NamedTuple):
    """Bytes [start, stop) of a text file, or row groups [start, stop) of a Parquet file. `split_ranges` makes them:
    the first newline from ``start`` - 1 on ends a record."""

    path: str
    start: int
    stop: int


class Reject(NamedTuple):
    """A row that cannot be used. position: byte offset in the (decompressed) file, row number in a Parquet file.

    value: the text that could not be read, where it was one. origin: whence it came, if not from this file.
    """

    path: str
    position: int
    reason: str
    field: str
    raw: bytes
    value: str = ""
    origin: str = ""


@dataclass(frozen=True)
class RawBatch:
    """Rows of one file: raw columns (strings or lists of them; typed ones of Parquet) and where each came from."""

    path: str
    columns: Columns
    positions: npt.NDArray[np.int64]
    rejects: list[Reject] = field(default_factory=list)
    block: npt.NDArray[np.uint8] | None = None
    """The bytes the rows were parsed from; row i is ``block[line[i, 0] : line[i, 1]]``."""
    line: npt.NDArray[np.int64] | None = None

    def raw(self, row: int) -> bytes:
        """The row as it was written, or as JSON where it was no text."""
        if self.block is not None and self.line is not None:
            first, stop = self.line[row]
            return cut(self.block, first, stop)
        values = {name: plain(self.columns.array(name)[row]) for name in self.columns.names}
        return json.dumps(values, default=str, ensure_ascii=False).encode()[:RAW_LIMIT]


def cut(block: npt.NDArray[np.uint8], first: int, stop: int) -> bytes:
    return block[first : min(stop, first + RAW_LIMIT)].tobytes()
