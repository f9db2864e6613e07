"""Compiled kernels that turn values into numbers: XXH64, vocabulary lookup, decimals, bins, moments.

Texts come as views into one byte buffer: ``data`` uint8, ``start`` int64 [n], ``length`` int32 [n]; length <= 0 is
missing, PADDING marks an unused slot. No prange: these run in Spark's forked Python workers.
"""

from __future__ import annotations

import numpy as np

from features.jit import entry, kernel, load32, load64

PADDING_VIEW = -2
"""Length of a view that stands for an unused slot."""
PADDING, MISSING, UNSEEN, FIRST = 0, 1, 2, 3
OK, EMPTY, HARD, BAD = 0, 1, 2, 3
"""What reading a text as a number or moment came to. HARD: valid, but beyond the exact fast path."""

_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
_U1, _U7, _U11, _U12, _U18, _U23 = (np.uint64(v) for v in (1, 7, 11, 12, 18, 23))
_U27, _U29, _U31, _U32, _U33, _U64 = (np.uint64(v) for v in (27, 29, 31, 32, 33, 64))
_TEN = 10.0 ** np.arange(23)
_DAYS_IN = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_MONTHS = np.frombuffer(b"janfebmaraprmayjunjulaugsepoctnovdec", np.uint8)

_EDGES = "Array(float64, 1, 'C', readonly=True)"
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


@kernel
def _decimal(data, start, stop):  # type: ignore[no-untyped-def]
    """(value, status) of a decimal text; exact where mantissa <= 2^53 and |exponent| <= 22 (Clinger's fast path)."""
    i = start
    while i < stop and data[i] == 32:
        i += 1
    while stop > i and data[stop - 1] == 32:
        stop -= 1
    if i >= stop:
        return np.nan, EMPTY
    if stop - i == 3 and data[i] | 32 == 110 and data[i + 1] | 32 == 97 and data[i + 2] | 32 == 110:
        return np.nan, EMPTY
    negative = data[i] == 45
    if negative or data[i] == 43:
        i += 1
    mantissa, digits, seen, scale = np.uint64(0), 0, 0, 0
    point = False
    while i < stop:
        c = data[i]
        if 48 <= c <= 57:
            seen += 1
            if mantissa != 0 or c != 48:
                digits += 1
            if digits <= 19:
                mantissa = mantissa * np.uint64(10) + np.uint64(c - 48)
                scale -= point
            else:
                scale += not point
        elif c == 46 and not point:
            point = True
        else:
            break
        i += 1
    if seen == 0:
        return np.nan, BAD
    if i < stop:
        if data[i] | 32 != 101:
            return np.nan, BAD
        i += 1
        down = i < stop and data[i] == 45
        if i < stop and (down or data[i] == 43):
            i += 1
        if i >= stop:
            return np.nan, BAD
        exponent = 0
        while i < stop:
            if not 48 <= data[i] <= 57:
                return np.nan, BAD
            exponent = min(exponent * 10 + (data[i] - 48), 100000)
            i += 1
        scale += -exponent if down else exponent
    if digits > 19 or mantissa > np.uint64(1 << 53) or scale > 22 or scale < -22:
        return np.nan, HARD
    value = np.float64(mantissa)
    value = value * _TEN[scale] if scale >= 0 else value / _TEN[-scale]
    return -value if negative else value, OK


@kernel
def _small_integer(data, i, n):  # type: ignore[no-untyped-def]
    """Value of 1 to 9 digits, -1 for any other text: most numbers of logs are counts."""
    if n < 1 or n > 9:
        return np.int64(-1)
    value = np.int64(0)
    for k in range(i, i + n):
        digit = np.int64(data[k]) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@entry(f"int64({TEXT}, float64[::1], uint8[::1])")
def read_decimals(data, start, length, out, status):  # type: ignore[no-untyped-def]
    """Texts as float64 (NaN where not OK); returns how many are HARD or BAD."""
    rest = 0
    for i in range(len(start)):
        small = _small_integer(data, start[i], length[i])
        if small >= 0:
            out[i], status[i] = small, OK
        else:
            out[i], status[i] = _decimal(data, start[i], start[i] + max(length[i], 0))
            rest += status[i] >= HARD
    return rest


@kernel
def _bin(value, edges):  # type: ignore[no-untyped-def]
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@entry(f"void({_EDGES}, {_EDGES}, int32[::1])")
def bin_numbers(values, edges, out):  # type: ignore[no-untyped-def]
    """out = FIRST + number of edges <= value, MISSING for NaN."""
    for i in range(len(values)):
        out[i] = MISSING if np.isnan(values[i]) else FIRST + _bin(values[i], edges)


@entry(f"int64({TEXT}, {_EDGES}, Array(int32, 1, 'C', readonly=True), int32[::1], uint8[::1])")
def bin_decimals(data, start, length, edges, small_bins, out, status):  # type: ignore[no-untyped-def]
    """``read_decimals`` and ``bin_numbers`` in one go; HARD and BAD texts stay to be done and are counted.

    small_bins [k]: FIRST + bin of the integers below k, looked up instead of searched.
    """
    rest = 0
    for i in range(len(start)):
        n = length[i]
        if n <= 0:
            out[i], status[i] = MISSING, EMPTY
            continue
        small = _small_integer(data, start[i], n)
        if 0 <= small < len(small_bins):
            out[i], status[i] = small_bins[small], OK
            continue
        value, state = _decimal(data, start[i], start[i] + n)
        status[i] = state
        rest += state >= HARD
        out[i] = FIRST + _bin(value, edges) if state == OK else MISSING
    return rest


