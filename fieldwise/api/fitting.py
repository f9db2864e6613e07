"""From a table to a trained model in one call: the table becomes a file of a workspace, and the usual way begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fieldwise.api.calls import call
from fieldwise.api.frames import arrow, publish, tell_index
from fieldwise.api.pipeline import Pipeline
from fieldwise.features.columns.expression import Expression
from fieldwise.features.errors import ConfigError
from fieldwise.features.snapshot.manifest import snapshot_dir, standing
from fieldwise.features.terminal import warn
from fieldwise.features.words import nearest, some
from fieldwise.pipelines.init.guess.columns import Column
from fieldwise.pipelines.init.guess.fields import Left, field_of, of_values
from fieldwise.pipelines.init.guess.leaks import leak
from fieldwise.training.config import TrainingConfig

DATA, STEM = "data", "log"
"""Folder and first part of the name of the file that a table becomes."""
QUANTILES = 10
_LOOKED = 100_000
"""Rows in which leaks are looked for."""
_STEPS, _SMALLEST = 64, 64
"""Steps of an epoch below which a batch has fewer rows, and how few at least."""


def fit(
    frame: Any,
    *,
    label: str,
    time: str | Mapping[str, Any] | None = None,
    fields: Sequence[str | Mapping[str, Any]] | None = None,
    kind: str = "ffm",
    name: str = "fit",
    workspace: str | os.PathLike[str] | None = None,
    ranks: int = 1,
    **keys: Any,
) -> Pipeline:
    """A pipeline that has encoded a table and trained a model on it; ``.trained.metrics`` says how good it is.

    Args:
        frame: pandas, polars or Arrow; a row is what was shown, or a click. An index with a name is a column.
        label: column or expression, such as ``rating >= 4``.
        time: column, or block, of the moment of a row. With it the newest tenth of the rows tests and the tenth before
            validates; without it both are drawn by chance.
        fields: columns, or fields as docs/config.md has them. A column alone becomes a field by its type: numbers with
            fractions ``number`` in ten quantiles, all else ``vocabulary``, or ``hash`` where it has very many values.
            Default: every column but those of label, time and weight; and with a time its hour. Those that give the
            label away or tell nothing - moments, one value or none, one of its own in each row - are left out with a
            warning.
        kind: of the model.
        name: of the pipeline and its registered model.
        workspace: default: ``work/<name>`` below the current directory.
        ranks: training processes.
        keys: further keys of the config: ``training={"epochs": 3}``, ``split={...}``, ``join=[...]``. Of a small table
            ``training.batch_size`` is smaller than usual.

    The table is written to the workspace as Parquet. Another table, or other fields, under the same name take the place
    of what was there; the models that were registered stay.

    Raises InputError, ConfigError, and RefusedError where the model is no better than the rate of positives.
    """
    with call():
        table = arrow(frame)
        tell_index(frame)
        model = {"kind": kind, **keys.pop("model", {})}
        if "split" not in keys:
            split, table = _split(table, time)
            keys["split"] = split
        keys["fields"] = _fields(table, fields, label, _reserved(label, time, keys))
        if time is not None:
            keys["time"] = time
            if fields is None and "hour" not in table.column_names:
                keys["fields"].append({"name": "hour", "kind": "time", "part": "hour"})
        place = os.path.abspath(workspace if workspace is not None else os.path.join("work", name))
        keys["training"] = {"batch_size": _batch_size(table.num_rows), **keys.get("training", {})}
        path = publish(table, os.path.join(place, DATA), STEM)
    source = {"path": path, "format": "parquet"}
    pipeline = Pipeline(name=name, workspace=place, source=source, label=label, model=model, **keys)
    with call():
        replace = _stands_otherwise(pipeline)
    pipeline.features(replace=replace)
    for former in Path(place, DATA).glob(f"{STEM}-*.parquet"):
        if str(former) != path:  # no snapshot is of it any more
            with suppress(FileNotFoundError):
                former.unlink()
    pipeline.train(ranks=ranks)
    return pipeline


def _batch_size(rows: int) -> int:
    """The config's default, or less where an epoch would have few steps: a table is often small, and a model that
    takes one step an epoch learns nothing."""
    size = TrainingConfig().batch_size
    while size > _SMALLEST and rows < _STEPS * size:
        size //= 2
    return size


def _reserved(label: str, time: str | Mapping[str, Any] | None, keys: Mapping[str, Any]) -> set[str]:
    """Columns that are no fields unless somebody says so: the label's would tell it."""
    found = set(Expression(label, "label").columns)
    for key in ("weight", "filter"):
        found |= set(Expression(keys[key], key).columns) if keys.get(key) is not None else set()
    split = keys.get("split", {}).get("key")
    return {*found, *([_column(time)] if time is not None else []), *([split] if split is not None else [])}


