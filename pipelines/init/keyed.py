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
from fieldwise.pipelines.init.guess.columns import Column, follows, shown
from fieldwise.pipelines.init.sample import Sample
from fieldwise.pipelines.init.yaml_text import flow

MOST_KEYS = 500_000
"""Rows of a table that is made; of more the last ones."""
MOST_READ = 4 << 30
"""Bytes of a log that are read once more for them; of a larger one the sample stands in."""
POSITIONS = ("position", "pos", "rank", "slot", "place", "rang", "platz", "stelle", "plaats", "posicion", "posición",
             "posizione", "posição", "puesto", "позиция")  # fmt: skip
"""Words for where an item was shown: nothing of a context or an item."""
_MOST_PLACES = 50
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


def is_position(name: str, words: Sequence[str]) -> bool:
    return name.lower() in POSITIONS or any(word in POSITIONS for word in words)  # words are of ASCII letters


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
    table = pa.concat_tables(held, promote_options="permissive").combine_chunks()
    keys = canonical(table[key].combine_chunks())
    numbered = pa.table({"key": keys, "row": np.arange(table.num_rows)})
    numbered = numbered.filter(pc.greater(pc.fill_null(pc.binary_length(keys), 0), 0))
    last = np.sort(numbered.group_by("key").aggregate([("row", "max")])["row_max"].to_numpy())
    return table.take(pa.array(last[-MOST_KEYS:])), len(last) > MOST_KEYS


def places(column: Column) -> bool:
    """Whether values are whole numbers from 0 or 1 on without a gap, as places in a list are."""
    if (
        not column.whole
        or column.padded
        or not 3 <= column.distinct <= _MOST_PLACES
        or column.numbers.min() not in (0, 1)
    ):
        return False
    return bool(column.numbers.max() - column.numbers.min() == column.distinct - 1)


def may_be_places(columns: Mapping[str, Column], names: Sequence[str], context: Column) -> list[str]:
    """What to say of columns whose values may be where items were shown: those that no context has as its own."""
    return [
        f"{shown(name)}: CHECK whether this is where an item was shown: then write `fixed: "
        f"{flow({name: int(columns[name].numbers.min())})}` below catalog, else each context has that of its last row"
        for name in names
        if places(columns[name]) and not follows(columns[name], context)
    ]


def foremost(columns: Mapping[str, Column], names: Sequence[str]) -> dict[str, str | int]:
    """The first place, where places are numbers, else the most frequent one."""
    found: dict[str, str | int] = {}
    for name in names:
        column = columns[name]
        numbered = column.whole and not column.padded and np.abs(column.numbers).max() < 1e15
        found[name] = int(column.numbers.min()) if numbered else column.top[0]
    return found
