"""What runs inside Spark tasks: each reads its byte ranges and tallies, places or writes their rows.

Tasks are plain generators over Arrow batches whose only column is the range's number. What they have to say besides
rows travels as counts (a key of words -> a number), along the same way as the rows, so a task that runs twice counts once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import fitting
from features.config import FeatureConfig
from features.encoder import Encoder
from features.hashing import xxh64_rows
from features.log import LogReader
from features.manifest import ROLES
from features.source import FileRange, Reject
from features.spark import files, placement
from features.spark.placement import Float32
from features.spark.split import TRAIN, Roles, Splitter, kept_negatives
from features.spec import FeatureSpec

Counts = Counter[tuple[str, ...]]
"""("rows", role), ("positives", role), ("filtered",), ("dropped_negatives",), ("rejected", reason),
("missing", field), ("unseen", field)."""

TALLY = "field int, key binary, count bigint"
COUNTS_FIELD = -1
"""Stands for a field in tallies: the key is one of ``Counts``, as JSON."""

_FLUSH_BYTES = 32 << 20
_TALLY_ROWS = 1 << 20
_EXAMPLES = 3


@dataclass(frozen=True)
class Job:
    """What every task must know to read its rows."""

    id: str
    config: FeatureConfig
    base: str
    files: tuple[str, ...]
    ranges: tuple[FileRange, ...]
    splitter: Splitter
    day: tuple[int, int] | None
    """Only rows of [start, stop), epoch microseconds."""


@dataclass
class Rows:
    """Rows that count, n of them: raw columns with all that is known about each before encoding."""

    columns: pa.RecordBatch
    label: Float32
    weight: Float32 | None
    time: npt.NDArray[np.int64] | None
    roles: Roles
    path: str
    positions: npt.NDArray[np.int64]

    def where(self, keep: npt.NDArray[np.bool_]) -> Rows:
        if keep.all():
            return self
        return Rows(
            self.columns.filter(pa.array(keep)),
            self.label[keep],
            None if self.weight is None else self.weight[keep],
            None if self.time is None else self.time[keep],
            self.roles[keep],
            self.path,
            self.positions[keep],
        )


@dataclass
class Findings:
    """What a task has to say besides its rows."""

    counts: Counts = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def reject(self, rejects: Iterable[Reject]) -> None:
        for reject in rejects:
            self.counts["rejected", reject.reason] += 1
            self.rejects.append(reject)

    def examples(self) -> list[list[str]]:
        """The first rejects of each reason: [reason, where, raw text]."""
        seen: Counter[str] = Counter()
        found = []
        for reject in self.rejects:
            seen[reject.reason] += 1
            if seen[reject.reason] <= _EXAMPLES:
                found.append([reject.reason, f"{reject.path}:{reject.position}", reject.raw[:200].decode("utf-8", "replace")])
        return found


_readers: dict[str, LogReader] = {}


def _reader(job: Job) -> LogReader:
    """One per process and job: side tables are loaded once, not once a task."""
    if job.id not in _readers:
        _readers.clear()
        _readers[job.id] = LogReader(job.config, job.base)
    return _readers[job.id]


def read_rows(job: Job, index: int, findings: Findings, *, split: bool = True) -> Iterator[Rows]:
    """The rows of one range: filtered, of the day, with roles, without the negatives that sampling drops."""
    rate = job.config.snapshot.negative_rate
    for batch in _reader(job).read(job.ranges[index]):
        findings.counts["filtered",] += batch.filtered
        findings.reject(batch.rejects)
        roles = (
            job.splitter.of_rows(batch.columns, batch.time, batch.path) if split else np.zeros(batch.columns.num_rows, np.uint8)
        )
        rows = Rows(batch.columns, batch.label, batch.weight, batch.time, roles, batch.path, batch.positions)
        if job.day is not None:
            assert rows.time is not None
            rows = rows.where((rows.time >= job.day[0]) & (rows.time < job.day[1]))
        if rate is not None and split:
            keep = kept_negatives(rate, job.files.index(rows.path), rows.positions) | (rows.roles != TRAIN) | (rows.label > 0)
            findings.counts["dropped_negatives",] += int(len(keep) - np.count_nonzero(keep))
            rows = rows.where(keep)
        if rows.columns.num_rows:
            yield rows


def _count_roles(rows: Rows, counts: Counts) -> None:
    for role in np.unique(rows.roles):
        mine = rows.roles == role
        counts["rows", ROLES[role]] += int(np.count_nonzero(mine))
        counts["positives", ROLES[role]] += int(np.count_nonzero(rows.label[mine]))


def _indices(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()


Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def time_task(job: Job) -> Task:
    """(time, count): how many rows each moment has."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in _indices(batches):
            for rows in read_rows(job, index, Findings(), split=False):
                times, counts = np.unique(rows.time, return_counts=True)
                yield pa.record_batch([pa.array(times), pa.array(counts.astype(np.int64))], ["time", "count"])

    return run


