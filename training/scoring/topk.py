"""Exact top-K of a catalog: a blocked matrix product proposes, bounds select, the float64 routine decides.

For a block of contexts and a block of items the product ``<u, v> + b`` is computed in float32, or in bfloat16 where the
machine is much faster at it. It differs from the true score by at most an error that is bounded per context and block,
so a context's K-th best lower bound is a threshold that no item below it can pass. What passes is rescored by
`training.kernels.exact` and sorted by (float32 logit descending, item id ascending): the list that scoring every pair
gives, bit for bit. No [contexts x items] matrix is kept; blocks of items come by descending bound, so thresholds rise
at once and the rest of a catalog may be skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldwise.features.arrays import Float32, Int32, Int64
from fieldwise.training.kernels.exact import constant, score
from fieldwise.training.kernels.select import Buffers, Lists, certify, rank, roomy, scan, shrink
from fieldwise.training.scoring.factors import Factors, context_factors
from fieldwise.training.scoring.items import Catalog, errors, share
from fieldwise.training.scoring.products import PAIR_CONTEXTS, MatrixProduct, PairProduct
from fieldwise.training.scoring.scorer import Scorer

CONTEXTS = 1024
"""Contexts of one product: with `training.scoring.products.ITEMS` items its scores (8 MB) stay in the cache."""
BUFFERED = 2**21
"""Items kept for all contexts of a block together."""


@dataclass(frozen=True)
class Ranking:
    """The lists of C contexts, one after another: items (positions) and logits of ``start[c]:start[c + 1]``."""

    start: Int64  # [C + 1]
    item: Int64
    logit: Float32


def top_k(
    scorer: Scorer,
    catalog: Catalog,
    contexts: Int32,
    k: int,
    *,
    exclude: Lists | None = None,
    only: Lists | None = None,
    per_category: int = 0,
) -> Ranking:
    """The best k items of every context, by (logit descending, item position ascending).

    Args:
        contexts: slots int32 [C, S]; item fields are not read.
        exclude: items that a context must not get.
        only: the items that a context may get; default: all.
        per_category: at most so many items of one category in a list; 0: no limit.
    """
    contexts = scorer.checked(np.where(catalog.of_item[scorer.layout.field_of_slot], 0, contexts))
    exclude = exclude or Lists(np.zeros(len(contexts) + 1, np.int64), np.empty(0, np.int64))
    exclude = Lists(constant(exclude.start, np.int64), constant(exclude.item, np.int64))
    sizes = np.bincount(catalog.category, weights=np.diff(catalog.start)).astype(np.int64)
    k = min(k, int(np.minimum(sizes, per_category or k).sum()))
    if k == 0:
        return Ranking(np.zeros(len(contexts) + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    search = _Search(scorer, catalog, k, per_category)
    parts = []
    for start in range(0, len(contexts), search.contexts):
        block = slice(start, start + search.contexts)
        bounds = slice(start, start + search.contexts + 1)
        unwanted = Lists(exclude.start[bounds], exclude.item)
        if only is None:
            parts.append(search.all(contexts[block], unwanted))
        else:
            parts.append(
                search.among(
                    contexts[block],
                    unwanted,
                    Lists(constant(only.start[bounds], np.int64), constant(only.item, np.int64)),
                )
            )
    return _joined(parts)


def _joined(parts: list[Ranking]) -> Ranking:
    lengths = np.concatenate([np.diff(part.start) for part in parts])
    return Ranking(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.logit for part in parts]),
    )


class _Search:
    """One `top_k`, a block of contexts at a time."""

    def __init__(self, scorer: Scorer, catalog: Catalog, k: int, cap: int) -> None:
        self.scorer, self.catalog, self.k, self.cap = scorer, catalog, k, cap
        self.capacity = min(len(catalog.slots) + 1, max(4 * k, k + 1024))
        self.contexts = max(PAIR_CONTEXTS, min(CONTEXTS, BUFFERED // self.capacity))
        self.product: MatrixProduct | PairProduct
        self.linear = constant(catalog.linear, np.float32)
        self.group = catalog.group
        self.product = (
            PairProduct(scorer, catalog) if scorer.model.kind.paired else MatrixProduct(catalog, self.contexts)
        )

    def all(self, contexts: Int32, exclude: Lists) -> Ranking:
        """The lists of a block of contexts over the whole catalog."""
        shape = (len(contexts), self.capacity)
        buffers = Buffers(
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.int32),
            np.zeros(len(contexts), np.int64),
            np.full(len(contexts), -np.inf, np.float32),
        )
        factors = context_factors(self.scorer, self.catalog.of_item, contexts)
        for block in self.product.blocks(contexts, factors, buffers.threshold):
            linear = self.linear[block.base : block.base + block.scores.shape[1]]
            resume = np.zeros(2, np.int64)
            while True:
                full = scan(
                    block.scores, linear, block.base, block.contexts, block.error, np.float32(block.relative),
                    buffers, self.k, self.catalog.groups, exclude, self.cap == 0, resume,
                )  # fmt: skip
                if full < 0:
                    break
                self._make_room(contexts, factors, buffers, exclude, full)
        for c in range(len(contexts)):
            self._shrink(buffers, c)
        start = np.concatenate([[0], np.cumsum(buffers.held)])
        chosen = np.concatenate([buffers.group[c, : buffers.held[c]] for c in range(len(contexts))]).astype(np.int64)
        logits = self._logits(contexts, start, chosen, factors)
        context = np.repeat(np.arange(len(contexts)), np.diff(start))
        enough = self.k + np.diff(exclude.start)[context]  # members of a group that may matter
        many = np.minimum(np.diff(self.catalog.start)[chosen], enough)
        first = np.repeat(self.catalog.start[chosen] - (np.cumsum(many) - many), many)
        item = self.catalog.item[first + np.arange(many.sum())]
        start = np.searchsorted(np.repeat(context, many), np.arange(len(contexts) + 1))
        return self._ranked(start, item, np.repeat(logits, many), exclude)

    def among(self, contexts: Int32, exclude: Lists, only: Lists) -> Ranking:
        """The lists of a block of contexts over each context's own items."""
        item = only.item[only.start[0] : only.start[-1]]
        start = only.start - only.start[0]
        logits = self._exact(contexts, start, self.group[item])
        return self._ranked(start, item, logits, exclude)

    def _logits(self, contexts: Int32, start: Int64, groups: Int64, factors: Factors) -> Float32:
        """What `_exact` gives, by way of the factors where they leave no doubt."""
        logits, sure = np.empty(len(groups), np.float32), np.empty(len(groups), np.bool_)
        catalog, own = self.catalog, errors(self.scorer, factors)
        certify(
            factors.exact, catalog.exact, factors.linear, catalog.linear, factors.norm, catalog.norm, own,
            catalog.error, share(self.scorer), constant(start, np.int64), constant(groups, np.int64), logits, sure,
        )  # fmt: skip
        doubt = np.flatnonzero(~sure)
        logits[doubt] = self._exact(contexts, np.searchsorted(doubt, start), groups[doubt])
        return logits

    def _exact(self, contexts: Int32, start: Int64, groups: Int64) -> Float32:
        out = np.empty(len(groups))
        of_item, start, groups = (
            constant(array, dtype)
            for array, dtype in ((self.catalog.of_item, np.bool_), (start, np.int64), (groups, np.int64))
        )
        score(self.scorer.form, contexts, self.catalog.slots, of_item, start, groups, out)
        return out.astype(np.float32)

    def _shrink(self, buffers: Buffers, c: int) -> None:
        """`shrink`, and its counterpart under a cap: the k-th greedy pick, and the cap-th of each category."""
        if self.cap == 0:
            shrink(buffers, c, self.k)
            return
        n = int(buffers.held[c])
        lower, upper, group = buffers.lower[c, :n], buffers.upper[c, :n], buffers.group[c, :n]
        category = self.catalog.category[group]
        order = np.argsort(-lower, kind="stable")
        nth = _nth_of(category[order])
        picks = lower[order[nth < self.cap]]
        if len(picks) >= self.k:
            buffers.threshold[c] = max(buffers.threshold[c], picks[self.k - 1])
        floor = np.full(int(category.max(initial=0)) + 1, -np.inf, np.float32)
        last = order[nth == self.cap - 1]
        floor[category[last]] = lower[last]
        kept = (upper >= buffers.threshold[c]) & (upper >= floor[category])
        self._keep(buffers, c, lower[kept], upper[kept], group[kept])

    def _keep(self, buffers: Buffers, c: int, lower: Float32, upper: Float32, group: Int32) -> None:
        buffers.held[c] = n = len(group)
        buffers.lower[c, :n], buffers.upper[c, :n], buffers.group[c, :n] = lower, upper, group

    def _make_room(self, contexts: Int32, factors: Factors, buffers: Buffers, exclude: Lists, c: int) -> None:
        """Where bounds cannot: score near ties exactly, and keep the best k by (logit, first item), under the cap."""
        if self.cap:
            self._shrink(buffers, c)
        n = int(buffers.held[c])
        if n <= roomy(self.capacity):
            return
        group = buffers.group[c, :n].copy()
        logits = self._exact(contexts[c : c + 1], np.array([0, n]), group.astype(np.int64))
        unwanted = exclude.item[exclude.start[c] : exclude.start[c + 1]]
        item, start = self.catalog.item, self.catalog.start
        members = [item[start[g] : start[g + 1]] for g in group]
        first = np.array([m[0] if len(m) == 1 else np.setdiff1d(m, unwanted, assume_unique=True)[0] for m in members])
        order = np.lexsort((first, -logits))
        if self.cap:
            order = order[_nth_of(self.catalog.category[group[order]]) < self.cap]
        order = order[: self.k]
        exact = (logits[order] - factors.linear[c]).astype(np.float32)
        self._keep(buffers, c, exact, exact, group[order])
        if len(order) == self.k:
            buffers.threshold[c] = max(buffers.threshold[c], exact[-1])

    def _ranked(self, start: Int64, item: Int64, logit: Float32, exclude: Lists) -> Ranking:
        """The lists out of scored pairs: unwanted ones out, sorted, cut at cap and k."""
        catalog, n = self.catalog, len(start) - 1
        out = Ranking(np.zeros(n + 1, np.int64), np.empty(n * self.k, np.int64), np.empty(n * self.k, np.float32))
        used = np.zeros(int(catalog.category.max(initial=0)) + 1 if self.cap else 0, np.int64)
        rank(
            constant(start, np.int64), constant(item, np.int64), constant(logit, np.float32), exclude, self.k, self.cap,
            self.group, catalog.category, used, out.start, out.item, out.logit,
        )  # fmt: skip
        return Ranking(out.start, out.item[: out.start[-1]], out.logit[: out.start[-1]])


def _nth_of(kind: npt.NDArray[np.integer[Any]]) -> Int64:
    """How many equal values stand before each."""
    order = np.argsort(kind, kind="stable")
    sorted_kind = kind[order]
    nth = np.empty(len(kind), np.int64)
    nth[order] = np.arange(len(kind)) - np.searchsorted(sorted_kind, sorted_kind)
    return nth
