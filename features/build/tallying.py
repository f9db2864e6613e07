"""Counting inside tasks: the moments, lines and values of byte ranges, before anything is encoded.

A task's counts travel the same way as its rows, so a task that runs twice counts once. Values go to the task that adds
them up in Arrow streams, by the hash of the value: an engine moves a few large binaries, not rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Int64
from fieldwise.features.build import placement
from fieldwise.features.build.reading import Findings, Job, read_log, read_rows
from fieldwise.features.build.split import TEST, VALID
from fieldwise.features.columns.batch import Columns, one_table
from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.columns.vocabulary import TextIndex
from fieldwise.features.engine.base import Shared, Task, indices
from fieldwise.features.fields import fitting
from fieldwise.features.source.negatives import Items, known_pairs, places
from fieldwise.features.source.quarantine import examples
from fieldwise.features.source.raw import count_rows

TIMES, DIGITS = "place int, time bigint, count bigint", "digits binary, counts binary"
COUNTS_FIELD = -1
"""Stands for a field in tallies: the key is one of ``Counts``, as JSON."""

KNOWN = "pairs binary, places binary, counts binary"
_TALLY_ROWS = 1 << 18
_TALLY_SEED = 0x7A11
_PAYLOAD_ROWS = 4096
"""See ``tasks.PAYLOAD_BYTES``."""


def time_task(job: Job) -> Task:
    """(place, time, count): how many rows each moment has; those of about a second have one place."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            for batch in read_log(job, index, Findings()):
                assert batch.time is not None
                times, counts = np.unique(batch.time, return_counts=True)
                place = (times >> 20 & 0x7FFFFFFF).astype(np.int32)
                columns = [pa.array(place), pa.array(times), pa.array(counts.astype(np.int64))]
                yield pa.record_batch(columns, ["place", "time", "count"])

    return run


def last_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """(time): the last of each batch of times."""
    for batch in batches:
        if batch.num_rows:
            yield pa.record_batch([pa.array([batch["time"].to_numpy().max()], pa.int64())], ["time"])


def digit_task(shift: int, low: int, high: int) -> Task:
    """(digits, counts): rows by ``time >> shift`` of the times in [low, high), as bytes of int64."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        digits, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for batch in batches:
            time, count = batch["time"].to_numpy(), batch["count"].to_numpy()
            mine = (time >= low) & (time < high)
            digits, counts = np.r_[digits, time[mine] >> shift], np.r_[counts, count[mine]]
            if len(digits) > _TALLY_ROWS:
                digits, counts = summed(digits, counts)
        columns = [pa.array([part.tobytes()], pa.binary()) for part in summed(digits, counts)]
        yield pa.record_batch(columns, ["digits", "counts"])

    return run


def summed(keys: Int64, counts: Int64) -> tuple[Int64, Int64]:
    """(distinct keys ascending, sums of their counts)"""
    distinct, place = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, place, counts)
    return distinct, sums


def count_task(job: Job) -> Task:
    """(count): lines of each range, readable or not."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            yield pa.record_batch([pa.array([count_rows(job.config.source, job.ranges[index])], pa.int64())], ["count"])

    return run


def known_task(job: Job, items: Shared[Items]) -> Task:
    """(pairs, places, counts): what negatives must know of the log, by range: hashes of its pairs, and how often each
    item is a positive of training."""
    config = job.config.negatives
    assert config is not None

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ids = TextIndex(items.value.ids)
        for index in indices(batches):
            for batch, roles in read_rows(job, index, Findings()):
                assert batch.label is not None
                positive = (batch.label > 0) & (roles != VALID) & (roles != TEST)
                place = places(ids, batch.columns, config.item)
                found, counts = np.unique(place[positive & (place >= 0)], return_counts=True)
                told = (known_pairs(config, batch.columns), found, counts)
                columns = [pa.array([array.tobytes()], pa.binary()) for array in told]
                yield pa.record_batch(columns, ["pairs", "places", "counts"])

    return run


def tally_task(job: Job, fit: bool, keys: Sequence[int]) -> Task:
    """(place, payload): tallies of the training rows' values if ``fit``, and of ``Counts`` over all rows.

    Each value goes to one place of its own, so that its sum is made in one task. ``keys``: see ``Places``.
    """

    names = list(dict.fromkeys(name for f in job.config.fields if f.needs_fit for name in f.columns))

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        findings = Findings()
        for index in indices(batches):
            held: list[pa.RecordBatch] = []
            for batch, roles in read_rows(job, index, findings):
                findings.count_roles(batch, roles)
                training = (roles != VALID) & (roles != TEST)
                if fit:
                    training &= findings.foresee(batch, fitting.check(job.config.fields, batch.columns))
                if fit and training.any():
                    kept = batch.columns if training.all() else batch.columns.filter(training)
                    held.append(kept.batch(names))  # copied while the bytes they were read from are in the cache
                if sum(part.num_rows for part in held) > _TALLY_ROWS:
                    yield _scattered(fitting.count(job.config.fields, Columns.of(one_table(held))), keys)
                    held = []
            if held:
                yield _scattered(fitting.count(job.config.fields, Columns.of(one_table(held))), keys)
            for example in examples(findings.rejects):
                findings.counts["example", json.dumps(example)] += 1
            findings.rejects.clear()
        words = [json.dumps(key).encode() for key in findings.counts]
        columns = [np.full(len(words), COUNTS_FIELD, np.int32), words, list(findings.counts.values())]
        yield _scattered(pa.table(columns, schema=fitting.TALLY), keys)

    return run


