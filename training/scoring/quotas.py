"""Lists that hold at least so many items of some categories.

Of all lists of k items with at least n_v of category v, the best: the n_v best of each v, then the best of all others
up to k, all of them in the order of their logits. A category that has fewer for a context gives what it has.

    list = D + the first k - |D| of (W - D),   D = union of the n_v best of v,   W = the k best (under a cap)

Nothing outside W and D can be in it: fewer than k - |D| of the others are better than what fills it up, and the |D|
that are due are all that can stand between. Under a cap, which no n_v passes, D and W hold a category's best from the
first one on, so their union passes it neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fieldwise.features.arrays import Int32, Int64
from fieldwise.training.kernels.select import Lists
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.scorer import Scorer
from fieldwise.training.scoring.topk import Ranking, top_k

Part = tuple[Catalog, Int64]
"""The items of a category as a catalog of their own, and their positions; see `Catalog.of_category`."""


def top_k_at_least(
    scorer: Scorer,
    catalog: Catalog,
    contexts: Int32,
    k: int,
    at_least: Sequence[tuple[Part, int]],
    *,
    exclude: Lists,
    only: Lists | None = None,
    per_category: int = 0,
) -> Ranking:
    """`top_k` of lists that hold at least so many of some categories.

    Args:
        at_least: categories, each once, with how many; in all at most k, and none above ``per_category``.
    """
    whole = top_k(scorer, catalog, contexts, k, exclude=exclude, only=only, per_category=per_category)
    due = []
    for (own, positions), count in at_least:
        among = None if only is None else _inside(only, positions)
        found = top_k(scorer, own, contexts, count, exclude=_inside(exclude, positions), only=among)
        due.append(Ranking(found.start, positions[found.item], found.logit))
    return merged(due, whole, k, len(catalog.item)) if due else whole


def _inside(lists: Lists, positions: Int64) -> Lists:
    """Lists of items as lists of places among some ``positions``, without the others."""
    at = np.searchsorted(positions, lists.item)
    inside = np.r_[positions, -1][at] == lists.item
    return Lists(np.r_[0, np.cumsum(inside)][lists.start], at[inside])


def merged(due: Sequence[Ranking], whole: Ranking, k: int, items: int) -> Ranking:
    """Lists of k: what is due, then what the whole lists have besides, all in the order of their logits."""
    parts, contexts = [*due, whole], np.arange(len(whole.start))
    context = np.concatenate([np.repeat(contexts[:-1], np.diff(part.start)) for part in parts])
    item, logit = np.concatenate([part.item for part in parts]), np.concatenate([part.logit for part in parts])
    _, first = np.unique(context * items + item, return_index=True)  # an item that is due comes first, as such
    others = first >= len(item) - len(whole.item)
    context, item, logit = context[first], item[first], logit[first]
    order = np.lexsort((item, -logit, others, context))
    nth = np.arange(len(order)) - np.searchsorted(context[order], context[order])
    kept = order[nth < k]
    kept = kept[np.lexsort((item[kept], -logit[kept], context[kept]))]
    return Ranking(np.searchsorted(context[kept], contexts), item[kept], logit[kept])
