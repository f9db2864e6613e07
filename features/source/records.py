"""Records of text: blocks of whole ones from a stream, and cuts of a file moved to where records begin.

A record is a line, or several where a quoted value holds line breaks (see ``features.kernels.records``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldwise.features.files.compression import opened_raw
from fieldwise.features.kernels.delimited import NEWLINE, PAD, RETURN, TOO_LONG, UNCLOSED_QUOTE
from fieldwise.features.kernels.records import PLAIN, QUOTED, RECORD, SPOILT, find_records

Bytes = npt.NDArray[np.uint8]

BLOCK = 2 << 20
"""Bytes read at once."""
MAX_LINE = 64 << 20
"""Longer records, line end included, are quarantined, line by line."""
MAX_HEADER = 1 << 20
BOM = b"\xef\xbb\xbf"
_SKIPPED = 0
"""In place of a reason: a record that is dropped because it is a header, or begins in another range."""


class Dialect(NamedTuple):
    """What tells where records end."""

    separator: int
    quote: int
    """-1 where every line is a record."""

    def find(self, data: Bytes, begin: int, end: int, state: int) -> tuple[int, int, int]:
        """See `find_records`."""
        found: tuple[int, int, int] = find_records(data, begin, end, np.uint8(self.separator), self.quote, state)
        return found


_EVERY_LINE = Dialect(NEWLINE, -1)


class Block(NamedTuple):
    """Whole records ``data[begin:end]``, PAD bytes behind them; data[0] is the file's byte ``position``."""

    data: Bytes
    begin: int
    end: int
    position: int
    reason: int = 0
    """Not 0: these are lines of a record longer than MAX_LINE, which nothing can hold. The last may be cut."""


def blocks(stream: BinaryIO, start: int, stop: int, header: bool, dialect: Dialect) -> Iterator[Block]:
    """The records that begin in [start, stop), without the first one if ``header``.

    The first newline from ``start - 1`` on must end a record.
    """
    position = max(start - 1, 0)  # the newline before the first record
    if position:
        stream.seek(position)
    state = SPOILT if start else RECORD
    drop = _SKIPPED if start or header else None  # why the record that data begins with, or in, is dropped
    fresh = True  # whether data begins with a line
    carry = np.empty(0, np.uint8)
    while position < stop or drop:
        data, filled, got = _more(stream, carry, stop - position)
        begin = len(BOM) if position == 0 and data[: min(len(BOM), filled)].tobytes() == BOM else 0
        first, last, _ = dialect.find(data, begin, filled, state)
        if not got:
            first, last = first if first >= 0 else filled, filled
        if drop is None and (first if first >= 0 else filled) - begin > MAX_LINE:
            drop = UNCLOSED_QUOTE if dialect.find(data, begin, begin + MAX_LINE, state)[2] == QUOTED else TOO_LONG
        if drop is not None:
            end = first if first >= 0 else _after_last_newline(data, filled) or filled
            if drop != _SKIPPED:
                own = begin if fresh else _after_newline(data, begin, end)
                for first_byte, stop_byte in pairwise(_pieces(data, own, end)):
                    yield Block(data, first_byte, stop_byte, position, drop)
            if first < 0:
                state, fresh = dialect.find(data, begin, end, state)[2], data[end - 1] == NEWLINE
                carry, position = data[end:filled].copy(), position + end
                continue
            begin, drop, state, fresh = end, None, RECORD, True
        end = max(last, begin)
        if end > begin and position + end > stop > position + begin:
            end = _first_from(stop - position, data, begin, end, dialect)
        if end > begin and position + begin < stop:
            yield Block(data, begin, end, position)
        if not got:
            return
        carry, position = data[end:filled].copy(), position + end


def _more(stream: BinaryIO, carry: Bytes, wanted: int) -> tuple[Bytes, int, int]:
    """(data, bytes that are filled, bytes read): ``carry`` and what follows it, PAD newlines behind."""
    room = max(min(BLOCK, wanted - len(carry) + (64 << 10)), 64 << 10, min(len(carry), MAX_LINE - len(carry)))
    data = np.empty(len(carry) + room + PAD, np.uint8)
    data[: len(carry)] = carry
    got = stream.readinto(data.data[len(carry) : len(carry) + room])  # type: ignore[attr-defined]
    filled = len(carry) + got
    data[filled : filled + PAD] = NEWLINE
    return data, filled, got


def _first_from(at: int, data: Bytes, begin: int, end: int, dialect: Dialect) -> int:
    """Where the first record at or after ``at`` begins, one that ends at ``end`` at the latest."""
    _, last, state = dialect.find(data, begin, at, RECORD)
    first = at if last == at else dialect.find(data, at, end, state)[0]
    return first if first >= 0 else end  # the file's last record need not end in a newline


