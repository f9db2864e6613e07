"""A batch: what one rank trains or scores in one step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Float32, Int64
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.data.plan import Segment
from fieldwise.training.models.layout import Layout


@dataclass(frozen=True)
class Batch:
    """B rows of S slots, and where they came from."""

    slots: npt.NDArray[np.int32]  # [B, S] local indices, each slot contiguous (Fortran order)
    label: Float32  # [B]
    weight: Float32 | None  # [B], None: every row weighs 1
    origin: list[Segment]  # segments of the plan, in row order
    beside: Int64 | None = None  # [B, columns] that the reader was asked for, see `PlanReader`

    @property
    def rows(self) -> int:
        return len(self.label)

    @property
    def weight_sum(self) -> float:
        return float(self.rows) if self.weight is None else float(self.weight.sum(dtype=np.float64))


def layout_of(spec: FeatureSpec) -> Layout:
    """The layout of a spec's rows: its fields' slots one after another."""
    slots = [(f, field) for f, field in enumerate(spec.fields) for _ in range(field.slots)]
    return Layout(
        field_of_slot=np.array([f for f, _ in slots], np.int32),
        offset_of_slot=np.array([field.offset for _, field in slots], np.int64),
        size_of_slot=np.array([field.size for _, field in slots], np.int64),
        mean_pooled=np.array([field.pooling == "mean" for field in spec.fields], np.bool_),
        rows=spec.rows,
    )
