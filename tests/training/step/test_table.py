"""The embedding table's start and growth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fieldwise.training.step.table import EmbeddingTable, copy


def test_start_depends_on_seed_row_and_column_alone() -> None:
    small, large = (EmbeddingTable(rows, 5, seed=7, scale=0.1).weight for rows in (50, 200))
    assert torch.equal(small, large[:50])
    assert not torch.equal(small[:, 1:], EmbeddingTable(50, 5, seed=8, scale=0.1).weight[:, 1:])
    assert len(np.unique(large[:, 1:].numpy())) > 790


def test_linear_weights_start_at_zero_and_latent_ones_uniform() -> None:
    weight = EmbeddingTable(4000, 9, seed=1, scale=0.05).weight
    assert not weight[:, 0].any()
    latent = weight[:, 1:]
    assert latent.std().item() == pytest.approx(0.05, rel=0.02)
    assert latent.mean().item() == pytest.approx(0, abs=0.002)
    assert latent.abs().max().item() <= 0.05 * 3**0.5 + 1e-6


def test_start_is_pinned() -> None:
    """A change here changes every trained bundle."""
    first = EmbeddingTable(2, 4, seed=42, scale=1.0).weight[1].tolist()
    assert first == pytest.approx([0.0, -1.3689564, -0.4395404, 0.0202729], abs=1e-6)


def test_gather_is_a_leaf_apart_from_the_table() -> None:
    table = EmbeddingTable(30, 4, seed=3, scale=0.2)
    rows = table.gather(torch.tensor([4, 2]))
    assert rows.is_leaf
    assert rows.requires_grad
    assert torch.equal(rows.detach(), table.weight[[4, 2]])
    rows.sum().backward()
    assert rows.grad is not None
    assert rows.grad.shape == (2, 4)


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 3, 200_000])
def test_a_copy_has_the_same_numbers(rows: int, kept: torch.dtype) -> None:
    weights = torch.randn(rows, 5, generator=torch.Generator().manual_seed(1)).to(kept)
    into, rounded = torch.empty_like(weights), torch.zeros(rows, 5)
    copy(weights, into)
    copy(weights, rounded)
    assert torch.equal(into, weights)
    assert torch.equal(rounded, weights.float())
