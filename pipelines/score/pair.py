"""One context with one item as a raw row: what ``score-catalog`` scores where the two meet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.columns.text import canonical
from fieldwise.features.errors import InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.raw import split_ranges
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.sides import Side, split_sides

_RANGE_BYTES = 8 << 20


def pair_row(config: Config, spec: FeatureSpec, context: str, item: str, date: str | None) -> pa.RecordBatch:
    """The raw columns that the spec reads, [1 row].

    Raises ConfigError without a ``catalog`` block, InputError for ids that its sources do not have.
    """
    split = split_sides(config, spec, date)
    of_context = _row(config, split.contexts, spec, context, date)
    of_item = _row(config, split.items, spec, item, date)
    joined = {name for table in split.items.tables for name in table.names}
    own = {*split.items.read, *joined} - set(split.contexts.constants)
    columns = [(of_item if name in own else of_context).column(name) for name in spec.raw_columns]
    return pa.RecordBatch.from_arrays(columns, list(spec.raw_columns))


def _row(config: Config, side: Side, spec: FeatureSpec, wanted: str, date: str | None) -> pa.RecordBatch:
    """The row of an id; ids are compared by their canonical text. What the catalog's filter says does not matter."""
    files = list_files(side.source, config.base, date)
    for part in split_ranges(side.source, files, _RANGE_BYTES):
        for rows in side.rows(part, spec):
            met = pc.fill_null(pc.equal(canonical(rows.ids).cast(pa.string()), wanted), False)
            if pc.any(met).as_py():
                return rows.columns.filter(met).slice(0, 1)
    raise InputError(
        f"--{side.name.removesuffix('s')}", expected=f"a value of column {side.id!r} in catalog.{side.name}",
        found=repr(wanted), fix=f"Look it up in {', '.join(side.source.path)}.",
    )  # fmt: skip
