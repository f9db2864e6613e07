"""Where a row goes, from its bytes alone: packed rows, their keys, their file and their place in it.

A packed row is its slots (int32), label (float32) and, if there is one, weight (float32), little-endian, W bytes.

    key   = XXH64(packed row, seed)
    file  = (key >> 32) * files >> 32                  per role
    place = order of mix(key, occurrence) in the file  (occurrence counts equal rows: they do not end up side by side)

Nothing here depends on who read the row or when, so any cluster writes the same files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.hashing import UInt64

Packed = npt.NDArray[np.uint8]  # [n, W]
Float32 = npt.NDArray[np.float32]


def pack(slots: npt.NDArray[np.int32], label: Float32, weight: Float32 | None) -> Packed:
    """slots [n, S], label [n], weight [n] or None -> packed rows [n, 4 * (S + 1 or 2)]."""
    n, width = slots.shape
    columns = [label] if weight is None else [label, weight]
    rows = np.empty((n, width + len(columns)), np.int32)
    rows[:, :width] = slots
    for at, column in enumerate(columns, start=width):
        rows[:, at] = column.view(np.int32)
    return rows.view(np.uint8)


def unpack(rows: Packed, slots: int) -> tuple[npt.NDArray[np.int32], Float32, Float32 | None]:
    """The inverse of ``pack``; slots come in Fortran order, as columns are written."""
    values = np.asfortranarray(rows.view(np.int32))
    floats = values[:, slots:].view(np.float32)
    return values[:, :slots], floats[:, 0], floats[:, 1] if floats.shape[1] > 1 else None


def file_of(keys: UInt64, files: int) -> npt.NDArray[np.int64]:
    """The file of every key, 0 .. files - 1; ``files`` below 2^31."""
    return ((keys >> np.uint64(32)) * np.uint64(files) >> np.uint64(32)).astype(np.int64)


def ordered(rows: Packed, keys: UInt64) -> Packed:
    """The rows of one file in their final order, whatever order they came in."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    first = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
    starts = np.flatnonzero(first)
    run = np.cumsum(first) - 1
    occurrence = np.arange(len(rows)) - starts[run]
    _untangle(rows, order, starts)
    return rows[order[np.argsort(_mix(sorted_keys, occurrence), kind="stable")]]


def _untangle(rows: Packed, order: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> None:
    """Different rows with one key (a collision of 64 bits) still need one order: by their bytes, in place."""
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        group = order[start:end]
        if (rows[group] != rows[group[0]]).any():
            order[start:end] = sorted(group, key=lambda row: rows[row].tobytes())


def _mix(keys: UInt64, occurrence: npt.NDArray[np.int64]) -> UInt64:
    """splitmix64 of key + occurrence * golden ratio."""
    x = keys + occurrence.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
