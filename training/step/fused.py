"""The training step: the logloss in one compiled pass, and the whole step in two.

`Loss` equals ``logloss(model(...))`` and leaves gradients where autograd would. `FusedStep` also updates the table:
rows that occur once in the batch are updated between being read and leaving the processor's cache.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fieldwise.features.arrays import Float32, zeros
from fieldwise.features.errors import ConfigError
from fieldwise.training.kernels import linear, passes
from fieldwise.training.models.base import Model, at_least_one
from fieldwise.training.models.compiled import NONE
from fieldwise.training.step.exchange import Exchange, Union
from fieldwise.training.step.lookup import Compact, columns_apart, dense, lanes_of
from fieldwise.training.step.optim import RowOptimizer
from fieldwise.training.step.table import EmbeddingTable
from fieldwise.training.threads import team


class FusedStep:
    """Forward, loss, gradient, exchange and update of the table, on the CPU.

    Its own Python is numpy's: an operation of torch lets go of Python's lock, and other threads keep it for a while.

    Equals its plain twin, `training.step.plain.PlainStep`, where it serves. A row whose logit is not finite updates
    nothing and makes the loss not finite.

    Raises:
        ConfigError: the model or the table has no compiled step for so many ranks; ask `serves` first.
    """

    def __init__(self, model: Model, table: EmbeddingTable, optimizer: RowOptimizer, exchange: Exchange) -> None:
        if not self.serves(model, table.weight.device, exchange.world.size):
            raise ConfigError(
                "fused step",
                expected="a model with a compiled kernel and its table on the CPU",
                found=f"{type(model).__name__} on {table.weight.device}, {exchange.world.size} ranks",
                fix="Use PlainStep.",
            )
        self.model, self.table, self.optimizer, self.exchange = model, table, optimizer, exchange
        self._apart = columns_apart(model.layout, model.pair_buckets)
        self._lanes = zeros(0, table.rows)
        self._bias, self._by_bias = model.bias.detach().numpy(), torch.zeros_like(model.bias)

    @staticmethod
    def serves(model: Model, device: torch.device, ranks: int = 1) -> bool:
        """Whether this model has the compiled step there: between ranks, only models of more than one column."""
        return model.compiled_on(device) and (ranks == 1 or model.width > 1)

    def __call__(
        self, compact: Compact, union: Union, label: Float32, weight: Float32 | None, lr: float, l2: float = 0.0
    ) -> tuple[float, int, Tensor]:
        """One step on a looked-up batch: (loss, rows of the global batch, logits [B]).

        Sets the bias's grad and updates the table, by the gradient of all ranks.

        Args:
            union: of ``compact.ids``, as the exchange gave it.
            label, weight: [B].
        """
        total = union.weight or 1.0
        step = self._compact if self.model.width == 1 else self._in_place
        if compact.direct:
            step = self._direct
        sums, logits = step(compact, union, label, NONE if weight is None else weight, 1.0 / total, lr, l2)
        loss, by_bias, rows = sums
        self._by_bias.numpy()[:] = by_bias
        self.model.bias.grad = self._by_bias
        return loss / total, int(rows), torch.from_numpy(logits)

    def _compact(
        self, compact: Compact, union: Union, label: Float32, weight: Float32, share: float, lr: float, l2: float
    ) -> tuple[tuple[float, ...], Float32]:
        """Rows of one number: all the distinct ones of a batch fit into the cache, so they are gathered there first."""
        rows = at_least_one(self.table.gather(compact.ids).detach()).numpy()
        loss, logits, by_bias, by_rows = self.model.form.loss(
            rows, self._bias[0], compact.index, compact.factor, label, weight, share
        )
        self.optimizer.step(self.table, compact.ids, torch.from_numpy(by_rows[: len(compact.ids)]), lr, l2)
        return (loss, by_bias, len(logits)), logits

    def _direct(
        self, compact: Compact, union: Union, label: Float32, weight: Float32, share: float, lr: float, l2: float
    ) -> tuple[tuple[float, ...], Float32]:
        """Rows of one number that were not looked up: threads share columns, and with them mostly rows of the table."""
        values, states, hyper = self.table.flat, *self.optimizer.begin(lr, l2)
        rows, bias = compact.index.numpy().T, self._bias[0]
        logits, slopes = np.empty(len(label), np.float32), np.empty(len(label), np.float32)
        sums = np.zeros((-(-len(label) // linear.BLOCK), 2))
        workers = team(len(label))
        bounds = workers.pieces(len(rows), linear.AT_ONCE)
        partials = np.empty((len(bounds) - 1, len(label)), np.float32)
        scattered = linear.SCATTERED * rows.size // len(partials)
        workers.spread(
            len(partials),
            lambda first, last: linear.linear_groups(first, last, bounds, values, rows, partials),
            scattered,
        )
        workers.spread(
            len(sums),
            lambda first, last: linear.linear_slopes(
                first, last, partials, bias, label, weight, share, logits, slopes, sums
            ),
            linear.BLOCK * (len(partials) + 10),
        )
        lanes = self._fresh_lanes(lanes_of(self._apart, len(label), workers.threads))
        if self._apart and not dense(rows.size, self.table.rows, len(lanes)):
            columns, bits = linear.linear_columns(self.optimizer.rule), lanes[0].view(np.int32)
            workers.spread(
                len(partials),
                lambda first, last: columns(
                    bounds[first], bounds[last], values, rows, slopes, lanes, bits, states, hyper
                ),
                scattered,
            )
        else:
            if self._apart:
                workers.spread(
                    len(partials),
                    lambda first, last: linear.linear_lane(bounds[first], bounds[last], rows, slopes, lanes),
                    scattered,
                )
            else:
                ends, taken = workers.cut(len(rows))
                of_parts = lanes.reshape(workers.parts, -1, self.table.rows)
                workers.run(lambda: linear.linear_lanes(ends, taken, rows, slopes, of_parts))
            update = linear.lane_rows(self.optimizer.rule)
            workers.spread(
                self.table.rows,
                lambda first, last: update(first, last, values, lanes, states, hyper),
                len(lanes) + 1 + len(states),
            )
        return (float(sums[:, 0].sum()), float(sums[:, 1].sum()), len(logits)), logits

    def _fresh_lanes(self, count: int) -> Float32:
        """[count, table rows] of -0.0, as every step leaves them."""
        if len(self._lanes) < count:
            self._lanes = zeros(count, self.table.rows)
            self._lanes.fill(-0.0)
        return self._lanes[:count]

    def _in_place(
        self, compact: Compact, union: Union, label: Float32, weight: Float32, share: float, lr: float, l2: float
    ) -> tuple[tuple[float, ...], Float32]:
        """Rows that occur once are updated on the spot, among ranks only if these have one table together."""
        form, rule = self.model.form, self.optimizer.rule
        unit, index, factor = form.inputs(compact.index, compact.factor)
        ids = compact.ids.numpy()
        if union.mine is None:
            place = compact.repeat.numpy()
            several = ids[place >= 0]
            union = union._replace(ids=torch.from_numpy(several), size=len(several))
        else:
            place = union.mine.numpy()
        values, states, hyper = self.table.flat, *self.optimizer.begin(lr, l2)
        workers = team(len(index))
        (bounds, taken), count = workers.cut(len(index)), workers.lanes(len(index))
        parts = self.exchange.lanes(count, union.size * form.width)
        sums, logits = np.zeros((workers.parts, 2)), np.empty(len(index), np.float32)
        first_half, second_half = form.batch_pass(unit, rule), passes.summed_rows(form.width, rule)
        bias = self._bias[0]
        workers.run(
            lambda: first_half(
                passes.LOSS, bounds, taken, sums, values, ids, index, factor, form.field_of_column, bias, label,
                weight, share, logits, parts, place, states, hyper,
            )
        )  # fmt: skip
        own = (float(sums[:, 0].sum()), float(sums[:, 1].sum()), float(len(logits)))
        lanes, places, numbers = self.exchange.sum(count, union, form.width, own)
        last = union.ids.numpy()
        workers.spread(
            len(last),
            lambda first, end: second_half(first, end, values, last, places, lanes, states, hyper),
            (len(lanes) + 1 + len(states)) * form.width,
        )
        return numbers, logits
