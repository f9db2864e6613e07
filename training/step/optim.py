"""Optimizers that see only the rows a batch touched.

Every kind takes the summed gradient g of U distinct rows, adds L2 once per touched row and step (g += l2 * w, unless it
says otherwise), and updates those rows and their state; all other rows and states stay as they are. On the CPU the
update is compiled; ``update`` in plain torch is its oracle and serves other devices.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fieldwise.features.arrays import Float32
from fieldwise.features.errors import ConfigError
from fieldwise.training.kernels import passes
from fieldwise.training.models.compiled import NONE
from fieldwise.training.rounding import STEPS
from fieldwise.training.step.table import EmbeddingTable, Parameter
from fieldwise.training.threads import team


class RowOptimizer:
    """Base: state matrices beside the table, and the number of steps taken.

    Args:
        table: the table whose rows are updated, or a dense parameter; fixes the state's shape.
        l1: L1 penalty; only `Ftrl` has one.

    Raises:
        ConfigError: a penalty without effect, or a table this optimizer cannot serve.
    """

    rule: ClassVar[str]
    """Its compiled update in ``kernels.RULES``."""
    states: ClassVar[tuple[str, ...]] = ()
    """Names of the state matrices."""

    def __init__(self, table: EmbeddingTable | Parameter, *, l1: float = 0.0) -> None:
        self.steps, self.l1 = 0, l1
        if l1 and self.rule != "ftrl":
            raise ConfigError("training.l1", expected="0 (no effect here)", found=str(l1), fix="Use optimizer: ftrl.")
        self.state = {name: table.beside(self.state_width(table.width)) for name in self.states}

    @classmethod
    def state_width(cls, width: int) -> int:
        """Columns of a state matrix; memory is rows * (width + len(states) * state_width) * 4 bytes."""
        return width

    def step(self, table: EmbeddingTable, ids: Tensor, grad: Tensor, lr: float, l2: float = 0.0) -> None:
        """Update rows ``ids`` [U] (distinct) with gradient ``grad`` [U, width]."""
        states, hyper = self.begin(lr, l2)
        if table.weight.device.type != "cpu":
            return self._step_in_torch(table, ids, grad, lr, l2)
        run = passes.given_rows(table.width, self.rule)
        values, rows, grads = table.flat, ids.numpy(), grad.contiguous().numpy().reshape(-1)
        team(len(rows)).spread(
            len(rows), lambda first, last: run(first, last, values, rows, grads, states, hyper), table.width
        )

    def begin(self, lr: float, l2: float) -> tuple[tuple[Float32, ...], Float32]:
        """Count a step; the flat states and the numbers that the compiled update needs."""
        self.steps += 1
        states = tuple(matrix.numpy().reshape(-1) for matrix in self.state.values() if matrix.device.type == "cpu")
        return states or (NONE,), np.array([*self.hyper(lr, l2), self.steps % STEPS], np.float32)

    def hyper(self, lr: float, l2: float) -> tuple[float, ...]:
        """Rate and L2 of this step, then what else the kind's compiled update reads; its number follows."""
        return lr, l2

    def update(self, rows: Any, state: dict[str, Any], grad: Any, lr: float, l2: float) -> Any:
        """New rows from rows, their state (changed in place) and gradient [U, width]; dense parameters as numpy's."""
        raise NotImplementedError

    def _step_in_torch(self, table: EmbeddingTable, ids: Tensor, grad: Tensor, lr: float, l2: float) -> None:
        state = {name: matrix[ids] for name, matrix in self.state.items()}
        table.put(ids, self.update(table.weight[ids].float(), state, grad, lr, l2), self.steps % STEPS)
        for name, touched in state.items():
            self.state[name][ids] = touched

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs; the matrices are not copied."""
        return {"steps": torch.tensor(self.steps), **self.state}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Take over a ``state_dict`` of the same kind and shapes."""
        self.steps = int(saved["steps"])
        for name, matrix in self.state.items():
            matrix.copy_(saved[name])


class SGD(RowOptimizer):
    """``w -= lr g``."""

    rule = "sgd"

    def update(self, rows: Any, state: dict[str, Any], grad: Any, lr: float, l2: float) -> Any:
        return rows - lr * (grad + l2 * rows)


