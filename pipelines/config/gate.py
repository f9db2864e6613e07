"""What the daily cycle asks of a challenger before it becomes champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from fieldwise.features.schema import Names, Strict


class GateConfig(Strict):
    """When a challenger becomes champion. Both score the same held-out rows, pooled over the days since the
    challenger's line left the champion.

    Intervals are one-sided, from a jackknife over blocks of rows, and mind how few or how skewed the rows are. With the
    defaults, days too small to tell promote nothing.
    """

    confidence: Annotated[float, Field(ge=0.9, lt=1)] = 0.9995
    """Of each end of an interval: an equal challenger passes in about 1 - ``confidence`` of the decisions."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """Relative loss of logloss that is allowed: a challenger passes that surely loses no more. Default: it must gain,
    beyond its interval."""
    min_rows: Annotated[int, Field(ge=1)] = 500
    """Fewer pooled rows decide nothing, nor does a slice of fewer."""
    min_positives: Annotated[int, Field(ge=1)] = 20
    """Fewer of them, or of negatives, decide nothing, nor does a slice of fewer."""
    min_groups: Annotated[int, Field(ge=2, le=200)] = 10
    """Fewer groups decide nothing; counted as if all were of one size, and at most 256."""
    calibration: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.8, 1.25)
    """Bounds of the challenger's predicted over observed positives, which it must not miss beyond its interval."""
    group: str | None = None
    """Field of one value whose rows belong together, such as ``user``: their errors are not independent. Default: rows
    are independent. All unseen values are one group, so name a field that knows its values, such as a hashed one."""
    slices: Names = Field(default_factory=list)
    """Fields of one value and at most 1,000 local indices: each of their values with enough rows is looked at alone."""
    max_slice_loss: Annotated[float, Field(ge=0)] = 0.02
    """Relative loss of logloss that a slice may have; more, beyond its interval, keeps the champion."""
    ages: list[Annotated[int, Field(ge=1, le=3650)]] = Field(default_factory=lambda: [7])
    """The champions of so many days ago, which the challenger must not be worse than either: small losses do not add
    up."""

    @field_validator("calibration")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not bounds[0] < 1 < bounds[1]:
            raise ValueError("two bounds, one below 1 and one above")
        return bounds
