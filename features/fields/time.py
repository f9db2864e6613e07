"""A field of parts of a moment."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.moment import PARTS, Time, part_name, part_of, to_local
from fieldwise.features.fields.base import BaseField, Encode, Fit, Problem, Slots, problems_of
from fieldwise.features.kernels.strings import FIRST, MISSING


class TimeField(BaseField):
    """local = 3 + the part of a moment in its zone."""

    kind: Literal["time"]
    part: Literal["minute", "hour", "weekday", "hour_of_week", "day", "month"]
    """weekday counts from Monday; day is the day of the month."""
    of: Time
    """Column or time block. Default: the config's ``time``."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.of.column,)

    def check(self, columns: Columns) -> list[Problem]:
        return problems_of(self.name, "bad_time", columns.moments(self.of)[2], columns, self.of.column)

    def fit(self, tally: pa.Table | None) -> Fit:
        return Fit(PARTS[self.part])

    def encoder(self, fit: Fit) -> Encode:
        def encode(columns: Columns, out: Slots) -> list[Problem]:
            moments, missing, _ = columns.moments(self.of)
            out[0] = np.where(missing, MISSING, FIRST + part_of(to_local(moments, self.of.zone), self.part))
            return self.check(columns)

        return encode

    def describe(self, fit: Fit, index: int) -> str:
        return part_name(self.part, index)