def lines(block: Block) -> npt.NDArray[np.int64]:
    """[n, 2]: first byte and end of the lines that are not blank."""
    ends = np.flatnonzero(block.data[block.begin : block.end] == NEWLINE) + block.begin
    if len(ends) == 0 or ends[-1] + 1 < block.end:
        ends = np.append(ends, block.end)
    begins = np.concatenate([[block.begin], ends[:-1] + 1])
    ends = ends - ((ends > begins) & (block.data[ends - 1] == RETURN))
    return np.column_stack([begins, ends])[ends > begins]


def first_record(stream: BinaryIO, dialect: Dialect, blank: bool) -> bytes:
    """The first record (the first that is no blank line unless ``blank``) without BOM and line end.

    Raises EOFError if there is none, ValueError if it does not end within MAX_HEADER bytes.
    """
    data, begin, more = b"", 0, True
    while more and len(data) < MAX_HEADER:
        more = bool(got := stream.read(64 << 10))
        data = (data + got).removeprefix(BOM) if begin == 0 else data + got
        padded = np.frombuffer(data + bytes([NEWLINE]) * PAD, np.uint8)
        while (end := dialect.find(padded, begin, len(data), RECORD)[0]) >= 0 or (not more and begin < len(data)):
            state = dialect.find(padded, begin, len(data), RECORD)[2] if end < 0 else RECORD
            if state == QUOTED:
                raise ValueError("a quote that is not closed")
            record = data[begin : end if end >= 0 else len(data)].rstrip(b"\r\n")
            if record or blank:
                return record
            begin = end if end >= 0 else len(data)
    if begin == len(data):
        raise EOFError
    raise ValueError(f"a line of more than {MAX_HEADER:,} bytes")


def safe_cuts(files: Sequence[tuple[str, Sequence[int]]], dialect: Dialect) -> list[list[int]]:
    """For every file its cuts (ascending, the first 0, the last its size), moved to where the next record begins if
    the next line begins inside a quoted value.

    Files are read once, by threads: what each piece does to every state it may begin in. Composed in order, that tells
    the state at each cut.
    """
    with ThreadPoolExecutor() as pool:
        pieces = [(path, start, stop) for path, cuts in files for start, stop in pairwise(cuts)]
        found = pool.map(lambda piece: _survey(piece[0], piece[1], piece[2], dialect), pieces)
        return [_moved(cuts, [next(found) for _ in range(len(cuts) - 1)]) for _, cuts in files]


class _Piece(NamedTuple):
    """What bytes [start, stop) of a file do, by the state at ``start``."""

    state: list[int]
    """At ``stop``."""
    first: list[int]
    """Where the first record behind an end of one begins, or -1."""
    newline: bool
    """Whether the last byte is one."""


def _survey(path: str, start: int, stop: int, dialect: Dialect) -> _Piece:
    state, first, newline = np.arange(SPOILT + 1), np.full(SPOILT + 1, -1), False
    data = np.empty(BLOCK + PAD, np.uint8)
    with opened_raw(path) as stream:
        stream.seek(start)
        while start < stop and (got := stream.readinto(data.data[: min(BLOCK, stop - start)])):
            begin = len(BOM) if start == 0 and data[: min(len(BOM), got)].tobytes() == BOM else 0
            before = state.copy()
            for one in np.unique(before):  # behind the first newline two at most
                same = before == one
                found, _, state[same] = dialect.find(data, begin, got, one)
                if found >= 0:
                    first[same & (first < 0)] = start + found
            start, newline = start + got, data[got - 1] == NEWLINE
    return _Piece(state.tolist(), first.tolist(), newline)


def _moved(cuts: Sequence[int], pieces: Sequence[_Piece]) -> list[int]:
    states, fresh = [RECORD], [True]
    for piece in pieces:
        states.append(piece.state[states[-1]])
        fresh.append(piece.newline)
    moved, following = [cuts[-1]], cuts[-1]  # where the next record begins
    for n in reversed(range(len(pieces))):
        state, first = states[n], pieces[n].first
        # SPOILT: the next line
        stays = state == RECORD or (not fresh[n] and first[state] == first[SPOILT] >= 0)
        following = cuts[n] if state == RECORD else first[state] if first[state] >= 0 else following
        moved.append(cuts[n] if stays else following)
    return moved[::-1]


def _after_newline(data: Bytes, first: int, stop: int) -> int:
    """Position after the first newline at or after ``first``, or ``stop``."""
    found = _EVERY_LINE.find(data, first, stop, PLAIN)[0]
    return found if found >= 0 else stop


def _pieces(data: Bytes, begin: int, end: int) -> list[int]:
    """Cuts of lines at about every BLOCK bytes: each of them may be a row of quarantine."""
    cuts = [begin]
    while cuts[-1] < end:
        near = min(cuts[-1] + BLOCK, end)
        cuts.append(near if near == end else _after_newline(data, near - 1, end))
    return cuts


def _after_last_newline(data: Bytes, stop: int) -> int:
    """Position after the last newline before ``stop``, or 0."""
    return max(_EVERY_LINE.find(data, 0, stop, PLAIN)[1], 0)
