"""Lists whose items differ: maximal marginal relevance (Carbonell and Goldstein 1998) over the items' own vectors.

Of the best ``among`` items of a context, k are picked one after another, each time the one with the largest

    logit(i) - penalty * max(0, max over the picked j of cosine(v(i), v(j)))

so the first is the best item, and one that is like none before it (cosine <= 0) is judged by its logit alone. The
penalty is in logits: a twin of a picked item counts as if its odds were exp(penalty) times smaller. v is the item's
side of the score's split (training/scoring/factors.py): items are alike where the same contexts like them.
"""

from __future__ import annotations

import numpy as np

from fieldwise.features.arrays import Int32
from fieldwise.training.kernels.exact import constant
from fieldwise.training.kernels.select import Lists, diverse
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.quotas import merged
from fieldwise.training.scoring.scorer import Scorer
from fieldwise.training.scoring.topk import Ranking, top_k


def top_k_diverse(
    scorer: Scorer,
    catalog: Catalog,
    contexts: Int32,
    k: int,
    *,
    among: int,
    penalty: float,
    exclude: Lists | None = None,
    only: Lists | None = None,
    per_category: int = 0,
) -> Ranking:
    """k items of the ``among`` best, in the order in which they were picked: logits need not descend.

    Under a cap they are picked of the ``among`` best, whatever their categories, and of those that `top_k` would list
    under it: so a list is as long as that one.

    Args:
        among: candidates of a list, at least k.
        penalty: logits, at least 0; 0 gives the lists of `top_k`.
        per_category: at most so many items of one category in a list; 0: no limit.
    """
    pool = top_k(scorer, catalog, contexts, among, exclude=exclude, only=only)
    if per_category:
        capped = top_k(scorer, catalog, contexts, k, exclude=exclude, only=only, per_category=per_category)
        pool = merged([capped], pool, among + k, len(catalog.item))
    out = Ranking(np.zeros_like(pool.start), np.empty_like(pool.item), np.empty_like(pool.logit))
    used = np.zeros(int(catalog.category.max(initial=0)) + 1, np.int64)
    diverse(
        catalog.vectors, catalog.norm, catalog.group, catalog.category, constant(pool.start, np.int64),
        constant(pool.item, np.int64), constant(pool.logit, np.float32), k, per_category, penalty, used,
        out.start, out.item, out.logit,
    )  # fmt: skip
    return Ranking(out.start, out.item[: out.start[-1]], out.logit[: out.start[-1]])
