"""Compiled kernels that cut a block of bytes into records and fields. No bytes are copied but those that are unescaped.

``data[begin:end]`` is whole records; a newline ends it or follows it, and PAD bytes past ``end`` are readable.
``start``, ``length`` [columns wanted, lines]: views of the fields of good records; a negative length says that the
field must be unescaped. ``line`` [lines, 2] takes a good record's first byte and end; ``bad`` [lines, 3] those of a bad
line, and the reason.
"""

from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import bytes_equal, bytes_high, entry, kernel, load64, ones, trailing_zeros
from fieldwise.features.kernels.strings import TEXT

PAD = 80
"""Readable bytes that must follow a block, the first one a newline if the last line has none."""

NEWLINE, RETURN, BACKSLASH, QUOTE = 10, 13, 92, 34
REASONS = ("", "column_count", "bad_quote", "bad_json", "nested", "undecodable", "too_long", "unclosed_quote")
"""A bad line's reason by number."""
COLUMN_COUNT, BAD_QUOTE, BAD_JSON, NESTED, UNDECODABLE, TOO_LONG, UNCLOSED_QUOTE = range(1, 8)

BYTES = "Array(uint8, 1, 'C', readonly=True)"
TARGET = "Array(int32, 1, 'C', readonly=True)"
OUT = "int64[:, ::1], int32[:, ::1], int64[:, ::1], int64[:, ::1]"


_ONES, _HIGHS, _U8 = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080), np.uint64(8)
_ESCAPES = np.arange(256, dtype=np.uint8)
_ESCAPES[[98, 102, 110, 114, 116]] = [8, 12, 10, 13, 9]  # b f n r t
_EVERY = np.uint64(0xFFFFFFFFFFFFFFFF)
_NEWLINES = _ONES * np.uint64(NEWLINE)


@kernel
def _zeros(word):  # type: ignore[no-untyped-def]
    """The high bit of every zero byte (exact for the lowest one)."""
    return (word - _ONES) & ~word & _HIGHS


