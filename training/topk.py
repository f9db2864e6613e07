"""Exact top-K of a catalog: a blocked matrix product proposes, bounds select, the float64 routine decides.

For a block of contexts and a block of items the product ``<u, v> + b`` is computed in float32. It differs from the true
score by at most an error that is bounded per context and block, so a context's K-th best lower bound is a threshold
that no item below it can pass. What passes is rescored by `training.exact_kernels` and sorted by (float32 logit
descending, item id ascending): the list that scoring every pair gives, bit for bit. No [contexts x items] matrix is
kept; blocks of items come by descending bound, so thresholds rise at once and the rest of a catalog may be skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from training.exact_kernels import constant, score
from training.factors import Bool, Factors, Int64, PairTable, context_factors, item_factors
from training.scoring import Float32, Float64, Int32, Scorer
from training.selection_kernels import Buffers, Lists, certify, roomy, scan, shrink

CONTEXTS, ITEMS = 512, 2048
"""Contexts and items of one product: its scores (4 MB) stay in the cache."""
PAIR_CONTEXTS = 16
"""POLY2: contexts scored against the whole catalog at a time."""
BUFFERED = 2**21
"""Items kept for all contexts of a block together."""
TINY = 1e-37
"""Where float32 loses relative accuracy."""
SLACK = 16 * 2.0**-24
"""Room for the rounding of sums of three and of the final logit, relative to the largest number involved."""


@dataclass(frozen=True)
class Catalog:
    """Items ready for scoring. Items with equal slots (and category) are one of G groups: they score alike.

    An item is named by its position in the order of item ids, so a smaller position wins a tie.
    """

    of_item: Bool  # [F] which fields are the item's
    slots: Int32  # [G, S], by descending bound
    linear: Float64  # [G] b
    vectors: Float32  # [G, D] v
    norm: Float64  # [G] |v|
    error: Float64  # [G] see `certify`
    category: Int32  # [G], all 0 without categories
    start: Int64  # [G + 1]
    item: Int64  # [N] items of group g: item[start[g]:start[g + 1]], ascending

    @staticmethod
    def of(scorer: Scorer, of_item: Bool, slots: Int32, category: Int32 | None = None) -> Catalog:
        """Of item rows [N, S] in the order of their ids; ``category`` [N] counts from 0."""
        slots = np.where(of_item[scorer.layout.field_of_slot], slots, 0).astype(np.int32)
        category = np.zeros(len(slots), np.int32) if category is None else category
        distinct, group = _distinct(np.column_stack([slots, category]))
        factors = item_factors(scorer, of_item, distinct[:, :-1])
        norm = _norms(factors.vectors)
        order = np.argsort(-(factors.linear + norm), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        group = place[group]
        item = np.argsort(group, kind="stable")
        return Catalog(
            of_item=of_item,
            slots=constant(distinct[order, :-1], np.int32),
            linear=constant(factors.linear[order], np.float64),
            vectors=constant(factors.vectors[order], np.float32),
            norm=constant(norm[order], np.float64),
            error=constant(_errors(scorer, factors)[order], np.float64),
            category=constant(distinct[order, -1], np.int32),
            start=constant(np.searchsorted(group[item], np.arange(len(order) + 1)), np.int64),
            item=constant(item, np.int64),
        )

    @property
    def groups(self) -> Lists:
        return Lists(self.start, self.item)

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """One .npy file per array, at ``path(name)``; returns the names."""
        names = {f"catalog-{name}.npy": getattr(self, name) for name in ARRAYS}
        for name, array in names.items():
            np.save(path(name), array, allow_pickle=False)
        return list(names)

    @staticmethod
    def load(path: Callable[[str], Path]) -> Catalog:
        """Memory-mapped: processes on one host share the pages."""
        files = {n: np.load(path(f"catalog-{n}.npy"), mmap_mode="r", allow_pickle=False) for n in ARRAYS}
        return Catalog(**{name: constant(array, array.dtype) for name, array in files.items()})


ARRAYS = ("of_item", "slots", "linear", "vectors", "norm", "error", "category", "start", "item")


def _norms(vectors: Float32) -> Float64:
    """Lengths of rows, in float64."""
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def _share(scorer: Scorer) -> float:
    """Relative to the sum of absolute terms: how far two float64 sums of a logit's terms in any order may be apart."""
    fields = scorer.layout.fields
    return 4 * (scorer.layout.slots + fields * fields * max(scorer.dim, 1) + 64) * 2.0**-53


