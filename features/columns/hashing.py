"""The one hash: XXH64, unsigned. Seed 42 for values; splits and row placement choose other seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.arrays import UInt64
from fieldwise.features.columns.text import texts
from fieldwise.features.kernels import strings

SEED = np.uint64(42)
"""Seed of hashed values; fixed, because models depend on it."""


def xxh64_array(array: pa.Array, seed: int = 42, where: str = "a column") -> UInt64:
    """XXH64 of the canonical text of every value; null hashes as the empty text. InputError, which names ``where``, for
    a type that has no text."""
    views = texts(array, where)
    out = np.empty(len(views), np.uint64)
    strings.hash_texts(views.data, views.start, views.length, np.uint64(seed), out)
    return out


def xxh64_rows(rows: npt.NDArray[np.uint8], seed: int) -> UInt64:
    """XXH64 of every row of ``rows`` uint8 [n, width]."""
    out = np.empty(len(rows), np.uint64)
    strings.hash_rows(np.ascontiguousarray(rows), np.uint64(seed), out)
    return out
