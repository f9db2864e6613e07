"""Fitting without Spark: count each batch, sum equal keys in any order, fit all fields from the sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import texts
from fieldwise.features.columns.vocabulary import sum_texts
from fieldwise.features.errors import InputError
from fieldwise.features.fields import AnyField
from fieldwise.features.fields.base import Problem
from fieldwise.features.fields.spec import FeatureSpec

TALLY = pa.schema([("field", pa.int32()), ("key", pa.binary()), ("count", pa.int64())])
"""field: position in the config's list. key: the value's bytes, or what the kind chooses; never empty."""


def check(fields: Sequence[AnyField], columns: Columns) -> list[Problem]:
    """Values no spec could encode; such rows are quarantined, so they must not be counted.

    InputError for a column of a type that has no text, while its file is known.
    """
    for field in fields:
        for name in set(field.columns) - set(field.lists):
            columns.require_single(name)
    return [problem for field in fields for problem in field.check(columns)]


def count(fields: Sequence[AnyField], columns: Columns) -> pa.Table:
    """TALLY of one batch of training rows that have been checked: every field that needs fitting."""
    tables = []
    for position, field in enumerate(fields):
        if field.needs_fit:
            counted = field.tally(columns)
            place = pa.array(np.full(counted.num_rows, position, np.int32))
            tables.append(pa.table([place, *counted.columns], schema=TALLY))
    return pa.concat_tables(tables) if tables else TALLY.empty_table()


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """TALLY of all rows from those of parts, in any order; keys below 2 GB in all."""
    every = pa.concat_tables([TALLY.empty_table(), *tables])
    keys, field = texts(every["key"].combine_chunks()), every["field"].to_numpy()
    first, count = sum_texts(keys, field, every["count"].to_numpy())
    return pa.table([field[first], keys.take(first).to_arrow().view(pa.binary()), count], schema=TALLY)


def fit_spec(fields: Sequence[AnyField], merged: pa.Table) -> FeatureSpec:
    """The spec of a merged tally; it does not depend on the tally's row order.

    Rows with counts below a vocabulary's ``min_count`` may be left out before, nothing else may.
    """
    fits = {}
    for position, field in enumerate(fields):
        if field.source == field.name:
            own = merged.filter(pc.equal(merged["field"], position)) if field.needs_fit else None
            if own is not None and own.num_rows == 0:
                least = getattr(field, "min_count", 1)
                rare = (
                    f"; where its values come again, write `min_count: 1` at fields.{field.name}" if least > 1 else ""
                )
                raise InputError(
                    f"field {field.name!r}",
                    expected="a value in the training rows" + (f", {least} times (its min_count)" if least > 1 else ""),
                    found="none",
                    fix="Leave the field out: an empty column, or one of values that hardly come again, tells nothing"
                    f"{rare}. If it is of a side table, see that its key is written alike in both files (`12` is not "
                    "`12.0`).",
                )
            fits[field.name] = field.fit(own)
    return FeatureSpec.assemble(fields, fits)