def _errors(scorer: Scorer, factors: Factors) -> Float64:
    """What a side adds to the error of ``a + b + <u, v>``; infinite where factors cannot certify a logit.

    FFM alone gains by it: its vectors are rows of the table, and one contiguous product replaces many scattered reads.
    """
    usable = factors.lossless if scorer.kind == "ffm" else np.zeros(len(factors.mass), np.bool_)
    return np.where(usable, _share(scorer) * factors.mass, np.inf)


def _distinct(rows: Int32) -> tuple[Int32, npt.NDArray[np.intp]]:
    """Distinct rows and, for every row, which it is."""
    rows = np.ascontiguousarray(rows)
    packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, group = np.unique(packed, return_index=True, return_inverse=True)
    return rows[first], group


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
        self.product: _MatrixProduct | _PairProduct
        self.linear = constant(catalog.linear, np.float32)
        self.group = np.empty(len(catalog.item), np.int64)
        self.group[catalog.item] = np.repeat(np.arange(len(catalog.slots)), np.diff(catalog.start))
        self.product = (
            _PairProduct(scorer, catalog) if scorer.kind == "poly2" else _MatrixProduct(catalog, self.contexts)
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
                    block.scores, linear, block.base, block.contexts, block.error, np.float32(0),
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
        return self._ranked(len(contexts), np.repeat(context, many), item, np.repeat(logits, many), exclude)

    def among(self, contexts: Int32, exclude: Lists, only: Lists) -> Ranking:
        """The lists of a block of contexts over each context's own items."""
        item = only.item[only.start[0] : only.start[-1]]
        start = only.start - only.start[0]
        logits = self._exact(contexts, start, self.group[item])
        return self._ranked(len(contexts), np.repeat(np.arange(len(contexts)), np.diff(start)), item, logits, exclude)

    def _logits(self, contexts: Int32, start: Int64, groups: Int64, factors: Factors) -> Float32:
        """What `_exact` gives, by way of the factors where they leave no doubt."""
        logits, sure = np.empty(len(groups), np.float32), np.empty(len(groups), np.bool_)
        catalog, errors = self.catalog, _errors(self.scorer, factors)
        certify(
            factors.vectors, catalog.vectors, factors.linear, catalog.linear, errors, catalog.error,
            _share(self.scorer), constant(start, np.int64), constant(groups, np.int64), logits, sure,
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

    def _ranked(self, contexts: int, context: Int64, item: Int64, logit: Float32, exclude: Lists) -> Ranking:
        """The lists out of scored pairs (context ascending): unwanted ones out, sorted, cut at cap and k."""
        lengths = np.diff(exclude.start)
        if lengths.any():
            pair = np.repeat(np.arange(contexts), lengths) * len(self.catalog.item)
            pair += exclude.item[exclude.start[0] : exclude.start[-1]]
            wanted = ~np.isin(context * len(self.catalog.item) + item, pair)
            context, item, logit = context[wanted], item[wanted], logit[wanted]
        order = np.lexsort((item, -logit, context))
        if self.cap:
            category = self.catalog.category[self.group[item[order]]].astype(np.int64)
            order = order[_nth_of(context[order] * (int(self.catalog.category.max()) + 1) + category) < self.cap]
        order = order[_nth_of(context[order]) < self.k]
        start = np.searchsorted(context[order], np.arange(contexts + 1))
        return Ranking(start, item[order], logit[order])


def _nth_of(kind: npt.NDArray[np.integer[Any]]) -> Int64:
    """How many equal values stand before each."""
    order = np.argsort(kind, kind="stable")
    sorted_kind = kind[order]
    nth = np.empty(len(kind), np.int64)
    nth[order] = np.arange(len(kind)) - np.searchsorted(sorted_kind, sorted_kind)
    return nth


class _Block(NamedTuple):
    """Proposed scores, without a and b, of some contexts against groups base..base + B, and their bound."""

    contexts: Int64  # [A] positions in the block of contexts
    base: int
    scores: Float32  # [A, B]
    error: Float64  # [A]


class _MatrixProduct:
    """``u v'`` in float32, the catalog's blocks in order, for the contexts they may still matter to."""

    def __init__(self, catalog: Catalog, contexts: int) -> None:
        self.catalog = catalog
        norm, linear = catalog.norm, catalog.linear
        self.norm = np.maximum.accumulate(norm[::-1])[::-1][::ITEMS]  # of this block and all that follow
        self.linear = np.maximum.accumulate(linear[::-1])[::-1][::ITEMS]
        self.largest = float(np.abs(linear).max(initial=0.0))
        self.scores = np.empty(contexts * ITEMS, np.float32)

    def blocks(self, contexts: Int32, factors: Factors, threshold: Float32) -> Iterator[_Block]:
        """``threshold`` [C] rises between blocks; a context that no later item can pass leaves."""
        vectors, norm, offset = (
            factors.vectors,
            _norms(factors.vectors),
            np.abs(factors.linear),
        )
        alive = np.arange(len(contexts))
        for position, base in enumerate(range(0, len(self.catalog.linear), ITEMS)):
            reach = norm * self.norm[position]
            error = (vectors.shape[1] + 4) * 2.0**-24 * 1.02 * reach + SLACK * (reach + offset + self.largest) + TINY
            hope = self.linear[position] + reach + error >= threshold[alive]
            if not hope.all():
                alive, vectors, norm, offset, error = alive[hope], vectors[hope], norm[hope], offset[hope], error[hope]
                if len(alive) == 0:
                    return
            items = self.catalog.vectors[base : base + ITEMS]
            yield _Block(alive, base, _product(vectors, items, self.scores), error)


def _product(u: Float32, v: Float32, out: Float32) -> Float32:
    """u v' by torch's float32 product, in the memory of ``out``."""
    if u.shape[1] == 0:
        return np.zeros((len(u), len(v)), np.float32)
    result = torch.from_numpy(out[: len(u) * len(v)].reshape(len(u), len(v)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch would mind that the catalog is read-only
        torch.mm(torch.from_numpy(u), torch.from_numpy(v).T, out=result)
    return result.numpy()


class _PairProduct:
    """POLY2's pairs across, for a few contexts against the whole catalog."""

    def __init__(self, scorer: Scorer, catalog: Catalog) -> None:
        self.scorer, self.catalog = scorer, catalog
        self.table = PairTable.of(scorer, catalog.of_item, catalog.slots)
        pairs = scorer.table[scorer.layout.rows :, 0]
        slots = scorer.layout.slots
        self.largest = (
            float(np.abs(catalog.linear).max(initial=0.0)) + float(np.abs(pairs).max(initial=0.0)) * slots * slots / 4
        )

    def blocks(self, contexts: Int32, factors: Factors, threshold: Float32) -> Iterator[_Block]:
        groups = len(self.catalog.slots)
        for start in range(0, len(contexts), PAIR_CONTEXTS):
            some = np.arange(start, min(start + PAIR_CONTEXTS, len(contexts)))
            scores = np.empty((len(some), groups), np.float32)
            self.table.across(self.scorer, self.catalog.of_item, contexts[some], slice(0, groups), scores)
            yield _Block(some, 0, scores, SLACK * (self.largest + np.abs(factors.linear[some])) + TINY)
