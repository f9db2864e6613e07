"""The training step in plain torch: any model, any device. `training.step.fused.FusedStep` is its compiled twin.

A batch's rows are gathered from the table, the model makes logits of them, autograd leaves the gradient of

    sum over the global batch of w * logloss / sum of w

at the rows and at the dense parameters, the ranks sum theirs, and the rows are updated.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fieldwise.features.arrays import Float32
from fieldwise.training.models.base import Model
from fieldwise.training.step.exchange import Exchange, Union
from fieldwise.training.step.lookup import Compact
from fieldwise.training.step.loss import Loss
from fieldwise.training.step.optim import RowOptimizer
from fieldwise.training.step.table import EmbeddingTable


class Gradient(NamedTuple):
    """What a step knows before it updates anything; all but ``logits`` is of the global batch."""

    grad: Tensor  # [G, width] of the rows union.ids
    loss: float
    rows: int
    logits: Tensor  # of this rank's rows


class PlainStep:
    """Gather, forward, backward, sum over the ranks, update of the table; dense parameters get their ``grad``.

    Args:
        accumulate: parts in which the rows pass through the model, their gradients summed.
    """

    def __init__(
        self, model: Model, table: EmbeddingTable, optimizer: RowOptimizer, exchange: Exchange, *, accumulate: int = 1
    ) -> None:
        self.model, self.table, self.optimizer, self.exchange = model, table, optimizer, exchange
        self.accumulate, self.ranks = accumulate, exchange.world.size
        self.loss = Loss(model) if self.ranks == 1 else DistributedDataParallel(Loss(model))

    def __call__(
        self, compact: Compact, union: Union, label: Float32, weight: Float32 | None, lr: float, l2: float = 0.0
    ) -> tuple[float, int, Tensor]:
        """One step on a looked-up batch: (loss, rows of the global batch, logits [B]). Updates nothing if the loss is
        not finite."""
        grad, loss, rows, logits = self.gradient(compact, union, label, weight)
        if math.isfinite(loss):
            self.optimizer.step(self.table, union.ids.to(grad.device), grad, lr, l2)
        return loss, rows, logits

    def gradient(self, compact: Compact, union: Union, label: Float32, weight: Float32 | None) -> Gradient:
        """Of the loss over the global batch; ``union`` is that of ``compact.ids``, as the exchange gave it."""
        self.model.train()
        self.model.zero_grad()
        rows = self.table.gather(compact.ids.to(self.table.weight.device))
        rows.register_hook(self.exchange.lap)  # type: ignore[no-untyped-call]
        of = [t if t is None else t.to(rows.device) for t in (compact.index, compact.factor, *_tensors(label, weight))]
        loss, scores = rows.new_zeros(()), []
        size = max(1, -(-len(label) // self.accumulate))
        for first in range(0, max(1, len(label)), size):
            index, factor, labels, weights = (t if t is None else t[first : first + size] for t in of)
            with self._exchanging_dense(first + size >= len(label)):
                value, logits = self.loss(rows, index, factor, labels, weights, union.weight or 1.0)
                value.backward()
            loss += value.detach()
            scores.append(logits)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= self.ranks  # DDP averages, but the loss is divided by the global weight already
        assert rows.grad is not None
        grad, sums = self.exchange.sum_rows(union, rows.grad, torch.stack([loss, loss.new_tensor(len(label))]))
        total, trained = sums.tolist()
        return Gradient(grad, total, int(trained), torch.cat(scores))

    def _exchanging_dense(self, last: bool) -> AbstractContextManager[None]:
        """DDP sums the dense gradients of a step's last part, those of the parts before included."""
        return nullcontext() if last or not isinstance(self.loss, DistributedDataParallel) else self.loss.no_sync()


def reseed(*place: int) -> None:
    """Torch's randomness in a step (dropout) becomes a function of its place: seed, epoch, step, rank.

    No generator's state is then part of a checkpoint, and a resumed run draws what it would have drawn.
    """
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))


def _tensors(label: Float32, weight: Float32 | None) -> tuple[Tensor, Tensor | None]:
    return torch.from_numpy(label), None if weight is None else torch.from_numpy(weight)
