"""Row optimizers against torch's own, against their torch form, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fieldwise.features.errors import ConfigError
from fieldwise.training.step.dense import DenseOptimizer
from fieldwise.training.step.optim import OPTIMIZERS, build_optimizer
from fieldwise.training.step.table import EmbeddingTable

WIDTHS = [1, 5, 37]  # each is a compilation: one lane, below 16, and 2 x 16 with a rest
TORCH: dict[str, Any] = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.SparseAdam, "sgd": torch.optim.SGD}


def table_of(width: int, dtype: torch.dtype = torch.float32) -> EmbeddingTable:
    return EmbeddingTable(11, width, seed=1, scale=0.5 if width > 1 else 0.0, dtype=dtype)


def gradients(width: int, steps: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(width)
    return [
        (torch.randperm(11, generator=generator)[:4], torch.randn(4, width, generator=generator)) for _ in range(steps)
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", sorted(TORCH))
def test_equals_torch_on_sparse_gradients(kind: str, width: int) -> None:
    table = table_of(width)
    optimizer = build_optimizer(kind, table)
    weight = torch.nn.Parameter(table.weight.clone())
    theirs = TORCH[kind]([weight], lr=0.1)
    for ids, grad in gradients(width):
        optimizer.step(table, ids, grad, 0.1)
        weight.grad = torch.sparse_coo_tensor(ids[None], grad, weight.shape).coalesce()
        theirs.step()
    torch.testing.assert_close(table.weight, weight.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "width", "dtype"),
    [(kind, width, torch.float32) for kind in sorted(OPTIMIZERS) for width in WIDTHS if kind != "ftrl" or width == 1]
    + [
        (kind, width, torch.bfloat16) for kind in sorted(OPTIMIZERS) for width in WIDTHS if width > 1 and kind != "ftrl"
    ],
)
def test_compiled_equals_torch_form_and_leaves_other_rows_alone(kind: str, width: int, dtype: torch.dtype) -> None:
    ours, oracle = table_of(width, dtype), table_of(width, dtype)
    compiled, plain = build_optimizer(kind, ours), build_optimizer(kind, oracle)
    for ids, grad in gradients(width):
        before = ours.weight.clone()
        compiled.step(ours, ids, grad, 0.1, 0.03)
        plain.begin(0.1, 0.03)
        plain._step_in_torch(oracle, ids, grad, 0.1, 0.03)
        others = [row for row in range(11) if row not in ids.tolist()]
        assert torch.equal(ours.weight[others], before[others])
    torch.testing.assert_close(ours.weight, oracle.weight, rtol=1e-5, atol=1e-6)
    for name, state in compiled.state.items():
        assert state.dtype == torch.float32
        torch.testing.assert_close(state, plain.state[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "torchs"),
    [
        ("adagrad", torch.optim.Adagrad),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("ftrl", torch.optim.Adagrad),
    ],
)
def test_dense_parameters_equal_torchs_and_go_on_to_the_bit(kind: str, torchs: Any) -> None:
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer, oracle = DenseOptimizer(kind, ours), torchs(theirs.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = other.grad = torch.randn(mine.shape, generator=generator) if step != 3 else None
        if step == 4:
            resumed = DenseOptimizer(kind, ours)
            resumed.load_state_dict(optimizer.state_dict())
            optimizer = resumed
        optimizer.step(0.1)
        oracle.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_dense_parameters_have_a_rate_and_a_penalty_of_their_own() -> None:
    """SGD: w - share lr (g + l2 w), the bias without the penalty."""
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(3.0)
    model.weight.grad, model.bias.grad = torch.ones(1, 2), torch.ones(1)
    DenseOptimizer("sgd", model, share=0.5, l2=0.25).step(0.1)
    torch.testing.assert_close(model.weight.detach(), torch.full((1, 2), 2 - 0.05 * (1 + 0.25 * 2)))
    torch.testing.assert_close(model.bias.detach(), torch.tensor([3 - 0.05]))


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_a_resumed_optimizer_goes_on_to_the_bit(kind: str) -> None:
    table = table_of(1)
    optimizer = build_optimizer(kind, table)
    steps = gradients(1)
    for ids, grad in steps[:3]:
        optimizer.step(table, ids, grad, 0.1, 0.01)
    resumed_table = table_of(1)
    resumed = build_optimizer(kind, resumed_table)
    resumed.load_state_dict({name: value.clone() for name, value in optimizer.state_dict().items()})
    resumed_table.weight.copy_(table.weight)
    for ids, grad in steps[3:]:
        optimizer.step(table, ids, grad, 0.1, 0.01)
        resumed.step(resumed_table, ids, grad, 0.1, 0.01)
    assert torch.equal(table.weight, resumed_table.weight)


def test_l2_is_applied_once_per_touched_row() -> None:
    table = table_of(3)
    before = table.weight.clone()
    build_optimizer("sgd", table).step(table, torch.tensor([2]), torch.zeros(1, 3), 0.5, 0.1)
    torch.testing.assert_close(table.weight[2], before[2] * (1 - 0.05))


def test_rowwise_state_is_two_numbers_a_row() -> None:
    assert build_optimizer("rowwise_adagrad", table_of(37)).state["sum"].shape == (11, 2)


def test_ftrl_reaches_true_zeros_and_keeps_strong_weights() -> None:
    table = table_of(1)
    optimizer = build_optimizer("ftrl", table, l1=1.0)
    for _ in range(20):
        optimizer.step(table, torch.tensor([0, 1]), torch.tensor([[0.04], [-1.0]]), 0.1)
    assert table.weight[0].item() == 0.0
    assert table.weight[1].item() > 0.1


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.optimizer: expected a model of linear weights.*found 5 weights"):
        build_optimizer("ftrl", table_of(5))
    warm = table_of(1)
    warm.weight[3] = 0.5
    with pytest.raises(ConfigError, match="found a warm start"):
        build_optimizer("ftrl", warm)
    with pytest.raises(ConfigError, match=r"training\.l1: expected 0"):
        build_optimizer("adagrad", table_of(1), l1=0.1)
    with pytest.raises(ConfigError, match=r"expected one of .*'adagrad'.*, found 'lbfgs'"):
        build_optimizer("lbfgs", table_of(1))
