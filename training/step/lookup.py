"""A batch of slots becomes the distinct table rows it touches, found once, in linear time.

    ids    int64   [U]     distinct rows of the embedding table, in the order of first sight; see `_distinct`
    index  int32   [B, K]  position in ``ids`` of every slot (and pair)
    factor float32 [B, K]  0 for padding, 1, or 1/n where a field of n values is pooled by their mean
    repeat int32   [U]     number of the row among those that occur more than once; -1 for one that occurs once

K = S, and for POLY2 K = S + pairs: one column for every pair of slots of different fields, whose row is
``layout.rows + pair_bucket(row_s, row_t, buckets)`` and whose factor is the product of the two factors.
Padding has index 0 whatever that is, so a batch of nothing but padding has an index and no rows. When every factor
is 1, ``factor`` is one number expanded to [B, K] (strides 0): it costs nothing and says so.

Where a table row is one number, finding the distinct ones takes longer than the step itself. So a table of linear
weights need not be looked up (``direct``): ``index`` then holds rows of the table itself, and ids and repeat nothing.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fieldwise.features.errors import IntegrityError
from fieldwise.training.kernels.lookup import (
    direct_rows,
    find_distinct,
    find_distinct_pairs,
    first_stranger,
    number_repeats,
    pooling_factors,
)
from fieldwise.training.models.compiled import ONE, is_unit
from fieldwise.training.models.layout import Layout, slot_pairs
from fieldwise.training.threads import SUMMED, parts_of

DIRECT = 1 << 26
"""Numbers, at most, that a step without a lookup keeps beside the table: `lanes_of` each row of it, in all 256 MB."""


@dataclass(frozen=True)
class Compact:
    """What a model needs of a batch beside the rows themselves; see the module's docstring."""

    ids: torch.Tensor
    index: torch.Tensor
    factor: torch.Tensor
    repeat: torch.Tensor
    direct: bool = False

    @property
    def unit(self) -> bool:
        """Whether every factor is 1, told by strides alone."""
        return is_unit(self.factor)


class Lookup:
    """Finds a batch's distinct rows with a map over all table rows that is allocated once and cleaned after each use.

    Not for two threads at once: the map is scratch space.

    Args:
        layout: the shape of a row.
        pair_buckets: rows of hashed pair weights behind the fields' rows; 0 for models without pairs.
    """

    def __init__(self, layout: Layout, pair_buckets: int = 0) -> None:
        self.layout, self.pair_buckets = layout, pair_buckets
        self.rows = layout.rows + pair_buckets
        self._position = np.full(self.rows, -1, np.int32)
        self._first, self._second = slot_pairs(layout) if pair_buckets else (np.empty(0, np.int32),) * 2
        self._lonely = layout.slots == layout.fields
        self.direct = False
        """Set where the step can do without, as `can_be_direct` tells."""
        self._ids = np.empty(0, np.int64)
        self._again = np.empty(0, np.bool_)

    @property
    def columns(self) -> int:
        """K: slots plus pairs."""
        return self.layout.slots + len(self._first)

    def __call__(self, slots: npt.NDArray[np.int32]) -> Compact:
        """Look a batch up.

        Args:
            slots: int32 [B, S] local indices; Fortran order (each slot contiguous) is read without a copy.

        Raises:
            IntegrityError: a slot's local index lies outside its field; nothing has been read with it.
        """
        layout = self.layout
        by_slot = np.ascontiguousarray(slots.T)
        padded = self._refuse_strangers(by_slot)
        batch = len(slots)
        if self.direct and not padded:
            rows = np.empty((self.columns, batch), np.int32)
            pairs = (self._first, self._second, layout.rows, self.pair_buckets)
            direct_rows(by_slot, layout.offset_of_slot, *pairs, rows)
            nothing, found = torch.empty(0, dtype=torch.int64), torch.from_numpy(rows.T)
            return Compact(nothing, found, ONE.expand(found.shape), nothing.int(), direct=True)
        if len(self._ids) <= min(batch * self.columns, self.rows):
            self._ids = np.empty(min(batch * self.columns, self.rows) + 1, np.int64)
            self._again = np.zeros(len(self._ids), np.bool_)
        index = np.empty((batch, self.columns), np.int32)
        distinct = find_distinct(by_slot, layout.offset_of_slot, self._position, self._ids, self._again, index)
        factor = ONE.expand(batch, self.columns)
        weights = np.empty((0, 0), np.float32)
        if padded or not self._lonely:
            weights = np.empty((batch, self.columns), np.float32)
            pooling_factors(by_slot, layout.field_of_slot, layout.mean_pooled, weights)
            factor = torch.from_numpy(weights)
        if len(self._first):
            scratch = (self._position, self._ids, self._again)
            base, buckets = layout.rows, self.pair_buckets
            distinct = find_distinct_pairs(self._first, self._second, base, buckets, *scratch, distinct, index, weights)
        repeat = np.empty(distinct, np.int32)
        number_repeats(self._position, self._ids[:distinct], self._again, repeat)
        ids = torch.from_numpy(self._ids[:distinct].copy())
        return Compact(ids, torch.from_numpy(index), factor, torch.from_numpy(repeat))

    def _refuse_strangers(self, by_slot: npt.NDArray[np.int32]) -> bool:
        """Whether there is padding; IntegrityError for what lies outside its field."""
        if by_slot.shape[0] != self.layout.slots:
            raise IntegrityError(
                "batch",
                expected=f"{self.layout.slots} slots",
                found=f"{by_slot.shape[0]}",
                fix="Read it with its own spec.",
            )
        slot, row, padded = first_stranger(by_slot, self.layout.size_of_slot)
        if slot >= 0:
            raise IntegrityError(
                f"batch row {row}, slot {slot} (field {self.layout.field_of_slot[slot]})",
                expected=f"a local index in [0, {self.layout.size_of_slot[slot]})",
                found=str(by_slot[slot, row]),
                fix="The data belongs to another feature spec or is damaged: verify the snapshot's checksums.",
            )
        return bool(padded)


def can_be_direct(layout: Layout, width: int, pair_buckets: int, batch: int, threads: int) -> bool:
    """Whether one process's step on ``batch`` rows without padding can do without a lookup.

    Linear weights, one slot a field, and either `columns_apart` or a batch that is `dense`.
    """
    apart = columns_apart(layout, pair_buckets)
    rows, count = layout.rows + pair_buckets, lanes_of(apart, batch, threads)
    if width > 1 or layout.slots > layout.fields or rows * count > DIRECT:
        return False
    columns = layout.slots + (len(slot_pairs(layout)[0]) if pair_buckets else 0)
    return apart or dense(batch * columns, rows, count)


def dense(touches: int, rows: int, lanes: int) -> bool:
    """Whether to pass over all lanes of a table of numbers is less work than to note which rows are touched."""
    return 6 * touches >= rows * lanes


def lanes_of(apart: bool, batch: int, threads: int) -> int:
    """How many numbers for the gradient of a table row a step without a lookup keeps: for every thread's part, as long
    as columns are not ``apart``, and two instead of one where a column's sum loses digits."""
    return (1 if apart else parts_of(threads)) * (1 + (batch > SUMMED))


def columns_apart(layout: Layout, pair_buckets: int) -> bool:
    """Whether no two columns have a table row in common."""
    return layout.slots == len(np.unique(layout.offset_of_slot)) and not pair_buckets


def lookup(layout: Layout, slots: npt.NDArray[np.int32], pair_buckets: int = 0) -> Compact:
    """One batch looked up without keeping the map; see `Lookup`."""
    return Lookup(layout, pair_buckets)(slots)
