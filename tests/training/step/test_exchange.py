"""Ranks with one table agree, from each other's marks alone, on places in the lanes and on who updates which row."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.training.kernels.table import find_places, gather_places, write_marks

RANKS, TABLE = 3, 40
TOUCHED = st.dictionaries(st.integers(0, TABLE - 1), st.booleans(), max_size=TABLE)  # row -> whether more than once
STEPS = st.lists(st.lists(TOUCHED, min_size=RANKS, max_size=RANKS), min_size=1, max_size=4)


@settings(deadline=None)
@given(STEPS, st.sampled_from([0, 2**31 - 8 * TABLE - 2]))
def test_rows_that_several_add_to_have_a_place_on_each_and_one_owner(
    steps: list[list[dict[int, bool]]], base: int
) -> None:
    buffers, lanes = np.zeros((2, RANKS, TABLE), np.int32), np.array([0, 0, 1, 2])  # rank 0 has two
    for step, ranks in enumerate(steps):
        marks, ids = buffers[step % 2], [np.array(list(rows), np.int64) for rows in ranks]
        repeat = [np.array([0 if again else -1 for again in rows.values()], np.int32) for rows in ranks]
        for rank in range(RANKS):
            write_marks(ids[rank], repeat[rank], base, marks[rank])
        touching = Counter(row for rows in ranks for row in rows)
        place_of: list[dict[int, int]] = []
        owned: list[np.ndarray] = []
        for rank, rows in enumerate(ranks):
            mine, own_ids = np.empty(len(rows), np.int32), np.empty(len(rows), np.int64)
            own, places = find_places(ids[rank], repeat[rank], base, marks, rank, mine, own_ids)
            assert list(mine < 0) == [touching[row] == 1 and not again for row, again in rows.items()]
            assert sorted(mine[mine >= 0]) == list(range(places))
            place_of.append({row: int(place) for row, place in zip(rows, mine, strict=True) if place >= 0})
            owned.append(own_ids[:own])
        for rank, rows in enumerate(ranks):
            found = np.empty((len(owned[rank]), len(lanes)), np.int32)
            gather_places(owned[rank], base, marks, lanes, found)
            for row, places_of_row in zip(owned[rank], found, strict=True):
                assert list(places_of_row) == [place_of[of].get(row, -1) for of in lanes]
                assert rows[row] or not any(other.get(row) for other in ranks)  # one that has it more than once, if any
        assert sorted(row for of in owned for row in of) == sorted(set().union(*place_of))
        base += 2 * max(map(len, ranks))
