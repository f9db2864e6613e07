"""The one encoder: raw columns to slots. Spark tasks, scoring and plain Python callers all run this."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.batch import Columns
from fieldwise.features.errors import InputError
from fieldwise.features.fields.base import Problem
from fieldwise.features.fields.spec import FeatureSpec


@dataclass(frozen=True)
class Encoded:
    """slots int32 [n, S], each slot contiguous; rows named by a problem are all padding."""

    slots: npt.NDArray[np.int32]
    problems: list[Problem]

    def require_readable(self, first: int = 0) -> npt.NDArray[np.int32]:
        """The slots, where every value can be read. InputError for the first row that holds another; ``first``: the
        number of the batch's first row, for the message."""
        if self.problems:
            bad = self.problems[0]
            raise InputError(
                f"row {first + bad.row}, field {bad.field}", expected="a readable value", found=repr(bad.value),
                fix=f"{bad.reason}: mend it, or leave it missing.",
            )  # fmt: skip
        return self.slots


class Encoder:
    """Encodes batches under one spec; build it once per process (vocabularies are indexed here)."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._fields = [(f.first_slot, f.slots, f.config.encoder(spec.fit_of(f.name))) for f in spec.fields]

    def encode(self, batch: pa.RecordBatch | pa.Table | Columns) -> Encoded:
        """Raises InputError when a raw column is missing. Text and typed columns alike (see
        ``features.columns.text``)."""
        columns = Columns.of(batch)
        by_slot = np.empty((self.spec.slots, columns.rows), np.int32)
        problems: list[Problem] = []
        for first, slots, encode in self._fields:
            problems += encode(columns, by_slot[first : first + slots])
        problems.sort(key=lambda problem: problem.row)
        by_slot[:, [problem.row for problem in problems]] = 0
        return Encoded(by_slot.T, problems)


@lru_cache(maxsize=1)
def encoder_of(spec: FeatureSpec) -> Encoder:
    """One per process and spec: vocabularies are indexed once, not once a task."""
    return Encoder(spec)
