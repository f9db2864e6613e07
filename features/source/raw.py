"""Files to raw columns: which files, which byte ranges, and the rows of one range. No Spark, memory for a few blocks.

A row belongs to the range in which its line begins, so any cut of a file gives each row once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fieldwise.features.columns.batch import Columns, missing_column
from fieldwise.features.columns.encoding import code_points
from fieldwise.features.columns.text import as_uuid
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.compression import compression, opened, opened_raw, require_text
from fieldwise.features.files.listing import SourceFile, directory_columns
from fieldwise.features.kernels.delimited import REASONS, UNCLOSED_QUOTE, count_lines, survey
from fieldwise.features.source.headers import (
    dialect_of,
    first_values,
    has_header,
    quote_byte,
    require_columns,
    require_one_header,
)
from fieldwise.features.source.parse import DelimitedParser, JsonParser, Parser
from fieldwise.features.source.records import BOM, blocks, lines, safe_cuts
from fieldwise.features.source.rows import FileRange, RawBatch, Reject, cut

_EVERYTHING = 1 << 62


def split_ranges(config: SourceConfig, files: Sequence[SourceFile], target_bytes: int) -> list[FileRange]:
    """Ranges of about ``target_bytes``: of bytes, of row groups, or whole files where a codec cannot be split.

    Where quoted values may hold line breaks, files of several ranges are read once, to move the cuts between records.

    Raises InputError where a row stands in place of a file's header.
    """
    require_one_header(config, files)
    ranges: list[FileRange] = []
    cut: dict[SourceFile, list[int]] = {}
    if config.format != "parquet":
        cut = {file: _cuts(file, target_bytes) for file in files}
    dialect = dialect_of(config)
    if dialect.quote >= 0:
        several = [file for file in cut if len(cut[file]) > 2]
        cut |= zip(several, safe_cuts([(file.path, cut[file]) for file in several], dialect), strict=True)
    for file in files:
        if config.format == "parquet":
            ranges += _row_group_ranges(file, target_bytes)
        else:
            ranges += [FileRange(file.path, a, b) for a, b in pairwise(cut[file])]
    full = [rng for rng in ranges if rng.stop > rng.start]
    return full or [FileRange(files[0].path, 0, 0)]  # of no rows: whoever reads says so


def _cuts(file: SourceFile, target_bytes: int) -> list[int]:
    """Where the ranges of a text file begin, and its end. The header and the byte order mark are in the first one."""
    pieces = 1 if compression(file.path) is not None else max(1, round(file.size / target_bytes))
    return [0, *(at for i in range(1, pieces) if (at := file.size * i // pieces) > len(BOM)), file.size]


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
        parser = None
        rows = 0
        for block in blocks(stream, rng.start, stop, has_header(config), dialect_of(config)):
            if block.reason:
                rows += len(lines(block))
            elif not survey(block.data, block.begin, block.end, quote_byte(config))[2]:
                rows += count_lines(block.data, block.begin, block.end)
            else:  # only the parser knows how many rows and rejects quoted values make of some lines
                parser = parser or _parser(config, column_names(config, rng.path) or [], [], (), rng.path)
                parsed = parser(block.data, block.begin, block.end)
                rows += len(parsed.line) + len(parsed.bad)
        return rows


def column_names(config: SourceConfig, path: str) -> list[str] | None:
    """Raw columns of one file; None for jsonl, whose rows each name their own.

    They are those of ``columns`` by position, else of the header. InputError where the first line contradicts
    ``columns``.
    """
    if config.format == "parquet":
        with opened_raw(path) as stream:
            return list(_parquet(stream, path).schema_arrow.names)
    if config.format == "jsonl":
        return None
    found = first_values(config, path)
    if config.columns is None:
        return found
    if found is not None:
        require_columns(config, found, path)
    return config.columns


def source_columns(config: SourceConfig, files: Sequence[SourceFile]) -> tuple[str, list[str] | None]:
    """The first file that is not empty (else the first), and its `column_names`."""
    for file in files:
        names = column_names(config, file.path)
        if names != []:
            return file.path, names
    return files[0].path, []


def parquet_schema(path: str) -> pa.Schema:
    """Names and types of a Parquet file's columns as `read_range` gives them."""
    with opened_raw(path) as stream:
        file = _parquet(stream, path)
        uuids = _uuids(file)
        return pa.schema([pa.field(f.name, pa.string() if f.name in uuids else f.type) for f in file.schema_arrow])