def _scattered(tally: pa.Table, keys: Sequence[int]) -> pa.RecordBatch:
    """(place, payload): a tally's rows by place, in small Arrow streams."""
    number = placement.file_of(xxh64_array(tally["key"].combine_chunks(), _TALLY_SEED), len(keys))
    order = np.argsort(number.astype(np.min_scalar_type(len(keys))), kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(keys) + 1))
    sorted_tally = tally.take(order).combine_chunks()
    places, payloads = [], []
    for key, (first, stop) in zip(keys, pairwise(ends), strict=True):
        for batch in sorted_tally.slice(first, stop - first).to_batches(_PAYLOAD_ROWS):
            places.append(key)
            payloads.append(to_stream(batch))
    return pa.record_batch([pa.array(places, pa.int32()), pa.array(payloads, pa.binary())], ["place", "payload"])


def to_stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def pack_task(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """(payload): Arrow streams of batches; as row objects they would take the driver ten times the memory."""
    for batch in batches:
        yield pa.record_batch([pa.array([to_stream(batch)], pa.binary())], ["payload"])


def sum_task(least: Sequence[int]) -> Task:
    """(field, key, count): the sums of one place's tallies that reach ``least`` [fields]."""
    wanted = np.array([*least, 0], np.int64)  # the last for COUNTS_FIELD

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held, rows = [fitting.TALLY.empty_table()], 0
        for batch in batches:
            held += [pa.ipc.open_stream(payload.as_buffer()).read_all() for payload in batch.column(1)]
            if sum(part.num_rows for part in held) > max(_TALLY_ROWS, 2 * rows):
                held = [fitting.merge(held)]
                rows = held[0].num_rows
        merged = fitting.merge(held)
        enough = merged["count"].to_numpy() >= wanted[merged["field"].to_numpy()]
        yield from merged.filter(pa.array(enough)).to_batches(1 << 16)

    return run


def capped(batches: Iterator[pa.RecordBatch], sizes: Mapping[int, int]) -> Iterator[pa.RecordBatch]:
    """(place, payload): sums of one place, in small Arrow streams: those of a field in ``sizes`` at the field's own
    place and no more than its size, all others wherever."""
    for batch in batches:
        table = pa.Table.from_batches([batch])
        of_field = table["field"].to_numpy()
        parts = [
            (field, most_frequent(table.filter(pa.array(of_field == field)), size)) for field, size in sizes.items()
        ]
        others = table.filter(pa.array(~np.isin(of_field, list(sizes))))
        elsewhere = int(of_field[0]) + len(batch) if len(batch) else 0
        pieces = [
            (place, to_stream(piece))
            for place, part in [*parts, (elsewhere, others)]
            for piece in part.combine_chunks().to_batches(_PAYLOAD_ROWS)
        ]
        places, payloads = [place for place, _ in pieces], [payload for _, payload in pieces]
        yield pa.record_batch([pa.array(places, pa.int32()), pa.array(payloads, pa.binary())], ["place", "payload"])


def cap_task(sizes: Mapping[int, int]) -> Task:
    """(payload): Arrow streams of sums, of fields in ``sizes`` their most frequent values alone."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: dict[int, list[pa.Table]] = {}
        for batch in batches:
            for payload in batch["payload"]:
                table = pa.ipc.open_stream(payload.as_buffer()).read_all()
                field = table["field"][0].as_py()
                if field not in sizes:
                    yield pa.record_batch([pa.array([payload.as_py()], pa.binary())], ["payload"])
                    continue
                parts = held.setdefault(field, [])
                parts.append(table)
                if sum(part.num_rows for part in parts) > _TALLY_ROWS + 2 * sizes[field]:
                    held[field] = [most_frequent(pa.concat_tables(parts), sizes[field])]
        for field, parts in held.items():
            yield from pack_task(most_frequent(pa.concat_tables(parts), sizes[field]).to_batches(1 << 16))

    return run


def most_frequent(tally: pa.Table, size: int) -> pa.Table:
    """The ``size`` rows of one field with the largest counts; of equal ones those whose keys come first."""
    if tally.num_rows <= size:
        return tally
    order = pc.sort_indices(tally, [("count", "descending"), ("key", "ascending")])
    return tally.take(order[:size]).combine_chunks()
