"""float32 into bfloat16 at random: to a neighbour, without bias, compiled as in torch."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.training.kernels.vectors import load, put
from fieldwise.training.rounding import STEPS, rounded
from fieldwise.training.step.optim import build_optimizer
from fieldwise.training.step.table import EmbeddingTable

UPPER = 1 << 16


@nb.njit
def compiled(into, x, vectors, step):  # type: ignore[no-untyped-def]
    """x into the table that begins at into[0]: so many vectors of 16, then number by number."""
    for i in range(0, 16 * vectors, 16):
        put(into, i, load(x, i, 16), step)
    for i in range(16 * vectors, len(x)):
        put(into, i, x[i], step)


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint32)


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50),
    st.integers(0, 3),
    st.integers(0, STEPS - 1),
)
def test_to_a_neighbour_and_compiled_as_in_torch(numbers: list[float], vectors: int, step: int) -> None:
    x = np.array(numbers, np.float32)
    into = np.empty(len(x), np.int16)
    compiled(into, x, min(vectors, len(x) // 16), np.float32(step))
    half = rounded(torch.from_numpy(x)[None], torch.tensor([0]), step)[0]
    assert torch.equal(torch.from_numpy(into).view(torch.bfloat16).view(torch.int16), half.view(torch.int16))
    wide = bits(half.float().numpy())
    lower = bits(x) // UPPER * UPPER
    assert ((wide == lower) | ((wide == lower + UPPER) & (bits(x) > lower))).all()


def test_without_bias_over_steps_and_places() -> None:
    x = torch.full((1, 1000), -1.0 - 2**-7 * 0.3)  # 0.3 of the way to the next
    steps = torch.cat([rounded(x, torch.tensor([3]), step) for step in range(1, 1001)]).float()
    away = (steps < -1.0).float()
    assert away.mean().item() == pytest.approx(0.3, abs=0.002)
    for mean in (away.mean(0), away.mean(1)):
        assert mean.std().item() == pytest.approx((0.3 * 0.7 / 1000) ** 0.5, rel=0.1)


def test_steps_too_small_for_a_bfloat16_add_up() -> None:
    table = EmbeddingTable(4, 40, dtype=torch.bfloat16)
    table.weight.fill_(1.0)
    optimizer, ids = build_optimizer("sgd", table), torch.tensor([1, 3])
    for _ in range(1000):
        optimizer.step(table, ids, torch.ones(2, 40), 2e-4)
    assert table.weight[ids].float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (table.weight[[0, 2]] == 1).all()
    assert (torch.tensor(1.0).bfloat16() - 2e-4).item() == 1.0  # rounded to the nearest, none would show
