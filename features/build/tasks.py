"""Encoding inside tasks: each reads its byte ranges and places or writes their rows.

Tasks are plain generators over Arrow batches whose only column is the range's number. What they have to say besides
rows travels as counts (a key of words -> a number) the same way as the rows, so a task that runs twice counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.arrays import Float32, Int64
from fieldwise.features.build import files, placement
from fieldwise.features.build.reading import Findings, Job, read_rows
from fieldwise.features.build.split import Roles
from fieldwise.features.engine.base import Shared, Task, indices, reports
from fieldwise.features.fields.base import all_but, first_of_rows
from fieldwise.features.fields.encoder import encoder_of
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot import beside
from fieldwise.features.snapshot.manifest import FileEntry
from fieldwise.features.source.quarantine import examples

PLACED = "place int, payload binary"

PAYLOAD_BYTES = 128 << 10
"""Of one value in a shuffle: the JVM copies it several times, and larger ones are expensive to collect as garbage."""

_FLUSH_BYTES = 32 << 20


Numbers = npt.NDArray[np.int64]


@dataclass
class EncodedRows:
    """n rows as the snapshot holds them."""

    roles: Roles
    slots: npt.NDArray[np.int32]
    label: Float32
    weight: Float32 | None
    beside: Int64 | None = None

    def take(self, keep: npt.NDArray[np.bool_]) -> EncodedRows:
        if keep.all():
            return self
        slots = np.compress(keep, self.slots.T, axis=1).T
        return EncodedRows(
            self.roles[keep],
            slots,
            self.label[keep],
            None if self.weight is None else self.weight[keep],
            None if self.beside is None else self.beside[keep],
        )


def encode_rows(job: Job, spec: Shared[FeatureSpec], index: int, findings: Findings) -> Iterator[EncodedRows]:
    """Encode a range; rows the encoder cannot read join the rejects."""
    names = job.config.beside
    values = beside.Values(names)
    for batch, roles in read_rows(job, index, findings):
        encoded = encoder_of(spec.value).encode(batch.columns)
        slots = encoded.slots
        problems = [*encoded.problems, *beside.problems_of(batch.columns, names)]
        if problems:
            first = first_of_rows(problems)
            findings.reject(map(batch.reject, first.values()))
            keep = all_but(first, batch.rows)
            batch, roles, slots = batch.take(keep), roles[keep], np.compress(keep, slots.T, axis=1).T
        findings.count_roles(batch, roles)
        findings.count_days(batch, roles, job.config.time)
        assert batch.label is not None
        values.add(batch.columns)
        yield EncodedRows(roles, slots, batch.label, batch.weight, beside.hashed(batch.columns, names))
    findings.values = values.told()


def _report(findings: Findings, directory: str, index: int) -> bytes:
    """A task's last word: its counts, and the file its rejects went to."""
    part = files.write_rejects(directory, index, findings.rejects) if findings.rejects else None
    counts = [[list(key), count] for key, count in findings.counts.items()]
    told = {"counts": counts, "quarantine": part, "examples": examples(findings.rejects), "moments": findings.moments,
            "values": findings.values}  # fmt: skip
    return json.dumps(told).encode()


class _RangeWriter:
    """Writes one range's rows in source order: a file per role whenever enough rows are held."""

    def __init__(self, job: Job, spec: Shared[FeatureSpec], directory: str, index: int) -> None:
        self._schema = _schema(job, spec.value)
        self._limit = job.config.snapshot.rows_per_file
        self._directory, self._index = directory, index
        self._held: dict[int, list[EncodedRows]] = {}
        self._written = 0

    def add(self, rows: EncodedRows) -> Iterator[bytes]:
        """Take rows; gives the reports of files that became full."""
        for role in np.unique(rows.roles).tolist():
            self._held.setdefault(role, []).append(rows.take(rows.roles == role))
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
            _joined([part.weight for part in parts]),
            _joined([part.beside for part in parts]),
        )
        self._written += 1
        return _file_report([self._index, self._written], entry)


def _joined(parts: list[Any]) -> Any:
    """One array in Fortran order; None where there is none."""
    given = [part for part in parts if part is not None]
    return np.asfortranarray(np.concatenate(given)) if given else None


