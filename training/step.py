"""The training step: the logloss in one compiled pass, and the whole step of one process in two.

`Loss` equals ``logloss(model(...))`` and leaves gradients where autograd would. `FusedStep` also updates the table:
rows that occur once in the batch are updated between being read and leaving the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from features.errors import ConfigError
from training import kernels
from training.fused import NONE, Float32
from training.lookup import Compact
from training.model import Model, at_least_one, logloss
from training.optim import RowOptimizer
from training.table import EmbeddingTable, zeros
from training.threads import team


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
            rows.detach().contiguous().numpy(), float(bias.detach()), index, factor, label.numpy(), _array(weight),
            1.0 / total,
        )  # fmt: skip
        ctx.grads = torch.from_numpy(by_rows), bias.detach().new_full(bias.shape, by_bias)
        scores = torch.from_numpy(logits)
        ctx.mark_non_differentiable(scores)
        return rows.new_tensor(loss / total), scores

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        by_rows, by_bias = ctx.grads if float(by_loss) == 1.0 else (grad * by_loss for grad in ctx.grads)
        return by_rows, by_bias, *(None,) * 6


class FusedStep:
    """Forward, loss, gradient and update of the table, for one process on the CPU.

    Equals ``Loss``, ``backward`` and ``RowOptimizer.step`` in turn. A row whose logit is not finite updates nothing and
    makes the loss not finite.

    Raises:
        ConfigError: the model or the table has no compiled kernel; ask `serves` first.
    """

    def __init__(self, model: Model, table: EmbeddingTable, optimizer: RowOptimizer) -> None:
        if not self.serves(model, table):
            raise ConfigError(
                "fused step",
                expected="a model with a compiled kernel and its table on the CPU",
                found=f"{type(model).__name__} on {table.weight.device}",
                fix="Use Loss and RowOptimizer.step.",
            )
        self.model, self.table, self.optimizer = model, table, optimizer
        self._parts = zeros(1, 0)

    @staticmethod
    def serves(model: Model, table: EmbeddingTable) -> bool:
        """Whether this model and table have the compiled step."""
        return model.compiled_for(table.weight)

    def __call__(
        self, compact: Compact, label: Tensor, weight: Tensor | None, total: float, lr: float, l2: float = 0.0
    ) -> tuple[float, Tensor]:
        """One step on a looked-up batch: (loss, logits [B]); sets the bias's grad and updates the table.

        Args:
            label, weight: float32 [B].
            total: the batch's sum of weights.
        """
        step = self._compact if self.model.width == 1 else self._in_place
        loss, by_bias, logits = step(compact, label.numpy(), _array(weight), 1.0 / total, lr, l2)
        self.model.bias.grad = self.model.bias.detach().new_full(self.model.bias.shape, by_bias)
        return loss / total, torch.from_numpy(logits)

    def _compact(
        self, compact: Compact, label: Float32, weight: Float32, share: float, lr: float, l2: float
    ) -> tuple[float, float, Float32]:
        """Rows of one number: all the distinct ones of a batch fit into the cache, so they are gathered there first."""
        rows = at_least_one(self.table.gather(compact.ids).detach()).numpy()
        loss, logits, by_bias, by_rows = self.model.form.loss(
            rows, float(self.model.bias.detach()), compact.index, compact.factor, label, weight, share
        )
        self.optimizer.step(self.table, compact.ids, torch.from_numpy(by_rows[: len(compact.ids)]), lr, l2)
        return loss, by_bias, logits

    def _in_place(
        self, compact: Compact, label: Float32, weight: Float32, share: float, lr: float, l2: float
    ) -> tuple[float, float, Float32]:
        form, rule = self.model.form, self.optimizer.rule
        unit, index, factor = form.inputs(compact.index, compact.factor)
        ids, place = compact.ids.numpy(), compact.repeat.numpy()
        values, states, hyper = self.table.weight.numpy().reshape(-1), *self.optimizer.begin(lr, l2)
        workers = team(len(index))
        parts = self._gradients(workers.threads, int(place.max(initial=-1)) + 1)
        logits = np.empty(len(index), np.float32)
        first_half, second_half = form.batch_pass(unit, rule), kernels.repeated_rows(form.width, rule)
        bias = np.float32(float(self.model.bias.detach()))

        def rows_of_batch(part: int, first: int, last: int) -> Any:
            return first_half(
                kernels.LOSS, first, last, values, ids, index, factor, form.field_of_column, bias, label, weight, share,
                logits, parts[part], place, states, hyper,
            )  # fmt: skip

        sums = workers.share(len(index), rows_of_batch)
        workers.share(len(ids), lambda _, a, b: second_half(a, b, values, ids, parts, place, states, hyper))
        return sum(s[0] for s in sums), sum(s[1] for s in sums), logits

    def _gradients(self, threads: int, repeated: int) -> Float32:
        """A zeroed gradient of the repeated rows for every thread; the second half leaves it zeroed."""
        size = repeated * self.model.width
        if len(self._parts) < threads or self._parts.shape[1] < size:
            self._parts = zeros(threads, size + size // 4)
        return self._parts[:threads]


def _array(weight: Tensor | None) -> Float32:
    return NONE if weight is None else weight.numpy()
