"""Compiled kernels that cut JSON lines into the values of wanted keys; views as in ``features.kernels.delimited``."""

from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import entry, kernel, load32
from fieldwise.features.kernels.delimited import (
    BACKSLASH,
    BAD_JSON,
    BYTES,
    NESTED,
    OUT,
    QUOTE,
    RETURN,
    TARGET,
    hex4,
    line_end,
)

_TRUE, _NULL, _FALS = (np.uint64(int.from_bytes(word, "little")) for word in (b"true", b"null", b"fals"))
_BASIS, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
"""Of the hash FNV-1a."""
_ENDS = "Array(int64, 1, 'C', readonly=True)"
_FLAGS = "Array(boolean, 1, 'C', readonly=True)"


@kernel
def _blank(data, i, stop):  # type: ignore[no-untyped-def]
    while i < stop and (data[i] == 32 or data[i] == 9):
        i += 1
    return i


@kernel
def _json_string(data, i, stop):  # type: ignore[no-untyped-def]
    """(position of the closing quote or -1, whether it holds escapes) of a string whose text begins at ``i``."""
    escaped = False
    while i < stop:
        c = data[i]
        if c == QUOTE:
            return i, escaped
        if c == BACKSLASH:
            escaped = True
            if i + 1 >= stop:
                return -1, True
            e = data[i + 1]
            if e == 117:  # u
                code = hex4(data, i + 2, stop)
                if 0xD800 <= code <= 0xDBFF:
                    if not (i + 7 < stop and data[i + 6] == BACKSLASH and data[i + 7] == 117):
                        return -1, True
                    if not 0xDC00 <= hex4(data, i + 8, stop) <= 0xDFFF:
                        return -1, True
                    i += 6
                elif code < 0 or 0xDC00 <= code <= 0xDFFF:
                    return -1, True
                i += 4
            elif not (e == 34 or e == 92 or e == 47 or e == 98 or e == 102 or e == 110 or e == 114 or e == 116):
                return -1, True
            i += 1
        i += 1
    return -1, escaped


@kernel
def _nested_end(data, i, stop):  # type: ignore[no-untyped-def]
    """Position after the object or array that opens at ``i``, or -1. Brackets and strings are checked, nothing else."""
    depth = 0
    while i < stop:
        c = data[i]
        if c == QUOTE:
            i, _ = _json_string(data, i + 1, stop)
            if i < 0:
                return -1
        elif c == 123 or c == 91:
            depth += 1
        elif c == 125 or c == 93:
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    return -1


@kernel
def _bare_end(data, i, stop):  # type: ignore[no-untyped-def]
    """Position after a number or true, false, null at ``i``, or -1."""
    k = i
    while k < stop and ((43 <= data[k] <= 57 and data[k] != 44 and data[k] != 47) or 97 <= data[k] | 32 <= 122):
        k += 1
    n = k - i
    word = load32(data, i)
    true_or_null = n == 4 and (word == _TRUE or word == _NULL)  # noqa: SIM109
    if true_or_null or (n == 5 and word == _FALS and data[i + 4] == 101):
        return k
    if n == 0 or not (data[i] == 45 or 48 <= data[i] <= 57):
        return -1
    for j in range(i, k):
        if data[j] >= 65 and data[j] | 32 != 101:
            return -1
    return k


@kernel
def _is_key(data, i, n, keys, key_end, k):  # type: ignore[no-untyped-def]
    first = key_end[k - 1] if k else 0
    if key_end[k] - first != n:
        return False
    for j in range(n):  # noqa: SIM110  numba has no all()
        if data[i + j] != keys[first + j]:
            return False
    return True


@kernel
def _mixed(code, byte):  # type: ignore[no-untyped-def]
    """A step of FNV-1a."""
    return (code ^ np.uint64(byte)) * _PRIME


@kernel
def _slot(code, index):  # type: ignore[no-untyped-def]
    return np.int64((code ^ (code >> np.uint64(32))) & np.uint64(len(index) - 1))


@entry(f"void({BYTES}, {_ENDS}, int32[::1])")
def index_keys(keys, key_end, index):  # type: ignore[no-untyped-def]
    """Fill a hash table, larger than there are keys and a power of two, with the number of each key; -1 is free."""
    first = np.int64(0)
    for k in range(len(key_end)):
        code = _BASIS
        for j in range(first, key_end[k]):
            code = _mixed(code, keys[j])
        slot = _slot(code, index)
        while index[slot] >= 0:
            slot = (slot + 1) & (len(index) - 1)
        index[slot] = k
        first = key_end[k]


