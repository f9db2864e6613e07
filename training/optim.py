"""Optimizers that see only the rows a batch touched.

Every kind takes the summed gradient g of U distinct rows, adds L2 once per touched row and step (g += l2 * w), and
updates those rows and their state; all other rows and states stay as they are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from features.errors import ConfigError
from training.table import EmbeddingTable


class RowOptimizer:
    """Base: state tensors of the table's shape, and the number of steps taken.

    Args:
        table: the table whose rows are updated; fixes the state's shape.
    """

    states: ClassVar[tuple[str, ...]] = ()
    """Names of the state matrices [rows, width]; memory is (1 + len(states)) * rows * width * 4 bytes."""

    def __init__(self, table: EmbeddingTable) -> None:
        self.steps = 0
        self.state = {name: torch.zeros_like(table.weight) for name in self.states}

    def step(self, table: EmbeddingTable, ids: Tensor, grad: Tensor, lr: float, l2: float = 0.0) -> None:
        """Update rows ``ids`` [U] (distinct) with gradient ``grad`` [U, width]."""
        self.steps += 1
        rows = table.weight[ids]
        state = {name: matrix[ids] for name, matrix in self.state.items()}
        table.weight[ids] = self.update(rows, state, grad + l2 * rows if l2 else grad, lr)
        for name, touched in state.items():
            self.state[name][ids] = touched

    def update(self, rows: Tensor, state: dict[str, Tensor], grad: Tensor, lr: float) -> Tensor:
        """New rows; ``state`` is changed in place."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps), **self.state}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        self.steps = int(saved["steps"])
        for name, matrix in self.state.items():
            matrix.copy_(saved[name])


class SGD(RowOptimizer):
    """``w -= lr g``."""

    def update(self, rows: Tensor, state: dict[str, Tensor], grad: Tensor, lr: float) -> Tensor:
        return rows - lr * grad


class Adagrad(RowOptimizer):
    """``n += g^2, w -= lr g / (sqrt(n) + eps)`` (Duchi et al. 2011)."""

    states = ("sum",)
    eps = 1e-10

    def update(self, rows: Tensor, state: dict[str, Tensor], grad: Tensor, lr: float) -> Tensor:
        state["sum"].addcmul_(grad, grad)
        return rows - lr * grad / (state["sum"].sqrt() + self.eps)


class Adam(RowOptimizer):
    """Lazy Adam: moments of touched rows only, bias correction by the step number, as torch's SparseAdam."""

    states = ("mean", "square")
    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def update(self, rows: Tensor, state: dict[str, Tensor], grad: Tensor, lr: float) -> Tensor:
        mean = state["mean"].lerp_(grad, 1 - self.beta1)
        square = state["square"].mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        rate = lr * (1 - self.beta2**self.steps) ** 0.5 / (1 - self.beta1**self.steps)
        return rows - rate * mean / (square.sqrt() + self.eps)


OPTIMIZERS: dict[str, type[RowOptimizer]] = {"adagrad": Adagrad, "adam": Adam, "sgd": SGD}


def build_optimizer(kind: str, table: EmbeddingTable) -> RowOptimizer:
    """The registered optimizer ``kind`` with fresh state for ``table``."""
    if kind not in OPTIMIZERS:
        raise ConfigError(
            "training.optimizer",
            expected=f"one of {sorted(OPTIMIZERS)}",
            found=repr(kind),
            fix="Name a registered optimizer.",
        )
    return OPTIMIZERS[kind](table)
