"""The optimizer of dense parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fieldwise.training.step.optim import OPTIMIZERS, Adagrad
from fieldwise.training.step.table import Parameter


class DenseOptimizer:
    """Steps of a model's dense parameters, which every batch touches whole; Adagrad where a kind is for rows.

    On the CPU in numpy: torch's own optimizers take half a millisecond for a bias while other threads read ahead,
    since every operation of torch lets go of Python's lock.

    Args:
        share: of the rate that `step` is given.
        l2: penalty l2/2 * |w|^2 in each step, on all but the logit's bias.
    """

    def __init__(self, kind: str, model: nn.Module, *, share: float = 1.0, l2: float = 0.0) -> None:
        self._share, self._l2 = share, l2
        rule = OPTIMIZERS[kind] if kind in ("adam", "sgd") else Adagrad
        self._parts = {name: (each, rule(Parameter(each))) for name, each in model.named_parameters()}

    def step(self, lr: float) -> None:
        """Update the parameters that have a gradient."""
        for name, (parameter, rule) in self._parts.items():
            if parameter.grad is not None:
                rule.steps += 1
                state = {part: _flat(matrix) for part, matrix in rule.state.items()}
                weight = _flat(parameter.detach())
                l2 = 0.0 if name == "bias" else self._l2
                weight[:] = rule.update(weight, state, _flat(parameter.grad), lr * self._share, l2)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by parameter; the matrices are not copied."""
        return {f"{name}.{key}": t for name, (_, rule) in self._parts.items() for key, t in rule.state_dict().items()}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Take over a ``state_dict`` of the same kind and parameters."""
        for name, (_, rule) in self._parts.items():
            rule.load_state_dict({key: saved[f"{name}.{key}"] for key in rule.state_dict()})


def _flat(tensor: Tensor) -> Any:
    """All numbers, on the CPU as numpy's view of them."""
    return tensor.view(-1) if tensor.device.type != "cpu" else tensor.numpy().reshape(-1)
