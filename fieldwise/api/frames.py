"""Tables of pandas, polars and Arrow: in as one Arrow table, to disk as Parquet, columns back as they came."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.terminal import warn

_ROWS = 1 << 17
"""Of a row group, which one Spark task may read alone."""


def arrow(frame: Any, what: str = "the table") -> pa.Table:
    """A table of pandas, polars, Arrow or whatever speaks Arrow's C stream; also rows as dicts, or a dict of columns.

    The index of a pandas frame is a column, the first, where it has a name. Raises InputError for anything else, and
    for columns of mixed values.
    """
    try:
        return _plain(_table(frame))
    except (pa.ArrowException, ValueError, TypeError) as error:  # of pandas, too: two columns of one name
        found = " ".join(str(error).split())[:200]
    raise InputError(
        what, expected="a pandas, polars or Arrow table whose columns hold one type each", found=found,
        fix="Convert the column, such as by .astype(str).",
    )  # fmt: skip


def _table(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if _of(frame, "pandas", "DataFrame"):
        return pa.Table.from_pandas(_with_index(frame), preserve_index=False)
    if _of(frame, "pandas", "Series"):  # a row
        return pa.Table.from_pylist([frame.to_dict()])
    if hasattr(frame, "to_arrow"):
        return _table(frame.to_arrow())
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame)
    if isinstance(frame, Mapping):
        return pa.table({str(name): column if _many(column) else [column] for name, column in frame.items()})
    if isinstance(frame, Sequence) and frame and all(isinstance(row, Mapping) for row in frame):
        return pa.Table.from_pylist([dict(row) for row in frame])
    raise TypeError(f"a {type(frame).__name__}")


def _with_index(frame: Any) -> Any:
    """A pandas frame with the named levels of its index as columns, before the others."""
    levels = [name for name in frame.index.names if name is not None]
    for name in levels:
        if name in frame.columns and not _same(frame.index.get_level_values(name), frame[name]):
            warn(f"the index {name!r} is left out: a column has its name")
    levels = [name for name in levels if name not in frame.columns]
    return frame.reset_index(level=levels) if levels else frame


def _same(level: Any, column: Any) -> bool:
    return bool(level.equals(sys.modules["pandas"].Index(column)))  # as set_index(..., drop=False) leaves it


def tell_index(frame: Any) -> None:
    """Say where the index of a pandas frame holds more than numbers of rows, but has no name."""
    if _of(frame, "pandas", "DataFrame"):
        index = frame.index
        levels = [index.get_level_values(at).dtype for at, name in enumerate(index.names) if name is None]
        if any(kind.kind not in "iu" for kind in levels):
            warn("the index has no name, so it is left out: name it to have it as a column, as by .rename_axis('id')")


def ids_of(value: Any, id: str | None) -> dict[str, Any] | None:
    """The table of one column that a list of ids stands for: a text or number is one id, a column of pandas, polars,
    numpy or Arrow has one in each row. None for tables.

    Args:
        id: what the column is called; default: as the given one is, else ``id``.
    """
    if isinstance(value, str | bytes | int | float):
        return {id or "id": [value]}
    if _of(value, "pandas", "Series") and id is not None and id in value.index:  # a row
        return None
    series = any(_of(value, *of) for of in (("pandas", "Series"), ("pandas", "Index"), ("polars", "Series")))
    if series or isinstance(value, np.ndarray | pa.Array | pa.ChunkedArray):
        name = getattr(value, "name", None)
        column = id or (name if isinstance(name, str) and name else "id")
        return {column: value.to_arrow() if hasattr(value, "to_arrow") else value}
    return None if is_frame(value) else {id or "id": list(value)}


def _many(column: Any) -> bool:
    return hasattr(column, "__len__") and not isinstance(column, str | bytes | Mapping)


def _of(frame: Any, package: str, name: str) -> bool:
    """Whether it is of a library's class; the library is not imported for it."""
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(frame, kind)


def _plain(table: pa.Table) -> pa.Table:
    """Without what only a library's own reader would understand: categories as values, nothing but nulls as text."""
    names = [str(name) for name in table.column_names]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"columns {', '.join(twins)} twice")
    columns = []
    for name, column in zip(names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_dictionary(kind) and isinstance(kind.value_type, pa.BaseExtensionType):  # of pandas.cut
            raise ValueError(f"column {name!r} of categories that are no plain values ({kind.value_type})")
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        elif isinstance(kind, pa.ExtensionType) and kind.extension_name.startswith("pandas."):  # periods, intervals
            column = column.cast(kind.storage_type)
        elif pa.types.is_null(kind):
            column = column.cast(pa.string())
        elif str(kind) == "string_view":  # polars': older readers of Parquet do not know it
            column = column.cast(pa.large_string())
        columns.append(column)
    return pa.Table.from_arrays(columns, names)


def publish(table: pa.Table, folder: str, stem: str) -> str:
    """Write a table into a local folder, whole or not at all, under a name that follows from its bytes; returns its
    path. The same table is written once, so that nobody takes its file for a changed one."""
    if "://" in folder:
        fix = "Set `workspace` to a directory of this machine."
        raise ConfigError("workspace", expected="a local directory to write a table to", found=folder, fix=fix)
    store.make_dir(folder)
    draft = Path(folder, f".{stem}-{uuid.uuid4().hex}.tmp")
    try:
        pq.write_table(table, draft, row_group_size=_ROWS, compression="zstd", store_schema=False)
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = Path(folder, f"{stem}-{digest[:16]}.parquet")
        if not path.exists():
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return str(path)


def column_like(values: npt.NDArray[Any], name: str, frame: Any) -> Any:
    """A column of the library that a frame is of, with its index where it has one; else an Arrow array."""
    if _of(frame, "pandas", "DataFrame"):
        return sys.modules["pandas"].Series(values, index=frame.index, name=name)
    if _of(frame, "polars", "DataFrame"):
        return sys.modules["polars"].Series(name, values)
    return pa.array(values)


def is_frame(value: Any) -> bool:
    """Whether it is a table, not a list of ids."""
    known = hasattr(value, "to_arrow") or hasattr(value, "__arrow_c_stream__") or isinstance(value, Mapping)
    rows = isinstance(value, Sequence) and bool(value) and all(isinstance(row, Mapping) for row in value)
    return known or rows or isinstance(value, pa.Table | pa.RecordBatch) or _of(value, "pandas", "DataFrame")
