"""Proposed scores of contexts against blocks of a catalog, each with a bound on its error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from fieldwise.features.arrays import Float32, Float64, Int32, Int64
from fieldwise.training.scoring.factors import Factors, PairTable
from fieldwise.training.scoring.items import HALF, Catalog, bfloat16, half_pays, halved, tensor
from fieldwise.training.scoring.scorer import Scorer

ITEMS = 2048
"""Items of one product."""
PAIR_CONTEXTS = 16
"""POLY2: contexts scored against the whole catalog at a time."""
TINY = 1e-37
"""Where float32 loses relative accuracy."""
SLACK = 16 * 2.0**-24
"""Room for the rounding of sums of three and of the final logit, relative to the largest number involved."""


class Block(NamedTuple):
    """Proposed scores, without a and b, of some contexts against groups base..base + B.

    A score s is within ``error + relative |s|`` of the truth.
    """

    contexts: Int64  # [A] positions in the block of contexts
    base: int
    scores: Float32  # [A, B]
    error: Float64  # [A]
    relative: float


class MatrixProduct:
    """``u v'``, the catalog's blocks in order, for the contexts they may still matter to."""

    def __init__(self, catalog: Catalog, contexts: int) -> None:
        self.catalog = catalog
        self.half = catalog.half.shape[1] > 0 and half_pays(catalog.half.shape[1])
        self.norm = _suffix_maxima(catalog.norm)  # of a block and all that follow
        self.linear = _suffix_maxima(catalog.linear)
        self.lost = _suffix_maxima(catalog.lost) if self.half else np.zeros(len(self.norm))
        self.largest = float(np.abs(catalog.linear).max(initial=0.0))
        self.scores = torch.empty(contexts * ITEMS)
        self.rounded = torch.empty(contexts * ITEMS if self.half else 0, dtype=torch.bfloat16)

    def blocks(self, contexts: Int32, factors: Factors, threshold: Float32) -> Iterator[Block]:
        """``threshold`` [C] rises between blocks; a context that no later item can pass leaves."""
        vectors, items = (torch.from_numpy(factors.vectors), tensor(self.catalog.vectors))
        norm, lost, alive = factors.norm, np.zeros(len(contexts)), np.arange(len(contexts))
        if self.half:
            (vectors, lost), items = halved(factors.vectors), bfloat16(self.catalog.half)
        offset, relative = np.abs(factors.linear), HALF if self.half else 0.0
        for position, base in enumerate(range(0, len(items), ITEMS)):
            reach = (norm + lost) * (self.norm[position] + self.lost[position])  # no product is larger
            error = norm * self.lost[position] + lost * (self.norm[position] + self.lost[position])
            error += (vectors.shape[1] + 4) * 2.0**-24 * 1.02 * reach + SLACK * (reach + offset + self.largest) + TINY
            hope = self.linear[position] + (1 + relative) * reach + error >= threshold[alive]
            if not hope.all():
                alive, vectors, norm, lost = alive[hope], vectors[torch.from_numpy(hope)], norm[hope], lost[hope]
                offset, error = offset[hope], error[hope]
                if len(alive) == 0:
                    return
            yield Block(alive, base, self._product(vectors, items[base : base + ITEMS]), error, relative)

    def _product(self, u: torch.Tensor, v: torch.Tensor) -> Float32:
        """float32 scores in memory that the next product overwrites."""
        shape, n = (len(u), len(v)), len(u) * len(v)
        out = self.scores[:n].view(shape)
        if self.half:
            out.copy_(torch.mm(u, v.T, out=self.rounded[:n].view(shape)))
        elif u.shape[1]:
            torch.mm(u, v.T, out=out)
        else:
            out.zero_()
        return out.numpy()


def _suffix_maxima(values: Float64) -> Float64:
    """Largest value of each block of ITEMS and all later ones."""
    return np.maximum.accumulate(values[::-1])[::-1][::ITEMS]


class PairProduct:
    """POLY2's pairs across, for a few contexts against the whole catalog."""

    def __init__(self, scorer: Scorer, catalog: Catalog) -> None:
        self.scorer, self.catalog = scorer, catalog
        self.table = PairTable.of(scorer, catalog.of_item, catalog.slots)
        pairs = scorer.table[scorer.layout.rows :, 0]
        slots = scorer.layout.slots
        self.largest = (
            float(np.abs(catalog.linear).max(initial=0.0)) + float(np.abs(pairs).max(initial=0.0)) * slots * slots / 4
        )

    def blocks(self, contexts: Int32, factors: Factors, threshold: Float32) -> Iterator[Block]:
        groups = len(self.catalog.slots)
        for start in range(0, len(contexts), PAIR_CONTEXTS):
            some = np.arange(start, min(start + PAIR_CONTEXTS, len(contexts)))
            scores = np.empty((len(some), groups), np.float32)
            self.table.across(self.scorer, self.catalog.of_item, contexts[some], slice(0, groups), scores)
            yield Block(some, 0, scores, SLACK * (self.largest + np.abs(factors.linear[some])) + TINY, 0.0)
