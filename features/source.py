"""Files to raw columns: which files, which byte ranges, and the rows of one range. No Spark, memory for a few blocks.

A row belongs to the range in which its line begins, so any cut of a file gives each row once.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.compression import compression, opened, opened_raw, require_text
from features.config import SourceConfig
from features.errors import InputError
from features.listing import SourceFile, directory_columns
from features.parse import DelimitedParser, JsonParser, Parser, code_points
from features.parse_kernels import NEWLINE, PAD, REASONS, TOO_LONG, count_lines
from features.text import Columns, as_uuid, missing_column

BLOCK = 2 << 20
"""Bytes read at once."""
MAX_LINE = 64 << 20
"""Longer lines are quarantined as ``too_long``."""
RAW_LIMIT = 64 << 10
"""Bytes of a rejected row that are kept."""
_EVERYTHING = 1 << 62
_BOM = np.frombuffer(b"\xef\xbb\xbf", np.uint8)


class FileRange(NamedTuple):
    """Bytes [start, stop) of a text file, or row groups [start, stop) of a Parquet file."""

    path: str
    start: int
    stop: int


class Reject(NamedTuple):
    """A row that cannot be used. position: byte offset in the (decompressed) file, row number in a Parquet file."""

    path: str
    position: int
    reason: str
    field: str
    raw: bytes


@dataclass(frozen=True)
class RawBatch:
    """Rows of one file: raw columns (strings or lists of them; typed ones of Parquet) and where each came from."""

    path: str
    columns: Columns
    positions: npt.NDArray[np.int64]
    rejects: list[Reject] = field(default_factory=list)
    block: npt.NDArray[np.uint8] | None = None
    """The bytes the rows were parsed from; row i is ``block[line[i, 0] : line[i, 1]]``."""
    line: npt.NDArray[np.int64] | None = None

    def raw(self, row: int) -> bytes:
        """The row as it was written, or as JSON where it was no text."""
        if self.block is not None and self.line is not None:
            first, stop = self.line[row]
            return _cut(self.block, first, stop)
        values = {name: self.columns.array(name)[row].as_py() for name in self.columns.names}
        return json.dumps(values, default=str, ensure_ascii=False).encode()[:RAW_LIMIT]


def _cut(block: npt.NDArray[np.uint8], first: int, stop: int) -> bytes:
    return block[first : min(stop, first + RAW_LIMIT)].tobytes()


def split_ranges(config: SourceConfig, files: Sequence[SourceFile], target_bytes: int) -> list[FileRange]:
    """Ranges of about ``target_bytes``: of bytes, of row groups, or whole files where a codec cannot be split."""
    ranges: list[FileRange] = []
    for file in files:
        if config.format == "parquet":
            ranges += _row_group_ranges(file, target_bytes)
        elif compression(file.path) is not None:
            ranges.append(FileRange(file.path, 0, file.size))
        else:
            pieces = max(1, round(file.size / target_bytes))
            cuts = [file.size * i // pieces for i in range(pieces + 1)]
            ranges += [FileRange(file.path, a, b) for a, b in pairwise(cuts)]
    full = [rng for rng in ranges if rng.stop > rng.start]
    return full or [FileRange(files[0].path, 0, 0)]  # of no rows: whoever reads says so


def _row_group_ranges(file: SourceFile, target_bytes: int) -> Iterator[FileRange]:
    with opened_raw(file.path) as stream:
        metadata = _parquet(stream, file.path).metadata
        first, size = 0, 0
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).total_byte_size
            if size >= target_bytes or group + 1 == metadata.num_row_groups:
                yield FileRange(file.path, first, group + 1)
                first, size = group + 1, 0


def read_range(
    config: SourceConfig, rng: FileRange, columns: Sequence[str] | None = None, lists: Collection[str] = ()
) -> Iterator[RawBatch]:
    """Rows of a range in file order, ``columns`` only (default all that the file has; jsonl must name them).

    A column that the file lacks is what a directory above it tells (``directory_columns``); in jsonl that holds for
    each row that lacks it.

    ``lists``: columns in which a value of jsonl may be a list; Parquet says so itself.

    Raises InputError on a missing column.
    """
    told = {name: value for name, value in directory_columns(rng.path).items() if name in (columns or ())}
    if told and config.format != "jsonl":
        own = column_names(config, rng.path) or []
        told = {name: value for name, value in told.items() if name not in own}
        columns = [name for name in columns or () if name not in told]
    batches = _read_parquet(rng, columns) if config.format == "parquet" else _read_text(config, rng, columns, lists)
    return (replace(batch, columns=_with_told(batch.columns, told)) for batch in batches) if told else batches


def _with_told(columns: Columns, told: Mapping[str, str | None]) -> Columns:
    """The columns with what directories tell where rows have nothing of their own."""
    more = {}
    for name, value in told.items():
        whole = pa.array([value], pa.string()).take(pa.array(np.zeros(columns.rows, np.int64)))
        own = columns.array(name) if name in columns.names else whole
        if pa.types.is_list(own.type):
            own = pa.array([row or [value] for row in own.to_pylist()], own.type)
        elif own is not whole:
            own = pc.if_else(pc.equal(pc.binary_length(own), 0), whole, own)
        more[name] = own
    return columns.adding(more)


def count_rows(config: SourceConfig, rng: FileRange) -> int:
    """Rows of a range, those that would be rejected included; nothing is parsed."""
    if config.format == "parquet":
        with opened_raw(rng.path) as stream:
            metadata = _parquet(stream, rng.path).metadata
            return sum(metadata.row_group(group).num_rows for group in range(rng.start, rng.stop))
    with opened(rng.path) as stream:
        stop = rng.stop if compression(rng.path) is None else _EVERYTHING
        blocks = _blocks(stream, rng.start, stop, _has_header(config))
        return sum(count_lines(data, begin, end) if end > begin else 1 for data, begin, end, _ in blocks)


def column_names(config: SourceConfig, path: str) -> list[str] | None:
    """Raw columns of one file; None for jsonl, whose rows each name their own."""
    if config.format == "parquet":
        with opened_raw(path) as stream:
            return list(_parquet(stream, path).schema_arrow.names)
    return _header(config, path) if _has_header(config) else config.columns


def source_columns(config: SourceConfig, files: Sequence[SourceFile]) -> tuple[str, list[str] | None]:
    """The first file that is not empty (else the first), and its `column_names`."""
    for file in files:
        names = column_names(config, file.path)
        if names != []:
            return file.path, names
    return files[0].path, []


def _read_parquet(rng: FileRange, columns: Sequence[str] | None) -> Iterator[RawBatch]:
    with opened_raw(rng.path) as stream:
        file = _parquet(stream, rng.path)
        names = file.schema_arrow.names
        for name in columns or ():
            if name not in names:
                raise missing_column(rng.path, name, names)
        position = sum(file.metadata.row_group(group).num_rows for group in range(rng.start))
        groups = list(range(rng.start, rng.stop))
        uuids = _uuids(file)
        batches = file.iter_batches(1 << 16, row_groups=groups, columns=None if columns is None else list(columns))
        while (batch := _next(batches, rng.path)) is not None:
            arrays = {name: as_uuid(array) if name in uuids else array
                      for name, array in zip(batch.schema.names, batch.columns, strict=True)}  # fmt: skip
            read = Columns(arrays, batch.num_rows, origins=dict.fromkeys(arrays, rng.path))
            yield RawBatch(rng.path, read, np.arange(position, position + batch.num_rows))
            position += batch.num_rows


def _uuids(file: pq.ParquetFile) -> set[str]:
    """Columns whose sixteen bytes are said to be a UUID."""
    leaves = [file.schema.column(place) for place in range(len(file.schema))]
    return {leaf.path for leaf in leaves if leaf.logical_type.type == "UUID"}


def _next(batches: Iterator[pa.RecordBatch], path: str) -> pa.RecordBatch | None:
    with _whole(path):
        return next(batches, None)


def _parquet(stream: BinaryIO, path: str) -> pq.ParquetFile:
    with _whole(path):
        return pq.ParquetFile(stream)


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """InputError for bytes that are no Parquet; trouble of the disk or the network stays what it is."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        found = " ".join(str(error).split()) or type(error).__name__
        fix = "Write or copy it again, or mend `format`."
        raise InputError(path, expected="a whole Parquet file", found=found, fix=fix) from error