class Adagrad(RowOptimizer):
    """``n += g^2, w -= lr g / (sqrt(n) + eps)`` (Duchi et al. 2011)."""

    rule, states = "adagrad", ("sum",)
    eps = 1e-10

    def hyper(self, lr: float, l2: float) -> tuple[float, ...]:
        return lr, l2, self.eps

    def update(self, rows: Any, state: dict[str, Any], grad: Any, lr: float, l2: float) -> Any:
        g = grad + l2 * rows
        state["sum"] += g * g
        return rows - lr * g / (state["sum"] ** 0.5 + self.eps)


class RowwiseAdagrad(RowOptimizer):
    """Adagrad whose n is one number for a row's linear weight and one (the mean of g^2) for all its latent weights."""

    rule, states = "rowwise_adagrad", ("sum",)
    eps = 1e-10

    @classmethod
    def state_width(cls, width: int) -> int:
        return min(width, 2)

    def hyper(self, lr: float, l2: float) -> tuple[float, ...]:
        return lr, l2, self.eps

    def update(self, rows: Tensor, state: dict[str, Tensor], grad: Tensor, lr: float, l2: float) -> Tensor:
        g = grad + l2 * rows
        means = [part.square().mean(1) for part in (g[:, :1], g[:, 1:]) if part.shape[1]]
        state["sum"] += torch.stack(means, 1)
        spread = state["sum"][:, torch.arange(rows.shape[1], device=rows.device).clamp(max=1)]
        return rows - lr * g / (spread.sqrt() + self.eps)


class Adam(RowOptimizer):
    """Lazy Adam: moments of touched rows only, bias correction by the number of steps, as torch's SparseAdam."""

    rule, states = "adam", ("mean", "square")
    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def rate(self, lr: float) -> float:
        return float(lr * (1 - self.beta2**self.steps) ** 0.5 / (1 - self.beta1**self.steps))

    def hyper(self, lr: float, l2: float) -> tuple[float, ...]:
        return self.rate(lr), l2, self.eps, 1 - self.beta1, 1 - self.beta2

    def update(self, rows: Any, state: dict[str, Any], grad: Any, lr: float, l2: float) -> Any:
        g = grad + l2 * rows
        state["mean"] += (1 - self.beta1) * (g - state["mean"])
        state["square"] += (1 - self.beta2) * (g * g - state["square"])
        return rows - self.rate(lr) * state["mean"] / (state["square"] ** 0.5 + self.eps)


class Ftrl(RowOptimizer):
    """FTRL-Proximal with L1, so that weights become true zeros (McMahan et al. 2013); linear weights only.

        s = (sqrt(n + g^2) - sqrt(n)) / lr;  z += g - s w;  n += g^2
        w = 0 if |z| <= l1 else -(z - sign(z) l1) / ((beta + sqrt(n)) / lr + l2)

    L2 is part of that minimum and not of g. It starts from weights of zero.
    """

    rule, states = "ftrl", ("z", "n")
    beta = 1.0

    def __init__(self, table: EmbeddingTable | Parameter, *, l1: float = 0.0) -> None:
        if table.width != 1 or bool(table.weight.any()):
            raise ConfigError(
                "training.optimizer",
                expected="a model of linear weights that start at zero for ftrl",
                found=f"{table.width} weights a row" if table.width != 1 else "a warm start",
                fix="Use adagrad.",
            )
        super().__init__(table, l1=l1)

    def hyper(self, lr: float, l2: float) -> tuple[float, ...]:
        return lr, l2, self.beta, self.l1

    def update(self, rows: Tensor, state: dict[str, Tensor], grad: Tensor, lr: float, l2: float) -> Tensor:
        z, n = state["z"], state["n"]
        z += grad - ((n + grad.square()).sqrt() - n.sqrt()) / lr * rows
        n += grad.square()
        return -(z - z.clamp(-self.l1, self.l1)) / ((self.beta + n.sqrt()) / lr + l2)


OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    "adagrad": Adagrad,
    "rowwise_adagrad": RowwiseAdagrad,
    "adam": Adam,
    "ftrl": Ftrl,
    "sgd": SGD,
}


def build_optimizer(kind: str, table: EmbeddingTable, *, l1: float = 0.0) -> RowOptimizer:
    """The registered optimizer ``kind`` with fresh state for ``table``."""
    if kind not in OPTIMIZERS:
        known = f"one of {sorted(OPTIMIZERS)}"
        raise ConfigError("training.optimizer", expected=known, found=repr(kind), fix="Name a registered optimizer.")
    return OPTIMIZERS[kind](table, l1=l1)