def tally_task(job: Job, fit: bool) -> Task:
    """(field, key, count) of the training rows' values if ``fit``, and of ``Counts`` over all rows."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        findings = Findings()
        held: list[pa.Table] = []
        for index in _indices(batches):
            for rows in read_rows(job, index, findings):
                _count_roles(rows, findings.counts)
                training = rows.where(rows.roles == TRAIN) if job.config.split.by != "none" else rows
                if fit and training.columns.num_rows:
                    held.append(fitting.tally(job.config.fields, training.columns))
                if sum(table.num_rows for table in held) > _TALLY_ROWS:
                    held = [fitting.merge(held)]
                    if held[0].num_rows > _TALLY_ROWS // 2:
                        yield from held.pop().to_batches()
            for example in findings.examples():
                findings.counts["example", *example] += 1
            findings.rejects.clear()
        if held:
            yield from fitting.merge(held).to_batches()
        keys = [json.dumps(key).encode() for key in findings.counts]
        yield pa.record_batch(
            [
                pa.array([COUNTS_FIELD] * len(keys), pa.int32()),
                pa.array(keys, pa.binary()),
                pa.array(list(findings.counts.values()), pa.int64()),
            ],
            ["field", "key", "count"],
        )

    return run


@dataclass
class EncodedRows:
    roles: Roles
    slots: npt.NDArray[np.int32]
    label: Float32
    weight: Float32 | None


def encode_rows(job: Job, encoder: Encoder, spec: FeatureSpec, index: int, findings: Findings) -> Iterator[EncodedRows]:
    """Encode a range; rows the encoder cannot read join the rejects."""
    for rows in read_rows(job, index, findings):
        encoded = encoder.encode(rows.columns)
        slots = encoded.slots
        if encoded.problems:
            bad = {problem.row: problem for problem in encoded.problems}
            findings.reject(
                Reject(rows.path, int(rows.positions[at]), bad[at].reason, bad[at].field, raw_row(rows.columns, at))
                for at in sorted(bad)
            )
            keep = np.ones(len(slots), np.bool_)
            keep[list(bad)] = False
            rows, slots = rows.where(keep), np.asfortranarray(slots[keep])
        _count_roles(rows, findings.counts)
        for counted, local in (("missing", 1), ("unseen", 2)):
            totals = np.count_nonzero(slots == local, axis=0)
            for fitted in spec.fields:
                found = int(totals[fitted.first_slot : fitted.first_slot + fitted.slots].sum())
                if found:
                    findings.counts[counted, fitted.name] += found
        yield EncodedRows(rows.roles, slots, rows.label, rows.weight)


def raw_row(columns: pa.RecordBatch, at: int) -> bytes:
    """A row the encoder refused, as a JSON object: its text was split into columns long before."""
    row = columns.slice(at, 1).to_pylist()[0]
    return json.dumps(row, default=str, ensure_ascii=False).encode()


def _report(findings: Findings, directory: str, index: int) -> bytes:
    """A task's last word: its counts, and the file its rejects went to."""
    part = files.write_rejects(directory, index, findings.rejects) if findings.rejects else None
    counts = [[list(key), count] for key, count in findings.counts.items()]
    return json.dumps({"counts": counts, "quarantine": part, "examples": findings.examples()}).encode()


class _RangeWriter:
    """Writes one range's rows in source order: a file per role whenever enough rows are held."""

    def __init__(self, job: Job, spec: FeatureSpec, directory: str, index: int) -> None:
        self._schema = files.snapshot_schema(spec.slot_names, job.config.weight is not None)
        self._limit = job.config.snapshot.rows_per_file
        self._directory, self._index = directory, index
        self._held: dict[int, list[EncodedRows]] = {}
        self._written = 0

    def add(self, rows: EncodedRows) -> Iterator[bytes]:
        """Take rows; gives the reports of files that became full."""
        for role in np.unique(rows.roles).tolist():
            mine = rows.roles == role
            weight = None if rows.weight is None else rows.weight[mine]
            self._held.setdefault(role, []).append(EncodedRows(rows.roles[mine], rows.slots[mine], rows.label[mine], weight))
            if sum(len(part.label) for part in self._held[role]) >= self._limit:
                yield self._flush(role)

    def finish(self) -> Iterator[bytes]:
        yield from [self._flush(role) for role in sorted(self._held)]

    def _flush(self, role: int) -> bytes:
        parts = self._held.pop(role)
        entry = files.write_rows(
            self._directory,
            role,
            f"{self._index:06d}-{self._written:05d}",
            self._schema,
            np.asfortranarray(np.concatenate([part.slots for part in parts])),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.weight for part in parts if part.weight is not None]) if self._schema.names[-1] == "weight" else None,
        )
        self._written += 1
        return _file_report([self._index, self._written], entry)


