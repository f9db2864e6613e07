"""Files to raw columns: which files, which byte ranges, and the rows of one range. No Spark, memory for a few blocks.

A row belongs to the range in which its line begins, so any cut of a file gives each row once.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.config import SourceConfig
from features.errors import InputError
from features.parse import DelimitedParser, JsonParser, Parser, code_points
from features.parse_kernels import NEWLINE, PAD, REASONS, TOO_LONG, count_lines
from features.text import Columns, missing_column

BLOCK = 2 << 20
"""Bytes read at once."""
MAX_LINE = 64 << 20
"""Longer lines are quarantined as ``too_long``."""
RAW_LIMIT = 64 << 10
"""Bytes of a rejected row that are kept."""
_EVERYTHING = 1 << 62
_BOM = np.frombuffer(b"\xef\xbb\xbf", np.uint8)
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}


class SourceFile(NamedTuple):
    path: str
    """Absolute path, or URL."""
    size: int


class FileRange(NamedTuple):
    """Bytes [start, stop) of a text file, or row groups [start, stop) of a Parquet file."""

    path: str
    start: int
    stop: int


class Reject(NamedTuple):
    """A row that cannot be used. position: byte offset in the (decompressed) file, row number in a Parquet file.

    value: the text that could not be read, where it was one. origin: whence it came, if not from this file.
    """

    path: str
    position: int
    reason: str
    field: str
    raw: bytes
    value: str = ""
    origin: str = ""


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


def list_files(config: SourceConfig, base: str, date: str | None = None) -> list[SourceFile]:
    """Files of the source, sorted by path. Relative paths start at ``base``; ``{date}`` is the day, or any day.

    Directories stand for all files below them but names that begin with ``_`` or ``.``. InputError when there is none.
    """
    found: dict[str, int] = {}
    for pattern in config.path:
        dated = pattern.replace("{date}", date or "*")
        url = dated if "://" in dated or os.path.isabs(dated) else f"{base.rstrip('/')}/{dated}"
        fs, path = fsspec.core.url_to_fs(url)
        infos = [fs.info(p) for p in sorted(fs.glob(path))] if "*" in path or "?" in path or "[" in path else []
        if not infos and fs.exists(path):
            infos = [fs.info(path)]
        files = {_name(fs, i["name"]): int(i["size"]) for i in infos if i["type"] == "file"}
        for folder in (i["name"] for i in infos if i["type"] == "directory"):
            for name, info in fs.find(folder, detail=True).items():
                below = name[len(folder) :].strip("/").split("/")
                if not any(part.startswith(("_", ".")) for part in below):
                    files[_name(fs, name)] = int(info["size"])
        if not files:
            raise InputError(
                f"source path {pattern!r}", expected="at least one file", found=f"none at {url}",
                fix="Check the path; it is relative to the config file.",
            )  # fmt: skip
        found.update(files)
    return [SourceFile(path, found[path]) for path in sorted(found)]


def _name(fs: Any, path: str) -> str:
    return path if "file" in _protocols(fs) else str(fs.unstrip_protocol(path))


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def split_ranges(config: SourceConfig, files: Sequence[SourceFile], target_bytes: int) -> list[FileRange]:
    """Ranges of about ``target_bytes``: of bytes, of row groups, or whole files where a codec cannot be split."""
    ranges: list[FileRange] = []
    for file in files:
        if config.format == "parquet":
            ranges += _row_group_ranges(file, target_bytes)
        elif _compression(file.path) is not None:
            ranges.append(FileRange(file.path, 0, file.size))
        else:
            pieces = max(1, round(file.size / target_bytes))
            cuts = [file.size * i // pieces for i in range(pieces + 1)]
            ranges += [FileRange(file.path, a, b) for a, b in pairwise(cuts) if b > a]
    return ranges


def _row_group_ranges(file: SourceFile, target_bytes: int) -> Iterator[FileRange]:
    with fsspec.open(file.path, "rb") as stream:
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
    """Rows of a range in file order, ``columns`` only (default all; jsonl must name them).

    ``lists``: columns in which a value of jsonl may be a list; Parquet says so itself.

    Raises InputError on a missing column.
    """
    if config.format == "parquet":
        return _read_parquet(rng, columns)
    return _read_text(config, rng, columns, lists)


def count_rows(config: SourceConfig, rng: FileRange) -> int:
    """Rows of a range, those that would be rejected included; nothing is parsed."""
    with fsspec.open(rng.path, "rb", compression=_compression(rng.path)) as stream:
        if config.format == "parquet":
            metadata = _parquet(stream, rng.path).metadata
            return sum(metadata.row_group(group).num_rows for group in range(rng.start, rng.stop))
        stop = rng.stop if _compression(rng.path) is None else _EVERYTHING
        blocks = _blocks(stream, rng.start, stop, _has_header(config))
        return sum(count_lines(data, begin, end) if end > begin else 1 for data, begin, end, _ in blocks)


def column_names(config: SourceConfig, path: str) -> list[str] | None:
    """Raw columns of one file; None for jsonl, whose rows each name their own."""
    if config.format == "parquet":
        with fsspec.open(path, "rb") as stream:
            return list(_parquet(stream, path).schema_arrow.names)
    return _header(config, path, _compression(path)) if _has_header(config) else config.columns


def parquet_schema(path: str) -> pa.Schema:
    """Names and types of a Parquet file."""
    with fsspec.open(path, "rb") as stream:
        return _parquet(stream, path).schema_arrow


def _read_parquet(rng: FileRange, columns: Sequence[str] | None) -> Iterator[RawBatch]:
    with fsspec.open(rng.path, "rb") as stream:
        file = _parquet(stream, rng.path)
        names = file.schema_arrow.names
        for name in columns or ():
            if name not in names:
                raise missing_column(rng.path, name, names)
        position = sum(file.metadata.row_group(group).num_rows for group in range(rng.start))
        groups = list(range(rng.start, rng.stop))
        for batch in file.iter_batches(1 << 16, row_groups=groups, columns=None if columns is None else list(columns)):
            yield RawBatch(rng.path, Columns.of(batch), np.arange(position, position + batch.num_rows))
            position += batch.num_rows


def _parquet(stream: BinaryIO, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        raise InputError(path, expected="a Parquet file", found=str(error), fix="Mend file or format.") from error


def _read_text(
    config: SourceConfig, rng: FileRange, columns: Sequence[str] | None, lists: Collection[str]
) -> Iterator[RawBatch]:
    compression = _compression(rng.path)
    with fsspec.open(rng.path, "rb", compression=compression) as stream:
        parser = _parser(config, column_names(config, rng.path) or [], columns, lists, rng.path)
        unseen = set(columns or ()) if config.format == "jsonl" and rng.start == 0 else set()
        stop = rng.stop if compression is None else _EVERYTHING
        for data, begin, end, position in _blocks(stream, rng.start, stop, _has_header(config)):
            parsed = parser(data, begin, end)
            if unseen and parsed.columns.rows:
                _refuse_absent(rng.path, parsed.columns, unseen, data, parsed.line)
                unseen = set()
            bad = parsed.bad if end > begin else [(0, RAW_LIMIT, TOO_LONG)]
            rejects = [
                Reject(rng.path, int(position + first), REASONS[reason], "", _cut(data, first, last))
                for first, last, reason in bad
            ]
            yield RawBatch(rng.path, parsed.columns, position + parsed.line[:, 0], rejects, data, parsed.line)


def _refuse_absent(
    path: str, columns: Columns, names: set[str], data: npt.NDArray[np.uint8], line: npt.NDArray[np.int64]
) -> None:
    """A key that no object of a file's first block has is taken for a mistake."""
    for name in columns.names:
        if name in names and columns.array(name).buffers()[-1].size == 0:
            key = json.dumps(name, ensure_ascii=False).encode()
            if key not in data[: line[-1, 1]].tobytes():
                first = json.loads(data[line[0, 0] : line[0, 1]].tobytes())
                raise missing_column(path, name, list(first))


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


def _header(config: SourceConfig, path: str, compression: str | None) -> list[str]:
    """Names in the file's first line."""
    with fsspec.open(path, "rb", compression=compression) as stream:
        line = stream.readline(1 << 20)
    text = line.removeprefix(_BOM.tobytes()).decode(config.encoding, "replace").rstrip("\r\n")
    if config.byte_quote is None:
        return text.split(config.byte_separator)
    return next(csv.reader([text], delimiter=config.byte_separator, quotechar=config.byte_quote), [])


def _compression(path: str) -> str | None:
    return _COMPRESSED.get(os.path.splitext(path)[1].lower())


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
