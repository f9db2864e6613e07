"""Rows that hold what one range says of one context, and how they are read again, context by context."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Bool, Float64, Int64

LISTED, EVENT, SEEN, EXCLUDED, ONLY, SLICES = range(6)
"""Kinds of rows: a list's items with their ranks, wanted items with their gains, that the context was there before,
pairs that lists must not hold, the only pairs that they may, and the context's values of the columns of slices."""
RECORD = np.dtype([("item", np.int64), ("value", np.float64)])
_RECORDS = 1 << 16
"""That are looked at together, or those of one context if these are more."""


class Contexts(NamedTuple):
    """All that is known of some contexts, numbered from 0 on."""

    ids: pa.Array
    kind: npt.NDArray[np.int32]
    """Of every record."""
    context: Int64
    item: Int64
    value: Float64
    slices: dict[int, list[str]]
    """Of those contexts that have any."""


def starts(key: Int64, contexts: pa.Array) -> Bool:
    """Which of sorted rows begin another context than the one before."""
    if not len(key):
        return np.zeros(0, np.bool_)
    other = pc.not_equal(contexts.slice(1), contexts.slice(0, len(key) - 1)).to_numpy(zero_copy_only=False)
    return np.r_[True, (key[1:] != key[:-1]) | other]


def whole_contexts(batches: Iterator[pa.RecordBatch]) -> Iterator[Contexts]:
    """Parts of a sorted stream: all rows of a context are in one. Memory for a batch and the largest context."""
    held: pa.Table | None = None
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        rows = rows if held is None else pa.concat_tables([held, rows])
        rows = rows.combine_chunks()
        first = np.flatnonzero(starts(rows["key"].to_numpy(), rows["context"].combine_chunks()))
        if len(first):
            yield from _parts(rows.slice(0, int(first[-1])), first[:-1])
            held = rows.slice(int(first[-1]))
    if held is not None:
        yield from _parts(held, np.zeros(1, np.int64))


def _parts(rows: pa.Table, first: Int64) -> Iterator[Contexts]:
    """``first``: where contexts begin."""
    if not len(first):
        return
    sizes = pc.binary_length(rows["payload"]).to_numpy()
    before = (np.cumsum(sizes) - sizes)[first] // (RECORD.itemsize * _RECORDS)
    cuts = np.flatnonzero(np.r_[True, before[1:] != before[:-1]])
    ends = [*first[cuts[1:]].tolist(), rows.num_rows]
    for begin, end, owners in zip(first[cuts].tolist(), ends, np.split(first, cuts[1:]), strict=True):
        yield _unpacked(rows.slice(begin, end - begin), owners - begin)


def _unpacked(rows: pa.Table, first: Int64) -> Contexts:
    owner = np.repeat(np.arange(len(first)), np.diff(np.r_[first, rows.num_rows]))
    kinds, payload = rows["kind"].to_numpy(), rows["payload"]
    sliced = kinds == SLICES
    told = payload.filter(pa.array(sliced)).to_pylist()
    whole = payload.filter(pa.array(~sliced))
    records = np.frombuffer(b"".join(whole.to_pylist()), RECORD)
    lengths = pc.binary_length(whole).to_numpy() // RECORD.itemsize
    return Contexts(
        ids=rows["context"].combine_chunks().take(pa.array(first)),
        kind=np.repeat(kinds[~sliced], lengths),
        context=np.repeat(owner[~sliced], lengths),
        item=np.ascontiguousarray(records["item"]),
        value=np.ascontiguousarray(records["value"]),
        slices={int(at): json.loads(text) for at, text in zip(owner[sliced], told, strict=True)},
    )
