"""A block of whole records to Arrow columns of strings (or lists of them); lines that do not parse are told by position
and reason."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.arrays import Int32, Int64, UInt8
from fieldwise.features.columns.batch import Columns, Views
from fieldwise.features.kernels import delimited as pk
from fieldwise.features.kernels import strings


@dataclass(frozen=True)
class Parsed:
    """columns: texts (empty is missing), one row per good record. line int64 [n, 2], bad int64 [m, 3]: see kernels."""

    columns: Columns
    line: Int64
    bad: Int64


class Parser(Protocol):
    """Parses ``data[begin:end]``, whole records followed by ``delimited.PAD`` bytes."""

    def __call__(self, data: UInt8, begin: int, end: int) -> Parsed: ...


class _Lines:
    """What both text formats share: room for views, the check of the encoding, and what must be unescaped."""

    def __init__(self, wanted: Sequence[str], codes: Int32, quote: int, escape: int) -> None:
        self._wanted, self._codes, self._quote, self._escape = list(wanted), codes, quote, escape

    def _scan(self, data: UInt8, begin: int, end: int, *out: npt.NDArray[np.signedinteger]) -> tuple[int, int]:
        raise NotImplementedError

    def _most_records(self, size: int) -> int:
        """That so many bytes can hold, and one more for a record that turns out bad: room for their fields follows from
        the bytes, not from the lines times the columns."""
        raise NotImplementedError

    def __call__(self, data: UInt8, begin: int, end: int) -> Parsed:
        most, beyond_ascii, escapes = pk.survey(data, begin, end, self._escape)
        shape = len(self._wanted), min(most, self._most_records(end - begin))
        start, length = np.empty(shape, np.int64), np.empty(shape, np.int32)
        line, bad = np.empty((most, 2), np.int64), np.empty((most, 3), np.int64)
        rows, bads = self._scan(data, begin, end, start, length, line, bad)
        line, bad, start, length = line[:rows], bad[:bads], start[:, :rows], length[:, :rows]
        keep = self._decodable(data, line) if beyond_ascii else None
        if keep is not None and not keep.all():
            undecodable = np.column_stack([line[~keep], np.full((~keep).sum(), pk.UNDECODABLE)])
            bad = np.concatenate([bad, undecodable])
            bad = bad[np.argsort(bad[:, 0], kind="stable")]
            line, start, length = line[keep], np.compress(keep, start, axis=1), np.compress(keep, length, axis=1)
        arrays = self._arrays(data, start, length, self._codes if beyond_ascii else self._codes[:0], escapes)
        viewed = [place for place, name in enumerate(self._wanted) if arrays[name] is None]
        if len(viewed) < len(self._wanted):
            start, length = start[viewed], length[viewed]
        return Parsed(Columns(arrays, len(line), Views(data, start, length)), line, bad)

    def _arrays(
        self, data: UInt8, start: Int64, length: Int32, codes: Int32, escapes: bool
    ) -> dict[str, pa.Array | None]:
        """Columns that are more than views of the block, and None for the others."""
        decoded = [len(codes) > 0 or (escapes and bool((of < 0).any())) for of in length]
        return {
            name: self._decoded(data, first, size, codes) if copied else None
            for name, first, size, copied in zip(self._wanted, start, length, decoded, strict=True)
        }

    def _decodable(self, data: UInt8, line: Int64) -> npt.NDArray[np.bool_]:
        out = np.ones(len(line), np.bool_)
        if len(self._codes) == 0:
            first = np.ascontiguousarray(line[:, 0])
            strings.check_utf8(data, first, (line[:, 1] - first).astype(np.int32), out)
        elif (self._codes < 0).any():
            undefined = np.concatenate([[0], np.cumsum((self._codes < 0)[data])])
            out = undefined[line[:, 1]] == undefined[line[:, 0]]
        return out

    def _decoded(self, data: UInt8, first: Int64, size: Int32, codes: Int32) -> pa.StringArray:
        offset = np.empty(len(first) + 1, np.int32)
        out = np.empty(int(np.abs(size).sum(dtype=np.int64)) * (3 if len(codes) else 1), np.uint8)
        total = pk.copy_decoded(data, first, size, self._quote, codes, out, offset)
        return _strings(offset, out[:total])


def _strings(offset: Int32, data: UInt8) -> pa.StringArray:
    return pa.StringArray.from_buffers(len(offset) - 1, pa.py_buffer(offset), pa.py_buffer(data))


class DelimitedParser(_Lines):
    """csv and tsv. A field that opens with the quote ends with it (on the same line unless ``multiline``); the quote is
    doubled inside."""

    def __init__(
        self,
        names: Sequence[str],
        wanted: Sequence[str],
        separator: str,
        quote: str | None,
        codes: Int32,
        multiline: bool = True,
    ) -> None:
        super().__init__(wanted, codes, *(ord(quote) if quote else -1,) * 2)
        self._multiline = multiline
        place = {name: i for i, name in enumerate(wanted)}
        self._target = np.array([place.get(name, -1) for name in names], np.int32)
        self._separator = np.uint8(ord(separator))

    def _most_records(self, size: int) -> int:
        return size // max(1, len(self._target)) + 2

    def _scan(self, data: UInt8, begin: int, end: int, *out: npt.NDArray[np.signedinteger]) -> tuple[int, int]:
        how = self._separator, self._quote, self._multiline
        return pk.scan_delimited(data, begin, end, *how, len(self._target), self._target, *out)


class JsonParser(_Lines):
    """One object a line. Values are the texts as written; null, absent and empty are missing; the last of equal keys
    counts. The keys of ``lists`` become columns of lists, where a bare value is a list of one. Any other wanted value
    that is an object or a list is refused as ``nested``."""

    def __init__(self, wanted: Sequence[str], codes: Int32, lists: Collection[str] = ()) -> None:
        from fieldwise.features.kernels import jsonl  # a third of all kernels' compiling, which few sources need

        super().__init__(wanted, codes, -1, pk.BACKSLASH)
        self._kernels = jsonl
        names = [name.encode() for name in wanted]
        self._keys = np.frombuffer(b"".join(names) + b"\0", np.uint8)
        self._ends = np.cumsum([len(name) for name in names]).astype(np.int64)
        self._lists = np.array([name in lists for name in wanted], np.bool_)
        self._index = np.full(2 << len(names).bit_length(), -1, np.int32)
        jsonl.index_keys(self._keys, self._ends, self._index)

    def _most_records(self, size: int) -> int:
        return size // 2 + 2  # {}

    def _scan(self, data: UInt8, begin: int, end: int, *out: npt.NDArray[np.signedinteger]) -> tuple[int, int]:
        return self._kernels.scan_json(data, begin, end, self._keys, self._ends, self._index, self._lists, *out)

    def _arrays(
        self, data: UInt8, start: Int64, length: Int32, codes: Int32, escapes: bool
    ) -> dict[str, pa.Array | None]:
        arrays = super()._arrays(data, start, length, codes, escapes)
        for c in np.flatnonzero(self._lists):
            most = int(np.abs(length[c]).sum(dtype=np.int64))
            offset = np.empty(len(length[c]) + 1, np.int32)
            first, size = np.empty(most, np.int64), np.empty(most, np.int32)
            items = self._kernels.split_lists(data, start[c], length[c], offset, first, size)
            values = self._decoded(data, first[:items], size[:items], self._codes)
            arrays[self._wanted[c]] = pa.ListArray.from_arrays(pa.array(offset), values)
        return arrays