def _read_text(
    config: SourceConfig, rng: FileRange, columns: Sequence[str] | None, lists: Collection[str]
) -> Iterator[RawBatch]:
    packed = compression(rng.path) is not None
    with opened(rng.path) as stream:
        names = column_names(config, rng.path) or []
        if rng.start == 0:
            head = stream.peek()
            require_text(rng.path, head, config.encoding)
            if head in (b"", _BOM.tobytes()):
                return
        parser = _parser(config, names, columns, lists, rng.path)
        stop = _EVERYTHING if packed else rng.stop
        for data, begin, end, position in _blocks(stream, rng.start, stop, _has_header(config)):
            parsed = parser(data, begin, end)
            bad = parsed.bad if end > begin else [(0, RAW_LIMIT, TOO_LONG)]
            rejects = [
                Reject(rng.path, int(position + first), REASONS[reason], "", _cut(data, first, last))
                for first, last, reason in bad
            ]
            yield RawBatch(rng.path, parsed.columns, position + parsed.line[:, 0], rejects, data, parsed.line)


def _has_header(config: SourceConfig) -> bool:
    return config.format in ("csv", "tsv") and (config.columns is None if config.header is None else config.header)


def _parser(
    config: SourceConfig, names: Sequence[str], columns: Sequence[str] | None, lists: Collection[str], path: str
) -> Parser:
    codes = code_points(config.encoding)
    if config.format == "jsonl":
        if columns is None:
            raise ValueError("columns of a jsonl source must be named")
        return JsonParser(columns, codes, lists)
    names = config.columns or names
    wanted = list(names) if columns is None else list(columns)
    for name in wanted:
        if name not in names:
            raise missing_column(path, name, list(names))
        if list(names).count(name) > 1:
            raise InputError(path, expected=f"one column {name!r}", found="several", fix="Name the columns.")
    return DelimitedParser(names, wanted, config.byte_separator, config.byte_quote, codes)


