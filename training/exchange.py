"""Row gradients of all ranks, summed: first which rows, then the rows themselves in one agreed order.

Per step and rank: one all_gather of five numbers, one of row ids padded to the longest list, and, after the backward
pass, one all_reduce of [G, width] over the G rows that any rank touched; on one host that sum is made in shared memory.
Nothing of the table's size ever travels.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from training.jit import kernel, prefetch
from training.shared import SharedRows
from training.table import zeros
from training.world import World

Float32 = npt.NDArray[np.float32]

_AHEAD = 16
"""Ids between asking for a place in the map and using it."""


class Union(NamedTuple):
    """What all ranks together touch in a step."""

    ids: Tensor  # int64 [G], the same on every rank
    mine: Tensor | None  # int64 [U], where this rank's ids are in it; None: they are all of it, in order
    rows: int  # of the global batch
    weight: float  # sum of the global batch's row weights
    signals: int  # bits that any rank raised


class Exchange:
    """Exchanges for a table of ``rows`` rows. ``bytes`` counts what this rank handed to the others.

    ``busy`` [ranks]: seconds each rank took for its own work since ``begin``, waiting for others left out.
    """

    def __init__(self, world: World, rows: int) -> None:
        self.world, self.bytes = world, 0
        self.begin()
        self._position = np.full(rows if world.size > 1 else 0, -1, np.int32)  # scratch, cleaned after each use
        self._id_type = np.int32 if rows < 2**31 else np.int64
        self._buffer = torch.empty(0)
        self._shared = SharedRows.of(world)
        self._sum = np.zeros((world.size, 0), np.float32)

    def begin(self) -> None:
        """Take the time from here on."""
        self.busy = np.zeros(self.world.size)
        self._own, self._since = 0.0, time.perf_counter()

    def lap(self, grad: Tensor | None = None) -> None:
        """Own work up to here, a wait may follow; also a hook of the rows' gradient, after which DDP waits."""
        now = time.perf_counter()
        self._own, self._since = self._own + now - self._since, now

    def union(self, ids: Tensor, rows: int, weight: float, signals: int = 0) -> Union:
        """Agree on the step's rows of the table, and add up this rank's batch rows, weight and signals.

        ``ids`` int64 [U] distinct, any U including 0.
        """
        if self.world.size == 1:
            return Union(ids, None, rows, weight, signals)
        self.lap()
        facts = torch.empty(self.world.size, 5, dtype=torch.float64)
        self._gather(facts, torch.tensor([[len(ids), rows, weight, signals, self._own]], dtype=torch.float64))
        self.busy += facts[:, 4].numpy()
        self._own, self._since = 0.0, time.perf_counter()
        counts = facts[:, 0].long()
        padded = np.zeros((1, int(counts.max())), self._id_type)
        padded[0, : len(ids)] = ids.numpy()
        everyones = np.empty((self.world.size, padded.shape[1]), self._id_type)
        self._gather(torch.from_numpy(everyones), torch.from_numpy(padded))
        union = np.empty(int(counts.sum()), np.int64)
        mine = np.empty(len(ids), np.int64)
        distinct = _union(everyones, counts.numpy(), self.world.rank, self._position, union, mine)
        return Union(
            torch.from_numpy(union[:distinct]),
            torch.from_numpy(mine),
            int(facts[:, 1].sum()),
            float(facts[:, 2].sum()),
            int(np.bitwise_or.reduce(facts[:, 3].long().numpy())),
        )

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
        summed.index_copy_(0, union.mine.to(grad.device), grad)
        buffer[rows * width :] = extra
        self.bytes += size * buffer.element_size()
        dist.all_reduce(buffer)
        self._since = time.perf_counter()
        return summed, buffer[rows * width :]

    def own(self, size: int) -> Float32:
        """Zeros [size] for this rank's gradient, once all ranks have agreed on the step's rows; see ``sum``."""
        room = None if self._shared is None else self._shared.room(size)
        if room is None and self._shared is not None:
            self._shared = None  # no memory to share: the ranks go on by sockets
        if room is None and self._sum.shape[1] < size:
            room = zeros(1, size + size // 4)
        self._sum = self._sum if room is None else room
        own = self._sum[self.world.rank if self._shared is not None else 0, :size]
        own.fill(0.0)  # not before: until the next step's rows were agreed on, others may be reading it
        return own

    def sum(self, own: Float32, numbers: tuple[float, ...]) -> tuple[Float32, tuple[float, ...]]:
        """Sums over the ranks of what ``own`` gave and of ``numbers``.

        The gradient comes as [1 or ranks, n], whose rows are still to be added, in order; it is valid until the next
        step's rows are agreed on.
        """
        self.lap()
        self.bytes += own.nbytes
        total = torch.tensor(numbers, dtype=torch.float64)
        if self._shared is None:
            dist.all_reduce(torch.from_numpy(own))
        dist.all_reduce(total)  # also tells that every rank's gradient is whole
        self._since = time.perf_counter()
        return self._sum, tuple(total.tolist())

    def _gather(self, into: Tensor, mine: Tensor) -> None:
        self.bytes += mine.numel() * mine.element_size()
        dist.all_gather([into[rank : rank + 1] for rank in range(self.world.size)], mine)


@kernel
def _union(everyones, counts, rank, position, union, mine):  # type: ignore[no-untyped-def]
    """Distinct ids in the order of first sight, rank after rank; returns how many."""
    distinct = 0
    for r in range(len(counts)):
        for i in range(counts[r]):
            if i + _AHEAD < counts[r]:
                prefetch(position, np.int64(everyones[r, i + _AHEAD]))
            row = everyones[r, i]
            at = position[row]
            if at < 0:
                at = distinct
                position[row] = at
                union[distinct] = row
                distinct += 1
            if r == rank:
                mine[i] = at
    for i in range(distinct):
        position[union[i]] = -1
    return distinct
