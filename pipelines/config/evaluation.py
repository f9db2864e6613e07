"""What ``evaluate`` looks at besides the metrics of all rows."""

from __future__ import annotations

from pydantic import Field

from fieldwise.features.schema import Names, Strict


class EvaluationConfig(Strict):
    """Ranking within groups, and slices."""

    group: str | None = None
    """Column of ``beside``, or a field of one value, such as ``user`` or ``session``, within which rows are ranked: AUC
    weighted by a group's size (GAUC) and NDCG. Its missing values are one group, and a field's unseen ones another."""
    slices: Names = Field(default_factory=list)
    """Columns of ``beside``, or fields of one value, with at most 1,000 values: every value's rows are measured by
    themselves, the worst normalized entropy first."""

    @property
    def names(self) -> list[str]:
        """Of all that rows are told apart by."""
        return [*([self.group] if self.group else []), *self.slices]