def _header(config: SourceConfig, path: str) -> list[str]:
    """Names in the file's first line; none in an empty file."""
    with opened(path) as stream:
        require_text(path, stream.peek(), config.encoding)
        line = stream.readline(1 << 20)
    line = line.removeprefix(_BOM.tobytes())
    if not line:
        return []
    text = line.decode(config.encoding, "replace").rstrip("\r\n")
    if config.byte_quote is None:
        return text.split(config.byte_separator)
    try:
        return next(csv.reader([text], delimiter=config.byte_separator, quotechar=config.byte_quote), [])
    except csv.Error as error:
        found = "a CR in the middle of it" if "\r" in text else str(error)
        fix = "Convert line ends to LF, or mend the line."
        raise InputError(path, expected="a header line", found=found, fix=fix) from error


def _blocks(
    stream: BinaryIO, start: int, stop: int, header: bool
) -> Iterator[tuple[npt.NDArray[np.uint8], int, int, int]]:
    """(data, begin, end, file position of data[0]) of whole lines that begin in [start, stop), PAD bytes behind them.

    end == begin tells of a line beyond MAX_LINE, which is skipped.
    """
    skip = start > 0 or header  # through the first newline from start - 1 on, or the header's own
    position = max(start - 1, 0)
    if position:
        stream.seek(position)
    carry = np.empty(0, np.uint8)
    while position < stop:
        room = max(min(BLOCK, stop - position - len(carry) + (64 << 10)), 64 << 10, len(carry))
        data = np.empty(len(carry) + room + PAD, np.uint8)
        data[: len(carry)] = carry
        got = stream.readinto(data.data[len(carry) : len(carry) + room])  # type: ignore[attr-defined]
        filled = len(carry) + got
        data[filled : filled + PAD] = NEWLINE
        whole = _after_last_newline(data, filled) if got else filled
        begin = 0
        if position == 0 and filled >= 3 and np.array_equal(data[:3], _BOM):
            begin = 3
        if skip:
            begin = _after_newline(data, 0, filled)
            skip = begin < 0
            if skip:
                begin = whole = filled
        end = max(whole, begin)
        if position + end > stop and end > begin:  # lines that begin at stop or later are the next range's
            cut = _after_newline(data, max(stop - 1 - position, 0), end)
            end = cut if cut >= 0 else end
        if end > begin and position + begin < stop:
            yield data, begin, end, position
        elif whole == 0 and filled > MAX_LINE:
            yield data, 0, 0, position
            skip, end = True, filled
        if not got:
            return
        carry = data[end:filled].copy()
        position += end


def _after_newline(data: npt.NDArray[np.uint8], first: int, stop: int) -> int:
    """Position after the first newline at or after ``first``, or -1."""
    for at in range(first, stop, 1 << 16):
        hits = np.flatnonzero(data[at : min(at + (1 << 16), stop)] == NEWLINE)
        if len(hits):
            return at + int(hits[0]) + 1
    return -1


def _after_last_newline(data: npt.NDArray[np.uint8], stop: int) -> int:
    """Position after the last newline before ``stop``, or 0."""
    for at in range(stop, 0, -(1 << 16)):
        first = max(at - (1 << 16), 0)
        hits = np.flatnonzero(data[first:at] == NEWLINE)
        if len(hits):
            return first + int(hits[-1]) + 1
    return 0