@entry(f"int64({TEXT}, uint8[::1], int32[::1])")
def copy_texts(data, start, length, out, offset):  # type: ignore[no-untyped-def]
    """Texts one after another into ``out`` (8 bytes longer than their sum), ``offset`` [n + 1]; returns the sum."""
    at = 0
    for i in range(len(start)):
        offset[i] = at
        n = max(length[i], 0)
        for k in range(n):
            out[at + k] = data[start[i] + k]
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


@entry("void(Array(int64, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), "
       "Array(int32, 1, 'C', readonly=True), int64[:, ::1], int32[:, ::1])")
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


@kernel
def _days(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 in the proleptic Gregorian calendar."""
    y = year - (month <= 2)
    leap = y // 4 - y // 100 + y // 400
    return 365 * y + leap + (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1 - 719468


@kernel
def _digits(data, i, stop, least, most):  # type: ignore[no-untyped-def]
    """(value, end) of a run of digits, end -1 when there are fewer than ``least``."""
    value, k = 0, i
    while k < stop and k - i < most and 48 <= data[k] <= 57:
        value = value * 10 + (data[k] - 48)
        k += 1
    return value, k if k - i >= least else -1


@kernel
def _microseconds(data, i, stop):  # type: ignore[no-untyped-def]
    """(microseconds, end) of the digits after a decimal point; digits past the sixth are cut."""
    value, scale, k = 0, 100000, i
    while k < stop and 48 <= data[k] <= 57:
        value += (data[k] - 48) * scale
        scale //= 10
        k += 1
    return value, k if k > i else -1


@kernel
def _offset(data, i, stop):  # type: ignore[no-untyped-def]
    """(microseconds east, end) of ``Z``, ``+HH``, ``+HHMM`` or ``+HH:MM``."""
    if i < stop and data[i] | 32 == 122:
        return 0, i + 1
    if i >= stop or (data[i] != 43 and data[i] != 45):
        return 0, -1
    sign = 1 if data[i] == 43 else -1
    hours, k = _digits(data, i + 1, stop, 2, 2)
    minutes = 0
    if k > 0 and k < stop:
        minutes, k = _digits(data, k + 1 if data[k] == 58 else k, stop, 2, 2)
    return sign * (hours * 60 + minutes) * 60_000_000, k if hours < 24 and minutes < 60 else -1


@kernel
def _word3(data, i):  # type: ignore[no-untyped-def]
    """Three letters as one number, whatever their case."""
    return ((np.int64(data[i]) | 32) << 16) | ((np.int64(data[i + 1]) | 32) << 8) | (np.int64(data[i + 2]) | 32)


@kernel
def _moment(data, i, stop, pattern):  # type: ignore[no-untyped-def]
    """(microseconds, zoned, status) of a text under a strptime pattern, given as bytes (directives as 128 + letter)."""
    year, month, day, hour, minute, second, micro, east = 1970, 1, 1, 0, 0, 0, 0, 0
    zoned = False
    for p in range(len(pattern)):
        d = pattern[p]
        if d < 128:
            if i >= stop or data[i] != d:
                return 0, False, BAD
            i += 1
            continue
        d -= 128
        if d == 89:  # Y
            year, i = _digits(data, i, stop, 4, 4)
        elif d == 121:  # y, as POSIX: 69..99 are of the last century
            year, i = _digits(data, i, stop, 2, 2)
            year += 1900 if year >= 69 else 2000
        elif d == 109:  # m
            month, i = _digits(data, i, stop, 1, 2)
        elif d == 100:  # d
            day, i = _digits(data, i, stop, 1, 2)
        elif d == 72:  # H
            hour, i = _digits(data, i, stop, 1, 2)
        elif d == 77:  # M
            minute, i = _digits(data, i, stop, 1, 2)
        elif d == 83:  # S
            second, i = _digits(data, i, stop, 1, 2)
        elif d == 102:  # f
            micro, i = _microseconds(data, i, stop)
        elif d == 98:  # b
            month = 0
            for m in range(12):
                if i + 3 <= stop and _word3(data, i) == _word3(_MONTHS, 3 * m):
                    month = m + 1
            i += 3
        elif d == 122:  # z
            east, i = _offset(data, i, stop)
            zoned = True
        elif d == 84:  # noqa: SIM102  what may follow a date in ISO 8601: [T ]HH[:MM[:SS[.f]]][zone]
            if i < stop and (data[i] == 32 or data[i] == 84):
                hour, i = _digits(data, i + 1, stop, 1, 2)
                if 0 < i < stop and data[i] == 58:
                    minute, i = _digits(data, i + 1, stop, 2, 2)
                    if 0 < i < stop and data[i] == 58:
                        second, i = _digits(data, i + 1, stop, 2, 2)
                        if 0 < i < stop and (data[i] == 46 or data[i] == 44):
                            micro, i = _microseconds(data, i + 1, stop)
                if 0 < i < stop:
                    if data[i] == 32:
                        i += 1
                    east, i = _offset(data, i, stop)
                    zoned = True
        if i < 0:
            return 0, False, BAD
    if i != stop or not (1 <= month <= 12 and day >= 1 and hour < 24 and minute < 60 and second < 61):
        return 0, False, BAD
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _DAYS_IN[month] + (month == 2 and leap):
        return 0, False, BAD
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    return seconds * 1_000_000 + micro - east, zoned, OK


@entry(f"void({TEXT}, Array(uint8, 1, 'C', readonly=True), int64[::1], boolean[::1], uint8[::1])")
def read_moments(data, start, length, pattern, out, zoned, status):  # type: ignore[no-untyped-def]
    """Texts as microseconds since 1970 (0 where not OK) and whether the text named its zone."""
    for i in range(len(start)):
        if length[i] <= 0:
            out[i], zoned[i], status[i] = 0, False, EMPTY
        else:
            out[i], zoned[i], status[i] = _moment(data, start[i], start[i] + length[i], pattern)
