"""What ``evaluate`` looks at besides the metrics of all rows."""

from __future__ import annotations

from pydantic import Field

from fieldwise.features.schema import Names, Strict


class EvaluationConfig(Strict):
    """Ranking within groups, and slices."""

    group: str | None = None
    """Field of one value, such as ``user`` or ``session``, within which rows are ranked: AUC weighted by a group's size
    (GAUC) and NDCG. Its missing values are one group, its unseen ones another."""
    slices: Names = Field(default_factory=list)
    """Fields of one value and at most 1,000 local indices: every value's rows are measured by themselves, the worst
    normalized entropy first."""
