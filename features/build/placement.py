"""Where a row goes, from its bytes alone: packed rows, their keys, their file and their place in it.

A packed row is its slots (int32), label (float32) and, if there is one, weight (float32), little-endian, W bytes; what
travels beside it (int64 each) follows.

    key   = XXH64(the W bytes, seed)                   so what is beside rows moves none
    file  = (key >> 32) * files >> 32                  per role
    place = order of mix(key, occurrence) in the file  (occurrence counts equal rows: they do not end up side by side)

Nothing here depends on who read the row or when, so any cluster writes the same files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Float32, Int64, UInt64
from fieldwise.features.columns.hashing import xxh64_rows
from fieldwise.features.kernels.rows import to_columns, to_rows

Packed = npt.NDArray[np.uint8]  # [n, W]


def pack(slots: npt.NDArray[np.int32], label: Float32, weight: Float32 | None, beside: Int64 | None = None) -> Packed:
    """slots [n, S], label [n], weight [n] or None, beside [n, B] or None -> packed rows [n, 4 * (S + 1 or 2) + 8 B]."""
    n, width = slots.shape
    columns = [label] if weight is None else [label, weight]
    if beside is not None:
        halves = np.ascontiguousarray(beside).view(np.int32)
        columns += [np.ascontiguousarray(half) for half in halves.T]
    rows = np.empty((n, width + len(columns)), np.int32)
    to_rows(np.ascontiguousarray(slots.T), rows)
    for at, column in enumerate(columns, start=width):
        rows[:, at] = column.view(np.int32)
    return rows.view(np.uint8)


def unpack(
    rows: Packed, order: Int64, slots: int, beside: int = 0
) -> tuple[npt.NDArray[np.int32], Float32, Float32 | None, Int64 | None]:
    """The inverse of ``pack`` for the rows ``order``; slots and what is beside come in Fortran order, as columns are
    written."""
    columns = np.empty((rows.shape[1] // 4, len(order)), np.int32)
    to_columns(rows.view(np.int32), order, columns)
    width = len(columns) - 2 * beside
    floats = columns[slots:width].view(np.float32)
    halves = np.ascontiguousarray(columns[width:].T)
    more = np.asfortranarray(halves.view(np.int64)) if beside else None
    return columns[:slots].T, floats[0], floats[1] if len(floats) > 1 else None, more


def keys_of(rows: Packed, seed: int, beside: int = 0) -> UInt64:
    """Of packed rows, without what is beside them."""
    return xxh64_rows(rows[:, : rows.shape[1] - 8 * beside], seed)


def file_of(keys: UInt64, files: int) -> Int64:
    """The file of every key, 0 .. files - 1; ``files`` below 2^31."""
    return ((keys >> np.uint64(32)) * np.uint64(files) >> np.uint64(32)).astype(np.int64)


def order_of(rows: Packed, keys: UInt64) -> tuple[Int64, int]:
    """The rows of one file in their final order, whatever order they came in: their positions in ``rows``.

    And how many rows repeat another one: sorted keys show it, so it costs nothing.
    """
    place = _mix(keys, np.zeros(len(rows), np.int64))
    order = np.argsort(place)
    sorted_place = place[order]
    first = np.concatenate([[True], sorted_place[1:] != sorted_place[:-1]])
    if first.all():  # no two keys are equal (``_mix`` is one to one)
        return order, 0
    starts = np.flatnonzero(first)
    occurrence = np.arange(len(rows)) - starts[np.cumsum(first) - 1]
    _untangle(rows, order, starts)
    return order[np.argsort(_mix(keys[order], occurrence), kind="stable")], len(rows) - len(starts)


def _untangle(rows: Packed, order: Int64, starts: Int64) -> None:
    """Different rows with one key (those that only differ beside, or a collision of 64 bits) still need one order: by
    their bytes, in place."""
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        group = order[start:end]
        if (rows[group] != rows[group[0]]).any():
            order[start:end] = sorted(group, key=lambda row: rows[row].tobytes())


def _mix(keys: UInt64, occurrence: Int64) -> UInt64:
    """splitmix64 of key + occurrence * golden ratio."""
    x = keys + occurrence.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
