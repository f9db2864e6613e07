"""Lists by maximal marginal relevance equal plain loops over every candidate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.training.models import kind_of, kinds
from fieldwise.training.scoring.diverse import top_k_diverse
from fieldwise.training.scoring.factors import item_factors
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.topk import top_k
from tests.training import random_models as models
from tests.training.scoring.test_topk import lists_of, packed

WITH_VECTORS = [kind for kind in kinds("splits") if kind != "lr" and not kind_of(kind).paired]


def picked(
    pool: list[tuple[int, float]], vectors: Any, k: int, penalty: float, category: Any, cap: int
) -> list[tuple[int, float]]:
    """The rule as its module states it; the earlier one of equals."""

    def cosine(i: int, j: int) -> float:
        a, b = vectors[i].astype(float), vectors[j].astype(float)
        if not a.any() or not b.any():
            return 0.0
        return 1.0 if (a == b).all() else sum(a * b) / (np.sqrt(sum(a * a)) * np.sqrt(sum(b * b)))

    found: list[tuple[int, float]] = []
    while len(found) < k and len(found) < len(pool):
        used = Counter(category[i] for i, _ in found)
        left = [pair for pair in pool if pair not in found and not (cap and used[category[pair[0]]] == cap)]
        if not left:
            break
        worth = [logit - penalty * max([0.0, *(cosine(i, j) for j, _ in found)]) for i, logit in left]
        most = max(worth)
        near = next(at for at, value in enumerate(worth) if value >= most - 1e-9)  # sums of cosines differ in last bits
        found.append(left[near])
    return found


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_equals_plain_loops(data: st.DataObject) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = models.layout([5, 30, 6], [1, 2, 1], [False, True, False])
    scorer = models.scorer(data.draw(st.sampled_from(WITH_VECTORS)), shape, int(draw.integers(2**32)))
    sides, n = np.array([False, True, True]), data.draw(st.sampled_from([1, 7, 60]))
    contexts, items = models.rows(shape, 4, 1), models.rows(shape, n, int(draw.integers(2**32)))
    k, more = data.draw(st.sampled_from([1, 3, 8])), data.draw(st.sampled_from([0, 5, 40]))
    penalty, cap = data.draw(st.sampled_from([0.1, 1.0, 50.0])), data.draw(st.sampled_from([0, 2]))
    category = draw.integers(0, 4, n).astype(np.int32)
    exclude = packed(data.draw(st.lists(st.sets(st.integers(0, n - 1), max_size=5), min_size=4, max_size=4)))
    catalog = Catalog.of(scorer, sides, items, category)
    best = lists_of(top_k(scorer, catalog, contexts, k + more, exclude=exclude))
    capped = lists_of(top_k(scorer, catalog, contexts, k, exclude=exclude, per_category=cap))
    pool = [
        sorted({*some, *others}, key=lambda pair: (-pair[1], pair[0]))
        for some, others in zip(best, capped, strict=True)
    ]
    found = lists_of(
        top_k_diverse(scorer, catalog, contexts, k, among=k + more, penalty=penalty, exclude=exclude, per_category=cap)
    )
    vectors = item_factors(scorer, sides, items).vectors
    assert found == [picked(listed, vectors, k, penalty, category, cap) for listed in pool]
    assert [len(listed) for listed in found] == [len(listed) for listed in capped]


def test_twins_of_the_best_item_come_last() -> None:
    """Three equal items, and two that are like none: one of the three leads, its twins close the list."""
    shape = models.layout([5, 30], [1, 1], [False, False])
    scorer = models.scorer("fm", shape, 3)
    contexts = models.rows(shape, 1, 1)
    items = np.array([[0, 4], [0, 4], [0, 4], [0, 9], [0, 12]], np.int32)
    catalog = Catalog.of(scorer, np.array([False, True]), items)
    (plain,) = lists_of(top_k(scorer, catalog, contexts, 5))
    (diverse,) = lists_of(top_k_diverse(scorer, catalog, contexts, 5, among=5, penalty=50.0))
    assert sorted(plain) == sorted(diverse)
    assert diverse[0] == plain[0]
    assert {item for item, _ in diverse[3:]} <= {0, 1, 2}
