"""The one scoring arithmetic: a row's logit in float64, summed in one fixed order.

    logit = bias + sum_f linear_f + pairs
    FM    pairs = 1/2 sum_d [(sum_f V_fd)^2 - sum_f V_fd^2]
    FFM   pairs = sum_{f<g} <V_f,g , V_g,f>
    FwFM  pairs = sum_{f<g} r_fg <V_f, V_g>
    POLY2 pairs = sum over slots s<t of different fields: factor_s factor_t w[pair(s, t)]

with V_f the pooled vector of field f. A row is summed by itself, term by term in the same order wherever it stands, so
its bits depend neither on its neighbours nor on blocks nor on threads. No parallel loops: these run in forked workers.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Float64, Int32, Int64
from fieldwise.features.kernels.compile import inner, kernel
from fieldwise.training.kernels.lookup import pair_bucket
from fieldwise.training.kernels.vectors import prefetch

AHEAD = 2
"""Fields between asking for a row of the table and reading it."""
LR, FM, FFM, FWFM, POLY2 = range(5)
KINDS = {"lr": LR, "fm": FM, "ffm": FFM, "fwfm": FWFM, "poly2": POLY2}


class Form(NamedTuple):
    """A model as the kernels see it. F fields, S slots, k latent dimensions."""

    kind: int
    dim: int
    bias: float
    table: npt.NDArray[np.float32]  # [rows, width]
    first: Int32  # [F + 1] first slot of each field
    field: Int32  # [S]
    offset: Int64  # [S]
    mean: npt.NDArray[np.bool_]  # [F]
    relation: Float64  # [F, F] FwFM's r, else empty
    pair_first: int  # POLY2: table row of the first pair bucket
    pair_buckets: int


@inner
def pool(kind, k, table, first, offset, mean, slots, take, linear, own, partner):
    """Pool the fields that ``take`` [F] names, of row r, over their non-padding slots, by sum or mean.

    linear [F], own [F, D] the pooled vectors (D = k, FFM: F*k); FFM also partner[h, f*k:] = V_f,h for h < f, so that
    all pairs of one field are one contiguous dot product.
    """
    width = own.shape[1]
    for f in range(len(take)):
        if f + AHEAD < len(take) and take[f + AHEAD] and slots[first[f + AHEAD]] != 0:
            start = (offset[first[f + AHEAD]] + slots[first[f + AHEAD]]) * table.shape[1]
            for line in range(start, start + table.shape[1], 16):
                prefetch(table, line)
        if not take[f]:
            continue
        count = 0
        for s in range(first[f], first[f + 1]):
            local = slots[s]
            if local == 0:
                continue
            row = offset[s] + local
            if count == 0:
                linear[f] = table[row, 0]
                for d in range(width):
                    own[f, d] = table[row, 1 + d]
            else:
                linear[f] += table[row, 0]
                for d in range(width):
                    own[f, d] += table[row, 1 + d]
            count += 1
        if count == 0:
            linear[f] = 0.0
            for d in range(width):
                own[f, d] = 0.0
        elif count > 1 and mean[f]:
            linear[f] /= count
            for d in range(width):
                own[f, d] /= count
        if kind == FFM and k == 4:  # the common case: four numbers in one move
            for h in range(f):
                w, x, y, z = own[f, h * 4], own[f, h * 4 + 1], own[f, h * 4 + 2], own[f, h * 4 + 3]
                partner[h, f * 4], partner[h, f * 4 + 1], partner[h, f * 4 + 2], partner[h, f * 4 + 3] = w, x, y, z
        elif kind == FFM:
            for h in range(f):
                for d in range(k):
                    partner[h, f * k + d] = own[f, h * k + d]


@inner
def fm_pairs(k, own, lanes):
    for d in range(2 * k):
        lanes[d] = 0.0
    for f in range(len(own)):
        for d in range(k):
            lanes[d] += own[f, d]
        for d in range(k):
            lanes[k + d] += own[f, d] * own[f, d]
    total = 0.0
    for d in range(k):
        total += lanes[d] * lanes[d] - lanes[k + d]
    return 0.5 * total


@inner
def add_products(x, y, out):
    """out += x * y. Arrays that are looked at from 0 on: others LLVM takes number by number, at ten times the cost."""
    for n in range(len(out)):
        out[n] += x[n] * y[n]


@inner
def ffm_pairs(k, own, partner, lanes):
    """One running sum per column, then the columns one after another: an order that vector units of any width keep."""
    width = len(own) * k
    for n in range(width):
        lanes[n] = 0.0
    for f in range(len(own) - 1):
        add_products(own[f, (f + 1) * k :], partner[f, (f + 1) * k :], lanes[(f + 1) * k : width])
    total = 0.0
    for n in range(k, width):
        total += lanes[n]
    return total


@inner
def fwfm_pairs(k, relation, own, lanes):
    total = 0.0
    for f in range(len(own) - 1):
        for d in range(k):
            lanes[d] = 0.0
        for g in range(f + 1, len(own)):
            for d in range(k):
                lanes[d] += relation[f, g] * own[g, d]
        for d in range(k):
            total += own[f, d] * lanes[d]
    return total


@inner
def poly2_pairs(table, field, offset, share, pair_first, pair_buckets, slots):
    """``share`` [F] is 1/n of row r's n values of a mean-pooled field, else 1; ``field`` [S] the field of a slot."""
    total = 0.0
    for s in range(len(field)):
        if slots[s] == 0:
            continue
        left = offset[s] + slots[s]
        for t in range(s + 1, len(field)):
            if field[t] != field[s] and slots[t] != 0:
                bucket = pair_bucket(left, offset[t] + slots[t], pair_buckets)
                total += share[field[s]] * share[field[t]] * table[pair_first + bucket, 0]
    return total


