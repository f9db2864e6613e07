"""Compiled kernels between columns and packed rows, in blocks that stay in the cache."""

from __future__ import annotations

from fieldwise.features.kernels.compile import entry

_BLOCK = 64


@entry("void(Array(int32, 2, 'C', readonly=True), int32[:, ::1])")
def to_rows(columns, rows):  # type: ignore[no-untyped-def]
    """First columns of rows [n, W] from columns [S, n], S <= W."""
    width, n = columns.shape
    for first in range(0, n, _BLOCK):
        stop = min(first + _BLOCK, n)
        for c in range(width):
            for i in range(first, stop):
                rows[i, c] = columns[c, i]


@entry("void(Array(int32, 2, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), int32[:, ::1])")
def to_columns(rows, order, columns):  # type: ignore[no-untyped-def]
    """columns [W, n]: column c, place i is of row ``order[i]``."""
    width, n = columns.shape
    for first in range(0, n, _BLOCK):
        stop = min(first + _BLOCK, n)
        for c in range(width):
            for i in range(first, stop):
                columns[c, i] = rows[order[i], c]
