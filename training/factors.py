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

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError, IntegrityError
from training.exact_kernels import across_pairs, constant, score_rows
from training.scoring import Float32, Float64, Int32, Scorer

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

FACTORED = ("lr", "fm", "ffm", "fwfm", "poly2")
"""Models whose split is known."""
BLOCK = 1024
"""Rows pooled at a time."""


@dataclass(frozen=True)
class Factors:
    """One side of the split for n rows: ``linear`` float64 [n] is a or b, ``vectors`` float32 [n, D] is u or v."""

    linear: Float64
    vectors: Float32
    mass: Float64
    """[n] no less than the sum of absolute terms of ``linear``."""
    lossless: Bool
    """[n] whether ``vectors`` are the pooled vectors to the bit: sums and means may not fit float32."""


def require_factors(kind: str) -> None:
    """Raises ConfigError naming a model that does not split."""
    if kind not in FACTORED:
        raise ConfigError(
            f"model.kind {kind}",
            expected=f"a model that splits into context and item factors: {', '.join(FACTORED)}",
            found="one that does not",
            fix="Score a small catalog pair by pair, or use one of these.",
        )


def context_factors(scorer: Scorer, of_item: Bool, slots: Int32) -> Factors:
    """a(c) and u(c) of rows [n, S]; fields of the item (``of_item`` [F]) are not read."""
    return _factors(scorer, of_item, slots, item=False)


def item_factors(scorer: Scorer, of_item: Bool, slots: Int32) -> Factors:
    """b(i) and v(i) of rows [n, S]; fields of the context (``~of_item`` [F]) are not read."""
    return _factors(scorer, of_item, slots, item=True)


def dimensions(scorer: Scorer, of_item: Bool) -> int:
    """D, the length of u and v."""
    require_factors(scorer.kind)
    items = int(of_item.sum())
    contexts = len(of_item) - items
    return {"fm": 1, "ffm": contexts * items, "fwfm": min(contexts, items)}.get(scorer.kind, 0) * scorer.dim


def _factors(scorer: Scorer, of_item: Bool, slots: Int32, *, item: bool) -> Factors:
    size = dimensions(scorer, of_item)
    mine = of_item == item
    slots = scorer.checked(np.where(mine[scorer.layout.field_of_slot], slots, 0))
    n = len(slots)
    out = Factors(np.empty(n), np.empty((n, size), np.float32), _linear_mass(scorer, slots), np.ones(n, np.bool_))
    score_rows(scorer.form, slots, out.linear)  # the other side is padding, so its pairs and the pairs across are 0
    if item:
        out.linear[:] -= scorer.bias
    for start in range(0, len(slots) if size else 0, BLOCK):
        block = slice(start, start + BLOCK)
        own = _pool(scorer, slots[block], np.flatnonzero(mine))
        across = _across(scorer, of_item, own, item=item)
        out.vectors[block] = across
        out.lossless[block] = (out.vectors[block] == across).all(1)
        out.mass[block] += 0.5 * np.square(own).sum((1, 2))  # |<x, y>| <= (|x|^2 + |y|^2) / 2
    if not (np.isfinite(out.linear).all() and np.isfinite(out.vectors).all()):
        raise IntegrityError(
            "weights", expected="finite numbers", found="NaN or infinity", fix="Train again: the model diverged."
        )
    return out


def _across(scorer: Scorer, of_item: Bool, own: Float64, *, item: bool) -> Float64:
    """[n, D] what meets the other side; both sides lay their numbers in the same order."""
    mine, theirs = np.flatnonzero(of_item == item), np.flatnonzero(of_item != item)
    n, k = len(own), scorer.dim
    if scorer.kind == "fm":
        summed: Float64 = own.sum(1)
        return summed
    if scorer.kind == "ffm":
        blocks = own.reshape(n, len(mine), len(of_item), k)[:, :, theirs]  # [n, mine, theirs, k]
        return (blocks.swapaxes(1, 2) if item else blocks).reshape(n, -1)
    weighted = len(mine) > len(theirs) or (len(mine) == len(theirs) and not item)
    return (np.einsum("nfk,fg->ngk", own, scorer.form.relation[np.ix_(mine, theirs)]) if weighted else own).reshape(
        n, -1
    )


def _linear_mass(scorer: Scorer, slots: Int32) -> Float64:
    """[n] bias and absolute linear weights of the slots that are used."""
    rows = scorer.layout.offset_of_slot + slots
    return abs(scorer.bias) + (np.abs(scorer.table[rows, 0]) * (slots != 0)).sum(1, dtype=np.float64)


def _pool(scorer: Scorer, slots: Int32, mine: npt.NDArray[np.intp]) -> Float64:
    """Pooled vectors [n, fields of this side, width - 1]."""
    layout = scorer.layout
    pooled = np.zeros((len(slots), len(mine), scorer.table.shape[1] - 1))
    for j, f in enumerate(mine):
        own = np.flatnonzero(layout.field_of_slot == f)
        used = slots[:, own] != 0
        for s, present in zip(own, used.T, strict=True):
            pooled[:, j] += scorer.table[layout.offset_of_slot[s] + slots[:, s], 1:] * present[:, None]
        if layout.mean_pooled[f] and len(own) > 1:
            pooled[:, j] /= np.maximum(used.sum(1), 1)[:, None]
    return pooled


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
