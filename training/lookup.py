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

from features.errors import IntegrityError
from training.jit import inner, kernel, prefetch
from training.layout import Layout
from training.threads import parts_of

_ONE = torch.ones(())
_BLOCK = 256
"""Rows whose part of the index fits into the innermost cache."""
_AHEAD = 16
"""Rows between asking for a place in the map and using it."""
DIRECT = 1 << 26
"""Numbers, at most, that a step without a lookup keeps beside the table: `lanes` for every row of it, in all 256 MB."""


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


def is_unit(factor: torch.Tensor) -> bool:
    """Whether ``factor`` is the expanded 1 of a batch without padding and pooling."""
    return factor.data_ptr() == _ONE.data_ptr()


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
            _table_rows(by_slot, layout.offset_of_slot, *pairs, rows)
            nothing, found = torch.empty(0, dtype=torch.int64), torch.from_numpy(rows.T)
            return Compact(nothing, found, _ONE.expand(found.shape), nothing.int(), direct=True)
        if len(self._ids) <= min(batch * self.columns, self.rows):
            self._ids = np.empty(min(batch * self.columns, self.rows) + 1, np.int64)
            self._again = np.zeros(len(self._ids), np.bool_)
        index = np.empty((batch, self.columns), np.int32)
        distinct = _distinct(by_slot, layout.offset_of_slot, self._position, self._ids, self._again, index)
        factor = _ONE.expand(batch, self.columns)
        weights = np.empty((0, 0), np.float32)
        if padded or not self._lonely:
            weights = np.empty((batch, self.columns), np.float32)
            _factors(by_slot, layout.field_of_slot, layout.mean_pooled, weights)
            factor = torch.from_numpy(weights)
        if len(self._first):
            scratch = (self._position, self._ids, self._again)
            base, buckets = layout.rows, self.pair_buckets
            distinct = _distinct_pairs(self._first, self._second, base, buckets, *scratch, distinct, index, weights)
        repeat = np.empty(distinct, np.int32)
        _finish(self._position, self._ids[:distinct], self._again, repeat)
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
        slot, row, padded = _first_stranger(by_slot, self.layout.size_of_slot)
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
    rows, count = layout.rows + pair_buckets, lanes(layout, pair_buckets, threads)
    if width > 1 or layout.slots > layout.fields or rows * count > DIRECT:
        return False
    columns = layout.slots + (len(slot_pairs(layout)[0]) if pair_buckets else 0)
    return columns_apart(layout, pair_buckets) or dense(batch * columns, rows, count)


def dense(touches: int, rows: int, lanes: int) -> bool:
    """Whether to pass over all lanes of a table of numbers is less work than to note which rows are touched."""
    return 6 * touches >= rows * lanes


def lanes(layout: Layout, pair_buckets: int, threads: int) -> int:
    """How many gradients of a table row a step without a lookup keeps."""
    return 1 if columns_apart(layout, pair_buckets) else parts_of(threads)


def columns_apart(layout: Layout, pair_buckets: int) -> bool:
    """Whether no two columns have a table row in common."""
    return layout.slots == len(np.unique(layout.offset_of_slot)) and not pair_buckets


def lookup(layout: Layout, slots: npt.NDArray[np.int32], pair_buckets: int = 0) -> Compact:
    """One batch looked up without keeping the map; see `Lookup`."""
    return Lookup(layout, pair_buckets)(slots)


def slot_pairs(layout: Layout) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """All pairs of slots s < t of different fields, in the order of POLY2's columns."""
    s, t = np.triu_indices(layout.slots, 1)
    different = layout.field_of_slot[s] != layout.field_of_slot[t]
    return s[different].astype(np.int32), t[different].astype(np.int32)


