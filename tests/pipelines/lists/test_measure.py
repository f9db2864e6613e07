"""Random places, intervals, and contexts read again from a stream."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.pipelines.lists.measure import random_places
from fieldwise.pipelines.lists.packed import EVENT, LISTED, whole_contexts
from fieldwise.pipelines.lists.sums import BLOCKS, Sums, estimates
from fieldwise.pipelines.lists.tasks import packed


def test_random_places_are_those_of_a_random_list() -> None:
    """Three wanted items of five: all 60 ways to place them are equally likely (chi-squared, 59 degrees of freedom)."""
    contexts = 60_000
    context, item = np.repeat(np.arange(contexts), 3), np.tile(np.arange(3), contexts)
    hashes = np.random.default_rng(1).integers(0, 1 << 63, contexts, dtype=np.uint64)
    places = random_places(context, item, np.full(len(context), 5), hashes[context]).reshape(-1, 3)
    ways = {way: at for at, way in enumerate(permutations(range(1, 6), 3))}
    counts = np.bincount([ways[tuple(row)] for row in places.tolist()], minlength=60)
    assert ((counts - contexts / 60) ** 2 / (contexts / 60)).sum() < 98.3  # exceeded once in a thousand


def test_a_context_that_wanted_everything_gets_every_place() -> None:
    places = random_places(np.zeros(40, np.int64), np.arange(40), np.full(40, 40), np.full(40, 5, np.uint64))
    assert sorted(places.tolist()) == list(range(1, 41))


def test_intervals_are_the_bootstrap_over_contexts() -> None:
    """Of a mean of 400 contexts: half the interval is 1.96 standard errors, within what a thousand draws scatter."""
    draw = np.random.default_rng(2)
    values = draw.uniform(size=(400, 2))
    sums = Sums("", BLOCKS, 2, "")
    sums.add(sums.codes([""] * 400), draw.integers(0, 1 << 40, 400), values)
    weights = np.array([[1.0, 0, 1], [0, 1, -1]])
    found = estimates(sums.table[0], 0.95, weights)
    for estimate, column in zip(found, (values @ weights).T, strict=True):
        assert estimate.value == pytest.approx(column.mean(), abs=1e-10)
        assert estimate.low is not None
        assert estimate.high is not None
        assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * column.std() / 20, rel=0.1)
    assert found == estimates(sums.table[0], 0.95, weights)


def test_one_block_has_no_interval() -> None:
    sums = Sums("", BLOCKS, 1, "")
    sums.add(sums.codes([""]), np.array([3]), np.array([[0.25]]))
    assert estimates(sums.table[0], 0.95, np.eye(1)) == [(0.25, None, None)]


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_a_stream_gives_contexts_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldwise.pipelines.lists.packed._RECORDS", 20)
    draw = np.random.default_rng(4)
    names = [f"c{n}" for n in draw.integers(0, 30, 500)]
    item, kind = draw.integers(0, 9, 500), draw.integers(0, 2, 500)
    parts = []
    for begin in range(0, 500, 50):
        for which in (LISTED, EVENT):
            mine = begin + np.flatnonzero(kind[begin : begin + 50] == which)
            contexts = pa.array([names[at] for at in mine])
            parts.append(packed(which, contexts, item[mine], mine.astype(np.float64)))
    table = pa.Table.from_batches(parts).sort_by([("key", "ascending"), ("context", "ascending")]).combine_chunks()
    seen: dict[str, list[tuple[int, int, float]]] = {}
    for contexts in whole_contexts(iter(table.to_batches(max_chunksize=rows))):
        for owner, *record in zip(contexts.context, contexts.kind, contexts.item, contexts.value, strict=True):
            seen.setdefault(contexts.ids[int(owner)].as_py(), []).append(tuple(map(float, record)))  # type: ignore[arg-type]
        assert not set(contexts.ids.to_pylist()) - set(seen)
    expected = [
        (name, float(k), float(i), float(at)) for at, (name, k, i) in enumerate(zip(names, kind, item, strict=True))
    ]
    assert sorted((name, *record) for name, of in seen.items() for record in of) == sorted(expected)
