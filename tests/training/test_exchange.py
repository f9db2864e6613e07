"""Ranks with one table agree, from each other's marks alone, on places in the lanes and on who updates which row."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.exchange import _number, _places

TABLE = 40
TOUCHED = st.dictionaries(st.integers(0, TABLE - 1), st.booleans(), max_size=TABLE)  # row -> whether more than once


@settings(deadline=None)
@given(st.lists(st.lists(TOUCHED, min_size=3, max_size=3), min_size=1, max_size=4), st.sampled_from([1, 2**31 - 200]))
def test_rows_that_several_add_to_have_one_place_and_one_owner(steps: list[list[dict[int, bool]]], base: int) -> None:
    marks = np.zeros((3, TABLE), np.int32)
    for ranks in steps:
        ids = [np.array(list(rows), np.int64) for rows in ranks]
        repeat, numbers = [], []
        for rank, rows in enumerate(ranks):
            again = np.array(list(rows.values()), bool)
            repeat.append(np.where(again, np.cumsum(again) - 1, -1).astype(np.int32))
            numbers.append(np.empty(len(rows), np.int32))
            _number(ids[rank], repeat[rank], int(again.sum()), base, marks[rank], numbers[rank])
        counts = np.array([len(rows) for rows in ranks])
        starts, repeats = np.cumsum(counts) - counts, np.array([sum(rows.values()) for rows in ranks])
        touching = Counter(row for rows in ranks for row in rows)
        place_of: dict[int, set[int]] = {}
        updated: list[int] = []
        for rank, rows in enumerate(ranks):
            places, own_ids, own_places = (np.empty(len(rows), kind) for kind in (np.int32, np.int64, np.int32))
            own, common = _places(
                ids[rank], repeat[rank], numbers[rank], base, marks.reshape(-1), repeats, starts, rank, places,
                own_ids, own_places,
            )  # fmt: skip
            lonely = [touching[row] == 1 and not again for row, again in rows.items()]
            assert list(places < 0) == lonely
            assert common == len(rows) - sum(lonely)
            for row, place in zip(rows, places, strict=True):
                if place >= 0:
                    place_of.setdefault(row, set()).add(int(place))
            for row, place in zip(own_ids[:own], own_places[:own], strict=True):
                place_of[int(row)].add(int(place))
                updated.append(int(row))
                several = any(other.get(int(row)) for other in ranks)
                assert rows[int(row)] or not several  # one that has it more than once, if any
        assert all(len(places) == 1 for places in place_of.values())
        assert len({place for places in place_of.values() for place in places}) == len(place_of)
        assert sorted(updated) == sorted(place_of)
        base += int(counts.max(initial=0))
