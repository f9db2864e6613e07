"""A model over tables in memory: side tables joined, encoded and scored in this process, without Spark."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from fieldwise.features.arrays import Float32, Int32
from fieldwise.features.columns.batch import Columns
from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.process import cores
from fieldwise.features.source.join import SideTable
from fieldwise.pipelines.score.coverage import Coverage, Tally
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.scoring.scorer import Scorer

BLOCK = 1 << 16
"""Rows at a time: memory stays that of a block, however long the table."""


class FrameScorer:
    """Scores tables of raw columns: those of the log, from which side tables are joined, or all that the fields read.

    Args:
        config: of the pipeline, for its side tables. None: a table has every column that the model reads.
        base: directory that paths of side tables count from.
    """

    def __init__(self, bundle: Bundle, config: FeatureConfig | None = None, base: str = "") -> None:
        self.bundle, self.spec, self.scorer = bundle, bundle.spec, Scorer(bundle)
        self._config, self._base = config, base
        self._encoder = Encoder(bundle.spec)

    @cached_property
    def _tables(self) -> list[SideTable]:
        joins = () if self._config is None else self._config.join
        return [SideTable(join, self._base) for join in joins]

    def scored(self, table: pa.Table) -> tuple[Float32, dict[str, str]]:
        """Probabilities [rows], calibrated; and the fields of whose values there training has seen none, with one of
        them (of a hashed field that is not told). InputError for a column that is missing, or a value that cannot be
        read."""
        threads, tally = cores(), Tally(self.spec, Coverage({}))
        parts = [np.empty(0, np.float32)]
        for start in range(0, table.num_rows, BLOCK):
            raw, slots = self.encoded(table.slice(start, BLOCK), start)
            tally.add(slots, raw)
            parts.append(self.scorer.probabilities(slots, threads))
        told = {field.name for field in self.spec.fields if field.values and not field.config.hashed}
        unseen = {
            name: found["example"]
            for name, found in tally.shares(told).items()
            if found["unseen"] and found["unseen"] + found["missing"] > 1 - 1e-9
        }
        return np.concatenate(parts), unseen

    def encoded(self, table: pa.Table, first: int = 0) -> tuple[pa.RecordBatch, Int32]:
        """The raw columns that the model reads, and their slots [rows, S]. ``first``: number of the first row, for
        messages."""
        columns = self.joined(table)
        return columns.batch(self.spec.raw_columns), self._encoder.encode(columns).require_readable(first)

    def joined(self, table: pa.Table) -> Columns:
        """The columns, with those of side tables that the table lacks itself."""
        columns = Columns.of(table)
        wanted = set(self.spec.raw_columns)
        if not wanted <= set(columns.names):
            for side in self._tables:
                lacks = sorted(wanted & set(side.names) - set(columns.names))
                if lacks and side.on in columns.names:
                    columns, _ = side.add_to(columns, lacks)
        return columns
