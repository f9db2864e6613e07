"""Quality of ranked lists, read off what turned out relevant: every (context, item) pair with its place in the list.

For a context with R relevant items of gains g > 0, of which the listed ones have places r (from 1), and a cutoff K:

- recall@K: hits / R, where hits are relevant items at places up to K
- precision@K: hits / K, however long the list is
- hit_rate@K: 1 with a hit, else 0
- ndcg@K: sum of g / log2(r + 1) over hits, over what the K largest gains at places 1 to K would give (Jarvelin and
  Kekalainen 2002)
- map@K: sum over hits of (hits up to r) / r, over min(R, K), so that a perfect list has 1
- mrr@K: 1 / r of the first hit, 0 without one

No list is needed to compute them, so memory follows what happened, not what was listed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldwise.features.arrays import Float64, Int64

NAMES = ("recall", "precision", "hit_rate", "ndcg", "map", "mrr")


def metric_names(cutoffs: Sequence[int]) -> list[str]:
    """The columns of `ranking`: all metrics at the first cutoff, then at the next."""
    return [f"{name}@{cutoff}" for cutoff in cutoffs for name in NAMES]


def ranking(context: Int64, place: Int64, gain: Float64, cutoffs: Sequence[int], contexts: int) -> Float64:
    """Metrics of every context, [contexts, cutoffs * metrics].

    Args:
        context: of each relevant pair, in [0, contexts); each pair once, and each context at least one.
        place: of the pair's item in the context's list, from 1; 0 where it is not listed.
        gain: above 0.
    """
    relevant = np.bincount(context, minlength=contexts)
    best_first = np.lexsort((-gain, context))
    owner = context[best_first]
    rank = _ordinal(owner)
    ideal = gain[best_first] / np.log2(rank + 1)
    listed = np.flatnonzero(place > 0)
    listed = listed[np.lexsort((place[listed], context[listed]))]
    hit, at, won = context[listed], place[listed], gain[listed] / np.log2(place[listed] + 1)
    nth = _ordinal(hit)
    columns = []
    for cutoff in cutoffs:
        inside = at <= cutoff
        hits = np.bincount(hit[inside], minlength=contexts)
        reciprocal = np.bincount(hit[inside & (nth == 1)], 1 / at[inside & (nth == 1)], contexts)
        columns += [
            hits / relevant,
            hits / cutoff,
            hits > 0,
            np.bincount(hit[inside], won[inside], contexts)
            / np.bincount(owner[rank <= cutoff], ideal[rank <= cutoff], contexts),
            np.bincount(hit[inside], (nth / at)[inside], contexts) / np.minimum(relevant, cutoff),
            reciprocal,
        ]
    return np.column_stack(columns).astype(np.float64)


def _ordinal(context: Int64) -> Int64:
    """1, 2, ... within each run of equal numbers."""
    if not len(context):
        return np.empty(0, np.int64)
    first = np.flatnonzero(np.r_[True, context[1:] != context[:-1]])
    lengths = np.diff(np.r_[first, len(context)])
    return np.arange(len(context)) - np.repeat(first, lengths) + 1
