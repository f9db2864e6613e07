"""The shape of a row as training sees it: which slot belongs to which field and to which row of the table."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Int32, Int64


@dataclass(frozen=True)
class Layout:
    """Slots in row order, field by field. S slots, F fields.

    A slot holds a local index in [0, size): 0 is padding, 1 missing, 2 unseen, values follow. The embedding table's
    row of a slot is ``offset + local``. ``rows`` is the number of table rows of all fields (POLY2 adds its pair
    buckets behind them).
    """

    field_of_slot: Int32  # [S], non-decreasing, 0..F-1
    offset_of_slot: Int64  # [S]
    size_of_slot: Int64  # [S]
    mean_pooled: npt.NDArray[np.bool_]  # [F], divide by the number of non-padding slots
    rows: int

    @property
    def slots(self) -> int:
        return len(self.field_of_slot)

    @property
    def fields(self) -> int:
        return len(self.mean_pooled)

    @staticmethod
    def single(sizes: list[int]) -> Layout:
        """One slot per field, fields of the given sizes one after another."""
        s = np.asarray(sizes, np.int64)
        return Layout(
            np.arange(len(s), dtype=np.int32),
            np.concatenate([[0], np.cumsum(s)[:-1]]),
            s,
            np.zeros(len(s), np.bool_),
            int(s.sum()),
        )


def slot_pairs(layout: Layout) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """All pairs of slots s < t of different fields, in the order of POLY2's columns."""
    s, t = np.triu_indices(layout.slots, 1)
    different = layout.field_of_slot[s] != layout.field_of_slot[t]
    return s[different].astype(np.int32), t[different].astype(np.int32)
