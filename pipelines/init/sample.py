"""Rows to look at: all of a small source, of a large one pieces from its beginning to its end. Memory is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from fieldwise.features.columns.batch import one_table
from fieldwise.features.errors import InputError
from fieldwise.features.files.compression import compression
from fieldwise.features.files.listing import SourceFile, directory_columns
from fieldwise.features.source.headers import quote_byte
from fieldwise.features.source.raw import count_rows, read_range, split_ranges
from fieldwise.features.source.rows import FileRange, RawBatch
from fieldwise.pipelines.init.opening import Opening

MOST_BYTES = 32 << 20
"""Of text that is looked at."""
MOST_ROWS = 400_000
PIECES = 16
"""Of a source that is larger."""
_FIRST = 1 << 20
"""Bytes that say how long rows are."""
_PACKED = 4
"""Bytes that one of a compressed file may stand for, about."""
_COUNTED = 200
"""Parquet files whose rows are counted; more are estimated from these."""


@dataclass(frozen=True)
class Sample:
    """Rows of a source."""

    opening: Opening
    table: pa.Table
    """Columns as they were read: texts, lists of them, or the types of Parquet; then those that directories tell."""
    told: tuple[str, ...]
    """Columns that directories tell."""
    rejects: Counter[str]
    """Lines that are no rows, by reason."""
    total: int
    """Rows of the source: counted where all were looked at, else estimated."""
    whole: bool

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def bad(self) -> float:
        """Share of lines that are no rows."""
        n = self.rejects.total()
        return n / max(1, n + self.rows)

    @property
    def words(self) -> str:
        """How much was looked at."""
        if self.whole:
            return f"all {self.rows:,} rows"
        return f"{self.rows:,} of about {self.total:,} rows, from its beginning to its end"


def look(opening: Opening) -> Sample:
    """Read a sample. Raises InputError where nothing in it is a row."""
    told = tuple(name for name in directory_columns(opening.files[0].path) if name not in opening.names)
    names = [*opening.names, *told]
    ranges, whole = _ranges(opening, names)
    rejects: Counter[str] = Counter()
    batches: list[pa.RecordBatch] = []
    left, room, read = MOST_ROWS, -(-MOST_ROWS // len(ranges)), 0
    for rng in ranges:
        mine = room if not whole else left
        for batch in _batches(opening, rng, names, strict=rng.start > 0 and not whole):
            rows = batch.columns.batch(names).slice(0, mine)
            cut = rows.num_rows < batch.columns.rows
            rejects.update(reject.reason for reject in batch.rejects)
            batches.append(rows)
            mine, left, read = mine - rows.num_rows, left - rows.num_rows, read + _size(batch)
            if cut or mine <= 0:
                whole = whole and not cut and left > 0
                break
    table = one_table(batches) if batches else pa.table({name: pa.nulls(0, pa.string()) for name in names})
    if not table.num_rows:
        found = ", ".join(f"{n:,} lines that are none ({reason})" for reason, n in rejects.items()) or "none"
        where = ", ".join(opening.config.path)
        raise InputError(where, expected="rows", found=found, fix="Mend the file, or name another.")
    total = table.num_rows if whole else _estimated(opening, table.num_rows, read)
    return Sample(opening, table, told, rejects, max(total, table.num_rows), whole)


def _size(batch: RawBatch) -> int:
    """Bytes that the rows of a batch take in their file."""
    return int((batch.line[:, 1] - batch.line[:, 0] + 1).sum()) if batch.line is not None else 0


def _ranges(opening: Opening, names: Sequence[str]) -> tuple[list[FileRange], bool]:
    """What to read, and whether that is everything."""
    config, files = opening.config, [file for file in opening.files if file.size] or list(opening.files[:1])
    if config.format == "parquet":
        groups = split_ranges(config, files, 1)
        rows = sum(count_rows(config, rng) for rng in groups) if len(files) <= _COUNTED else MOST_ROWS + 1
        few = rows <= MOST_ROWS and opening.bytes <= MOST_BYTES
        return (groups, True) if few else (_spread(groups), False)
    packed = any(compression(file.path) is not None for file in files)
    size = opening.bytes * (_PACKED if packed else 1)
    most = min(MOST_BYTES, int(MOST_ROWS * _row_bytes(opening, files[0], names)))
    if size <= most:
        return split_ranges(config, files, 1 << 62), True
    if packed:  # codecs cannot be entered in the middle: the beginnings of some files
        return [FileRange(file.path, 0, file.size) for file in _spread(files)], False
    return list(_pieces(files, most // PIECES)), False


def _row_bytes(opening: Opening, file: SourceFile, names: Sequence[str]) -> float:
    """Of a row, by the first ones."""
    stop = min(file.size, _FIRST) if compression(file.path) is None else file.size
    for batch in _batches(opening, FileRange(file.path, 0, stop), names, strict=False):
        return max(1.0, _size(batch) / max(1, batch.columns.rows))
    return 1.0


def _spread(some: Sequence[FileRange] | Sequence[SourceFile]) -> list:
    """At most ``PIECES`` of them, the first and the last included."""
    n = len(some)
    return list(some) if n <= PIECES else [some[place * (n - 1) // (PIECES - 1)] for place in range(PIECES)]


def _pieces(files: Sequence[SourceFile], size: int) -> Iterator[FileRange]:
    """Equal pieces of all bytes in a row, the first and the last included, each within one file."""
    ends = list(accumulate(file.size for file in files))
    for place in range(PIECES):
        at = (ends[-1] - size) * place // (PIECES - 1)
        number = next(n for n, end in enumerate(ends) if at < end)
        file, start = files[number], at - (ends[number] - files[number].size)
        yield FileRange(file.path, start, min(file.size, start + size))


def _batches(opening: Opening, rng: FileRange, names: Sequence[str], *, strict: bool) -> Iterator[RawBatch]:
    """Rows of a range. ``strict``: one that begins anywhere, so that a line break in quotes would be taken for the end
    of a row: it is left out from there."""
    config = opening.config
    if strict and quote_byte(config) >= 0:
        try:
            yield from read_range(config.model_copy(update={"multiline": False}), rng, names, opening.lists)
        except InputError:
            return
    else:
        yield from read_range(config, rng, names, opening.lists)


def _estimated(opening: Opening, rows: int, read: int) -> int:
    """Rows of everything; exact for Parquet of not too many files."""
    config, files = opening.config, opening.files
    if config.format == "parquet":
        some = files[:_COUNTED]
        counted = sum(count_rows(config, rng) for rng in split_ranges(config, some, 1 << 62))
        return int(counted * opening.bytes / max(1, sum(file.size for file in some)))
    packed = any(compression(file.path) is not None for file in files)
    return int(opening.bytes * (_PACKED if packed else 1) * rows / max(1, read))
