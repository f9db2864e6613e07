"""Fitting one batch as the tasks of a build do: what cannot be encoded is left out, the rest is counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from fieldwise.features.columns.batch import Columns
from fieldwise.features.fields import AnyField
from fieldwise.features.fields.fitting import check, count


def tally(fields: Sequence[AnyField], batch: pa.RecordBatch | pa.Table | Columns) -> pa.Table:
    """TALLY of one batch of training rows, those with problems left out."""
    columns = Columns.of(batch)
    if problems := check(fields, columns):
        keep = np.ones(columns.rows, np.bool_)
        keep[[problem.row for problem in problems]] = False
        columns = columns.filter(keep)
    return count(fields, columns)
