"""The exact split of a score between a context and an item.

    score(c, i) = a(c) + b(i) + <u(c), v(i)>

Pairs of fields lie within the context (in a, with the bias), within the item (in b), or across (in u, v). With C
context fields, I item fields and vectors of k numbers:

    LR     no u, v
    FM     u = sum of the context fields' vectors, v = sum of the item fields'           k numbers
    FFM    u = V_f,g and v = V_g,f for every context field f and item field g            C*I*k numbers
    FwFM   u_g = sum_f r_fg V_f and v_g = V_g, summed on the side with more fields       min(C, I)*k numbers
    POLY2  the pairs across are looked up per distinct item value, see `PairTable`       no u, v
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fieldwise.features.arrays import Bool, Float32, Float64, Int32, Int64
from fieldwise.features.errors import ConfigError, IntegrityError
from fieldwise.training.kernels.exact import across_pairs, constant
from fieldwise.training.kernels.split import split
from fieldwise.training.models import kind_of, kinds
from fieldwise.training.scoring.scorer import Scorer

BLOCK = 4096
"""Rows one thread splits at a time."""


class Factors(NamedTuple):
    """One side of the split for n rows."""

    linear: Float64
    """[n] a or b."""
    mass: Float64
    """[n] no less than this side's share of the sum of absolute terms of a logit."""
    norm: Float64
    """[n] |u| or |v|."""
    lossless: Bool
    """[n] whether ``vectors`` are the pooled vectors to the bit: sums and means may not fit float32."""
    vectors: Float32
    """[n, D] u or v."""
    precise: Float64
    """Of summed vectors: [n, D] the same before rounding to float32; else [n, 0]."""

    @property
    def exact(self) -> Float32 | Float64:
        """u or v as `training.kernels.select.certify` takes it."""
        return self.precise if self.precise.shape[1] else self.vectors


def require_factors(kind: str) -> None:
    """Raises ConfigError naming a model that does not split."""
    if not kind_of(kind).splits:
        raise ConfigError(
            f"model.kind {kind}",
            expected=f"a model that splits into context and item factors: {', '.join(kinds('splits'))}",
            found="one that does not",
            fix="Score a small catalog pair by pair, or use one of these.",
        )


def context_factors(scorer: Scorer, of_item: Bool, slots: Int32, threads: int = 1) -> Factors:
    """a(c) and u(c) of rows [n, S]; fields of the item (``of_item`` [F]) are not read."""
    return _factors(scorer, of_item, slots, item=False, threads=threads)


def item_factors(scorer: Scorer, of_item: Bool, slots: Int32, threads: int = 1) -> Factors:
    """b(i) and v(i) of rows [n, S]; fields of the context (``~of_item`` [F]) are not read."""
    return _factors(scorer, of_item, slots, item=True, threads=threads)


def dimensions(scorer: Scorer, of_item: Bool) -> int:
    """D, the length of u and v."""
    require_factors(scorer.kind)
    items = int(of_item.sum())
    contexts = len(of_item) - items
    return scorer.model.crossing(contexts, items) * scorer.dim


def _factors(scorer: Scorer, of_item: Bool, slots: Int32, *, item: bool, threads: int) -> Factors:
    size = dimensions(scorer, of_item)
    mine = of_item == item
    slots = scorer.checked(np.where(mine[scorer.layout.field_of_slot], slots, 0))
    n = len(slots)
    linear, mass, norm = np.empty(n), np.empty(n), np.empty(n)
    precise = np.empty((n, size if scorer.model.kind.summed else 0))
    out = Factors(linear, mass, norm, np.empty(n, np.bool_), np.empty((n, size), np.float32), precise)
    sides = [constant(np.flatnonzero(side), np.int64) for side in (mine, ~mine)]

    def fill(start: int) -> None:
        block = slice(start, start + BLOCK)
        split(scorer.form, slots[block], *sides, not item, *(array[block] for array in out))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, n, BLOCK)))
    if not (np.isfinite(out.linear).all() and np.isfinite(out.norm).all()):
        raise IntegrityError(
            "weights", expected="finite numbers", found="NaN or infinity", fix="Train again: the model diverged."
        )
    return out


@dataclass(frozen=True)
class PairTable:
    """POLY2's pairs across for a set of items, by the M distinct (field, value) pairs they hold.

    For a context, T[x] = sum over its slots s of share_s w[pair(s, x)] is looked up once per distinct value x; then
    ``<u, v>`` of an item is sum over its slots t of share_t T[x_t].
    """

    field: Int32  # [M]
    row: Int64  # [M] row of the embedding table
    entry: Int32  # [n, T] position in M of each item slot, -1 for padding
    share: Float64  # [n, T]

    @staticmethod
    def of(scorer: Scorer, of_item: Bool, slots: Int32) -> PairTable:
        """From item rows [n, S]."""
        layout, rows = scorer.layout, scorer.table.shape[0]
        mine = np.flatnonzero(of_item[layout.field_of_slot])
        used = slots[:, mine] != 0
        key = layout.field_of_slot[mine].astype(np.int64) * rows + layout.offset_of_slot[mine] + slots[:, mine]
        values, entry = np.unique(key[used], return_inverse=True)
        entries = np.full(used.shape, -1, np.int32)
        entries[used] = entry
        share = np.ones(used.shape)
        for f in np.flatnonzero(of_item & layout.mean_pooled):
            own = layout.field_of_slot[mine] == f
            share[:, own] /= np.maximum(used[:, own].sum(1, keepdims=True), 1)
        return PairTable(
            constant(values // rows, np.int32), constant(values % rows, np.int64), constant(entries, np.int32), share
        )

    def across(self, scorer: Scorer, of_item: Bool, slots: Int32, items: slice, out: Float32) -> None:
        """out [n contexts, items] = the pairs across."""
        slots = scorer.checked(np.where(of_item[scorer.layout.field_of_slot], 0, slots))
        across_pairs(
            scorer.form, slots, self.field, self.row, self.entry[items], constant(self.share[items], np.float64), out
        )