def write_task(job: Job, spec: FeatureSpec, directory: str) -> Task:
    """(report): encode and write at once, in source order."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = Encoder(spec)
        for index in _indices(batches):
            findings = Findings()
            writer = _RangeWriter(job, spec, directory, index)
            for rows in encode_rows(job, encoder, spec, index, findings):
                yield _reports(writer.add(rows))
            yield _reports([*writer.finish(), _report(findings, directory, index)])

    return run


@dataclass(frozen=True)
class Places:
    """Files of the snapshot, numbered role by role, and the Spark key that sends each to a partition of its own."""

    first: tuple[int, ...]
    """[roles]: number of the role's first file."""
    count: tuple[int, ...]
    """[roles]: files of the role."""
    keys: tuple[int, ...]
    """[files + 1]: value of the shuffle column for each file, the last for reports."""

    def role_of(self, file: int) -> int:
        return max(role for role in range(len(self.first)) if self.count[role] and self.first[role] <= file)


PLACED = "place int, payload binary"


def place_task(job: Job, spec: FeatureSpec, places: Places, directory: str) -> Task:
    """(place, payload): packed rows of one file each, and reports."""
    shuffle_keys = np.array(places.keys, np.int32)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = Encoder(spec)
        for index in _indices(batches):
            findings = Findings()
            held: list[placement.Packed] = []
            numbers: list[npt.NDArray[np.int64]] = []
            for rows in encode_rows(job, encoder, spec, index, findings):
                packed = placement.pack(rows.slots, rows.label, rows.weight)
                keys = xxh64_rows(packed, job.config.snapshot.seed)
                number = np.empty(len(packed), np.int64)
                for role in np.unique(rows.roles).tolist():
                    mine = rows.roles == role
                    number[mine] = places.first[role] + placement.file_of(keys[mine], places.count[role])
                held.append(packed)
                numbers.append(number)
                if sum(part.nbytes for part in held) >= _FLUSH_BYTES:
                    yield _placed(held, numbers, shuffle_keys)
                    held, numbers = [], []
            if held:
                yield _placed(held, numbers, shuffle_keys)
            report = pa.array([_report(findings, directory, index)], pa.binary())
            yield pa.record_batch([pa.array([places.keys[-1]], pa.int32()), report], ["place", "payload"])

    return run


def _placed(held: list[placement.Packed], numbers: list[npt.NDArray[np.int64]], shuffle_keys: npt.NDArray[np.int32]) -> pa.RecordBatch:
    """Rows grouped by file, one payload for each file."""
    packed, number = np.concatenate(held), np.concatenate(numbers)
    order = np.argsort(number, kind="stable")
    packed, number = packed[order], number[order]
    starts = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    offsets = (np.append(starts, len(number)) * packed.shape[1]).astype(np.int32)
    payload = pa.Array.from_buffers(pa.binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(packed)])
    return pa.record_batch([pa.array(shuffle_keys[number[starts]]), payload], ["place", "payload"])


def sort_task(job: Job, spec: FeatureSpec, places: Places, directory: str) -> Task:
    """(report): collect each file's rows, bring them into their order, write; reports pass through."""
    schema = files.snapshot_schema(spec.slot_names, job.config.weight is not None)
    file_of = {key: number for number, key in enumerate(places.keys)}
    reports = len(places.keys) - 1

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: dict[int, list[bytes]] = {}
        for batch in batches:
            for place, payload in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
                if file_of[place] == reports:
                    yield _reports([payload.as_py()])
                else:
                    held.setdefault(file_of[place], []).append(payload.as_buffer())
        for file in sorted(held):
            rows = np.frombuffer(b"".join(held.pop(file)), np.uint8).reshape(-1, 4 * len(schema))
            rows = placement.ordered(rows, xxh64_rows(rows, job.config.snapshot.seed))
            role = places.role_of(file)
            number = file - places.first[role]
            entry = files.write_rows(directory, role, f"{number:05d}", schema, *placement.unpack(rows, len(spec.slot_names)))
            yield _reports([_file_report([number], entry)])

    return run


def _file_report(place: list[int], entry: files.FileEntry) -> bytes:
    return json.dumps({"place": place, "file": entry.model_dump(mode="json")}).encode()


def _reports(reports: Iterable[bytes]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(list(reports), pa.binary())], ["report"])
