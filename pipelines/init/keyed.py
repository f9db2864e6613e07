"""A row for each context and each item of a log that comes without such tables: its last row there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from fieldwise.features.columns.text import canonical
from fieldwise.features.config import SourceConfig
from fieldwise.features.source.raw import read_range, split_ranges
from fieldwise.pipelines.init.columns import Column
from fieldwise.pipelines.init.sample import Sample

MOST_KEYS = 500_000
"""Rows of a table that is made; of more the last ones."""
MOST_READ = 4 << 30
"""Bytes of a log that are read once more for them; of a larger one the sample stands in."""
SAME = 0.995
"""Share of rows in which a column has its item's usual value, from which on it is the item's own."""
POSITIONS = ("position", "pos", "rank", "slot", "place")
"""Words for where an item was shown: nothing of a context or an item."""
_PENDING = 1 << 19


@dataclass(frozen=True)
class Made:
    """A table to be written."""

    table: pa.Table
    parquet: bool
    reason: str

    @property
    def suffix(self) -> str:
        return "parquet" if self.parquet else "csv"

    def source(self, name: str) -> SourceConfig:
        return SourceConfig(path=[name], format="parquet") if self.parquet else SourceConfig(path=[name])

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        out = pa.BufferOutputStream()
        if self.parquet:
            pq.write_table(self.table, out)
        else:  # quotes what holds separators, quotes or line ends
            texts = {name: canonical(self.table[name].combine_chunks()) for name in self.table.schema.names}
            pyarrow.csv.write_csv(pa.table(texts), out, pyarrow.csv.WriteOptions(quoting_style="needed"))
        return bytes(out.getvalue())


def follows(column: Column, item: Column) -> bool:
    """Whether a column's value is one of the item."""
    if column.is_list:
        return True
    both = (item.codes >= 0) & (item.counts[item.codes] > 1)
    if not both.any():
        return False
    pairs, often = np.unique(item.codes[both] * (column.distinct + 1) + column.codes[both] + 1, return_counts=True)
    usual = np.zeros(item.distinct, np.int64)
    np.maximum.at(usual, pairs // (column.distinct + 1), often)
    return bool(usual.sum() >= SAME * both.sum())


def is_position(name: str, words: Sequence[str]) -> bool:
    return any(word in POSITIONS for word in words)


def make(sample: Sample, key: str, names: Sequence[str], what: str) -> Made:
    """The last row of every value of ``key``, by ``key`` and columns ``names``, in the order of the keys."""
    columns = [key, *(name for name in names if name != key)]
    every = sample.whole or sample.opening.bytes <= MOST_READ
    parts = iter([sample.table.select(columns)]) if sample.whole or not every else _parts(sample, columns)
    table, cut = _last(parts, key)
    words = f"{table.num_rows:,} {what}, each as in its last row of "
    words += "the log" if every else f"the rows that were looked at ({sample.words}): OTHERS ARE NOT IN IT"
    words += f"; those of earlier rows are left out above {MOST_KEYS:,}" if cut else ""
    plain = sample.opening.config.format in ("csv", "tsv")
    return Made(table, not plain, words)


def _parts(sample: Sample, columns: Sequence[str]) -> Iterator[pa.Table]:
    opening = sample.opening
    for rng in split_ranges(opening.config, opening.files, 1 << 62):
        for batch in read_range(opening.config, rng, columns, opening.lists):
            yield pa.Table.from_batches([batch.columns.batch(list(columns))])


def _last(parts: Iterator[pa.Table], key: str) -> tuple[pa.Table, bool]:
    """(rows, whether some keys were left out). Memory follows from ``MOST_KEYS``, not from the rows."""
    held: list[pa.Table] = []
    cut = False
    for part in parts:
        held.append(part)
        if sum(table.num_rows for table in held) > _PENDING + MOST_KEYS:
            table, more = _distinct(held, key)
            held, cut = [table], cut or more
    table, more = _distinct(held, key)
    keys = canonical(table[key].combine_chunks())
    return table.take(pc.sort_indices(keys)), cut or more


def _distinct(held: Sequence[pa.Table], key: str) -> tuple[pa.Table, bool]:
    table = pa.concat_tables(held, promote_options="default").combine_chunks()
    keys = canonical(table[key].combine_chunks())
    numbered = pa.table({"key": keys, "row": np.arange(table.num_rows)})
    numbered = numbered.filter(pc.greater(pc.fill_null(pc.binary_length(keys), 0), 0))
    last = np.sort(numbered.group_by("key").aggregate([("row", "max")])["row_max"].to_numpy())
    return table.take(pa.array(last[-MOST_KEYS:])), len(last) > MOST_KEYS


def usual(columns: Mapping[str, Column], names: Sequence[str]) -> dict[str, str | int]:
    """The most frequent value of columns that scoring gives one value to."""
    found: dict[str, str | int] = {}
    for name in names:
        column, value = columns[name], columns[name].top[0]
        found[name] = int(value) if column.whole and not column.padded and len(value) < 18 else value
    return found
