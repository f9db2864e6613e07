"""Top-K lists equal brute force: items, order and float32 scores, whatever the model, the ties and the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.training.kernels.select import Lists
from fieldwise.training.models import kinds
from fieldwise.training.scoring import items as catalogs
from fieldwise.training.scoring import products, topk
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.scorer import Scorer
from fieldwise.training.scoring.topk import Ranking, top_k
from tests.training import random_models as models

Pair = tuple[int, float]


def brute_force(
    scorer: Scorer, sides: npt.NDArray[np.bool_], contexts: Any, items: Any, k: int, exclude: list[set[int]],
    only: list[set[int]] | None, category: Any, cap: int,
) -> list[list[Pair]]:  # fmt: skip
    """Every pair through the scorer as a whole row, then sorted, then cut, in plain loops."""
    logits = scorer.logits(models.merged(scorer.layout, sides, contexts, items)).reshape(len(contexts), len(items))
    lists = []
    for c in range(len(contexts)):
        allowed = set(range(len(items))) if only is None else only[c]
        listed: list[Pair] = []
        used: dict[int, int] = {}
        for i in sorted(allowed - exclude[c], key=lambda i: (-logits[c, i], i)):
            if len(listed) < k and (not cap or used.get(category[i], 0) < cap):
                used[category[i]] = used.get(category[i], 0) + 1
                listed.append((i, float(logits[c, i])))
        lists.append(listed)
    return lists


def lists_of(ranking: Ranking) -> list[list[Pair]]:
    parts = zip(ranking.start[:-1], ranking.start[1:], strict=True)
    return [list(zip(ranking.item[a:b].tolist(), ranking.logit[a:b].tolist(), strict=True)) for a, b in parts]


def packed(sets: list[set[int]]) -> Lists:
    return Lists(np.cumsum([0] + [len(s) for s in sets]), np.array([i for s in sets for i in sorted(s)], np.int64))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_equals_brute_force(data: st.DataObject) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kind = data.draw(st.sampled_from(kinds("splits")))
    n_fields = data.draw(st.integers(1, 5))
    shape = models.layout(
        draw.integers(2, data.draw(st.sampled_from([4, 60])), n_fields),
        draw.integers(1, 4, n_fields),
        draw.integers(0, 2, n_fields) == 1,
    )
    sides = draw.integers(0, 2, n_fields) == 1
    scorer = models.scorer(kind, shape, int(draw.integers(2**32)), step=data.draw(st.sampled_from([0.0, 0.5, 100.0])))
    n_items = data.draw(st.sampled_from([0, 1, 3, 40, 700, 2500]))
    contexts, items = models.rows(shape, 9, 1), models.rows(shape, n_items, int(draw.integers(2**32)))
    cap = data.draw(st.sampled_from([0, 0, 1, 3]))
    category = draw.integers(0, 4, n_items).astype(np.int32)
    k = data.draw(st.sampled_from([1, 5, 30, 3000]))
    seen = [
        set(draw.integers(0, max(n_items, 1), draw.integers(0, 40)).tolist()) if n_items else set() for _ in contexts
    ]
    exclude = seen if data.draw(st.booleans()) else [set() for _ in contexts]
    only = (
        [set(draw.integers(0, n_items, 60).tolist()) for _ in contexts]
        if n_items and data.draw(st.booleans())
        else None
    )
    half = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        for module in (catalogs, products):  # of who makes a catalog, of who multiplies
            patch.setattr(module, "half_pays", lambda dimensions: half)
        catalog = Catalog.of(scorer, sides, items, category if cap else None)
        found = top_k(
            scorer,
            catalog,
            contexts,
            k,
            exclude=packed(exclude),
            only=None if only is None else packed(only),
            per_category=cap,
        )
    assert lists_of(found) == brute_force(scorer, sides, contexts, items, k, exclude, only, category, cap)


@pytest.mark.parametrize("cap", [0, 2])
@pytest.mark.parametrize("kind", ["lr", "ffm", "poly2"])
def test_more_ties_than_the_buffer_holds(kind: str, cap: int) -> None:
    """All weights 0 but few: thousands of different items score alike, and ids decide."""
    shape = models.layout([3, 5000], [1, 1], [False, False])
    scorer, sides = models.scorer(kind, shape, 1, step=2.5), np.array([False, True])
    items = np.arange(4990, dtype=np.int32)[:, None] * np.array([0, 1], np.int32)
    items[:, 1] += 1
    contexts = np.array([[1, 0], [2, 0]], np.int32)
    category = (np.arange(len(items)) % 3).astype(np.int32)
    exclude = [set(range(0, 400, 2)), set()]
    catalog = Catalog.of(scorer, sides, items, category if cap else None)
    found = top_k(scorer, catalog, contexts, 20, exclude=packed(exclude), per_category=cap)
    assert lists_of(found) == brute_force(scorer, sides, contexts, items, 20, exclude, None, category, cap)


@pytest.mark.parametrize("kind", ["lr", "fm", "ffm"])
def test_factors_leave_few_pairs_to_be_scored_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = models.layout([50] * 6, [1] * 6, [False] * 6)
    scorer, sides = models.scorer(kind, shape, 1), np.arange(6) >= 3
    contexts, items = models.rows(shape, 200, 2), models.rows(shape, 5000, 3)
    again = []
    exact = topk._Search._exact
    monkeypatch.setattr(topk._Search, "_exact", lambda *a: again.append(len(a[-1])) or exact(*a))
    found = top_k(scorer, Catalog.of(scorer, sides, items), contexts, 20)
    assert sum(again) < 0.2 * len(found.item)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = models.layout([9, 40, 3000], [1, 3, 1], [False, True, False])
    scorer, sides = models.scorer("fm", shape, 1), np.array([False, True, True])
    contexts, items = models.rows(shape, 50, 2), models.rows(shape, 6000, 3)
    whole = lists_of(top_k(scorer, Catalog.of(scorer, sides, items), contexts, 10))
    for block, some in ((64, 7), (100_000, 1000)):
        monkeypatch.setattr(products, "ITEMS", block)
        monkeypatch.setattr(topk, "CONTEXTS", some)
        assert lists_of(top_k(scorer, Catalog.of(scorer, sides, items), contexts, 10)) == whole


def test_equal_items_are_one_group_and_a_skewed_catalog_is_cut_short() -> None:
    shape = models.layout([9, 40], [1, 1], [False, False])
    scorer, sides = models.scorer("ffm", shape, 1), np.array([False, True])
    items = models.rows(shape, 6000, 3)
    catalog = Catalog.of(scorer, sides, items)
    assert len(catalog.slots) == len(np.unique(items[:, 1]))
    found = top_k(scorer, catalog, models.rows(shape, 3, 1), 6000)
    assert [sorted(i for i, _ in one) for one in lists_of(found)] == [list(range(6000))] * 3


def test_a_saved_catalog_is_the_same(tmp_path: Path) -> None:
    shape = models.layout([9, 40], [1, 1], [False, False])
    scorer, sides = models.scorer("ffm", shape, 1), np.array([False, True])
    contexts, catalog = models.rows(shape, 3, 1), Catalog.of(scorer, sides, models.rows(shape, 500, 3))
    catalog.save(lambda name: tmp_path / name)
    mapped = Catalog.load(lambda name: tmp_path / name)
    assert lists_of(top_k(scorer, mapped, contexts, 9)) == lists_of(top_k(scorer, catalog, contexts, 9))


def test_bfloat16_is_taken_only_for_long_vectors() -> None:
    assert not catalogs.half_pays(17)
    assert catalogs.half_pays(512) in (False, True)  # as the machine is
