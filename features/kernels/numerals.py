"""Compiled kernels that read texts as numbers and moments. Views into a byte buffer as in
``features.kernels.strings``."""

from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import entry, kernel
from fieldwise.features.kernels.strings import FIRST, MISSING, TEXT

OK, EMPTY, HARD, BAD = 0, 1, 2, 3
"""What reading a text as a number or moment came to. HARD: valid, but beyond the exact fast path."""

_TEN = 10.0 ** np.arange(23)
_DAYS_IN = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_MONTHS = np.frombuffer(b"janfebmaraprmayjunjulaugsepoctnovdec", np.uint8)
_EDGES = "Array(float64, 1, 'C', readonly=True)"


@kernel
def _decimal(data, start, stop):  # type: ignore[no-untyped-def]
    """(value, status) of a decimal text; exact for integers up to 19 digits, else where mantissa <= 2^53 and |exponent|
    <= 22 (Clinger's fast path).
    """
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
    if digits > 19 or (mantissa > np.uint64(1 << 53) and scale != 0) or scale > 22 or scale < -22:
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
        if d == 89 or d == 121 or d == 109 or d == 100 or d == 72 or d == 77 or d == 83:
            # one call for all of these: each would be compiled into this, half a second
            value, i = _digits(data, i, stop, 4 if d == 89 else 2 if d == 121 else 1, 4 if d == 89 else 2)
            if d == 89:  # Y
                year = value
            elif d == 121:  # y, as POSIX: 69..99 are of the last century
                year = value + (1900 if value >= 69 else 2000)
            elif d == 109:  # m
                month = value
            elif d == 100:  # d
                day = value
            elif d == 72:  # H
                hour = value
            elif d == 77:  # M
                minute = value
            else:  # S
                second = value
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
