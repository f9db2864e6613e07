"""Lists with minimums of categories equal plain loops, and no list that keeps the rules is better at any place."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.pipelines.catalog.lists import _best
from fieldwise.training.models import kinds
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.quotas import top_k_at_least
from tests.training import random_models as models
from tests.training.scoring.test_topk import lists_of, packed


def plain(order: list[int], category: Any, k: int, cap: int, least: dict[int, int]) -> list[int]:
    """Of items in the order of their logits: what is due, then the best of the others."""
    due = [i for v, n in least.items() for i in [i for i in order if category[i] == v][:n]]
    used = Counter(category[i] for i in due)
    for i in order:
        if len(due) < k and i not in due and (not cap or used[category[i]] < cap):
            used[category[i]] += 1
            due.append(i)
    return sorted(due, key=order.index)


def keeps_rules(items: tuple[int, ...], order: list[int], category: Any, cap: int, least: dict[int, int]) -> bool:
    held, there = Counter(category[i] for i in items), Counter(category[i] for i in order)
    enough = all(held[v] >= min(n, there[v]) for v, n in least.items())
    return enough and (not cap or all(n <= cap for n in held.values()))


@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_equals_brute_force(data: st.DataObject) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = models.layout([5, 30, 6], [1, 2, 1], [False, True, False])
    step = data.draw(st.sampled_from([0.0, 0.5, 100.0]))  # with ties, and with nothing else
    scorer = models.scorer(data.draw(st.sampled_from(kinds("splits"))), shape, int(draw.integers(2**32)), step=step)
    sides, n = np.array([False, True, True]), data.draw(st.sampled_from([1, 7, 9, 400]))
    contexts, items = models.rows(shape, 4, 1), models.rows(shape, n, int(draw.integers(2**32)))
    category = draw.integers(0, 4, n).astype(np.int32)
    cap = data.draw(st.sampled_from([0, 2, 3]))
    least = {v: int(draw.integers(1, (cap or 3) + 1)) for v in data.draw(st.sets(st.integers(0, 3), max_size=3))}
    k = sum(least.values()) + data.draw(st.sampled_from([0, 1, 3, 20]))
    sets: Any = st.lists(st.sets(st.integers(0, n - 1), max_size=12), min_size=4, max_size=4)
    exclude = data.draw(sets)
    only = data.draw(st.none() | sets)
    catalog = Catalog.of(scorer, sides, items, category)
    found = top_k_at_least(
        scorer, catalog, contexts, k, [(catalog.of_category(v), count) for v, count in least.items()],
        exclude=packed(exclude), only=None if only is None else packed(only), per_category=cap,
    )  # fmt: skip
    logits = scorer.logits(models.merged(shape, sides, contexts, items)).reshape(4, n)
    for c, listed in enumerate(lists_of(found)):
        allowed = sorted((set(range(n)) if only is None else only[c]) - exclude[c])
        order = sorted(allowed, key=lambda i, c=c: (-logits[c, i], i))
        expected = plain(order, category, k, cap, least)
        assert listed == [(i, float(logits[c, i])) for i in expected]
        allowed_now = np.array(allowed, np.int64)
        pairwise = _best(allowed_now, logits[c, allowed_now], category[allowed_now], k, cap, least)
        assert allowed_now[pairwise].tolist() == expected
        if n > 9 or not expected:
            continue
        rank = {i: at for at, i in enumerate(order)}
        ours = [rank[i] for i in expected]
        assert keeps_rules(tuple(expected), order, category, cap, least)
        for other in combinations(order, len(expected)):
            if keeps_rules(other, order, category, cap, least):
                assert all(a <= b for a, b in zip(ours, sorted(rank[i] for i in other), strict=True))
        longer = combinations(order, len(expected) + 1) if len(expected) < k else ()
        assert not any(keeps_rules(other, order, category, cap, least) for other in longer)
