"""Ranking metrics against their definitions in plain loops, and against ranx and recommenders if they are there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fieldwise.training.evaluation.exposure import exposure
from fieldwise.training.evaluation.ranking import NAMES, metric_names, ranking

CUTOFFS = [1, 3, 5, 10, 40]
Lists = dict[int, list[int]]
Wanted = dict[int, dict[int, float]]


def random_lists(seed: int, contexts: int = 60, items: int = 25) -> tuple[Lists, Wanted]:
    """Lists of no to twelve items, some contexts without a list, some lists of contexts that wanted nothing."""
    draw = np.random.default_rng(seed)
    lists = {c: draw.permutation(items)[: draw.integers(0, 13)].tolist() for c in range(contexts) if c % 7}
    wanted = {
        c: {int(i): float(draw.integers(1, 4)) for i in draw.permutation(items)[: draw.integers(1, 9)]}
        for c in range(contexts)
        if c % 5
    }
    return lists, wanted


def measured(lists: Lists, wanted: Wanted) -> np.ndarray:
    """Of the contexts of ``wanted`` in their order."""
    pairs = [
        (at, lists.get(c, []), item, gain) for at, (c, of) in enumerate(wanted.items()) for item, gain in of.items()
    ]
    context = np.array([at for at, *_ in pairs])
    place = np.array([listed.index(item) + 1 if item in listed else 0 for _, listed, item, _ in pairs])
    return ranking(context, place, np.array([gain for *_, gain in pairs]), CUTOFFS, len(wanted))


def plain(listed: list[int], wanted: dict[int, float], k: int) -> list[float]:
    top = listed[:k]
    hits = [at for at, item in enumerate(top, 1) if item in wanted]
    dcg = sum(wanted[top[at - 1]] / math.log2(at + 1) for at in hits)
    best = sum(gain / math.log2(at + 1) for at, gain in enumerate(sorted(wanted.values(), reverse=True)[:k], 1))
    precise = sum(nth / at for nth, at in enumerate(hits, 1)) / min(len(wanted), k)
    return [len(hits) / len(wanted), len(hits) / k, float(bool(hits)), dcg / best, precise, 1 / hits[0] if hits else 0]


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definitions(seed: int) -> None:
    lists, wanted = random_lists(seed)
    expected = [[v for k in CUTOFFS for v in plain(lists.get(c, []), of, k)] for c, of in wanted.items()]
    np.testing.assert_allclose(measured(lists, wanted), expected, rtol=0, atol=1e-12)


def test_in_closed_form() -> None:
    """Wanted at places 2 and 4 of a list, and one not listed: at 4, recall 2/3, precision 1/2, first hit at 2."""
    found = ranking(np.zeros(3, np.int64), np.array([4, 0, 2]), np.ones(3), [1, 4], 1)[0]
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    expected = [
        0,
        0,
        0,
        0,
        0,
        0,
        2 / 3,
        1 / 2,
        1,
        (1 / math.log2(3) + 1 / math.log2(5)) / ideal,
        (1 / 2 + 2 / 4) / 3,
        0.5,
    ]
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert metric_names([1, 4])[:2] == ["recall@1", "precision@1"]


@pytest.mark.parametrize("seed", range(3))
def test_equals_ranx(seed: int) -> None:
    ranx = pytest.importorskip("ranx")
    lists, wanted = random_lists(seed)
    run = {str(c): {f"i{i}": 1 / (at + 1) for at, i in enumerate(lists.get(c, []))} or {"none": 1.0} for c in wanted}
    qrels = {str(c): {f"i{i}": int(gain) for i, gain in of.items()} for c, of in wanted.items()}
    theirs = {"recall": "recall", "precision": "precision", "hit_rate": "hit_rate", "ndcg": "ndcg", "mrr": "mrr"}
    names = [f"{theirs[name]}@{k}" for k in CUTOFFS for name in NAMES if name in theirs]
    found = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names, make_comparable=True)
    ours = dict(zip(metric_names(CUTOFFS), measured(lists, wanted).mean(0), strict=True))
    assert {name: ours[name] for name in names} == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_equals_recommenders(seed: int) -> None:
    """It leaves out contexts without a list, has gains of 1 alone, and divides precision as we do."""
    theirs = pytest.importorskip("recommenders.evaluation.python_evaluation")
    pandas = pytest.importorskip("pandas")
    lists, wanted = random_lists(seed)
    wanted = {c: dict.fromkeys(of, 1.0) for c, of in wanted.items() if lists.get(c)}
    lists = {c: lists[c] for c in wanted}
    true = pandas.DataFrame(
        [(c, i, 1.0) for c, of in wanted.items() for i in of], columns=["userID", "itemID", "rating"]
    )
    rows = [(c, i, -float(at)) for c, of in lists.items() for at, i in enumerate(of)]
    listed = pandas.DataFrame(rows, columns=["userID", "itemID", "prediction"])
    ours = dict(zip(metric_names(CUTOFFS), measured(lists, wanted).mean(0), strict=True))
    for k in CUTOFFS:
        for name, of in (("recall", theirs.recall_at_k), ("precision", theirs.precision_at_k),
                         ("map", theirs.map_at_k), ("ndcg", theirs.ndcg_at_k)):  # fmt: skip
            assert ours[f"{name}@{k}"] == pytest.approx(of(true, listed, k=k, relevancy_method="top_k"), abs=1e-9)


def test_exposure_in_closed_form() -> None:
    """Four items, listed 3, 1, 0, 0 times; wanted before 4, 2, 2, 0 times."""
    found = exposure(np.array([3, 1, 0, 0]), np.array([4, 2, 2, 0]))
    assert found == {
        "coverage": 0.5,
        "gini": pytest.approx((-3 * 0 - 1 * 0 + 1 * 1 + 3 * 3) / (4 * 4)),
        "popularity": (3 * 4 + 2) / 4,
        "novelty": (3 * 1 + 2) / 4,  # 4 of 8 are one bit, 2 of 8 two
        "unknown": 0.0,
    }
    assert exposure(np.array([0, 0]), np.array([1, 0]))["gini"] is None
    assert exposure(np.array([2, 2]), np.array([0, 1])) == {
        "coverage": 1.0, "gini": 0.0, "popularity": 0.5, "novelty": 0.0, "unknown": 0.5
    }  # fmt: skip
