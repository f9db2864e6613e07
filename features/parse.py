"""A block of whole lines to Arrow string columns; lines that do not parse are told by position and reason."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import kernels
from features import parse_kernels as pk

UInt8, Int32, Int64 = npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64]
PAD = 8
"""Readable bytes that must follow a block."""


@dataclass(frozen=True)
class Parsed:
    """columns: strings (empty text is missing), one row per good line. line int64 [n, 2], bad [m, 3]: see the kernels."""

    columns: pa.RecordBatch
    line: Int64
    bad: Int64


class Parser(Protocol):
    """Parses ``data[begin:end]``, whole lines followed by PAD bytes."""

    def __call__(self, data: UInt8, begin: int, end: int) -> Parsed: ...


def code_points(encoding: str) -> Int32:
    """Code point of each byte, -1 where undefined; empty for UTF-8. ValueError for what is neither."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"encoding {encoding!r} is unknown") from None
    if name in ("utf-8", "utf-8-sig"):
        return np.empty(0, np.int32)
    texts = [bytes([byte]).decode(name, "ignore") for byte in range(256)]
    if any(len(text) > 1 for text in texts) or "".join(texts[:128]) != bytes(range(128)).decode("ascii"):
        raise ValueError(f"encoding must be UTF-8 or a single-byte superset of ASCII, got {encoding!r}")
    try:
        bytes(range(128, 256)).decode(name, "ignore").encode(name)
    except UnicodeError:
        raise ValueError(f"encoding must be UTF-8 or a single-byte superset of ASCII, got {encoding!r}") from None
    return np.array([ord(text) if text else -1 for text in texts], np.int32)


class _Lines:
    """What both text formats share: memory for views, the check of the encoding, and the copy into Arrow."""

    def __init__(self, wanted: Sequence[str], codes: Int32, quote: int) -> None:
        self._wanted, self._codes, self._quote = list(wanted), codes, quote

    def _scan(self, data: UInt8, begin: int, end: int, *out: npt.NDArray[np.signedinteger]) -> tuple[int, int]:
        raise NotImplementedError

    def __call__(self, data: UInt8, begin: int, end: int) -> Parsed:
        most = int(np.count_nonzero(data[begin:end] == pk.NEWLINE)) + 1
        start, length = (np.empty((len(self._wanted), most), np.int32) for _ in range(2))
        line, bad = np.empty((most, 2), np.int64), np.empty((most, 3), np.int64)
        rows, bads = self._scan(data, begin, end, start, length, line, bad)
        line, bad = line[:rows], bad[:bads]
        ascii_only = not bool((data[begin:end] >= 128).any())
        keep = None if ascii_only else self._decodable(data, line)
        if keep is not None and not keep.all():
            undecodable = np.column_stack([line[~keep], np.full((~keep).sum(), pk.UNDECODABLE)])
            bad = np.concatenate([bad, undecodable])
            bad = bad[np.argsort(bad[:, 0], kind="stable")]
            line = line[keep]
        arrays = []
        for views in zip(start, length, strict=True):
            first, size = (v[:rows] if keep is None else v[:rows][keep] for v in views)
            arrays.append(self._column(data, first, size, ascii_only))
        return Parsed(pa.RecordBatch.from_arrays(arrays, names=self._wanted), line, bad)

    def _decodable(self, data: UInt8, line: Int64) -> npt.NDArray[np.bool_]:
        out = np.ones(len(line), np.bool_)
        if len(self._codes) == 0:
            first = np.ascontiguousarray(line[:, 0])
            kernels.check_utf8(data, first, (line[:, 1] - first).astype(np.int32), out)
        elif (self._codes < 0).any():
            undefined = np.concatenate([[0], np.cumsum((self._codes < 0)[data])])
            out = undefined[line[:, 1]] == undefined[line[:, 0]]
        return out

    def _column(self, data: UInt8, first: Int32, size: Int32, ascii_only: bool) -> pa.StringArray:
        offset = np.empty(len(first) + 1, np.int32)
        codes = self._codes if not ascii_only else self._codes[:0]
        if len(codes) == 0 and (not len(size) or size.min() >= 0):
            out = np.empty(int(size.sum(dtype=np.int64)) + PAD, np.uint8)
            total = pk.copy_plain(data, first, size, out, offset)
        else:
            most = int(np.abs(size).sum(dtype=np.int64)) * (3 if len(codes) else 1)
            out = np.empty(most + PAD, np.uint8)
            total = pk.copy_decoded(data, first, size, self._quote, codes, out, offset)
        return pa.StringArray.from_buffers(len(first), pa.py_buffer(offset), pa.py_buffer(out[:total]))


class DelimitedParser(_Lines):
    """csv and tsv. A field that opens with the quote ends with it on the same line; the quote is doubled inside."""

    def __init__(
        self, names: Sequence[str], wanted: Sequence[str], separator: str, quote: str | None, codes: Int32
    ) -> None:
        super().__init__(wanted, codes, ord(quote) if quote else -1)
        place = {name: i for i, name in enumerate(wanted)}
        self._target = np.array([place.get(name, -1) for name in names], np.int32)
        self._separator = np.uint8(ord(separator))

    def _scan(self, data: UInt8, begin: int, end: int, *out: npt.NDArray[np.signedinteger]) -> tuple[int, int]:
        return pk.scan_delimited(
            data, begin, end, self._separator, self._quote, len(self._target), self._target, *out
        )


class JsonParser(_Lines):
    """One object a line. Values are the texts as written; null, absent and empty are missing; the last of equal keys
    counts. A wanted value that is an object or a list is refused as ``nested``."""

    def __init__(self, wanted: Sequence[str], codes: Int32) -> None:
        super().__init__(wanted, codes, -1)
        names = [name.encode() for name in wanted]
        self._keys = np.frombuffer(b"".join(names) + b"\0", np.uint8)
        self._ends = np.cumsum([len(name) for name in names]).astype(np.int64)

    def _scan(self, data: UInt8, begin: int, end: int, *out: npt.NDArray[np.signedinteger]) -> tuple[int, int]:
        return pk.scan_json(data, begin, end, self._keys, self._ends, *out)
