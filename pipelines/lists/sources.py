"""Where pairs of a context and an item come from: the config's own log, or a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool, Float64
from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.text import canonical
from fieldwise.features.config import SourceConfig
from fieldwise.features.source.log import LogReader
from fieldwise.features.source.raw import read_range
from fieldwise.features.source.rows import FileRange, RawBatch, Reject
from fieldwise.pipelines.score.ids import identity


class Rows(NamedTuple):
    """n rows that have both ids."""

    context: pa.Array
    """Canonical texts."""
    item: pa.Array
    """Canonical texts."""
    value: Float64
    """A rank, or a gain: 0 of what was not wanted."""
    blank: int
    """Rows without an id, left out."""
    rejects: list[Reject]
    """Rows that could not be read, left out."""


@dataclass(frozen=True)
class Log:
    """The config's source, filtered, with side tables joined; positives have their gain. Picklable."""

    reader: LogReader
    context: str
    item: str
    gain: Expression | None

    @property
    def source(self) -> SourceConfig:
        return self.reader.config.source

    def rows(self, rng: FileRange) -> Iterator[Rows]:
        for batch in self.reader.read(rng):
            assert batch.label is not None
            value, bad = _values(self.gain, batch.columns)
            found = _rows(batch.raw, self.context, self.item, np.where(batch.label > 0, value, 0.0), bad, self.gain)
            yield found._replace(rejects=[*batch.rejects, *found.rejects])


@dataclass(frozen=True)
class Table:
    """A table of pairs. Picklable."""

    source: SourceConfig
    context: str
    item: str
    value: Expression | None
    """Rank of a list's row, gain of a pair; None: 1."""

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys([self.context, self.item, *(self.value.columns if self.value else ())]))

    def rows(self, rng: FileRange) -> Iterator[Rows]:
        for raw in read_range(self.source, rng, self.columns):
            found = _rows(raw, self.context, self.item, *_values(self.value, raw.columns), self.value)
            yield found._replace(rejects=[*raw.rejects, *found.rejects])


def _values(expression: Expression | None, columns: Columns) -> tuple[Float64, Bool]:
    """(numbers, which are none)"""
    if expression is None:
        return np.ones(columns.rows), np.zeros(columns.rows, np.bool_)
    found, bad = expression.evaluate(columns)
    values = found.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values, bad | ~np.isfinite(values)


def _rows(raw: RawBatch, context: str, item: str, value: Float64, bad: Bool, expression: Expression | None) -> Rows:
    texts = [
        canonical(identity(raw.columns.array(name), f"{raw.path}: column {name!r}")).cast(pa.string())
        for name in (context, item)
    ]
    named = pc.and_(texts[0].is_valid(), texts[1].is_valid()).to_numpy(zero_copy_only=False)
    rejects = [
        Reject(raw.path, int(raw.positions[row]), "bad_number", expression.text if expression else "", raw.raw(row))
        for row in np.flatnonzero(bad & named).tolist()
    ]
    kept = named & ~bad
    chosen = pa.array(kept)
    return Rows(texts[0].filter(chosen), texts[1].filter(chosen), value[kept], int(np.sum(~named)), rejects)
