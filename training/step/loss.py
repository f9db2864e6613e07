"""The logloss of a model as a module to wrap in DistributedDataParallel, in one compiled pass where there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fieldwise.training.models.base import Model, at_least_one
from fieldwise.training.models.compiled import NONE
from fieldwise.training.models.loss import logloss


class Loss(nn.Module):
    """``loss, logits = Loss(model)(rows, index, factor, label, weight, total)`` with loss = sum of w * logloss / total.

    Wrap this in DistributedDataParallel. Logits are for reports: they carry no gradient.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, rows: Tensor, index: Tensor, factor: Tensor, label: Tensor, weight: Tensor | None, total: float
    ) -> tuple[Tensor, Tensor]:
        if self.model.compiled_for(rows):
            rows = at_least_one(rows)
            loss, logits = _FusedLoss.apply(rows, self.model.bias, index, factor, label, weight, total, self.model)  # type: ignore[no-untyped-call]
            return loss, logits
        logits = self.model(rows, index, factor)
        return logloss(logits, label, weight, total), logits.detach()


class _FusedLoss(torch.autograd.Function):
    """The gradient is ready after the forward pass; backward only hands it over."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, bias: Tensor, index: Tensor, factor: Tensor, label: Tensor, weight: Tensor | None,
        total: float, model: Model,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        loss, logits, by_bias, by_rows = model.form.loss(
            rows.detach().contiguous().numpy(), float(bias.detach()), index, factor, label.numpy(),
            NONE if weight is None else weight.numpy(), 1.0 / total,
        )  # fmt: skip
        ctx.grads = torch.from_numpy(by_rows), bias.detach().new_full(bias.shape, by_bias)
        scores = torch.from_numpy(logits)
        ctx.mark_non_differentiable(scores)
        return rows.new_tensor(loss / total), scores

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        by_rows, by_bias = ctx.grads if float(by_loss) == 1.0 else (grad * by_loss for grad in ctx.grads)
        return by_rows, by_bias, *(None,) * 6