def _read_parquet(rng: FileRange, columns: Sequence[str] | None) -> Iterator[RawBatch]:
    with opened_raw(rng.path) as stream:
        file = _parquet(stream, rng.path)
        names = file.schema_arrow.names
        known = set(names)
        for name in columns or ():
            if name not in known:
                raise missing_column(rng.path, name, names)
        position = sum(file.metadata.row_group(group).num_rows for group in range(rng.start))
        uuids = _uuids(file)
        for batch in _batches(file, rng, columns):
            arrays = {name: as_uuid(array) if name in uuids else array
                      for name, array in zip(batch.schema.names, batch.columns, strict=True)}  # fmt: skip
            read = Columns(arrays, batch.num_rows, origins=dict.fromkeys(arrays, rng.path))
            yield RawBatch(rng.path, read, np.arange(position, position + batch.num_rows))
            position += batch.num_rows


def _batches(file: pq.ParquetFile, rng: FileRange, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Row group by row group: where damage leaves columns of several lengths, batches across groups crash Arrow."""
    for group in range(rng.start, rng.stop):
        left = file.metadata.row_group(group).num_rows
        batches = file.iter_batches(1 << 16, row_groups=[group], columns=None if columns is None else list(columns))
        while (batch := _next(batches, rng.path)) is not None:
            left -= batch.num_rows
            yield batch
        if left:
            where, found = f"{rng.path}, row group {group}", f"{abs(left):,} {'fewer' if left > 0 else 'more'}"
            raise InputError(where, expected="as many rows as its footer says", found=found, fix="Write it again.")


def _uuids(file: pq.ParquetFile) -> set[str]:
    """Columns whose sixteen bytes are said to be a UUID."""
    leaves = [file.schema.column(place) for place in range(len(file.schema))]
    return {leaf.path for leaf in leaves if leaf.logical_type.type == "UUID"}


def _next(batches: Iterator[pa.RecordBatch], path: str) -> pa.RecordBatch | None:
    with _whole(path):
        batch = next(batches, None)
        for column in [] if batch is None else batch.columns:
            _require_indices(column)
        return batch


def _require_indices(column: pa.Array) -> None:
    """Raises ArrowIndexError where damage has left values that point behind their dictionary, which Arrow reads."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        _require_indices(column.values)
    elif pa.types.is_dictionary(column.type):
        least, most = pc.min_max(column.indices).as_py().values()
        if least is not None and (least < 0 or most >= len(column.dictionary)):
            raise pa.ArrowIndexError(f"entry {most} of a dictionary of {len(column.dictionary)}")


def _parquet(stream: BinaryIO, path: str) -> pq.ParquetFile:
    with _whole(path):
        return pq.ParquetFile(stream)


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """InputError for bytes that are no Parquet; trouble of the disk or the network stays what it is."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for damaged names of columns
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
        if rng.start == 0:
            head = stream.peek()
            require_text(rng.path, head, config.encoding)
            if head in (b"", BOM):
                return
        # the file's first line is looked at once, or wherever the names come from it
        names = config.columns if config.columns is not None and rng.start else column_names(config, rng.path)
        parser = _parser(config, names or [], columns, lists, rng.path)
        stop = _EVERYTHING if packed else rng.stop
        for block in blocks(stream, rng.start, stop, has_header(config), dialect_of(config)):
            data, position = block.data, block.position
            parsed = parser(data, block.begin, block.end if not block.reason else block.begin)
            bad = parsed.bad if not block.reason else [(*line, block.reason) for line in lines(block)]
            rejects = [
                Reject(rng.path, int(position + first), REASONS[reason], "", cut(data, first, last))
                for first, last, reason in bad
            ]
            if not config.multiline:
                _refuse_open_quotes(rejects)
            yield RawBatch(rng.path, parsed.columns, position + parsed.line[:, 0], rejects, data, parsed.line)


def _refuse_open_quotes(rejects: Sequence[Reject]) -> None:
    """Where quoted values hold no line breaks by promise, what follows such a line may be the rest of a value."""
    for reject in rejects:
        if reject.reason == REASONS[UNCLOSED_QUOTE]:
            raise InputError(
                f"{reject.path} at byte {reject.position}",
                expected="no line break in a quoted value, as `multiline: false` promises",
                found=reject.raw[:80].decode("utf-8", "replace"),
                fix="Remove `multiline: false`, or mend the file.",
            )


def _parser(
    config: SourceConfig, names: Sequence[str], columns: Sequence[str] | None, lists: Collection[str], path: str
) -> Parser:
    codes = code_points(config.encoding)
    if config.format == "jsonl":
        if columns is None:
            raise ValueError("columns of a jsonl source must be named")
        return JsonParser(columns, codes, lists)
    wanted, times = list(names) if columns is None else list(columns), Counter(names)
    for name in wanted:
        if not times[name]:
            raise missing_column(path, name, list(names))
        if times[name] > 1:
            fix = "Name all columns by position, each once: `columns: [...]` and `header: true`."
            raise InputError(path, expected=f"one column {name!r}", found="several", fix=fix)
    return DelimitedParser(names, wanted, config.byte_separator, config.byte_quote, codes, config.multiline)
