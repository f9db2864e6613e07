"""What runs inside the tasks of evaluate-lists.

    read_task      ranges of lists, events, history, pairs and contexts  ->  (key, context, kind, payload)
    measure_task   the same, grouped by context  ->  (what, about, data): sums of metrics, counts of listed items

A row holds what one range says of one context: records of (item, value), packed. Items are positions among the eligible
ones; others are negative numbers made of their hash, which only have to be told apart within one context's rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool, Float64, Int64
from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.engine.base import Shared, Task, indices
from fieldwise.features.source.quarantine import count, examples
from fieldwise.features.source.rows import FileRange, Reject
from fieldwise.pipelines.catalog.tasks import places_of
from fieldwise.pipelines.lists.described import DescribedSide, values_of
from fieldwise.pipelines.lists.measure import Measured, Yardsticks
from fieldwise.pipelines.lists.packed import EVENT, EXCLUDED, LISTED, ONLY, RECORD, SEEN, SLICES, starts, whole_contexts
from fieldwise.pipelines.lists.sources import Log, Rows, Table
from fieldwise.pipelines.score.ids import undecodable

REPORT, COUNTS = -1, -2
"""Kinds of rows for the driver: what a task says in JSON; int64 [n, 3] of items, their rows and their positives."""
ROW = "key bigint, context string, kind int, payload binary"
FOUND = "what string, about string, data binary"
KINDS = {LISTED, EVENT, SEEN, EXCLUDED, ONLY, SLICES}
"""Of rows for the measuring tasks."""
PAIRS = {"lists": LISTED, "events": EVENT, "history": SEEN, "exclude": EXCLUDED, "candidates": ONLY}
_SCHEMA = pa.schema([("key", pa.int64()), ("context", pa.string()), ("kind", pa.int32()), ("payload", pa.binary())])


@dataclass(frozen=True)
class Inputs:
    """What reading tasks read, by name."""

    pairs: dict[str, Log | Table]
    contexts: DescribedSide | None
    """Where slices are cut by columns of theirs."""
    ranges: tuple[tuple[str, FileRange], ...]
    items: pa.Array
    """Ids of the eligible ones."""


def read_task(inputs: Shared[Inputs]) -> Task:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        todo = inputs.value
        for index in indices(batches):
            name, rng = todo.ranges[index]
            told: Counter[str] = Counter()
            rejects: list[Reject] = []
            if name == "contexts":
                assert todo.contexts is not None
                yield from _contexts(todo.contexts, rng, told, rejects)
            else:
                for rows in todo.pairs[name].rows(rng):
                    rejects += rows.rejects
                    told.update(rows=len(rows.context) + rows.blank, blank=rows.blank)
                    yield from _pairs(name, rows, todo.items, told)
            said = {"name": name, "counts": told, "bad": [[*key, n] for key, n in count(rejects).items()],
                    "examples": examples(rejects)}  # fmt: skip
            yield _one(REPORT, json.dumps(said).encode())

    return run


def _pairs(name: str, rows: Rows, items: pa.Array, told: Counter[str]) -> Iterator[pa.RecordBatch]:
    item = places_of(items, rows.item)
    outside = item < 0
    item[outside] = -1 - (xxh64_array(rows.item.filter(pa.array(outside))) >> np.uint64(1)).astype(np.int64)
    wanted = rows.value > 0
    told.update(positives=int(wanted.sum()), outside=int(outside.sum()))
    if name == "history":  # of items it says how often, of contexts only that they were there
        yield _counted(item[~outside], wanted[~outside])
        contexts = rows.context.unique()
        yield packed(SEEN, contexts, np.zeros(len(contexts), np.int64), np.zeros(len(contexts)))
        return
    kept = wanted if name == "events" else np.ones(len(item), np.bool_)
    yield packed(PAIRS[name], rows.context.filter(pa.array(kept)), item[kept], rows.value[kept])


def _counted(item: Int64, wanted: Bool) -> pa.RecordBatch:
    found, place = np.unique(item, return_inverse=True)
    counts = [found, np.bincount(place, minlength=len(found)), np.bincount(place, wanted, len(found)).astype(np.int64)]
    return _one(COUNTS, np.column_stack(counts).astype(np.int64).tobytes())


def _contexts(
    side: DescribedSide, rng: FileRange, told: Counter[str], rejects: list[Reject]
) -> Iterator[pa.RecordBatch]:
    for ids, columns, bad in side.rows(rng):
        rejects += bad
        texts = pc.cast(ids, pa.string())
        good = ids.is_valid().to_numpy(zero_copy_only=False) & ~undecodable(columns.array(side.id))
        told.update(rows=len(ids), blank=int(np.sum(~good)))
        values = zip(*(values_of(columns, name).to_pylist() for name in side.wanted), strict=True)
        payload = pa.array([json.dumps(row).encode() for row in values], pa.binary())
        chosen = pa.array(good)
        yield _batch(texts.filter(chosen), SLICES, payload.filter(chosen))


def packed(kind: int, contexts: pa.Array, item: Int64, value: Float64) -> pa.RecordBatch:
    """A row for every run of equal contexts, once they are brought together."""
    key = xxh64_array(contexts)
    order = np.argsort(key, kind="stable")
    contexts, records = contexts.take(pa.array(order)), np.empty(len(order), RECORD)
    records["item"], records["value"] = item[order], value[order]
    first = np.flatnonzero(starts(key[order].view(np.int64), contexts))
    offsets = pa.py_buffer((np.r_[first, len(order)] * RECORD.itemsize).astype(np.int32))
    payload = pa.Array.from_buffers(pa.binary(), len(first), [None, offsets, pa.py_buffer(records)])
    return _batch(contexts.take(pa.array(first)), kind, payload)


def _batch(contexts: pa.Array, kind: int, payload: pa.Array) -> pa.RecordBatch:
    keys = pa.array(xxh64_array(contexts).view(np.int64))
    kinds = pa.array(np.full(len(contexts), kind, np.int32))
    return pa.RecordBatch.from_arrays([keys, contexts, kinds, payload], schema=_SCHEMA)


def _one(kind: int, payload: bytes) -> pa.RecordBatch:
    return _batch(pa.array([""], pa.string()), kind, pa.array([payload], pa.binary()))


def measure_task(yardsticks: Shared[Yardsticks]) -> Task:
    """Takes rows sorted by (key, context)."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        measured = Measured(yardsticks.value)
        for contexts in whole_contexts(batches):
            measured.add(contexts)
        what, about, data = zip(*measured.found(), strict=True)
        yield pa.RecordBatch.from_arrays(
            [pa.array(what, pa.string()), pa.array(about, pa.string()), pa.array(data, pa.binary())],
            ["what", "about", "data"],
        )

    return run
