"""Distinct texts: counting them, and finding them in a list (vocabularies, keys of side tables)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.arrays import Int32, Int64
from fieldwise.features.columns.hashing import SEED
from fieldwise.features.columns.text import Texts, texts
from fieldwise.features.kernels import strings


@dataclass(frozen=True)
class Vocabulary:
    """Values in index order with their counts in the training rows."""

    values: pa.LargeStringArray
    counts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def digest(self) -> str:
        """SHA-256 over the values' lengths, bytes and counts, as little-endian int64."""
        views = texts(self.values)
        digest = hashlib.sha256(np.ascontiguousarray(views.length, "<i8").tobytes())
        if len(views):
            first, last = int(views.start[0]), int(views.start[-1] + views.length[-1])
            digest.update(views.data[first:last].tobytes())
        digest.update(np.ascontiguousarray(self.counts, "<i8").tobytes())
        return digest.hexdigest()


class TextIndex:
    """Finds texts among ``values``: open addressing over XXH64, every hit verified by its bytes. 28 bytes a value."""

    def __init__(self, values: pa.Array) -> None:
        self._views = texts(values)
        n = len(self._views)
        self._hashes = np.empty(n, np.uint64)
        self._table = np.full(1 << max(1, int(2 * n).bit_length()), -1, np.int32)
        views = self._views
        self.repeated = int(strings.build_table(views.data, views.start, views.length, SEED, self._hashes, self._table))
        """Position of a value that occurred before, -1 when all are distinct."""

    def find(self, queries: Texts, out: npt.NDArray[np.int32]) -> None:
        """``out`` [n]: FIRST + position, UNSEEN where absent, MISSING and PADDING as the queries say."""
        own = self._views
        strings.find_texts(
            queries.data, queries.start, queries.length,
            own.data, own.start, own.length, SEED, self._hashes, self._table, out,
        )  # fmt: skip


def sum_texts(views: Texts, group: Int32 | None = None, count: Int64 | None = None) -> tuple[Int64, Int64]:
    """(first row, sum of ``count``) of every distinct pair (group, text), missing texts left out.

    By default all rows are of one group and count 1.
    """
    n = len(views)
    group = np.zeros(n, np.int32) if group is None else group
    count = np.ones(n, np.int64) if count is None else count
    first, total, hashes = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint64)
    table = np.full(1 << int(2 * n).bit_length(), -1, np.int32)
    used = strings.sum_texts(views.data, views.start, views.length, group, count, SEED, hashes, table, first, total)
    return first[:used], total[:used]
