"""What a snapshot's fields hold, counted from its written files: every task takes some fields and reads their columns.

So each count is made once, whatever ran twice before, and nothing is merged. A task's memory is 8 bytes for a table row
of its fields (16 where rows are held out, twice that past 2^31 values). Spread over the cluster by field, the job reads
every column once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.engine.base import Engine, Task, indices
from fieldwise.features.fields.spec import FeatureSpec, FittedField
from fieldwise.features.kernels.counts import count_slots
from fieldwise.features.report.report import Numbers, Tally, tally_field
from fieldwise.features.snapshot.manifest import FileEntry

_TASK_ROWS = 1 << 24
"""Table rows whose counts one task holds, unless a single field has more."""
_TRAINING = ("train", "all")


def tally_fields(
    engine: Engine, spec: FeatureSpec, directory: str, files: Sequence[FileEntry], negative_rate: float | None
) -> dict[str, Tally]:
    """The ``Tally`` of every field over ``files``."""
    parts = _parts(spec.fields, engine.cores)
    task = _count_task(parts, spec.slot_names, directory, list(files), negative_rate)
    rows = engine.numbered(len(parts)).mapped(task, "name string, tally binary").rows("report")
    told = {row["name"]: Tally.model_validate_json(row["tally"]) for row in rows}
    return {field.name: told[field.name] for field in spec.fields}


def _parts(fields: Sequence[FittedField], parallelism: int) -> list[list[FittedField]]:
    """Fields shared out: as many parts as cores, more where counts would take too much memory."""
    least = -(-sum(field.size for field in fields) // _TASK_ROWS)
    parts: list[list[FittedField]] = [[] for _ in range(min(len(fields), max(parallelism, least)))]
    for field in sorted(fields, key=lambda field: -field.size):
        min(parts, key=lambda part: (sum(f.slots for f in part), sum(f.size for f in part))).append(field)
    return parts


def _count_task(
    parts: list[list[FittedField]], names: list[str], directory: str, files: list[FileEntry], rate: float | None
) -> Task:
    whole = all(entry.role in _TRAINING for entry in files)
    rows = sum(entry.rows for entry in files)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in (parts[index] for index in indices(batches)):
            training = [_zeros(field, rows) for field in part]
            held_out = [None if whole else _zeros(field, rows) for field in part]
            for entry in files:
                counts = training if entry.role in _TRAINING else held_out
                _count(store.join(directory, entry.path), part, names, counts)
            told = [tally_field(*counts, rate) for counts in zip(part, training, held_out, strict=True)]
            tallies = [json.dumps(tally.model_dump()).encode() for tally in told]
            yield pa.record_batch([pa.array([field.name for field in part]), pa.array(tallies)], ["name", "tally"])

    return run


def _zeros(field: FittedField, rows: int) -> Numbers:
    """[size, 2] of a type that ``rows`` cannot overflow."""
    if rows * field.slots < 2**31:
        return np.zeros((field.size, 2), np.int32)
    return np.zeros((field.size, 2), np.int64)


def _count(path: str, fields: list[FittedField], names: list[str], counts: Sequence[Numbers | None]) -> None:
    """Add one file's rows to the counts of every field."""
    wanted = [names[field.first_slot + at] for field in fields for at in range(field.slots)]
    fs, inner = store.resolve(path)
    with fs.open(inner, "rb") as file:
        table = pq.ParquetFile(file).read(columns=[*wanted, "label"], use_threads=False).combine_chunks()
    label = (_numpy(table["label"]) > 0).view(np.uint8)
    for field, total in zip(fields, counts, strict=True):
        assert total is not None
        for at in range(field.slots):
            count_slots(_numpy(table[names[field.first_slot + at]]), label, total)


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    return column.chunk(0).to_numpy()
