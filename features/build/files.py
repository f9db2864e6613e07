"""The Parquet files of a snapshot, written by tasks with pyarrow: fixed options, so equal rows give equal bytes but for
the name of the writer in the footer.

Slots are delta-encoded without compression: at 39 slots a third of the plain size (56 bytes a row), written faster than
dictionaries and, unlike any compression, read at memory speed.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.arrays import Float32, Int64
from fieldwise.features.redact import redacted
from fieldwise.features.snapshot.manifest import ROLES, FileEntry, beside_name, rows_digest
from fieldwise.features.source.rows import Reject

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("field", pa.string()),
        pa.field("raw", pa.binary(), nullable=False),
        pa.field("value", pa.string()),
        pa.field("origin", pa.string()),
    ]
)


def snapshot_schema(slot_names: Sequence[str], has_weight: bool, beside: int = 0) -> pa.Schema:
    """``beside``: how many columns travel beside the rows."""
    names = ["label", "weight"] if has_weight else ["label"]
    return pa.schema(
        [pa.field(name, pa.int32(), nullable=False) for name in slot_names]
        + [pa.field(name, pa.float32(), nullable=False) for name in names]
        + [pa.field(beside_name(at), pa.int64(), nullable=False) for at in range(beside)]
    )


def parquet_bytes(
    schema: pa.Schema,
    slots: npt.NDArray[np.int32],
    label: Float32,
    weight: Float32 | None,
    beside: Int64 | None = None,
) -> pa.Buffer:
    """One row group of slots [n, S] (Fortran order), label [n], weight [n] and ``beside`` [n, B] (Fortran order)."""
    columns = [pa.array(slots[:, at]) for at in range(slots.shape[1])] + [pa.array(label)]
    if weight is not None:
        columns.append(pa.array(weight))
    if beside is not None:
        columns += [pa.array(beside[:, at]) for at in range(beside.shape[1])]
    sink = pa.BufferOutputStream()
    names = schema.names[: slots.shape[1]]
    with pq.ParquetWriter(
        sink,
        schema,
        compression="none",
        use_dictionary=False,
        column_encoding=dict.fromkeys(names, "DELTA_BINARY_PACKED"),
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(len(label), 1))
    return sink.getvalue()


def write_rows(
    directory: str,
    role: int,
    index: str,
    schema: pa.Schema,
    slots: npt.NDArray[np.int32],
    label: Float32,
    weight: Float32 | None,
    beside: Int64 | None = None,
) -> FileEntry:
    """Write one file under a name no other attempt uses, and report it."""
    data = parquet_bytes(schema, slots, label, weight, beside)
    name = f"{ROLES[role]}-{index}-{uuid.uuid4().hex[:12]}.parquet"
    store.write_new(store.join(directory, name), data)
    return FileEntry(
        path=name,
        role=ROLES[role],
        rows=len(label),
        positives=int(np.count_nonzero(label)),
        sha256=hashlib.sha256(data).hexdigest(),
        rows_sha256=rows_digest(slots, label, weight, beside),
        bytes=len(data),
        weights=None if weight is None else _weights(label, weight),
    )


def _weights(label: Float32, weight: Float32) -> tuple[float, float]:
    """Of negatives and positives."""
    positive = label > 0
    return float(weight[~positive].sum(dtype=np.float64)), float(weight[positive].sum(dtype=np.float64))


def write_rejects(directory: str, index: int, rejects: Sequence[Reject]) -> str:
    """Write one task's rejects under a name no other attempt uses; returns the name."""
    told = [reject._replace(path=redacted(reject.path), origin=redacted(reject.origin)) for reject in rejects]
    columns = [[getattr(reject, name) for reject in told] for name in QUARANTINE_SCHEMA.names]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, QUARANTINE_SCHEMA.types, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=QUARANTINE_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    name = f"quarantine-{index:06d}-{uuid.uuid4().hex[:12]}.parquet"
    store.write_new(store.join(directory, name), sink.getvalue())
    return name


def merge_rejects(directory: str, parts: Sequence[str], target: str) -> None:
    """All parts, in order, as one file of the same shape; the parts are removed."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, QUARANTINE_SCHEMA) as writer:
        for part in parts:
            writer.write_table(pq.read_table(pa.BufferReader(store.read_bytes(store.join(directory, part)))))
    store.write_new(store.join(directory, target), sink.getvalue())
    for part in parts:
        store.remove(store.join(directory, part))