@kernel
def line_end(data, i):  # type: ignore[no-untyped-def]
    """Position of the next newline, eight bytes at a time."""
    while True:
        hit = _zeros(load64(data, i) ^ _NEWLINES)
        if hit != 0:
            return i + np.int64(trailing_zeros(hit) // _U8)
        i += 8


@entry(f"Tuple((int64, boolean, boolean))({BYTES}, int64, int64, int64)")
def survey(data, begin, end, byte):  # type: ignore[no-untyped-def]
    """(at least as many as there are lines, whether a byte is above 127, whether one is ``byte``; -1 is none)."""
    lines, high, found = np.int64(1), np.uint64(0), np.uint64(0)
    rest = end - (end - begin) % 64
    for i in range(begin, rest, 64):
        lines += np.int64(ones(bytes_equal(data, i, np.uint8(NEWLINE))))
        high |= bytes_high(data, i)
        found |= bytes_equal(data, i, np.uint8(byte))
    for i in range(rest, end):
        lines += data[i] == NEWLINE
        high |= np.uint64(data[i] > 127)
        found |= np.uint64(data[i] == byte)
    return lines, high != 0, byte >= 0 and found != 0


@entry(f"int64({BYTES}, int64, int64)")
def count_lines(data, begin, end):  # type: ignore[no-untyped-def]
    """Lines that are not blank."""
    lines, i = 0, begin
    while i < end:
        first = i
        i = min(line_end(data, i), end)
        lines += i - first > (i > first and data[i - 1] == RETURN)
        i += 1
    return lines


@kernel
def _refuse_lines(data, first, stop, reason, bad, bads):  # type: ignore[no-untyped-def]
    """Every line of a record that does not parse becomes a bad one, for it may have swallowed them."""
    while first < stop:
        i = min(line_end(data, first), stop)
        last = i - 1 if i > first and data[i - 1] == RETURN else i
        if last > first:
            bad[bads, 0], bad[bads, 1], bad[bads, 2] = first, last, reason
            bads += 1
        first = i + 1
    return bads


@kernel
def _ends(data, i, separator):  # type: ignore[no-untyped-def]
    """Which of the 64 bytes from ``i`` on end a field."""
    return bytes_equal(data, i, separator) | bytes_equal(data, i, np.uint8(NEWLINE))


@kernel
def _from(word, i):  # type: ignore[no-untyped-def]
    """The bits of ``word`` from bit ``i`` in [0, 64) on."""
    return word & (_EVERY << np.uint64(i))


@entry(f"UniTuple(int64, 2)({BYTES}, int64, int64, uint8, int64, boolean, int64, {TARGET}, {OUT})")
def scan_delimited(data, begin, end, separator, quote, multiline, columns, target, start, length, line, bad):  # type: ignore[no-untyped-def]
    """Returns (good records, bad lines). ``target`` [columns]: where in ``start`` a column goes, or -1; quote -1: none.

    Lines end in LF or CR LF; blank lines are no rows. Quotes are read as ``features.kernels.records`` says; without
    ``multiline`` a quote that is open at its line's end is unclosed. ``hits`` are the separators and newlines not yet
    passed among the 64 bytes from ``base`` on, ``marks`` the quotes among those from ``shown`` on.
    """
    rows, bads, i = 0, 0, begin
    base, hits = begin, _ends(data, begin, separator)
    shown, marks = begin - 64, np.uint64(0)
    starts, lengths, most = start.ravel(), length.ravel(), start.shape[1]
    while i < end:
        first, column, reason = i, 0, 0
        while True:
            field = i
            if data[np.uint64(i)] == quote and i < end:
                i += 1
                doubled = False
                while True:  # to the closing quote
                    if i - shown >= 64:
                        shown, marks = i, bytes_equal(data, i, np.uint8(quote))
                    ahead = _from(marks, i - shown)
                    if ahead == 0:
                        i = shown + 64
                        if i < end:
                            continue
                        break
                    i = shown + np.int64(trailing_zeros(ahead))
                    if i + 1 >= end or data[np.uint64(i + 1)] != quote:
                        break
                    doubled = True
                    i += 2
                if i >= end or not (multiline or line_end(data, field) > i):
                    reason, i = UNCLOSED_QUOTE, end if multiline else line_end(data, field)
                    break
                if column < columns and target[np.uint64(column)] >= 0:
                    at = np.uint64(target[np.uint64(column)] * most + rows)
                    starts[at], lengths[at] = field + 1, field + 1 - i if doubled else i - field - 1
                i += 1
                if i < end and data[i] == RETURN and (i + 1 == end or data[i + 1] == NEWLINE):
                    i += 1
                if i < end and data[np.uint64(i)] != separator and data[np.uint64(i)] != NEWLINE:
                    reason = BAD_QUOTE
                    break
                if i - base < 64:
                    hits = _from(hits, i - base)
                else:
                    base, hits = i, _ends(data, i, separator)
                hits &= hits - np.uint64(1)
            else:
                while hits == 0:
                    base += 64
                    hits = _ends(data, base, separator)
                i = base + np.int64(trailing_zeros(hits))
                hits &= hits - np.uint64(1)
                if column < columns and target[np.uint64(column)] >= 0:
                    at = np.uint64(target[np.uint64(column)] * most + rows)
                    starts[at], lengths[at] = field, i - field
                    if data[np.uint64(i)] == NEWLINE and i > field and data[i - 1] == RETURN:
                        lengths[at] -= 1
            column += 1
            if data[np.uint64(i)] == NEWLINE:
                break
            i += 1
        if reason:
            i = min(line_end(data, i), end)
            base, hits = i + 1, _ends(data, i + 1, separator)
        stop = i - 1 if i > first and data[i - 1] == RETURN else i
        i += 1
        if stop == first:
            continue
        if reason == 0 and column != columns:
            reason = COLUMN_COUNT
        if reason:
            bads = _refuse_lines(data, first, i - 1, reason, bad, bads)
        else:
            line[rows, 0], line[rows, 1] = first, stop
            rows += 1
    return rows, bads


@kernel
def hex4(data, i, stop):  # type: ignore[no-untyped-def]
    """The number of four hexadecimal digits, or -1."""
    if i + 4 > stop:
        return -1
    value = np.int64(0)
    for k in range(i, i + 4):
        c = np.int64(data[k])
        if 48 <= c <= 57:
            value = value * 16 + c - 48
        elif 97 <= c | 32 <= 102:
            value = value * 16 + (c | 32) - 87
        else:
            return -1
    return value


@kernel
def _put_utf8(out, at, code):  # type: ignore[no-untyped-def]
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at], out[at + 1] = 0xC0 | code >> 6, 0x80 | code & 63
        return at + 2
    if code < 0x10000:
        out[at], out[at + 1], out[at + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63
        return at + 3
    out[at], out[at + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 63
    out[at + 2], out[at + 3] = 0x80 | code >> 6 & 63, 0x80 | code & 63
    return at + 4


@entry(f"int64({TEXT}, int64, Array(int32, 1, 'C', readonly=True), uint8[::1], int32[::1])")
def copy_decoded(data, start, length, quote, codes, out, offset):  # type: ignore[no-untyped-def]
    """Fields of one column, decoded and unescaped (``quote`` doubled; JSON's escapes where quote is -1); returns bytes.

    codes [256]: code point of each byte of a single-byte encoding, or empty for UTF-8.
    """
    at = 0
    for i in range(len(start)):
        offset[i] = at
        k, stop, escaped = start[i], start[i] + abs(length[i]), length[i] < 0
        while k < stop:
            c = np.int64(data[k])
            k += 1
            if escaped and quote < 0 and c == BACKSLASH:
                e = data[k]
                k += 1
                if e == 117:
                    code = hex4(data, k, stop)
                    k += 4
                    if 0xD800 <= code <= 0xDBFF:
                        code = 0x10000 + ((code - 0xD800) << 10) + hex4(data, k + 2, stop) - 0xDC00
                        k += 6
                    at = _put_utf8(out, at, code)
                else:
                    out[at] = _ESCAPES[e]
                    at += 1
                continue
            if escaped and c == quote:
                k += 1
            if c < 128 or len(codes) == 0:
                out[at] = c
                at += 1
            else:
                at = _put_utf8(out, at, codes[c])
    offset[len(start)] = at
    return at