def _schema(job: Job, spec: FeatureSpec) -> pa.Schema:
    return files.snapshot_schema(spec.slot_names, job.config.weight is not None, len(job.config.beside))


def write_task(job: Job, spec: Shared[FeatureSpec], directory: str) -> Task:
    """(report): encode and write at once, in source order."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            findings = Findings()
            writer = _RangeWriter(job, spec, directory, index)
            for rows in encode_rows(job, spec, index, findings):
                yield reports(writer.add(rows))
            yield reports([*writer.finish(), _report(findings, directory, index)])

    return run


@dataclass(frozen=True)
class Places:
    """Files of the snapshot, numbered role by role, and the place (`Engine.places`) that sends each to a partition of
    its own."""

    first: tuple[int, ...]
    """[roles]: number of the role's first file."""
    count: tuple[int, ...]
    """[roles]: files of the role."""
    keys: tuple[int, ...]
    """[files + 1]: of each file, the last for reports."""

    def role_of(self, file: int) -> int:
        return max(role for role in range(len(self.first)) if self.count[role] and self.first[role] <= file)


def place_task(job: Job, spec: Shared[FeatureSpec], places: Places, directory: str) -> Task:
    """(place, payload): packed rows of one file each, and reports."""
    shuffle_keys = np.array(places.keys, np.int32)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            findings = Findings()
            held: list[placement.Packed] = []
            numbers: list[Numbers] = []
            for rows in encode_rows(job, spec, index, findings):
                packed = placement.pack(rows.slots, rows.label, rows.weight, rows.beside)
                keys = placement.keys_of(packed, job.config.snapshot.seed, len(job.config.beside))
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


def _placed(
    held: list[placement.Packed], numbers: list[Numbers], shuffle_keys: npt.NDArray[np.int32]
) -> pa.RecordBatch:
    """Rows grouped by file, payloads of a few rows of one file each."""
    packed, number = np.concatenate(held), np.concatenate(numbers)
    order = np.argsort(number.astype(np.min_scalar_type(len(shuffle_keys))), kind="stable")  # radix sort of 16 bits
    packed, number = packed.take(order, axis=0), number[order]
    first = np.flatnonzero(np.diff(number, prepend=-1))
    step = max(1, PAYLOAD_BYTES // packed.shape[1])
    pieces = [np.arange(*of_file, step) for of_file in pairwise([*first, len(number)])]
    starts = np.concatenate(pieces) if pieces else first
    offsets = (np.append(starts, len(number)) * packed.shape[1]).astype(np.int32)
    payload = pa.Array.from_buffers(pa.binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(packed)])
    return pa.record_batch([pa.array(shuffle_keys[number[starts]]), payload], ["place", "payload"])


def sort_task(job: Job, spec: Shared[FeatureSpec], places: Places, directory: str) -> Task:
    """(report): collect each file's rows, bring them into their order, write; reports pass through."""
    schema, wide = _schema(job, spec.value), len(job.config.beside)
    file_of = {key: number for number, key in enumerate(places.keys)}
    last = len(places.keys) - 1

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: dict[int, list[bytes]] = {}
        for batch in batches:
            for place, payload in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
                if file_of[place] == last:
                    yield reports([payload.as_py()])
                else:
                    held.setdefault(file_of[place], []).append(payload.as_buffer())
        for file in sorted(held):
            rows = np.frombuffer(b"".join(held.pop(file)), np.uint8).reshape(-1, 4 * (len(schema) + wide))
            order, repeated = placement.order_of(rows, placement.keys_of(rows, job.config.snapshot.seed, wide))
            columns = placement.unpack(rows, order, spec.value.slots, wide)
            role = places.role_of(file)
            number = file - places.first[role]
            entry = files.write_rows(directory, role, f"{number:05d}", schema, *columns)
            yield reports([_file_report([number], entry, repeated)])

    return run


def _file_report(place: list[int], entry: FileEntry, repeated: int | None = None) -> bytes:
    return json.dumps({"place": place, "file": entry.model_dump(mode="json"), "repeated": repeated}).encode()