@kernel
def _key(data, i, n, keys, key_end, index, guess):  # type: ignore[no-untyped-def]
    """Number of the key ``data[i : i + n]``, or -1; ``guess`` is tried first, as lines repeat their order."""
    if guess < len(key_end) and _is_key(data, i, n, keys, key_end, guess):
        return guess
    code = _BASIS
    for j in range(i, i + n):
        code = _mixed(code, data[j])
    slot = _slot(code, index)
    while index[slot] >= 0:
        if _is_key(data, i, n, keys, key_end, index[slot]):
            return np.int64(index[slot])
        slot = (slot + 1) & (len(index) - 1)
    return np.int64(-1)


@kernel
def _utf8(code, k):  # type: ignore[no-untyped-def]
    """Byte k of a code point in UTF-8, or -1 behind its last."""
    if code < 0x80:
        return code if k == 0 else -1
    more = 1 if code < 0x800 else 2 if code < 0x10000 else 3
    if k > more:
        return -1
    if k == 0:
        return (0xC0 if more == 1 else 0xE0 if more == 2 else 0xF0) | (code >> 6 * more)
    return 0x80 | ((code >> 6 * (more - k)) & 0x3F)


@kernel
def _unescaped(data, j, stop):  # type: ignore[no-untyped-def]
    """(code point, position behind it) of the escape whose letter is at ``j``."""
    e = data[j]
    if e == 117:
        code = hex4(data, j + 1, stop)
        if 0xD800 <= code <= 0xDBFF:
            return 0x10000 + ((code - 0xD800) << 10) + (hex4(data, j + 7, stop) - 0xDC00), j + 11
        return code, j + 5
    if e == 98:
        return np.int64(8), j + 1
    if e == 102:
        return np.int64(12), j + 1
    if e == 110:
        return np.int64(10), j + 1
    if e == 114:
        return np.int64(13), j + 1
    if e == 116:
        return np.int64(9), j + 1
    return np.int64(e), j + 1


@kernel
def _escaped_key(data, i, n, keys, key_end, index, text):  # type: ignore[no-untyped-def]
    """``_key`` of a key that holds escapes, as writers that keep to ASCII write it; `_json_string` found it sound.

    ``text``: room for a byte more than the longest key.
    """
    j, size = i, 0
    while j < i + n and size < len(text):
        code, escaped = np.int64(data[j]), data[j] == BACKSLASH
        j += 1
        if escaped:
            code, j = _unescaped(data, j, i + n)
        for b in range(4):  # a byte that is no escape stands for itself, whatever code point it is part of
            byte = _utf8(code, b) if escaped else (code if b == 0 else -1)
            if byte < 0 or size == len(text):
                break
            text[size] = byte
            size += 1
    return _key(text, 0, size, keys, key_end, index, len(key_end))


@kernel
def _list_items(data, i, stop, start, length, at, fill):  # type: ignore[no-untyped-def]
    """Views of the values of the list that is ``data[i:stop]`` go to ``at`` and on (or nowhere: not ``fill``).

    Returns the position after the last one; -1 for bad JSON, -2 for a list that holds a list or an object.
    """
    i = _blank(data, i + 1, stop)
    if i == stop - 1:
        return at
    while True:
        first, size = i, 0
        if data[i] == QUOTE:
            close, escaped = _json_string(data, i + 1, stop)
            if close < 0:
                return -1
            first, size, i = i + 1, close - i - 1, close + 1
            if escaped:
                size = -size
        elif data[i] == 123 or data[i] == 91:
            return -2
        else:
            i = _bare_end(data, i, stop)
            if i < 0:
                return -1
            size = 0 if data[first] == 110 else i - first
        if fill:
            start[at], length[at] = first, size
        at += 1
        i = _blank(data, i, stop)
        if i == stop - 1:
            return at
        if data[i] != 44:
            return -1
        i = _blank(data, i + 1, stop)


