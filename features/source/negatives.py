"""Negatives for a log that holds only what people did: items drawn for every positive, with the rest of its row.

A draw is u = XXH64(file, position, number, attempt) / 2^64, looked up among the items' weights: the same on any
cluster, whatever order rows are read in. An item that the row's context has anywhere in the log that was read is drawn
again.
Pairs are known by 64 bits of their hash: a known pair is always found; of the others one in 2^64 / pairs is taken for
known, and not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool, Float64, Int64, UInt64
from fieldwise.features.columns.batch import Columns, one_table
from fieldwise.features.columns.hashing import xxh64_array, xxh64_rows
from fieldwise.features.columns.text import canonical, texts
from fieldwise.features.columns.vocabulary import TextIndex
from fieldwise.features.config import NegativesConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.source.keys import keys_found
from fieldwise.features.source.log import LogBatch, LogReader
from fieldwise.features.source.raw import read_range, source_columns, split_ranges
from fieldwise.features.source.rows import RawBatch

DRAW_SEED, PAIR_SEED = 0x9E6A, 0x9E6B
ATTEMPTS = 64
"""Of a draw; a context that has nearly all items may be left with fewer negatives."""
_RANGE_BYTES = 8 << 20


@dataclass(frozen=True)
class Items:
    """What may be drawn: N items, in the order of their ids."""

    columns: pa.Table
    """Those of the items that rows of the log read, the id among them."""
    ids: pa.Array
    """Canonical texts."""


def read_items(config: NegativesConfig, base: str, wanted: Sequence[str]) -> Items:
    """The catalog, on the driver. InputError for no item, one without an id, and a repeated one."""
    files = list_files(config.items, base)
    own = source_columns(config.items, files)[1]
    own = sorted(keys_found(files, {config.item, *wanted})) if own is None else own
    names = [config.item, *(name for name in wanted if name in own and name != config.item)]
    batches = [
        raw.columns.batch(names)
        for rng in split_ranges(config.items, files, _RANGE_BYTES)
        for raw in read_range(config.items, rng, names)
    ]
    rows = one_table(batches) if batches else pa.table({name: pa.nulls(0, pa.string()) for name in names})
    ids = canonical(rows[config.item].combine_chunks()).cast(pa.string())
    order = pc.sort_indices(ids)
    items = Items(rows.take(order).combine_chunks(), ids.take(order))
    where, fix = "negatives.items", "Give every item one row with an id."
    if not len(ids) or ids.null_count or not items.ids[0].as_py():  # the empty text comes first
        found = "none" if not len(ids) else "one without"
        raise InputError(where, expected=f"items with a {config.item!r}", found=found, fix=fix)
    if TextIndex(items.ids).repeated >= 0:
        twin = items.ids[TextIndex(items.ids).repeated].as_py()
        raise InputError(where, expected=f"each {config.item} once", found=f"{twin!r} again", fix=fix)
    return items


def pair_hashes(context: UInt64, item: UInt64) -> UInt64:
    """Of pairs, by the hashes of their ids."""
    return xxh64_rows(np.column_stack([context, item]).view(np.uint8).reshape(len(context), 16), PAIR_SEED)


def known_pairs(config: NegativesConfig, columns: Columns) -> UInt64:
    """Hashes of the pairs that rows tell, each once."""
    return np.unique(pair_hashes(*(xxh64_array(columns.array(name)) for name in (config.context, config.item))))


def places(index: TextIndex, columns: Columns, item: str) -> Int64:
    """Of the rows' items among the indexed ones; negative where they lack one."""
    found = np.empty(columns.rows, np.int32)
    index.find(texts(columns.array(item)), found)
    return found.astype(np.int64) - FIRST


def weights(config: NegativesConfig, counts: Int64) -> Float64:
    """Of the items, from how often each is a positive of training: ``popularity^0.75`` is counts ** 0.75."""
    law, _, power = config.by.partition("^")
    return np.ones(len(counts)) if law == "uniform" else counts.astype(np.float64) ** float(power or 1)


@dataclass(frozen=True)
class Negatives:
    """Ready to be drawn."""

    config: NegativesConfig
    items: Items
    hashes: UInt64
    """[N] of the ids."""
    cumulative: Float64
    """[N] of the weights."""
    known: UInt64
    """Hashes of pairs that are not drawn, ascending."""

    @staticmethod
    def of(config: NegativesConfig, items: Items, counts: Int64, known: UInt64) -> Negatives:
        """InputError where no item has any weight."""
        cumulative = np.cumsum(weights(config, counts))
        if not cumulative[-1] > 0:
            raise InputError(
                "negatives.by", expected="items that are positives of the training rows", found="none of the catalog's",
                fix=f"Check that {config.item!r} is the same id in log and items, or draw by: uniform.",
            )  # fmt: skip
        return Negatives(config, items, xxh64_array(items.ids), cumulative, known)

    def rows(self, reader: LogReader, batch: LogBatch, file: int) -> tuple[LogBatch, Int64]:
        """(negatives of a batch's positives, the row of the positive that each was drawn for).

        Args:
            file: its place in the list of files.
        """
        assert batch.label is not None
        each = self.config.per_positive
        positive = np.repeat(np.flatnonzero(batch.label > 0), each)
        number = np.tile(np.arange(each), len(positive) // each)
        context = xxh64_array(batch.columns.array(self.config.context))[positive]
        item = self._drawn(np.full(len(positive), file), batch.positions[positive], number, context)
        positive, item = positive[item >= 0], item[item >= 0]
        names = [name for name in reader.columns if name in batch.columns.names]
        rows = pa.Table.from_batches([batch.columns.batch(names)]).take(pa.array(positive))
        columns = Columns({name: rows[name] for name in names}, len(positive))
        drawn = self.items.columns.take(pa.array(item))
        columns = columns.adding({name: drawn[name].combine_chunks() for name in drawn.column_names}, "negatives.items")
        # positions are places of these rows, until it is known which of them stay
        found = reader.finish(RawBatch(batch.path, columns, np.arange(len(positive))))
        stayed = positive[found.positions]
        raw = replace(found.raw, positions=batch.positions[stayed])
        return replace(found, raw=raw, label=np.zeros(found.rows, np.float32)), stayed

    def _drawn(self, file: Int64, position: Int64, number: Int64, context: UInt64) -> Int64:
        """Places of items; -1 where every attempt met a known pair."""
        place = np.full(len(position), -1, np.int64)
        left = np.arange(len(position))
        for attempt in range(ATTEMPTS):
            if not len(left):
                break
            row = np.column_stack([file[left], position[left], number[left], np.full(len(left), attempt)])
            drawn = xxh64_rows(row.astype(np.int64).view(np.uint8).reshape(len(left), 32), DRAW_SEED)
            u = (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53
            found = np.searchsorted(self.cumulative, u * self.cumulative[-1], side="right")
            found = np.minimum(found, len(self.cumulative) - 1)
            good = ~self._known(pair_hashes(context[left], self.hashes[found]))
            place[left[good]] = found[good]
            left = left[~good]
        return place

    def _known(self, pairs: UInt64) -> Bool:
        if self.config.exclude is None or not len(self.known):
            return np.zeros(len(pairs), np.bool_)
        at = np.minimum(np.searchsorted(self.known, pairs), len(self.known) - 1)
        found: Bool = self.known[at] == pairs
        return found