@inner
def shares(first, mean, slots, share):
    for f in range(len(mean)):
        count = 0
        for s in range(first[f], first[f + 1]):
            count += slots[s] != 0
        share[f] = 1.0 / count if mean[f] and count > 1 else 1.0


@inner
def finish(form, slots, linear, own, partner, lanes):
    """The logit of row r once all its fields are pooled."""
    pairs = 0.0
    if form.kind == FM:
        pairs = fm_pairs(form.dim, own, lanes)
    elif form.kind == FFM:
        pairs = ffm_pairs(form.dim, own, partner, lanes)
    elif form.kind == FWFM:
        pairs = fwfm_pairs(form.dim, form.relation, own, lanes)
    elif form.kind == POLY2:
        share = np.empty(len(linear))
        shares(form.first, form.mean, slots, share)
        pairs = poly2_pairs(form.table, form.field, form.offset, share, form.pair_first, form.pair_buckets, slots)
    total = 0.0
    for f in range(len(linear)):
        total += linear[f]
    return form.bias + total + pairs


@kernel
def score(form, contexts, items, of_item, start, chosen, out):
    """Logits of context c with the items ``chosen[start[c]:start[c + 1]]``, whose ``of_item`` fields complete its row.

    contexts int32 [C, S], items int32 [N, S], of_item bool [F], start int64 [C + 1], chosen int64 and out float64
    [start[C]]. A context is pooled once for all its items. Whole rows are items without context: see ``score_rows``.
    """
    kind, k, table, first, offset, mean = form.kind, form.dim, form.table, form.first, form.offset, form.mean
    fields, width, field = len(mean), table.shape[1] - 1, form.field
    linear, own, lanes = np.zeros(fields), np.zeros((fields, width)), np.zeros(2 * width)
    partner = np.zeros((fields if kind == FFM else 0, width))
    of_context = ~of_item
    row = np.empty(contexts.shape[1], np.int32)
    for c in range(len(contexts)):
        for s in range(len(row)):
            row[s] = contexts[c, s]
        for side in range(1 + start[c + 1] - start[c]):  # the context, then its items
            take = of_context if side == 0 else of_item
            j = start[c] + side - 1
            if side > 0:
                for s in range(len(row)):
                    if of_item[field[s]]:
                        row[s] = items[chosen[j], s]
            pool(kind, k, table, first, offset, mean, row, take, linear, own, partner)
            if side > 0:
                out[j] = finish(form, row, linear, own, partner, lanes)


def score_rows(form: Form, slots: Int32, out: Float64) -> None:
    """Logits of whole rows: slots int32 [n, S] -> out float64 [n]."""
    nobody = constant(np.zeros((1, slots.shape[1])), np.int32)
    every, count = constant(np.ones(len(form.mean)), np.bool_), len(slots)
    score(form, nobody, slots, every, constant([0, count], np.int64), constant(np.arange(count), np.int64), out)


def constant(array: Any, dtype: Any) -> Any:
    """A read-only, contiguous plain array: kernels are compiled once, for read-only input."""
    view = np.ascontiguousarray(array, dtype).view(np.ndarray)
    if view.flags.writeable:
        view = view[...]
        view.flags.writeable = False
    return view


@kernel
def across_pairs(form, slots, field, row, entry, share, out):
    """POLY2: out [n, items] = pairs of context slots [n, S] with items' values; see
    `training.scoring.factors.PairTable`."""
    context_share, weight = np.empty(len(form.mean)), np.empty(len(field))
    own = np.empty(slots.shape[1], np.int32)
    for r in range(len(slots)):
        for s in range(len(own)):
            own[s] = slots[r, s]
        shares(form.first, form.mean, own, context_share)
        weight[:] = 0.0
        for s in range(len(own)):
            if own[s] != 0:
                f = form.field[s]
                value = form.offset[s] + own[s]
                add_pairs(
                    form.table, field, row, value, f, context_share[f], form.pair_first, form.pair_buckets, weight
                )
        for i in range(len(entry)):
            total = 0.0
            for t in range(entry.shape[1]):
                if entry[i, t] >= 0:
                    total += share[i, t] * weight[entry[i, t]]
            out[r, i] = total


@inner
def add_pairs(table, field, row, own, own_field, share, pair_first, pair_buckets, weight):
    for x in range(len(field)):
        if field[x] > own_field:
            bucket = pair_bucket(own, row[x], pair_buckets)
        else:
            bucket = pair_bucket(row[x], own, pair_buckets)
        weight[x] += share * table[pair_first + bucket, 0]