@kernel
def _json_line(data, i, stop, keys, key_end, index, text, lists, start, length, row):  # type: ignore[no-untyped-def]
    """Views of the wanted keys' values in one object, a list with its brackets; returns a reason or 0."""
    for k in range(len(key_end)):
        start[k, row], length[k, row] = 0, 0
    i = _blank(data, i, stop)
    if i >= stop or data[i] != 123:
        return BAD_JSON
    i = _blank(data, i + 1, stop)
    guess = 0
    nested = False
    more = not (i < stop and data[i] == 125)
    while more:
        if i >= stop or data[i] != QUOTE:
            return BAD_JSON
        close, escaped = _json_string(data, i + 1, stop)
        if close < 0:
            return BAD_JSON
        if escaped:
            k = _escaped_key(data, i + 1, close - i - 1, keys, key_end, index, text)
        else:
            k = _key(data, i + 1, close - i - 1, keys, key_end, index, guess)
        i = _blank(data, close + 1, stop)
        if i >= stop or data[i] != 58:
            return BAD_JSON
        i = _blank(data, i + 1, stop)
        if i >= stop:
            return BAD_JSON
        first, size = i, 0
        if data[i] == QUOTE:
            close, escaped = _json_string(data, i + 1, stop)
            if close < 0:
                return BAD_JSON
            first, size, i = i + 1, close - i - 1, close + 1
            if escaped:
                size = -size
        elif data[i] == 123 or data[i] == 91:
            i = _nested_end(data, i, stop)
            if i > 0 and k >= 0 and lists[k] and data[first] == 91:
                items = _list_items(data, first, i, start[k], length[k], 0, False)
                if items < 0:
                    return BAD_JSON if items == -1 else NESTED
                size = i - first
            else:
                nested = nested or k >= 0
        else:
            i = _bare_end(data, i, stop)
            size = 0 if data[first] == 110 else i - first
        if i < 0:
            return BAD_JSON
        if k >= 0:
            start[k, row], length[k, row] = first, size
            guess = k + 1
        i = _blank(data, i, stop)
        more = i < stop and data[i] == 44
        if more:
            i = _blank(data, i + 1, stop)
    if i >= stop or data[i] != 125 or _blank(data, i + 1, stop) != stop:
        return BAD_JSON
    return NESTED if nested else 0


@entry(f"UniTuple(int64, 2)({BYTES}, int64, int64, {BYTES}, {_ENDS}, {TARGET}, {_FLAGS}, {OUT})")
def scan_json(data, begin, end, keys, key_end, index, lists, start, length, line, bad):  # type: ignore[no-untyped-def]
    """``scan_delimited`` for one JSON object a line; key k is ``keys[key_end[k - 1] : key_end[k]]``, found by
    the ``index`` of `index_keys`.

    ``lists[k]``: its value may be a list of texts, numbers, booleans and nulls; its view is the whole list.
    """
    longest = np.int64(0)
    for k in range(len(key_end)):
        longest = max(longest, key_end[k] - (key_end[k - 1] if k else 0))
    text = np.empty(longest + 1, np.uint8)
    rows, bads, i = 0, 0, begin
    while i < end:
        first = i
        i = min(line_end(data, i), end)
        stop = i - 1 if i > first and data[i - 1] == RETURN else i
        i += 1
        if stop == first:
            continue
        reason = _json_line(data, first, stop, keys, key_end, index, text, lists, start, length, rows)
        if reason:
            bad[bads, 0], bad[bads, 1], bad[bads, 2] = first, stop, reason
            bads += 1
        else:
            line[rows, 0], line[rows, 1] = first, stop
            rows += 1
    return rows, bads


@entry(f"int64({BYTES}, int64[::1], int32[::1], int32[::1], int64[::1], int32[::1])")
def split_lists(data, start, length, offset, item_start, item_length):  # type: ignore[no-untyped-def]
    """Items of views of ``scan_json``: row i has those from offset[i] to offset[i + 1]. A bare value is a list of one.

    Room is needed for an item of every byte. Returns the number of items.
    """
    at = 0
    offset[0] = 0
    for i in range(len(start)):
        first, n = start[i], np.int64(length[i])
        if n > 0 and data[first] == 91 and data[first - 1] != QUOTE:
            at = _list_items(data, first, first + n, item_start, item_length, at, True)
        elif n != 0:
            item_start[at], item_length[at] = first, n
            at += 1
        offset[i + 1] = at
    return at
