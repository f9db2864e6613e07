"""Compiled kernels over texts: XXH64, vocabulary lookup, splitting, UTF-8.

Texts come as views into one byte buffer: ``data`` uint8, ``start`` int64 [n], ``length`` int32 [n]; length <= 0 is
missing, PADDING marks an unused slot. No prange: these run in Spark's forked Python workers.
"""

from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import entry, kernel, load32, load64, store64

PADDING_VIEW = -2
"""Length of a view that stands for an unused slot."""
PADDING, MISSING, UNSEEN, FIRST = 0, 1, 2, 3
_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
_U1, _U7, _U11, _U12, _U18, _U23 = (np.uint64(v) for v in (1, 7, 11, 12, 18, 23))
_U27, _U29, _U31, _U32, _U33, _U64 = (np.uint64(v) for v in (27, 29, 31, 32, 33, 64))
TEXT = "Array(uint8, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), Array(int32, 1, 'C', readonly=True)"


@kernel
def _rotl(x, r):  # type: ignore[no-untyped-def]
    return (x << r) | (x >> (_U64 - r))


@kernel
def _round(acc, lane):  # type: ignore[no-untyped-def]
    return _rotl(acc + lane * _P2, _U31) * _P1


@kernel
def _merge(acc, lane):  # type: ignore[no-untyped-def]
    return (acc ^ _round(np.uint64(0), lane)) * _P1 + _P4


@kernel
def _xxh64(data, start, length, seed):  # type: ignore[no-untyped-def]
    """XXH64 of ``data[start : start + length]``."""
    i, stop = start, start + length
    if length >= 32:
        a, b, c, d = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while i + 32 <= stop:
            a, b = _round(a, load64(data, i)), _round(b, load64(data, i + 8))
            c, d = _round(c, load64(data, i + 16)), _round(d, load64(data, i + 24))
            i += 32
        acc = _rotl(a, _U1) + _rotl(b, _U7) + _rotl(c, _U12) + _rotl(d, _U18)
        acc = _merge(_merge(_merge(_merge(acc, a), b), c), d)
    else:
        acc = seed + _P5
    acc += np.uint64(length)
    while i + 8 <= stop:
        acc = _rotl(acc ^ _round(np.uint64(0), load64(data, i)), _U27) * _P1 + _P4
        i += 8
    if i + 4 <= stop:
        acc = _rotl(acc ^ (load32(data, i) * _P1), _U23) * _P2 + _P3
        i += 4
    while i < stop:
        acc = _rotl(acc ^ (np.uint64(data[i]) * _P5), _U11) * _P1
        i += 1
    acc = (acc ^ (acc >> _U33)) * _P2
    acc = (acc ^ (acc >> _U29)) * _P3
    return acc ^ (acc >> _U32)


@entry(f"void({TEXT}, uint64, uint64[::1])")
def hash_texts(data, start, length, seed, out):  # type: ignore[no-untyped-def]
    """XXH64 of every text; missing ones hash as the empty text."""
    for i in range(len(start)):
        out[i] = _xxh64(data, start[i], max(length[i], 0), seed)


@entry("void(Array(uint8, 2, 'C', readonly=True), uint64, uint64[::1])")
def hash_rows(rows, seed, out):  # type: ignore[no-untyped-def]
    """XXH64 of every row of ``rows`` uint8 [n, width]."""
    flat = rows.ravel()
    width = rows.shape[1]
    for i in range(rows.shape[0]):
        out[i] = _xxh64(flat, i * width, width, seed)


@entry(f"void({TEXT}, uint64, uint64, int32[::1])")
def hash_slots(data, start, length, seed, buckets, out):  # type: ignore[no-untyped-def]
    """out = FIRST + XXH64 mod buckets."""
    mask = buckets - np.uint64(1)
    power = (buckets & mask) == 0
    for i in range(len(start)):
        n = length[i]
        if n <= 0:
            out[i] = PADDING if n == PADDING_VIEW else MISSING
        else:
            h = _xxh64(data, start[i], n, seed)
            out[i] = FIRST + np.int64(h & mask if power else h % buckets)


@kernel
def _equal(a, i, b, j, n):  # type: ignore[no-untyped-def]
    k = 0
    while k + 8 <= n:
        if load64(a, i + k) != load64(b, j + k):
            return False
        k += 8
    while k < n:
        if a[i + k] != b[j + k]:
            return False
        k += 1
    return True


@entry(f"int64({TEXT}, uint64, uint64[::1], int32[::1])")
def build_table(data, start, length, seed, hashes, table):  # type: ignore[no-untyped-def]
    """Open addressing: fills ``hashes`` [n] and ``table`` [power of two, -1]; returns a repeated entry, or -1."""
    mask = np.uint64(len(table) - 1)
    for i in range(len(start)):
        h = _xxh64(data, start[i], length[i], seed)
        hashes[i] = h
        at = h & mask
        while table[at] >= 0:
            j = table[at]
            if hashes[j] == h and length[j] == length[i] and _equal(data, start[i], data, start[j], length[i]):
                return i
            at = (at + _U1) & mask
        table[at] = i
    return -1


