"""Nearest neighbours equal those of every pair computed by itself, ties by position."""

from __future__ import annotations

import numpy as np
import pytest

from fieldwise.training.scoring import neighbours as room
from fieldwise.training.scoring.neighbours import By, neighbours


def brute(vectors: np.ndarray, k: int, by: By) -> list[list[tuple[int, float]]]:
    """In plain loops over exact products."""
    wide = vectors.astype(np.float64)
    found = []
    for at, a in enumerate(wide):
        rows = []
        for other, b in enumerate(wide):
            value = float((a * b).sum())
            size = float(np.sqrt((a * a).sum()) * np.sqrt((b * b).sum()))
            value = value if by == "inner" else value / size if value else 0.0
            rows.append((-np.float32(value), other))
        found.append([(other, -value) for value, other in sorted(rows) if other != at][:k])
    return found


def planted(seed: int, n: int = 90, size: int = 6) -> np.ndarray:
    """Some vectors are equal, some scaled copies, some zero, some almost equal."""
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((n, size)).astype(np.float32)
    vectors[10:20] = vectors[0]
    vectors[20:30] = vectors[1] * 2
    vectors[30:33] = 0
    vectors[33:40] = vectors[2] * (1 + 1e-7)
    return vectors[draw.permutation(n)]


@pytest.mark.parametrize("by", ["cosine", "inner"])
@pytest.mark.parametrize("k", [1, 7, 89, 500])
def test_equals_brute_force(by: By, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_ROWS", 32)
    monkeypatch.setattr(room, "_COLUMNS", 17)
    vectors = planted(k)
    place, similarity = neighbours(vectors, np.arange(90), k, by)
    found = [list(zip(*row, strict=True)) for row in zip(place.tolist(), similarity.tolist(), strict=True)]
    assert found == [[(other, float(value)) for other, value in row] for row in brute(vectors, k, by)]


@pytest.mark.parametrize("by", ["cosine", "inner"])
def test_rows_do_not_depend_on_their_neighbours_in_a_block(by: By) -> None:
    vectors = planted(3)
    whole = neighbours(vectors, np.arange(90), 5, by)
    for rows in (np.array([7]), np.array([88, 3, 40])):
        for part, all_of in zip(neighbours(vectors, rows, 5, by), whole, strict=True):
            np.testing.assert_array_equal(part, all_of[rows])


def test_one_vector_has_no_neighbour() -> None:
    place, similarity = neighbours(np.ones((1, 3), np.float32), np.array([0]), 5, "cosine")
    assert place.shape == similarity.shape == (1, 0)