@inner
def pair_bucket(first, second, buckets):
    """Bucket in [0, buckets) of a pair of table rows (first of the smaller slot); buckets < 2**32.

    h = (first * A + second) * B mod 2**64, h ^= h >> 29, h *= C; bucket = (h >> 32) * buckets >> 32.
    """
    h = (np.uint64(first) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(second)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return np.int64(((h >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32))


@kernel
def _first_stranger(by_slot, size):
    padded = False
    for s in range(by_slot.shape[0]):
        low, high = np.int32(1), np.int32(0)
        for value in by_slot[s]:
            low, high = min(low, value), max(high, value)
        padded |= low == 0
        if low < 0 or high >= size[s]:
            for b in range(by_slot.shape[1]):
                if by_slot[s, b] < 0 or by_slot[s, b] >= size[s]:
                    return s, b, True
    return -1, -1, padded


@kernel
def _distinct(by_slot, offset, position, ids, again, index):
    """The slots' columns of ``index``, slot by slot in blocks of rows whose index stays in the processor's cache.

    Places in the map are asked for early, and no branch guesses what is new.
    """
    slots, batch = by_slot.shape
    distinct = 0
    for first in range(0, batch, _BLOCK):
        last = min(first + _BLOCK, batch)
        for s in range(slots):
            base, column = offset[s], by_slot[s]
            for b in range(first, min(first + _AHEAD, last)):
                prefetch(position, base + column[b])
            for b in range(first, last):
                if b + _AHEAD < last:
                    prefetch(position, base + column[b + _AHEAD])
                if column[b] == 0:
                    index[b, s] = 0
                    continue
                row = base + column[b]
                at = position[row]
                new = at < 0
                at = np.int32(distinct) if new else at
                position[row] = at
                index[b, s] = at
                ids[distinct] = row  # overwritten by the next one unless it is new
                again[at] = not new
                distinct += new
    return distinct


@kernel
def _factors(by_slot, field_of_slot, mean_pooled, factor):
    """Slot by slot in blocks of rows, as `_distinct`: along a row, the slots of a large batch share few cache lines."""
    slots, batch = by_slot.shape
    count = np.empty((len(mean_pooled), _BLOCK), np.int32)
    for first in range(0, batch, _BLOCK):
        last = min(first + _BLOCK, batch)
        count[:] = 0
        for s in range(slots):
            if mean_pooled[field_of_slot[s]]:
                values, of_field = by_slot[s, first:last], count[field_of_slot[s]]
                for b in range(len(values)):
                    of_field[b] += values[b] != 0
        for s in range(slots):
            values, of_field = by_slot[s, first:last], count[field_of_slot[s]]
            mean = mean_pooled[field_of_slot[s]]
            for b in range(len(values)):
                one = np.float32(1.0) / np.float32(max(of_field[b], 1)) if mean else np.float32(1.0)
                factor[first + b, s] = one if values[b] != 0 else np.float32(0.0)


@kernel
def _table_rows(by_slot, offset, first, second, base, buckets, rows):
    """rows [K, B]: the table rows themselves, where nothing is padding."""
    slots = by_slot.shape[0]
    for s in range(slots):
        for b in range(by_slot.shape[1]):
            rows[s, b] = offset[s] + by_slot[s, b]
    for p in range(len(first)):
        one, other, column = rows[first[p]], rows[second[p]], rows[slots + p]
        for b in range(len(column)):
            column[b] = base + pair_bucket(one[b], other[b], buckets)


@kernel
def _distinct_pairs(first, second, rows, buckets, position, ids, again, distinct, index, factor):
    """The pairs' columns of ``index`` (and of ``factor``, unless it is empty because all are 1).

    A row's pairs are hashed, and asked for, while the row before is looked up.
    """
    slots, pairs, batch = index.shape[1] - len(first), len(first), index.shape[0]
    row, ahead, own = np.empty(pairs, np.int64), np.empty(pairs, np.int64), np.empty(slots, np.int64)
    for b in range(batch + 1):
        row, ahead = ahead, row
        if b < batch:
            for s in range(slots):
                own[s] = ids[index[b, s]]
            for p in range(pairs):
                ahead[p] = rows + pair_bucket(own[first[p]], own[second[p]], buckets)
            for p in range(pairs):
                prefetch(position, ahead[p])
        if b == 0:
            continue
        for p in range(pairs):
            column = slots + p
            if factor.size:
                factor[b - 1, column] = factor[b - 1, first[p]] * factor[b - 1, second[p]]
                if factor[b - 1, column] == 0.0:
                    index[b - 1, column] = 0
                    continue
            at = position[row[p]]
            new = at < 0
            at = np.int32(distinct) if new else at
            position[row[p]] = at
            index[b - 1, column] = at
            ids[distinct] = row[p]  # overwritten by the next one unless it is new
            again[at] = not new
            distinct += new
    return distinct


@kernel
def _finish(position, ids, again, repeat):
    """Number the repeated rows; leave the scratch space as it was found."""
    repeats = 0
    for u in range(len(ids)):
        position[ids[u]] = -1
        repeat[u] = repeats if again[u] else -1
        repeats += again[u]
        again[u] = False