@entry(f"void({TEXT}, {TEXT}, uint64, uint64[::1], int32[::1], int32[::1])")
def find_texts(data, start, length, v_data, v_start, v_length, seed, hashes, table, out):  # type: ignore[no-untyped-def]
    """out = FIRST + position among the table's values, UNSEEN where there is none."""
    mask = np.uint64(len(table) - 1)
    for i in range(len(start)):
        n = length[i]
        if n <= 0:
            out[i] = PADDING if n == PADDING_VIEW else MISSING
            continue
        h = _xxh64(data, start[i], n, seed)
        at = h & mask
        out[i] = UNSEEN
        while table[at] >= 0:
            j = table[at]
            if hashes[j] == h and v_length[j] == n and _equal(data, start[i], v_data, v_start[j], n):
                out[i] = FIRST + j
                break
            at = (at + _U1) & mask


@entry(
    f"int64({TEXT}, Array(int32, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), uint64, "
    "uint64[::1], int32[::1], int64[::1], int64[::1])"
)
def sum_texts(data, start, length, group, count, seed, hashes, table, first, total):  # type: ignore[no-untyped-def]
    """Sums of ``count`` over equal pairs (group, text), missing texts left out; returns how many pairs there are.

    Pair j, in order of first occurrence: ``first[j]`` is its first row, ``total[j]`` its sum. ``hashes`` [n], ``table``
    [power of two above n, all -1] are scratch.
    """
    mask, used = np.uint64(len(table) - 1), 0
    for i in range(len(start)):
        n = length[i]
        if n <= 0:
            continue
        h = _xxh64(data, start[i], n, seed + np.uint64(group[i]))
        at = h & mask
        while table[at] >= 0:
            j = table[at]
            k = first[j]
            if hashes[j] == h and length[k] == n and group[k] == group[i] and _equal(data, start[i], data, start[k], n):
                total[j] += count[i]
                break
            at = (at + _U1) & mask
        if table[at] < 0:
            table[at], hashes[used], first[used], total[used] = used, h, i, count[i]
            used += 1
    return used


@entry(f"int64({TEXT}, uint8[::1], int32[::1])")
def copy_texts(data, start, length, out, offset):  # type: ignore[no-untyped-def]
    """Texts one after another into ``out`` (8 bytes longer than their sum), ``offset`` [n + 1]; returns the sum."""
    at, readable = 0, len(data) - 8
    for i in range(len(start)):
        offset[i] = at
        first, n = start[i], max(length[i], 0)
        k = 0
        while k < n and first + k <= readable:  # whole words; what is written past a text, the next overwrites
            store64(out, at + k, load64(data, first + k))
            k += 8
        while k < n:
            out[at + k] = data[first + k]
            k += 1
        at += n
    offset[len(start)] = at
    return at


@entry(f"void({TEXT}, Array(uint8, 1, 'C', readonly=True), int64[:, ::1], int32[:, ::1])")
def split_texts(data, start, length, separator, out_start, out_length):  # type: ignore[no-untyped-def]
    """The first non-empty items of every text: slot j of row i in ``out[j, i]``; none is one missing."""
    slots, width = out_start.shape[0], len(separator)
    for i in range(len(start)):
        used, at, stop = 0, start[i], start[i] + max(length[i], 0)
        while used < slots and at < stop:
            end = at
            while end < stop and not (end + width <= stop and _equal(data, end, separator, 0, width)):
                end += 1
            if end > at:
                out_start[used, i], out_length[used, i] = at, end - at
                used += 1
            at = end + width
        for j in range(used, slots):
            out_start[j, i], out_length[j, i] = 0, PADDING_VIEW if j else -1


@entry(
    "void(Array(int64, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), "
    "Array(int32, 1, 'C', readonly=True), int64[:, ::1], int32[:, ::1])"
)
def spread_items(row, start, length, out_start, out_length):  # type: ignore[no-untyped-def]
    """``split_texts`` for lists: the items of row i are views row[i] to row[i + 1]."""
    slots = out_start.shape[0]
    for i in range(len(row) - 1):
        used = 0
        for j in range(row[i], row[i + 1]):
            if used < slots and length[j] > 0:
                out_start[used, i], out_length[used, i] = start[j], length[j]
                used += 1
        for j in range(used, slots):
            out_start[j, i], out_length[j, i] = 0, PADDING_VIEW if j else -1


@kernel
def _is_utf8(data, i, stop):  # type: ignore[no-untyped-def]
    """Whether the bytes are well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF)."""
    while i < stop:
        c = data[i]
        i += 1
        if c < 128:
            continue
        if 0xC2 <= c <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= c <= 0xEF:
            more, low, high = 2, 0xA0 if c == 0xE0 else 0x80, 0x9F if c == 0xED else 0xBF
        elif 0xF0 <= c <= 0xF4:
            more, low, high = 3, 0x90 if c == 0xF0 else 0x80, 0x8F if c == 0xF4 else 0xBF
        else:
            return False
        if i + more > stop or not low <= data[i] <= high:
            return False
        for k in range(1, more):
            if data[i + k] & 0xC0 != 0x80:
                return False
        i += more
    return True


@entry(f"void({TEXT}, boolean[::1])")
def check_utf8(data, start, length, out):  # type: ignore[no-untyped-def]
    """Which texts are well-formed UTF-8."""
    for i in range(len(start)):
        out[i] = _is_utf8(data, start[i], start[i] + max(length[i], 0))