def _column(time: str | Mapping[str, Any]) -> str:
    return time if isinstance(time, str) else str(time.get("column", ""))


def _split(table: pa.Table, time: str | Mapping[str, Any] | None) -> tuple[dict[str, Any], pa.Table]:
    """How rows are split, and the table with the column that it takes."""
    if time is not None:
        return {"by": "time", "valid": 0.1, "test": 0.1}, table
    key = "row_number"
    while key in table.column_names:
        key += "_"
    numbers = pa.array(np.arange(table.num_rows))
    return {"by": "hash", "key": key, "valid": 0.1, "test": 0.1}, table.append_column(key, numbers)


def _fields(
    table: pa.Table, asked: Sequence[str | Mapping[str, Any]] | None, label: str, reserved: set[str]
) -> list[Mapping[str, Any]]:
    """Those that are asked for, with a warning of what gives the label away; else all columns that do not."""
    if asked is None:
        values = [name for name in table.column_names if name not in reserved and _is_value(table, name)]
        leaking = _leaks(table, values, label, "is no field")
        return [_field(table, name) for name in values if name not in leaking and _tells(table, name)]
    named = [each for each in asked if isinstance(each, str) and each in table.column_names]
    _leaks(table, named, label, "is a field, since it was asked for")
    return [_field(table, each) if isinstance(each, str) else each for each in asked]


def _is_value(table: pa.Table, name: str) -> bool:
    """Whether a column holds values, not moments or durations; what to do with these is said."""
    kind = table.schema.field(name).type
    if pa.types.is_duration(kind):
        warn(f"{name}: durations ({kind}): no field. Pass them as numbers, such as .dt.total_seconds() of pandas")
    elif pa.types.is_temporal(kind):
        part = f'{{"name": "{name}_month", "kind": "time", "part": "month", "of": "{name}"}}'
        what = f"{name}: moments ({kind}), of which only `time` becomes fields: no field."
        warn(f"{what} Pass a number of it, such as days since then, or name a part of it in `fields`: {part}")
    return not pa.types.is_temporal(kind)  # durations among them


def _tells(table: pa.Table, name: str) -> bool:
    """Whether a column's values may tell something of other rows, as ``init`` decides it; why not is said."""
    column = _column_of(table, name)
    found = field_of(column)
    if isinstance(found, Left) and table.num_rows > _LOOKED:  # the other rows may say more
        column = Column(name, table[name], table.num_rows)
        found = field_of(column)
    if not isinstance(found, Left) or (column.distinct == 1 and not column.set.all()):
        return True
    warn(f"{name}: {found.reason}: no field{'. If it is to be one, name it in `fields`' if found.grave else ''}")
    return False


def _column_of(table: pa.Table, name: str) -> Column:
    return Column(name, table[name].slice(0, _LOOKED), table.num_rows)


def _leaks(table: pa.Table, names: Sequence[str], label: str, so: str) -> set[str]:
    """The columns that tell the label, by the first rows; it is said with what follows."""
    rows = table.slice(0, _LOOKED)
    values, bad = Expression(label, "label").evaluate(rows)
    positive = values.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
    positive[bad | ~np.isin(positive, (0.0, 1.0))] = np.nan
    told = {name: leak(Column(name, rows[name], rows.num_rows), positive) for name in names}
    found = {name: what for name, what in told.items() if what is not None}
    for name, what in found.items():
        warn(f"{name}: LEAK: {what}. A row to be scored does not have it yet; it {so}")
    return set(found)


def _field(table: pa.Table, name: str) -> dict[str, Any]:
    """A column as a field, by its type."""
    if name not in table.column_names:
        found = f"{name!r}, not among {some(table.column_names)}"
        fix = nearest(name, table.column_names, "Name a column of these.")
        raise ConfigError("fields", expected="columns of the table", found=found, fix=fix)
    kind = table.schema.field(name).type
    if pa.types.is_temporal(kind):
        fix = f'Say which part: {{"name": "hour", "kind": "time", "part": "hour", "of": "{name}"}}.'
        raise ConfigError(f"fields, {name}", expected="a column of values", found=f"moments ({kind})", fix=fix)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return {"name": name, "kind": "number", "quantiles": QUANTILES}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"name": name, "kind": "vocabulary", "max_values": 8}
    return {"name": name, **of_values(_column_of(table, name)).keys}


def _stands_otherwise(pipeline: Pipeline) -> bool:
    """Whether the workspace has rows of another table or of other fields, whose place these take."""
    from fieldwise.pipelines.agreement import asked_otherwise

    directory = snapshot_dir(pipeline.workspace, "all")
    found = standing(directory)
    if found is None:
        return False
    # the same in other words (`label`, quotes) is another request, too
    return found.config != pipeline.config.record or bool(asked_otherwise(directory, found, pipeline.config, None))
