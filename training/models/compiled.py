"""The compiled kernels on torch tensors, and the interaction as an autograd function.

They equal the reference of `training.models.base` up to float32 rounding.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fieldwise.features.arrays import Float32, Int32, zeros
from fieldwise.features.errors import IntegrityError
from fieldwise.training.kernels import linear, passes
from fieldwise.training.threads import team

NONE = np.empty(0, np.float32)


_NO_FACTOR = np.empty((0, 0), np.float32)


_NO_IDS = np.empty(0, np.int64)


_NO_PLACE = np.empty(0, np.int32)


@dataclass(frozen=True, eq=False)
class Form:
    """A model as the kernels see it.

    Args:
        score: its name in ``kernels.SCORES``.
        fields, dim, width: F, k, and columns of a table row.
        field_of_column: int32 [K].
    """

    score: str
    fields: int
    dim: int
    width: int
    field_of_column: Int32

    def inputs(self, index: Tensor, factor: Tensor) -> tuple[bool, Int32, Float32]:
        """Whether every column is its own field with factor 1; index; factor (empty when it is)."""
        unit = is_unit(factor) and len(self.field_of_column) == self.fields
        weights: Float32 = _NO_FACTOR if unit else np.ascontiguousarray(factor.numpy(), np.float32)
        return unit, np.ascontiguousarray(index.numpy(), np.int32), weights

    def batch_pass(self, unit: bool, rule: str = "") -> Any:
        """The compiled pass; see `passes.batch_pass`."""
        return passes.batch_pass(self.score, self.fields, self.dim, self.width, unit, rule)

    def logits(self, rows: Float32, index: Tensor, factor: Tensor) -> Float32:
        """Logits [B] without the bias from rows [U, width]."""
        require_inside(index, len(rows))
        unit, at, weights = self.inputs(index, factor)
        logits = np.empty(len(at), np.float32)
        nothing = np.empty((team(len(at)).parts, 0), np.float32)
        self._run(passes.LOGITS, unit, rows, at, weights, np.float32(0), NONE, NONE, 0.0, logits, nothing)
        return logits

    def gradient(self, rows: Float32, index: Tensor, factor: Tensor, by_logit: Float32) -> Float32:
        """Gradient [U, width] of the rows from dloss/dlogit [B]."""
        unit, at, weights = self.inputs(index, factor)
        parts = self._parts(len(at), rows)
        self._run(passes.GRADIENT, unit, rows, at, weights, np.float32(0), by_logit, NONE, 0.0, NONE, parts)
        return self._summed(parts, rows)

    def loss(
        self, rows: Float32, bias: float, index: Tensor, factor: Tensor, label: Float32, weight: Float32, share: float
    ) -> tuple[float, Float32, float, Float32]:
        """In one pass: (``sum w * logloss``, logits, share * its derivatives by the bias and by the rows)."""
        require_inside(index, len(rows))
        unit, at, weights = self.inputs(index, factor)
        parts, logits = self._parts(len(at), rows), np.empty(len(at), np.float32)
        loss, by_bias = self._run(
            passes.LOSS, unit, rows, at, weights, np.float32(bias), label, weight, share, logits, parts
        )
        return loss, logits, by_bias, self._summed(parts, rows)

    def _run(
        self, task: int, unit: bool, rows: Float32, index: Int32, factor: Float32, bias: np.float32, label: Float32,
        weight: Float32, share: float, logits: Float32, parts: Float32,
    ) -> tuple[float, float]:  # fmt: skip
        run, workers = self.batch_pass(unit), team(len(index))
        bounds, taken = workers.cut(len(index))
        sums, values, columns = np.zeros((workers.parts, 2)), rows.reshape(-1), self.field_of_column
        workers.run(
            lambda: run(
                task, bounds, taken, sums, values, _NO_IDS, index, factor, columns, bias, label, weight, share, logits,
                parts, _NO_PLACE, (NONE,), NONE,
            )
        )  # fmt: skip
        return float(sums[:, 0].sum()), float(sums[:, 1].sum())

    @staticmethod
    def _parts(batch: int, rows: Float32) -> Float32:
        return zeros(team(batch).lanes(batch), rows.size)

    @staticmethod
    def _summed(parts: Float32, rows: Float32) -> Float32:
        if len(parts) > 1:
            count, size = parts.shape
            team(size).spread(size, lambda first, last: passes.add_parts(first, last, parts), count)
        return parts[0].reshape(rows.shape)


def linear_logits(weight: Tensor, bias: float, index: Tensor) -> Float32:
    """Logits [B] of linear weights [rows, 1] without padding, whose rows are ``index`` [B, K] in Fortran order."""
    values, rows, logits = weight.numpy().reshape(-1), index.numpy().T, np.empty(len(index), np.float32)
    team(len(logits)).spread(
        len(logits),
        lambda first, last: linear.linear_logits(first, last, values, rows, np.float32(bias), logits),
        len(rows),
    )
    return logits


def require_inside(index: Tensor, rows: int) -> None:
    """Kernels check no bounds, so the index of a batch is checked before they see it."""
    low, high = (int(index.numpy().min()), int(index.numpy().max())) if index.numel() else (0, rows - 1)
    if not 0 <= low <= high < rows:
        raise IntegrityError(
            "index", expected=f"positions in [0, {rows})", found=f"{low} to {high}",
            fix="Use rows and index of one lookup.",
        )  # fmt: skip


class Interaction(torch.autograd.Function):
    """``logits - bias`` of rows [U, width]; once differentiable, by the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, factor: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(rows, index, factor)
        ctx.form = form
        return torch.from_numpy(form.logits(rows.detach().contiguous().numpy(), index, factor))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logit: Tensor) -> tuple[Tensor, None, None, None]:
        rows, index, factor = ctx.saved_tensors
        grad = ctx.form.gradient(rows.detach().contiguous().numpy(), index, factor, by_logit.contiguous().numpy())
        return torch.from_numpy(grad), None, None, None


ONE = torch.ones(())


def is_unit(factor: torch.Tensor) -> bool:
    """Whether ``factor`` is the expanded 1 of a batch without padding and pooling."""
    return factor.data_ptr() == ONE.data_ptr()
