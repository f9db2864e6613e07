"""Compiled kernel that finds where records of delimited text end, whatever block of bytes one looks at.

The automaton is RFC 4180's. A quote opens only where a value begins; inside, a doubled quote is one of the text; behind
the closing one only the separator or the line's end (LF or CR LF) may follow. Anything else spoils the record up to the
end of its line. ``features.kernels.delimited.scan_delimited`` reads values by the same rules.
"""

from __future__ import annotations

import numpy as np

from fieldwise.features.kernels.compile import bytes_equal, entry, kernel, leading_zeros, trailing_zeros
from fieldwise.features.kernels.delimited import BYTES, NEWLINE, RETURN

RECORD, VALUE, PLAIN, QUOTED, CLOSED, RETURNED, SPOILT = range(7)
"""What the next byte belongs to: the first value of a record, another value's beginning, the rest of an unquoted one,
quoted text; or it follows a quote in quoted text, a CR behind a closing quote, something that may not be there."""


@kernel
def _find(data, i, end, byte):  # type: ignore[no-untyped-def]
    """Position of the first ``byte`` in data[i:end], or ``end``."""
    while i < end:
        hits = bytes_equal(data, i, np.uint8(byte))
        if hits != 0:
            return min(i + np.int64(trailing_zeros(hits)), end)
        i += 64
    return end


@kernel
def _inside(quotes, inside):  # type: ignore[no-untyped-def]
    """Which of 64 bytes are quoted text, its opening quote included: those behind an odd number of ``quotes``."""
    word = quotes
    for shift in (1, 2, 4, 8, 16, 32):
        word ^= word << np.uint64(shift)
    return ~word if inside else word


@entry(f"UniTuple(int64, 3)({BYTES}, int64, int64, uint8, int64, int64)")
def find_records(data, begin, end, separator, quote, state):  # type: ignore[no-untyped-def]
    """(position behind the first end of a record in data[begin:end], behind the last one; -1: none; state at ``end``).

    ``state`` is that at ``begin``; quote -1: none. 64 bytes past ``end`` are readable.

    Where every quote stands where one may stand, counting them tells what is quoted: that is done for 64 bytes at
    once, and the automaton goes step by step over the others.
    """
    first, last, i = -1, -1, begin
    one = np.uint64(1)
    while i < end:
        while quote >= 0 and state <= QUOTED and end - i >= 64:
            quotes = bytes_equal(data, i, np.uint8(quote))
            newlines = bytes_equal(data, i, np.uint8(NEWLINE))
            separators = bytes_equal(data, i, separator)
            inside = _inside(quotes, state == QUOTED)
            breaks, width = separators | newlines, np.int64(64)
            if quotes != 0:
                returns = bytes_equal(data, i, np.uint8(RETURN)) & (newlines >> one)
                closing = quotes & ~inside
                border = closing >> np.uint64(62)
                if border != 0:  # what follows is not in sight: the next 64 bytes begin with this quote
                    width += np.int64(trailing_zeros(border)) - 2
                    quotes &= (one << np.uint64(width)) - one
                    closing &= quotes
                before = (breaks | quotes) << one | np.uint64(state == RECORD or state == VALUE)  # noqa: SIM109
                stray = quotes & inside & ~before
                stray |= closing & ~((breaks | bytes_equal(data, i, np.uint8(quote)) | returns) >> one)
                if stray != 0:
                    break
            ends = newlines & ~inside
            if width < 64:
                ends &= (one << np.uint64(width)) - one
            if ends != 0:
                if first < 0:
                    first = i + np.int64(trailing_zeros(ends)) + 1
                last = i + 64 - np.int64(leading_zeros(ends))
            i += width
            here = np.uint64(width - 1)
            if (inside >> here) & one != 0:
                state = QUOTED
            elif (newlines >> here) & one != 0:
                state = RECORD
            else:
                state = VALUE if (separators >> here) & one != 0 else PLAIN
        if i >= end:
            break
        if state == QUOTED:
            i = _find(data, i, end, quote)
            if i < end:
                i += 1
                state = CLOSED
        elif state == CLOSED and data[i] == quote:
            i += 1
            state = QUOTED
        elif state == CLOSED and data[i] == RETURN:
            i += 1
            state = RETURNED
        elif CLOSED <= state <= RETURNED:
            legal = data[i] == NEWLINE or (state == CLOSED and data[i] == separator)
            state = PLAIN if legal else SPOILT
        elif state == SPOILT:
            i = _find(data, i, end, NEWLINE)
            if i < end:
                i += 1
                first, last, state = first if first >= 0 else i, i, RECORD
        else:  # no quote is open: every newline up to the next one that opens ends a record
            opening = i if quote >= 0 and state != PLAIN and data[i] == quote else -1
            if opening < 0:
                opening = _find(data, i + 1, end, quote) if quote >= 0 else end
                while opening < end and data[opening - 1] != separator and data[opening - 1] != NEWLINE:
                    opening = _find(data, opening + 1, end, quote)
            newline = opening - 1
            while newline >= i and data[newline] != NEWLINE:
                newline -= 1
            if newline >= i:
                last = newline + 1
                if first < 0:
                    first = _find(data, i, last, NEWLINE) + 1
            if opening < end:
                i, state = opening + 1, QUOTED
            else:
                i = end
                state = RECORD if data[end - 1] == NEWLINE else VALUE if data[end - 1] == separator else PLAIN
    return first, last, state
