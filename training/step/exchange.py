"""Row gradients of all ranks, summed: first which rows, then the rows themselves in one agreed order.

Ranks that have one table together mark their rows in memory that all see, and from the others' marks tell which rows
another rank touches too. Of those each rank sums gradients in lanes that all see, and one rank updates each: that which
has the row more than once, chosen by the row's number where several do. So per step only five numbers travel.

Replicas agree by an all_gather of row ids, padded to the longest list, and after the backward pass sum the gradients by
an all_reduce of [G, width] over the G rows that any rank touched. Nothing of the table's size ever travels.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fieldwise.features.arrays import Float32, Int32, zeros
from fieldwise.training.kernels.passes import add_parts
from fieldwise.training.kernels.table import find_places, gather_places, unite, write_marks
from fieldwise.training.ranks.shared import SharedMemory
from fieldwise.training.ranks.world import World
from fieldwise.training.step.lookup import Compact
from fieldwise.training.threads import team

_MANY = 1 << 30
"""Rows of a batch that is cut into as many parts as any."""


_LAST = 2**31 - 1
"""Of a mark."""


class Union(NamedTuple):
    """What all ranks together touch in a step."""

    ids: Tensor  # int64 [G], of replicas the same on every rank; of one table those that this rank updates at the end
    mine: Tensor | None  # int32 [U], places in a lane of this rank's rows, -1: touched once in all; None: as in ids
    rows: int  # of the global batch
    weight: float  # sum of the global batch's row weights
    signals: int  # bits that any rank raised
    size: int = 0  # places of a lane
    handed: int = 0  # rows whose gradients other ranks add


class Sum(NamedTuple):
    """What a step's second half needs: gradients of the union's rows, to be added lane after lane."""

    lanes: Float32  # [L, n]
    places: Int32  # [G, L], of every row in every lane; -1: it has none there
    numbers: tuple[float, ...]


class Exchange:
    """Exchanges for a table of ``rows`` rows. ``bytes`` counts what this rank handed to the others.

    Args:
        shared: memory of the ranks, if they have one table together; only `FusedStep` can update that.
        batch: the most rows of this rank's batches; among ranks with one table they decide how many lanes there are.

    ``busy`` [ranks]: seconds each rank took for its own work since ``begin``, waiting for others left out.
    """

    def __init__(self, world: World, rows: int, shared: SharedMemory | None = None, batch: int = 1) -> None:
        self.world, self.shared, self.bytes = world, shared, 0
        self.begin()
        self._position = np.full(rows if world.size > 1 and shared is None else 0, -1, np.int32)  # cleaned after use
        self._marks = np.zeros((2, world.size, 0), np.int32)
        if shared is not None:  # two buffers: a rank may mark the next step's rows before all are done with these
            self._marks = shared.zeros(2, world.size, rows).view(np.int32)
        self._base = self._next = 0  # below every mark of this step and of the next one
        self._turn, self._stale = 0, 0  # buffer of this step; buffers with marks from before the last start from 0
        self._id_type = np.int32 if rows < 2**31 else np.int64
        self._buffer = torch.empty(0)
        count = team(_MANY).lanes(batch)
        lanes = [count] if shared is None else world.gather(count)
        self._first_lane = sum(lanes[: world.rank]) if shared else 0
        self._rank_of_lane = np.repeat(np.arange(len(lanes)), lanes)
        self._lanes = np.zeros((sum(lanes), 0), np.float32)

    def begin(self) -> None:
        """Take the time from here on."""
        self.busy = np.zeros(self.world.size)
        self._own, self._since = 0.0, time.perf_counter()

    def lap(self, grad: Tensor | None = None) -> None:
        """Own work up to here, a wait may follow; also a hook of the rows' gradient, after which DDP waits."""
        now = time.perf_counter()
        self._own, self._since = self._own + now - self._since, now

    def union(self, compact: Compact, rows: int, weight: float, signals: int = 0) -> Union:
        """Agree on the step's rows of the table, and add up this rank's batch rows, weight and signals."""
        if self.world.size == 1:
            return Union(compact.ids, None, rows, weight, signals)
        if self.shared is not None:
            self._mark(compact)
        self.lap()
        facts = torch.empty(self.world.size, 5, dtype=torch.float64)
        self._gather(facts, torch.tensor([[len(compact.ids), rows, weight, signals, self._own]], dtype=torch.float64))
        self.busy += facts[:, 4].numpy()
        self._own, self._since = 0.0, time.perf_counter()
        counts, of_rows, weights, raised, _ = facts.T
        common = (int(of_rows.sum()), float(weights.sum()), int(np.bitwise_or.reduce(raised.long().numpy())))
        if self.shared is None:
            return self._listed(compact.ids, counts.long(), *common)
        return self._marked(compact, int(counts.max()), *common)

    def _mark(self, compact: Compact) -> None:
        """Write a mark on every row that this rank touches."""
        self._turn ^= 1
        marks = self._marks[self._turn, self.world.rank]
        self._base = self._next
        if self._base > _LAST - 2 * len(marks):  # every rank comes to this in the same step
            self._base, self._stale = 0, 2
        if self._stale:
            marks[:] = 0
            self._stale -= 1
        write_marks(compact.ids.numpy(), compact.repeat.numpy(), self._base, marks)

    def _marked(self, compact: Compact, most: int, rows: int, weight: float, signals: int) -> Union:
        mine, ids = np.empty(len(compact.ids), np.int32), np.empty(len(compact.ids), np.int64)
        own, places = find_places(
            compact.ids.numpy(), compact.repeat.numpy(), self._base, self._marks[self._turn], self.world.rank, mine, ids
        )
        self._next = self._base + 2 * most
        return Union(torch.from_numpy(ids[:own]), torch.from_numpy(mine), rows, weight, signals, most, places - own)

    def _listed(self, ids: Tensor, counts: Tensor, rows: int, weight: float, signals: int) -> Union:
        padded = np.zeros((1, int(counts.max())), self._id_type)
        padded[0, : len(ids)] = ids.numpy()
        everyones = np.empty((self.world.size, padded.shape[1]), self._id_type)
        self._gather(torch.from_numpy(everyones), torch.from_numpy(padded))
        union, mine = np.empty(int(counts.sum()), np.int64), np.empty(len(ids), np.int32)
        size = unite(everyones, counts.numpy(), self.world.rank, self._position, union, mine)
        return Union(torch.from_numpy(union[:size]), torch.from_numpy(mine), rows, weight, signals, size, size)

    def sum_rows(self, union: Union, grad: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the ranks' row gradients [U, width] -> [G, width] in the order of ``union.ids``, and of ``extra`` [n].

        The result is valid until the next call: its memory is used again.
        """
        if union.mine is None:
            return grad, extra
        rows, width = len(union.ids), grad.shape[1]
        size = rows * width + len(extra)
        if len(self._buffer) < size:
            self._buffer = torch.empty(size, dtype=grad.dtype, device=grad.device)
        buffer = self._buffer[:size]
        buffer.zero_()
        summed = buffer[: rows * width].view(rows, width)
        summed.index_copy_(0, union.mine.to(grad.device, torch.int64), grad)
        buffer[rows * width :] = extra
        self.bytes += size * buffer.element_size()
        dist.all_reduce(buffer)
        self._since = time.perf_counter()
        return summed, buffer[rows * width :]

    def lanes(self, count: int, size: int) -> Float32:
        """Zeros [count, at least size] for the gradients that the parts of this rank's batch sum.

        Call it once per step, after ``union``, with the same size on every rank. `summed_rows` leaves zeros again.
        """
        if self._lanes.shape[1] < size or len(self._lanes) < self._first_lane + count:
            make = zeros if self.shared is None else self.shared.zeros
            self._lanes = make(max(len(self._lanes), count), size + size // 4)
        return self._lanes[self._first_lane : self._first_lane + count]

    def sum(self, count: int, union: Union, width: int, numbers: tuple[float, ...]) -> Sum:
        """End the pass over the batch, of which this rank has filled ``count`` lanes, and add up ``numbers``."""
        lanes = self._lanes if self.shared is not None else self._lanes[:count]
        if self.world.size == 1:
            return Sum(lanes, _in_order(len(union.ids), count), numbers)
        self.lap()
        self.bytes += union.handed * width * lanes.itemsize
        total = torch.tensor(numbers, dtype=torch.float64)
        if self.shared is None:
            size = union.size * width
            if count > 1:
                team(size).spread(size, lambda first, last: add_parts(first, last, lanes), count)
            lanes = lanes[:1]
            dist.all_reduce(torch.from_numpy(lanes[0, :size]))
        dist.all_reduce(total)  # also tells that every rank's lanes are whole
        self._since = time.perf_counter()
        if self.shared is None:
            return Sum(lanes, _in_order(len(union.ids), 1), tuple(total.tolist()))
        places = np.empty((len(union.ids), len(lanes)), np.int32)
        gather_places(union.ids.numpy(), self._base, self._marks[self._turn], self._rank_of_lane, places)
        return Sum(lanes, places, tuple(total.tolist()))

    def _gather(self, into: Tensor, mine: Tensor) -> None:
        self.bytes += mine.numel() * mine.element_size()
        dist.all_gather([into[rank : rank + 1] for rank in range(self.world.size)], mine)


def _in_order(rows: int, lanes: int) -> Int32:
    places = np.empty((rows, lanes), np.int32)
    places[:] = np.arange(rows, dtype=np.int32)[:, None]
    return places
